"""Builds that export to, and import from, local caches; what they said, and what the disk says."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration import kit as commands
from tests.integration import witness
from tests.integration.build.kit import Built, Kit, context
from tests.integration.contexts import STEPS
from tests.integration.daemon import cache_to

WAIT_S = 60.0
CACHEONLY = ("-o", "type=cacheonly", "--network=none")
STAGES = """\
FROM scratch AS deps
COPY lock /lock
FROM scratch
COPY --from=deps /lock /deps
COPY app /app
"""
"""Quick to build; the layer of the first stage is in a cache with mode=max alone."""
STAGES_STEPS = 3


class Exported(NamedTuple):
    """One `kitcache build` that exports: its words, its --metadata-file, the blobs around it."""

    built: Built
    metadata: dict[str, Any]
    before: dict[str, int]
    after: dict[str, int]

    @property
    def caches(self) -> list[dict[str, Any]]:
        """What became of each tag."""
        caches: list[dict[str, Any]] = self.metadata["kitcache.caches"]
        return caches

    @property
    def cache(self) -> dict[str, Any]:
        (cache,) = self.caches
        return cache

    @property
    def notices(self) -> list[str]:
        notices: list[str] = self.metadata["kitcache.notices"]
        return notices


def export(
    kit: Kit, where: Path, dest: Path, *values: str, code: int = 0, **attrs: str
) -> Exported:
    """Build and export to dest; values: those of --cache-to, in place of one made of the attrs."""
    metadata = kit.config.parent / "metadata.json"
    metadata.unlink(missing_ok=True)
    before = blobs(dest)
    options = [f"--cache-to={value}" for value in values or (cache_to(dest, **attrs),)]
    built = kit.run(*CACHEONLY, *options, "--metadata-file", metadata, where)
    assert built.code == code, built
    said = json.loads(metadata.read_bytes()) if metadata.exists() else {}
    return Exported(built, said, before, blobs(dest))


def blobs(cache: Path) -> dict[str, int]:
    """Size by digest; empty where there is no cache yet."""
    return witness.blobs(cache) if (cache / "blobs" / "sha256").is_dir() else {}


def tally(sizes: dict[str, int], digests: Any) -> dict[str, int]:
    """As the JSON has it."""
    return {"blobs": len(digests), "bytes": sum(sizes[digest] for digest in digests)}


def tags(cache: Path) -> dict[str | None, str]:
    """Digest by tag."""
    return {witness.ref_name(entry): entry["digest"] for entry in witness.entries(cache)}


def stages(directory: Path, *, app: str, lock: str = "") -> Path:
    """A context of two stages without a RUN; its first layer is like no other test's."""
    return context(directory, STAGES, app=app, lock=lock or str(directory))


def assert_cached(
    kit: Kit, where: Path, value: str, *, client: str = "kitcache", steps: int = STAGES_STEPS
) -> None:
    """Build from that --cache-from alone, with the result written out to where/out."""
    kit.daemon.prune()
    shutil.rmtree(where / "out", ignore_errors=True)
    options = ("--progress=rawjson", "--network=none", f"--cache-from={value}")
    run = kit.must if client == "kitcache" else kit.buildx
    built = run(*options, "-o", where / "out", where)
    assert built.code == 0, built
    states = cached_of(built.err)
    assert len(states) == steps, built
    assert all(states.values()), (states, built)


def cached_of(rawjson: str) -> dict[str, bool]:
    """Of each step but FROM, whether it was cached.

    Plain progress does not tell for sure: a step whose layer is pulled may be DONE after CACHED.
    """
    cached: dict[str, bool] = {}
    for update in objects_in(rawjson):
        for vertex in update.get("vertexes", ()):
            name = vertex["name"]
            if re.match(r"\[(\S+ )*\d+/\d+\] (?!FROM )", name):
                cached[name] = cached.get(name, False) or vertex.get("cached", False)
    return cached


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects that begin at the beginning of a line: some buildx spread them over many."""
    decoder = json.JSONDecoder()
    found = re.search("^{", text, re.MULTILINE)
    while found:
        value, end = decoder.raw_decode(text, found.start())
        yield value
        found = re.compile("^{", re.MULTILINE).search(text, end)


def assert_imports(
    kit: Kit, where: Path, cache: Path, tag: str = "latest", *, client: str = "kitcache"
) -> None:
    """A build that knows nothing but the cache has every step CACHED, and its result is whole."""
    with_run = "RUN" in (where / "Dockerfile").read_text()
    assert_cached(
        kit,
        where,
        f"type=local,src={cache},tag={tag}",
        client=client,
        steps=STEPS if with_run else STAGES_STEPS,
    )
    app, lock = (where / "app").read_text(), (where / "lock").read_text()
    out = where / "out"
    if with_run:
        assert (out / "result").read_text() == app + lock
    else:
        assert ((out / "app").read_text(), (out / "deps").read_text()) == (app, lock)


def assert_whole(cache: Path) -> None:
    """All that index.json names is there, and no upload is left."""
    assert witness.look(cache).missing == frozenset()
    assert os.listdir(cache / "ingest") == []


def assert_swept(cache: Path) -> None:
    """And nothing else is there."""
    assert_whole(cache)
    assert witness.garbage(cache) == {}


class Running(NamedTuple):
    """A `kitcache build` under way."""

    process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Stop it where it is; returns once it has stopped."""
        self.signal(signal.SIGSTOP)
        wait_for(lambda: state_of(self.pid) == "T", self)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def end(self) -> Built:
        """Wait for its end, with all that it said."""
        out, err = self.process.communicate(timeout=WAIT_S)
        text = err.decode(errors="backslashreplace")
        assert "Traceback" not in text, text
        return Built(tuple(self.process.args), self.process.returncode, out, text)  # type: ignore[arg-type]


@contextmanager
def running(kit: Kit, *args: str | Path, through: tuple[str, ...] = ()) -> Iterator[Running]:
    """Start a build; it is gone afterwards. through: a program to start it with, such as strace."""
    process = subprocess.Popen(
        [*through, *commands.command("build", *args)],
        env=kit.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def frozen_in_upload(
    kit: Kit, where: Path, cache: Path, *options: str, after: int = 0
) -> Iterator[Running]:
    """A build that has stopped in the middle of the upload of a big layer, for sure.

    after: so many other new blobs. It is nice to us, so that we get to stop it in time.
    """
    big, before = (where / "big").stat().st_size, blobs(cache)
    with running(kit, *CACHEONLY, *options, where, through=("nice", "-n", "19")) as build:
        wait_for(
            lambda: uploaded(cache) > big // 50 and len(blobs(cache).keys() - before) >= after,
            build,
        )
        build.freeze()
        assert 0 < uploaded(cache) < big, "it was too fast: the upload is over"
        yield build


def uploaded(cache: Path) -> int:
    """Bytes of the uploads under way."""
    total = 0
    for data in (cache / "ingest").glob("*/data"):
        try:
            total += data.stat().st_size
        except FileNotFoundError:
            continue
    return total


def wait_for(ready: Callable[[], object], build: Running | None = None) -> None:
    """Look again and again; fails after a minute, or once the build has ended."""
    deadline = time.monotonic() + WAIT_S
    while not ready():
        if build is not None and build.process.poll() is not None:
            raise AssertionError(f"it has ended: {build.end()}")
        assert time.monotonic() < deadline
        time.sleep(0.001)


def state_of(pid: int) -> str:
    """Of the process, as /proc has it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def age_uploads(cache: Path) -> None:
    """Date ingest/ two hours back."""
    then = time.time() - 7200
    for path in [*(cache / "ingest").rglob("*"), cache / "ingest"]:
        os.utime(path, (then, then))
