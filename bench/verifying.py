"""Rows: verify against sha256sum on all cores, its memory, and Ctrl-C."""

import hashlib
import json
import os
import signal
import time

from bench.clock import ENVIRONMENT, BenchError, Missing, Side, alternate, run
from bench.memory import MEASURE_PEAK
from bench.place import Place, discard, kitcache, tool
from bench.table import Row, ratio_row, value_row

_GOAL = 1.2
_GOAL_MIB = 40
_GOAL_MS = 100
_BLOB_MIB = 64
_ENDLESS_BYTES = 10 << 30
_INTERRUPTED = 130
_SILENT = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]


def verify_rows(place: Place) -> list[Row]:
    tool("sha256sum")
    return [*_large_rows(place), *_small_rows(place), _interrupt_row(place)]


def _large_rows(place: Place) -> list[Row]:
    mib = place.sizes.verify_mib
    path = _make_large(place, mib)
    sides = [
        Side("verify", lambda: kitcache("verify", path)),
        Side("sha256sum", lambda: _peer(path, files_each=1)),
    ]
    sizes = place.sizes
    ours, theirs = alternate(sides, rounds=sizes.verify_rounds, spare=sizes.spare_rounds)
    peak = _peak_row(f"verify of {mib:,} MiB", path)
    discard([path])
    return [ratio_row(f"verify of {mib:,} MiB, tmpfs", ours, "sha256sum", theirs, _GOAL), peak]


def _small_rows(place: Place) -> list[Row]:
    blobs, sizes = place.sizes.sweep_blobs, place.sizes
    tree = place.tree(place.tmpfs, blobs)
    sides = [
        Side("verify", lambda: kitcache("verify", tree.path)),
        Side("sha256sum", lambda: _peer(tree.path, files_each=1000)),
    ]
    ours, theirs = alternate(sides, rounds=sizes.verify_rounds, spare=sizes.spare_rounds)
    peak = _peak_row(f"verify of {blobs:,} blobs", tree.path)
    discard([tree.path])
    return [ratio_row(f"verify of {blobs:,} blobs, tmpfs", ours, "sha256sum", theirs, None), peak]


def _peer(path: str, *, files_each: int) -> list[str]:
    cores = len(os.sched_getaffinity(0))
    each = f"xargs -0 -P {cores} -n {files_each} sha256sum"
    return [tool("sh"), "-c", f'find "$0" -type f -print0 | {each} >/dev/null', f"{path}/blobs"]


def _peak_row(what: str, path: str) -> Row:
    command = kitcache("verify", "--quiet", path)
    peak_kib = int(run([*MEASURE_PEAK, *command]).output.split()[-1])
    return value_row(f"peak memory, {what}", [peak_kib / 1024], "MiB", _GOAL_MIB)


def _make_large(place: Place, mib: int) -> str:
    """Make a cache whose blobs no tag reaches; verify hashes them too. Raises Missing: no space."""
    room = os.statvfs(place.tmpfs)
    if room.f_bavail * room.f_frsize < mib << 20:
        raise Missing(f"{mib:,} MiB need room in {place.tmpfs}")
    path = place.fresh(place.tmpfs)
    size = min(_BLOB_MIB, mib) << 20
    bulk = os.urandom(size - 8)
    os.makedirs(f"{path}/blobs/sha256")
    for number in range((mib << 20) // size):
        data = number.to_bytes(8, "big") + bulk
        with open(f"{path}/blobs/sha256/{hashlib.sha256(data).hexdigest()}", "wb") as file:
            file.write(data)
    _finish(path)
    return path


def _finish(path: str) -> None:
    for name, value in (
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ("index.json", {"schemaVersion": 2, "manifests": []}),
    ):
        with open(os.path.join(path, name), "w", encoding="ascii") as file:
            json.dump(value, file)


def _interrupt_row(place: Place) -> Row:
    """Measure Ctrl-C at several moments in one huge sparse blob."""
    path = place.fresh(place.tmpfs)
    os.makedirs(f"{path}/blobs/sha256")
    name = f"{path}/blobs/sha256/{'0' * 64}"
    with open(name, "wb") as file:
        file.truncate(_ENDLESS_BYTES)
    _finish(path)
    spans = [
        _interrupt(path, name, number * 0.007) * 1000
        for number in range(place.sizes.interrupt_rounds)
    ]
    discard([path])
    return value_row(f"Ctrl-C in a blob of {_ENDLESS_BYTES >> 30} GiB", spans, "ms", _GOAL_MS)


def _interrupt(path: str, blob: str, delay_s: float) -> float:
    """Return the seconds from the signal, sent a delay after the blob was opened, to the end."""
    argv = kitcache("verify", path)
    pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=_SILENT)
    while not _has_open(pid, blob):
        time.sleep(0.001)
    time.sleep(delay_s)
    started = time.perf_counter()
    os.kill(pid, signal.SIGINT)
    _, status = os.waitpid(pid, 0)
    span = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    if code != _INTERRUPTED:
        raise BenchError(f"the interrupted verify exited with {code}, not {_INTERRUPTED}")
    return span


def _has_open(pid: int, path: str) -> bool:
    """Return True if the process has the file open. Raises BenchError without such a process."""
    try:
        links = [os.path.join(f"/proc/{pid}/fd", fd) for fd in os.listdir(f"/proc/{pid}/fd")]
        return any(os.path.realpath(link) == os.path.realpath(path) for link in links)
    except OSError:
        # During exec, the files of a process cannot be read for a moment.
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise BenchError("the verify that was to be interrupted has ended") from None
        return False
