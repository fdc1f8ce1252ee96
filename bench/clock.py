"""Whole processes, timed from outside, in alternating runs.

The machine may be shared, so every run records how many cores *other* processes used during it. The
least disturbed rounds count. The times that are compared play no part in that choice.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

QUIET_CORES = 0.25
# pip compiles installed modules; a run that cannot write bytecode would compile them every time.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measured command failed, or its result is wrong."""


class Missing(Exception):
    """A row cannot be measured on this machine; the text names what is missing."""


class Run(NamedTuple):
    """One process: wall seconds from spawn to exit, and the cores that other processes used."""

    seconds: float
    others: float
    output: str


class Side(NamedTuple):
    """One of the compared commands.

    `prepare` creates the files of a run and returns its arguments; `check` checks the result of the
    run, and cleans up. Neither is timed.
    """

    name: str
    prepare: Callable[[], list[str]]
    check: Callable[[], None] = lambda: None
    environment: Mapping[str, str] = ENVIRONMENT


def run(argv: list[str], *, expect: int = 0, environment: Mapping[str, str] = ENVIRONMENT) -> Run:
    """Run one command to its end. Raises BenchError if it exits with another code."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, err.fileno(), 2)]
        busy = _busy_seconds()
        started = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - started
        others = (_busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / seconds
        code = os.waitstatus_to_exitcode(status)
        if code != expect:
            err.seek(0)
            raise BenchError(f"{' '.join(argv)}: exit {code}: {err.read().decode()[:2000]}")
        out.seek(0)
        return Run(seconds, max(0.0, others), out.read(4096).decode(errors="replace"))


def alternate(
    sides: Sequence[Side],
    *,
    rounds: int,
    spare: int = 0,
    between: Callable[[], None] = lambda: None,
) -> list[list[float]]:
    """Return the seconds of each side in the quietest `rounds` rounds of A B A B.

    While too few rounds were quiet, up to `spare` more are run; if that does not help, a line on
    stderr says so. `between` is called before every run.
    """
    done: list[list[Run]] = []
    while len(done) < rounds or (len(done) < rounds + spare and _quiet(done) < rounds):
        done.append([_one(side, between) for side in sides])
    kept = sorted(done, key=_noise)[:rounds]
    if (loud := len(kept) - _quiet(kept)) and spare:
        cores = statistics.median(map(_noise, kept))
        note = f"{loud} of {rounds} rounds were disturbed: others used {cores:.1f} cores"
        print(f"{sides[0].name} and {sides[-1].name}: {note}", file=sys.stderr)
    return [[each[place].seconds for each in kept] for place in range(len(sides))]


def alternate_runs(sides: Sequence[Side], *, rounds: int) -> list[list[Run]]:
    """Return all runs of each side, A B A B: if a daemon works too, "others" is meaningless."""
    done = [[_one(side, lambda: None) for side in sides] for _ in range(rounds)]
    return [[each[place] for each in done] for place in range(len(sides))]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, minimum and maximum of the ratios of runs of the same round."""
    each = [our / their for our, their in zip(ours, theirs, strict=True)]
    return statistics.median(each), min(each), max(each)


def _one(side: Side, between: Callable[[], None]) -> Run:
    argv = side.prepare()
    between()
    result = run(argv, environment=side.environment)
    side.check()
    return result


def _quiet(rounds: list[list[Run]]) -> int:
    return sum(_noise(each) <= QUIET_CORES for each in rounds)


def _noise(round_: list[Run]) -> float:
    return max(each.others for each in round_)


def _busy_seconds() -> float:
    """Return the seconds that all cores together were neither idle nor waiting for disks."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / _TICKS
