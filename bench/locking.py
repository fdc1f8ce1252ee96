"""Rows: how long `kitcache untag` holds BuildKit's index.json.lock.

A watcher reads /proc/locks as fast as it can, which neither takes the lock nor slows the command
down. A span is the time from the last read without the lock to the first read after it. If no read
saw the lock, it is the longest time between two reads. So every span is an upper bound. If the
watcher was delayed, as on a machine whose cores are all busy, the run does not count.
"""

import os
import time
from typing import NamedTuple

from bench.clock import ENVIRONMENT, BenchError, Missing
from bench.place import Place, discard, file_system, kitcache
from bench.table import Row, skipped_row, value_row
from bench.trees import TAG_BLOBS, make_tree

_LOCK = "index.json.lock"
_GOAL_MS = 5
_DOUBT_S = 0.0005
_TRIES = 6
_SILENT = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


class _Span(NamedTuple):
    """An upper bound of the time that the lock was held, and its uncertainty, in seconds."""

    seconds: float
    doubt: float
    was_seen: bool


def lock_rows(place: Place) -> list[Row]:
    return [_lock_row(place, base) for base in (place.tmpfs, place.disk)]


def _lock_row(place: Place, base: str) -> Row:
    what, wanted = f"index.json.lock held in untag, {file_system(base)}", place.sizes.lock_tags
    tags = wanted * _TRIES
    tree = make_tree(place.fresh(base), tags * TAG_BLOBS + 1, tags * TAG_BLOBS)
    inode = _make_lock_file(tree.path)
    spans: list[_Span] = []
    for tag in range(tags):
        span = _watch(kitcache("untag", tree.path, f"tag-{tag}"), inode)
        if span.doubt <= _DOUBT_S:
            spans.append(span)
        if len(spans) == wanted:
            break
    discard([tree.path])
    if len(spans) < wanted or not any(span.was_seen for span in spans):
        return skipped_row(what, "this machine is too busy to watch a lock")
    return value_row(what, [span.seconds * 1000 for span in spans], "ms", _GOAL_MS)


def _make_lock_file(path: str) -> int:
    """Return the inode of the lock file: no process unlinks it here, so it stays the same."""
    fd = os.open(os.path.join(path, _LOCK), os.O_WRONLY | os.O_CREAT, 0o666)
    inode = os.fstat(fd).st_ino
    os.close(fd)
    return inode


def _watch(argv: list[str], inode: int) -> _Span:
    """Return an upper bound of the time that the child held the lock."""
    try:
        locks = os.open("/proc/locks", os.O_RDONLY)
    except FileNotFoundError:
        raise Missing("/proc/locks is not there") from None
    pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=_SILENT)
    before = time.perf_counter()
    first = longest = doubt = 0.0
    while True:
        held = _is_held(locks, inode)
        now = time.perf_counter()
        if held and not first:
            first, doubt = before, now - before
        elif first and not held:
            doubt += now - before
            break
        longest = max(longest, now - before)
        before = now
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    os.close(locks)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise BenchError(f"{' '.join(argv)} failed")
    return _Span(now - first, doubt, True) if first else _Span(longest, longest, False)


def _is_held(locks: int, inode: int) -> bool:
    needle = f":{inode} ".encode()
    table = os.pread(locks, 1 << 16, 0)
    return needle in table and any(
        needle in line and b"FLOCK" in line and b"->" not in line for line in table.splitlines()
    )
