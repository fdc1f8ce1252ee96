"""A cache as a year of builds leaves it: many rounds, several tags, both clients, never swept."""

import shutil
from pathlib import Path

from tests.integration import witness
from tests.integration.build.cachekit import cached_of
from tests.integration.build.kit import Kit, context
from tests.integration.daemon import BASE, cache_to

TAGS = ("main", "dev", "pr-1", "pr-2", "pr-3")
DOCKERFILE = f"""\
FROM {BASE} AS deps
COPY lock /lock
RUN busybox cat /lock > /one && busybox head -c 1500000 /dev/urandom > /noise1
FROM {BASE} AS app
COPY app /app
RUN busybox cat /app > /two && busybox head -c 1000000 /dev/urandom > /noise2
FROM {BASE}
COPY --from=deps /one /one
COPY --from=app /two /two
RUN busybox cat /one /two > /result
"""
"""Two stages with random bytes, so that no layer is like another's, and what is made of both."""
STEPS = 7


class Growing:
    """A cache and, for each of its tags, the context that was built last."""

    def __init__(self, kit: Kit, top: Path) -> None:
        self.kit, self.top = kit, top
        self.cache = top / "cache"
        self.files: dict[str, tuple[str, str]] = {}

    def build(
        self, tag: str, word: str, *options: str, client: str = "kitcache", **attrs: str
    ) -> None:
        """One more export: the first stage is the tag's own for ever, the second new each time."""
        self.files[tag] = (f"lock of {tag} in {self.top}\n", f"{word} of {tag} in {self.top}\n")
        lock, app = self.files[tag]
        where = context(self.context(tag), DOCKERFILE, app=app, lock=lock)
        target = cache_to(self.cache, tag=tag, mode="max", **attrs)
        words = ["--network=none", "-o", "type=cacheonly", f"--cache-to={target}", *options, where]
        built = (self.kit.must if client == "kitcache" else self.kit.buildx)(*words)
        assert built.code == 0, built

    def grow(self, rounds: int = 20) -> None:
        """So many exports, to each tag in turn, by each client in turn."""
        for n in range(rounds):
            client = ("kitcache", "buildx")[n // len(TAGS) % 2]
            self.build(TAGS[n % len(TAGS)], f"round {n}", client=client)
        assert set(self.tags()) == set(TAGS)

    def context(self, tag: str) -> Path:
        return self.top / "contexts" / tag

    def tags(self) -> dict[str | None, str]:
        """Digest by tag."""
        return {witness.ref_name(entry): entry["digest"] for entry in witness.entries(self.cache)}

    def live_bytes(self) -> int:
        """What the tags reach, by another reading than kitcache's."""
        sizes = witness.blobs(self.cache)
        return sum(sizes[digest] for digest in witness.look(self.cache).reached)

    def imported(self, tag: str, client: str) -> dict[str, bool]:
        """Builds a tag's last context from this cache alone: which steps were cached.

        The result is looked at too: it is what those files make, whatever the cache says.
        """
        self.kit.daemon.prune()
        out = self.top / "out"
        shutil.rmtree(out, ignore_errors=True)
        source = f"--cache-from=type=local,src={self.cache},tag={tag}"
        run = self.kit.must if client == "kitcache" else self.kit.buildx
        words = ["--progress=rawjson", "--network=none", source, "-o", out, self.context(tag)]
        built = run(*words)
        assert built.code == 0, built
        assert (out / "result").read_text() == "".join(self.files[tag])
        return cached_of(built.err)
