"""A trimmed cache in real builds: kept steps are CACHED, the others run, the result is right.

The Dockerfile has a stage that stays as it was built first, and one that changes with `app`: by
then the first one is the cold branch. Each form of a cache, both clients, each possible cut.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import witness
from tests.integration.build.cachekit import cached_of
from tests.integration.build.kit import Kit, context
from tests.integration.daemon import BASE, cache_to
from tests.integration.kit import kitcache, must

DOCKERFILE = f"""\
FROM {BASE} AS cold
COPY lock /lock
RUN busybox cat /lock > /one && busybox head -c 2000000 /dev/urandom > /noise1
RUN busybox cat /one > /two && busybox head -c 2000000 /dev/urandom > /noise2
FROM {BASE} AS hot
COPY app /app
RUN busybox cat /app > /three && busybox head -c 400000 /dev/urandom > /noise3
RUN busybox cat /three > /four && busybox head -c 400000 /dev/urandom > /noise4
FROM {BASE}
COPY --from=cold /two /two
COPY --link --from=hot /four /four
RUN busybox cat /two /four > /result
"""
WOVEN = f"""\
FROM {BASE} AS base
WORKDIR /start
COPY lock /start/lock
FROM base AS one
ARG WHO=me
RUN busybox cat /start/lock > /one && busybox head -c 300000 /dev/urandom > /noise1
RUN --mount=type=cache,target=/c busybox touch /c/x && busybox cp /one /two
FROM base AS two
COPY . /src
RUN --mount=type=bind,from=one,source=/two,target=/two busybox cat /two > /three
FROM base AS three
ADD app /four
RUN true
FROM scratch AS files
COPY --from=one /two /
COPY --from=three /four /
FROM two
COPY --from=files / /files/
COPY --link --from=three /four /four
RUN --mount=type=bind,from=files,target=/f busybox cat /f/two /f/four > /result
"""
FORMS = {
    "manifest": {"image_manifest": "true", "oci_mediatypes": "true"},
    "index": {"image_manifest": "false", "oci_mediatypes": "true"},
    "docker-list": {"image_manifest": "false", "oci_mediatypes": "false"},
}
COLD = {
    "[cold 2/4] COPY lock /lock",
    "[cold 3/4] RUN busybox cat /lock > /one && busybox head -c 2000000 /dev/urandom > /noise1",
    "[cold 4/4] RUN busybox cat /one > /two && busybox head -c 2000000 /dev/urandom > /noise2",
}
HOT = {
    "[hot 2/4] COPY app /app",
    "[hot 3/4] RUN busybox cat /app > /three && busybox head -c 400000 /dev/urandom > /noise3",
    "[hot 4/4] RUN busybox cat /three > /four && busybox head -c 400000 /dev/urandom > /noise4",
}
LINKED = {"[stage-2 3/4] COPY --link --from=hot /four /four"}
MADE_OF_COLD = {
    "[stage-2 2/4] COPY --from=cold /two /two",
    "[stage-2 3/4] LINK COPY --link --from=hot /four /four",
    "[stage-2 4/4] RUN busybox cat /two /four > /result",
}
STEPS = 10


class Grown:
    """A context, and the cache that several builds of it have left."""

    def __init__(self, kit: Kit, top: Path, form: str, dockerfile: str = DOCKERFILE) -> None:
        self.kit, self.form, self.dockerfile = kit, form, dockerfile
        self.cache, self.context = top / "cache", top / "context"
        self.lock = f"lock of {top}\n"
        for app in ("one", "two", "three"):
            self.write(f"{app} of {top}\n")
            kit.daemon.export(self.context, self.cache, tag="main", mode="max", **FORMS[form])
        self.bytes: int = must("ls", self.cache, "--json").json["tags"][0]["bytes"]

    def write(self, app: str) -> None:
        self.app = app
        context(self.context, self.dockerfile, app=app, lock=self.lock, _dockerignore="out\n")

    def trim(self, limit: int) -> dict[str, Any]:
        return must("trim", self.cache, "main", "--max-used-space", f"{limit}B", "--json").json

    def imported(self, client: str, *options: str) -> dict[str, bool]:
        """Which steps are cached for a daemon that knows nothing else; writes the result."""
        self.kit.daemon.prune()
        out = self.context / "out"
        shutil.rmtree(out, ignore_errors=True)
        run = self.kit.must if client == "kitcache" else self.kit.buildx
        source = f"--cache-from=type=local,src={self.cache},tag=main"
        built = run(
            "--progress=rawjson", "--network=none", source, *options, "-o", out, self.context
        )
        assert built.code == 0, built
        if not options:
            assert (out / "result").read_text() == self.lock + self.app
        return cached_of(built.err)


@pytest.fixture(params=FORMS)
def grown(request: pytest.FixtureRequest, kit: Kit, tmp_path: Path) -> Grown:
    return Grown(kit, tmp_path, request.param)


def test_half_of_a_cache_is_its_warm_half(grown: Grown) -> None:
    whole = dict.fromkeys(COLD | HOT | LINKED | MADE_OF_COLD, True)
    assert grown.imported("buildx") == whole, "the precondition: all of it imports"

    said = grown.trim(grown.bytes // 2)

    assert said["outcome"] == "done"
    assert said["after"]["bytes"] <= grown.bytes // 2
    assert said["after"]["bytes"] == sum(
        witness.blobs(grown.cache)[digest] for digest in witness.look(grown.cache).reached
    )
    assert witness.look(grown.cache).missing == frozenset()
    assert witness.garbage(grown.cache) == {}
    gone = COLD - {"[cold 2/4] COPY lock /lock"} | MADE_OF_COLD
    for client in ("buildx", "kitcache"):
        cached = grown.imported(client)
        assert len(cached) == len(said["kept_steps"]) + len(said["removed_steps"]) == STEPS
        assert {step for step, is_cached in cached.items() if is_cached} >= HOT, client
        assert not any(cached[step] for step in gone), client
        assert sum(cached.values()) == len(said["kept_steps"]), client
    # A build of the warm stage alone needs nothing of the cold one.
    assert grown.imported("buildx", "--target=hot") == dict.fromkeys(HOT, True)


def test_a_trimmed_cache_grows_again(kit: Kit, tmp_path: Path) -> None:
    grown = Grown(kit, tmp_path, "docker-list")
    grown.trim(grown.bytes // 2)
    grown.kit.daemon.prune()
    source = f"type=local,src={grown.cache},tag=main"
    target = cache_to(grown.cache, tag="main", mode="max", reset="true", **FORMS[grown.form])
    grown.kit.must(
        "--network=none", f"--cache-from={source}", f"--cache-to={target}", grown.context
    )
    assert witness.look(grown.cache).missing == frozenset()
    assert all(grown.imported("buildx").values())


def test_each_cut_leaves_just_what_it_says(kit: Kit, tmp_path: Path) -> None:
    """Byte by byte tighter, until one step is left: as many steps hit as are kept."""
    grown = Grown(kit, tmp_path, "manifest", WOVEN)
    kept = [len(grown.trim(grown.bytes)["kept_steps"])]
    for limit in cuts_of(grown):
        said = grown.trim(limit)
        assert len(said["kept_steps"]) == kept[-1] - len(said["removed_steps"])
        kept.append(len(said["kept_steps"]))
        cached = grown.imported("buildx")
        assert sum(cached.values()) == kept[-1], (said, cached)
    assert kept[-1] == 1
    assert len(kept) >= 10


def cuts_of(grown: Grown) -> Iterator[int]:
    """A byte less than it holds now, until that is said to be too little."""
    smallest, size = smallest_of(grown), grown.bytes
    while size > smallest:
        yield size - 1
        size = must("ls", grown.cache, "--json").json["tags"][0]["bytes"]


def smallest_of(grown: Grown) -> int:
    answer = kitcache("trim", grown.cache, "main", "--max-used-space", "1B", "--json")
    assert answer.code == 14, answer
    needed: int = answer.json["facts"]["needed_bytes"]
    return needed


def test_what_a_build_read_is_warm(kit: Kit, tmp_path: Path) -> None:
    """An import of the old stage alone, and it is the other one that is cold."""
    grown = Grown(kit, tmp_path, "manifest")
    assert grown.imported("kitcache", "--target=cold") == dict.fromkeys(COLD, True)
    noted = json.loads((grown.cache / ".kitcache" / "layers.json").read_bytes())["layers"]
    assert len(noted) >= 3
    said = grown.trim(grown.bytes - 500_000)
    assert {step["last_read"] is None for step in said["kept_steps"]} == {True, False}
    cached = grown.imported("buildx")
    assert {step for step in COLD if cached[step]} == COLD
    assert not all(cached[step] for step in HOT)
