"""Row: from Ctrl-C during a sweep to the end of the process; the tags must be complete then."""

import os
import signal
import time

from bench.clock import ENVIRONMENT, BenchError
from bench.place import Place, discard, kitcache
from bench.table import Row, value_row
from bench.trees import Tree, holes

_GOAL_MS = 100
_INTERRUPTED = 130
_STEP_S = 0.006
_SILENT = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]


def interrupt_row(place: Place) -> Row:
    """Run several rounds on one tree: each leaves most unreachable blobs for the next."""
    blobs, rounds = place.sizes.interrupt_blobs, place.sizes.interrupt_rounds
    tree = place.tree(place.tmpfs, blobs)
    spans: list[float] = []
    while len(spans) < rounds:
        span = _interrupt(tree, len(spans) * _STEP_S)
        if found := holes(tree.path):
            raise BenchError(f"after Ctrl-C, {found[0]}")
        if span is None:
            discard([tree.path])
            tree = place.tree(place.tmpfs, blobs)
        else:
            spans.append(span * 1000)
    discard([tree.path])
    return value_row(f"Ctrl-C in a sweep of {blobs:,} blobs", spans, "ms", _GOAL_MS)


def _interrupt(tree: Tree, delay_s: float) -> float | None:
    """Return the seconds from the signal, sent a delay after the first deletion, to the end.

    None if the sweep ended before the signal.
    """
    before = os.stat(tree.blob_dir).st_mtime_ns
    argv = kitcache("reset", "--quiet", tree.path)
    pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=_SILENT)
    while os.stat(tree.blob_dir).st_mtime_ns == before:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    time.sleep(delay_s)
    started = time.perf_counter()
    os.kill(pid, signal.SIGINT)
    _, status = os.waitpid(pid, 0)
    span = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, _INTERRUPTED):
        raise BenchError(f"the interrupted reset exited with {code}, not {_INTERRUPTED}")
    return span if code == _INTERRUPTED else None
