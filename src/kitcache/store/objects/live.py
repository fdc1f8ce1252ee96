"""The state object of a cache: the blobs that were live in recent runs.

A build that imported a root just before it was replaced still reads its blobs. On Azure, the date
of a blob is that of its first upload. So a blob is kept for some time after it was live last.

The object has one line of JSON, then the digests of each run, 32 bytes each. Nearby runs share one
entry. Its size follows the live blobs, not the deleted ones. No I/O.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

SCHEMA = "kitcache.live/1"
_HEX_DIGITS = 64
_BYTES = 32
_ENTRIES_PER_GRACE = 16


class StateError(Exception):
    """The object is not a state that this version can read.

    Attributes:
        is_newer: Another version of kitcache wrote it.
    """

    def __init__(self, problem: str, *, is_newer: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.is_newer = is_newer


class Run(NamedTuple):
    """One run, or several runs that were close together.

    Attributes:
        began_ns: The first of them, by the clock of the store.
        ended_ns: The last of them.
        live_count: How many blobs were live in the last of them.
        root_count: How many roots there were.
        names: The hex digits of the blobs that were live in one of them, and in no later run.
    """

    began_ns: int
    ended_ns: int
    live_count: int
    root_count: int
    names: frozenset[str]


class LiveState(NamedTuple):
    """The recorded runs, oldest first.

    Attributes:
        tested_ns: When the store passed its self-test, 0 if never.
        is_confirmed: One of the runs was allowed to delete.
    """

    runs: tuple[Run, ...] = ()
    tested_ns: int = 0
    is_confirmed: bool = False


def encode_state(state: LiveState) -> bytes:
    """Return the bytes of the object."""
    digests = b"".join(bytes.fromhex("".join(sorted(run.names))) for run in state.runs)
    header = {
        "schema": SCHEMA,
        "tested_ns": state.tested_ns,
        "is_confirmed": state.is_confirmed,
        "runs": [{**run._asdict(), "names": len(run.names)} for run in state.runs],
        "sha256": hashlib.sha256(digests).hexdigest(),
    }
    return json.dumps(header, separators=(",", ":")).encode() + b"\n" + digests


def decode_state(data: bytes) -> LiveState:
    """Return the state in the bytes of the object.

    Raises:
        StateError: It is damaged, or another version wrote it.
    """
    line, _, digests = data.partition(b"\n")
    try:
        header = json.loads(line)
        schema = header["schema"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise StateError("is not a state of kitcache") from None
    if schema != SCHEMA:
        raise StateError(f"has the schema {str(schema)[:40]!r}, not {SCHEMA}", is_newer=True)
    try:
        state = _decode(header, digests)
    except (ValueError, TypeError, KeyError):
        state = None
    if state is None or hashlib.sha256(digests).hexdigest() != header.get("sha256"):
        raise StateError("is damaged")
    return state


def _decode(header: Mapping[str, object], digests: bytes) -> LiveState | None:
    runs, at = [], 0
    items = header["runs"]
    if not isinstance(items, list):
        return None
    for item in items:
        end = at + int(item["names"]) * _BYTES
        text = digests[at:end].hex()
        names = frozenset(text[n : n + _HEX_DIGITS] for n in range(0, len(text), _HEX_DIGITS))
        if len(names) != item["names"]:
            return None
        began_ns, ended_ns, live_count, root_count = (int(item[key]) for key in Run._fields[:4])
        runs.append(Run(began_ns, ended_ns, live_count, root_count, names))
        at = end
    tested_ns = header["tested_ns"]
    if at != len(digests) or not isinstance(tested_ns, int):
        return None
    return LiveState(tuple(runs), tested_ns, header.get("is_confirmed") is not False)


def add_run(
    state: LiveState, live: Collection[str], root_count: int, now_ns: int, grace_ns: int
) -> LiveState:
    """Return the state after a run that found these blobs live.

    The newest run that ended before the grace, and all later runs, are kept.
    """
    names = frozenset(live)
    runs = [run._replace(names=run.names - names) for run in state.runs]
    if len(runs) > 1 and now_ns - runs[-2].began_ns < grace_ns // _ENTRIES_PER_GRACE:
        # The newest entry is of one run: the blobs that were live before it and are not in it died.
        last = runs.pop()
        first = runs.pop()
        runs.append(last._replace(began_ns=first.began_ns, names=first.names | last.names))
    new = Run(now_ns, now_ns, len(names), root_count, names)
    anchor = _anchor(runs, now_ns, grace_ns)
    return state._replace(runs=(*runs[0 if anchor is None else anchor :], new))


def recall_names(state: LiveState, now_ns: int, grace_ns: int, build_ns: int) -> set[str]:
    """Return the blobs that were live in a run that is younger than the grace.

    Args:
        build_ns: How long a build takes at most. The newest run that is older counts too: what it
            recorded can have been live until the next run, and a build may read it since then.
    """
    first = sum(run.ended_ns <= now_ns - grace_ns for run in state.runs)
    anchor = _anchor(state.runs, now_ns, build_ns) if build_ns else None
    runs = state.runs[first if anchor is None else min(first, anchor) :]
    return set().union(*(run.names for run in runs))


def recall_all_names(state: LiveState, now_ns: int, grace_ns: int) -> set[str] | None:
    """Return the blobs that were live at some time in the whole grace.

    Returns:
        None if no run is older than the grace, so that it is unknown.

    """
    anchor = _anchor(state.runs, now_ns, grace_ns)
    if anchor is None:
        return None
    return set().union(*(run.names for run in state.runs[anchor:]))


def _anchor(runs: Iterable[Run], now_ns: int, grace_ns: int) -> int | None:
    """Return the number of the newest run that is at least as old as the grace."""
    old = [n for n, run in enumerate(runs) if run.ended_ns <= now_ns - grace_ns]
    return old[-1] if old else None
