"""Rows: `kitcache build` and `docker buildx build`, same arguments, same private dockerd.

The daemon and all files are in memory if there is space, so the clients' work counts, not a disk.
Each row has a second one: the peak memory of one more run.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.clock import ENVIRONMENT, BenchError, Missing, Run, Side, alternate_runs, run
from bench.memory import MEASURE_PEAK
from bench.place import Place, discard, file_system, kitcache, tool
from bench.table import Row, ratio_row, value_row
from tests.integration.daemon import Daemon

_MIB = 2**20
_LAYERS = 4
_DIRECTORIES = 100
_NOTHING = "--output=type=cacheonly"
_GOAL_MIB = 150


def export_rows(place: Place) -> list[Row]:
    """Measure an export: every layer is in the daemon's cache."""
    daemon, mib = _daemon(place, copies=4), place.sizes.build_mib
    layers = _Layers(daemon, place.fresh(place.tmpfs, "layers"), mib)
    dests: list[str] = []

    def prepare() -> list[str]:
        dests.append(place.fresh(place.tmpfs, "cache"))
        return [*layers.options, _NOTHING, *_cache_to(dests[-1]), layers.context]

    def check() -> None:
        _expect(_size(Path(dests[-1], "blobs")) >= mib * _MIB, "the export is too small")
        discard([dests[-1]])

    daemon.build(Path(layers.context), *layers.first_options, _NOTHING)
    # The daemon creates the blob of a layer once; that must not happen in a measured run.
    warm_up = place.fresh(place.tmpfs, "cache")
    daemon.build(Path(layers.context), *layers.options, _NOTHING, *_cache_to(warm_up))
    discard([warm_up])
    runs = _measure(daemon, prepare, check, place.sizes.build_rounds)
    daemon.prune()
    return _rows(f"export of a cache of {mib:,} MiB", runs, 1.0)


def import_rows(place: Place) -> list[Row]:
    """Measure an import: all steps but the last are cached, and the last needs all layers."""
    daemon, mib = _daemon(place, copies=5), place.sizes.build_mib
    layers = _Layers(daemon, place.fresh(place.tmpfs, "layers"), mib)
    cache = place.fresh(place.tmpfs, "cache")
    daemon.build(Path(layers.context), *layers.first_options, _NOTHING, *_cache_to(cache))
    with open(os.path.join(layers.context, "Dockerfile"), "a", encoding="utf-8") as file:
        file.write("RUN true\n")

    def prepare() -> list[str]:
        daemon.prune()
        source = f"--cache-from=type=local,src={cache}"
        return [*layers.options, _NOTHING, source, layers.context]

    runs = _measure(daemon, prepare, _nothing, place.sizes.build_rounds)
    daemon.prune()
    discard([cache])
    return _rows(f"import of a cache of {mib:,} MiB", runs, 1.1)


def files_rows(place: Place) -> list[Row]:
    daemon, files = _daemon(place, copies=0), place.sizes.build_files
    context = _context(place, "FROM scratch\nCOPY . /\n")
    for number in range(_DIRECTORIES):
        os.mkdir(os.path.join(context, f"directory-{number}"))
    for number in range(files):
        directory = f"directory-{number % _DIRECTORIES}"
        with open(os.path.join(context, directory, f"file-{number}.txt"), "wb") as file:
            file.write(os.urandom(random.Random(number).randrange(4096)))
    return _context_rows(place, daemon, context, f"context of {files:,} small files", 1.25)


def file_rows(place: Place) -> list[Row]:
    daemon, mib = _daemon(place, copies=3), place.sizes.build_mib
    context = _context(place, "FROM scratch\nCOPY . /\n")
    with open(os.path.join(context, "data"), "wb") as file:
        file.writelines(os.urandom(_MIB) for _ in range(mib))
    return _context_rows(place, daemon, context, f"context of one file of {mib:,} MiB", 1.1)


def noop_rows(place: Place) -> list[Row]:
    daemon = _daemon(place, copies=0)
    lines = [f"FROM {daemon.base_image()}", "COPY . /context", *["RUN true"] * 4]
    context = _context(place, "\n".join(lines) + "\n")
    words = ["--network=none", "--tag=kitcache-bench:1", context]
    daemon.build(Path(context), *words[:-1])
    runs = _measure(daemon, lambda: words, _nothing, place.sizes.noop_rounds)
    daemon.must("image", "rm", "kitcache-bench:1")
    daemon.prune()
    discard([context])
    return _rows("build with nothing to do", runs, 1.5)


class _Runs(NamedTuple):
    ours: list[Run]
    theirs: list[Run]
    peak_mib: float


class _Layers:
    """A Dockerfile whose steps create incompressible layers, and fail unless they are cached.

    With `first_options` the steps can run.
    """

    def __init__(self, daemon: Daemon, context: str, mib: int) -> None:
        self.context = context
        self.options = ("--network=none",)
        os.mkdir(context)
        secret = os.path.join(context, "secret")
        Path(secret).touch()
        Path(context, ".dockerignore").write_text("secret\n", encoding="utf-8")
        self.first_options = (*self.options, f"--secret=id=first,src={secret}")
        make = "busybox dd if=/dev/urandom bs=1M of"
        steps = [
            f"RUN --mount=type=secret,id=first,required=true"
            f" busybox mkdir /data-{number} && {make}=/data-{number}/data count={mib // _LAYERS}\n"
            for number in range(_LAYERS)
        ]
        text = f"FROM {daemon.base_image()}\n" + "".join(steps)
        Path(context, "Dockerfile").write_text(text, encoding="utf-8")


def _daemon(place: Place, *, copies: int) -> Daemon:
    """Return the daemon with an empty cache. Raises Missing, also if there is no space."""
    daemon = place.daemon.get()
    needed = copies * place.sizes.build_mib * _MIB
    for directory in (place.tmpfs, str(daemon.root)):
        room = os.statvfs(directory)
        if room.f_bavail * room.f_frsize < needed:
            raise Missing(f"builds need {needed / 2**30:.1f} GiB in {file_system(directory)}")
    daemon.prune()
    return daemon


def _context(place: Place, dockerfile: str) -> str:
    context = place.fresh(place.tmpfs, "context")
    os.mkdir(context)
    Path(context, "Dockerfile").write_text(dockerfile, encoding="utf-8")
    return context


def _context_rows(place: Place, daemon: Daemon, context: str, what: str, goal: float) -> list[Row]:
    """Measure a context that the daemon does not have; the image is deleted at once."""

    def prepare() -> list[str]:
        daemon.prune()
        return ["--network=none", _NOTHING, context]

    def check() -> None:
        _expect(daemon.cache_size() != "0B", "nothing was built")

    runs = _measure(daemon, prepare, check, place.sizes.build_rounds)
    daemon.prune()
    discard([context])
    return _rows(what, runs, goal)


def _measure(
    daemon: Daemon,
    prepare: Callable[[], list[str]],
    check: Callable[[], None],
    rounds: int,
) -> _Runs:
    buildx = [tool("docker"), "buildx", "build", "--provenance=false"]
    environment = {k: v for k, v in daemon.env.items() if k in ENVIRONMENT or "DOCKER" in k}
    sides = [
        Side("kitcache", lambda: [*kitcache("build"), *prepare()], check, environment),
        Side("buildx", lambda: [*buildx, *prepare()], check, environment),
    ]
    ours, theirs = alternate_runs(sides, rounds=rounds)
    peak = run([*MEASURE_PEAK, *sides[0].prepare()], environment=environment)
    check()
    return _Runs(ours, theirs, int(peak.output.split()[-1]) / 1024)


def _rows(what: str, runs: _Runs, goal: float) -> list[Row]:
    ours = [each.seconds for each in runs.ours]
    theirs = [each.seconds for each in runs.theirs]
    return [
        ratio_row(what, ours, "buildx", theirs, goal),
        value_row(f"peak memory, {what}", [runs.peak_mib], "MiB", _GOAL_MIB),
    ]


def _cache_to(dest: str) -> list[str]:
    return [f"--cache-to=type=local,dest={dest},mode=max,compression=uncompressed"]


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _expect(is_so: bool, problem: str) -> None:
    if not is_so:
        raise BenchError(problem)


def _nothing() -> None:
    """Accept the run: its exit code was checked."""
