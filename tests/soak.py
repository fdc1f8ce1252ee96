"""What `make soak` runs: the laws and loops of every test run, with hundreds of rounds.

Prints one line a group and a summary line, as docs/benchmarks.md quotes it.
Exit code 1 if a test failed. KITCACHE_ROUNDS and KITCACHE_EXAMPLES set the size.
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

GROUPS = {
    "laws": ["tests/property"],
    "object stores": ["tests/objects/test_racing.py"],
    "crash points": ["tests/hostile/test_crash.py"],
    "failed calls": ["tests/hostile/test_faults.py"],
    "prunes": ["tests/hostile/test_prune.py", "tests/integration/build/test_pruned.py"],
    "two at once": ["tests/hostile/test_two_at_once.py", "tests/hostile/test_index_rewritten.py"],
    "strangers": ["tests/hostile/test_strangers.py"],
    "exporters": ["tests/hostile/test_exporters.py"],
    "real clients": ["tests/integration/test_two_clients.py"],
    "real builds": ["tests/integration/build/test_caches_together.py"],
    "repairs": ["tests/integration/build/test_repaired.py", "tests/hostile/test_repair_crash.py"],
}
ROOT = Path(__file__).parents[1]
ROUNDS = os.environ.get("KITCACHE_ROUNDS", "300")
EXAMPLES = os.environ.get("KITCACHE_EXAMPLES", "500")


class Outcome(NamedTuple):
    """Of one group: how many tests ran and did not pass, and for how long, in seconds."""

    tests: int
    failed: int
    skipped: int
    seconds: float


def run_group(paths: list[str]) -> Outcome:
    """One pytest process over these paths; what fails is on its stdout."""
    size = {"KITCACHE_ROUNDS": ROUNDS, "KITCACHE_EXAMPLES": EXAMPLES}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as box:
        report = Path(box, "report.xml")
        argv = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *paths]
        code = subprocess.run(argv, check=False, env=os.environ | size, cwd=ROOT).returncode
        seconds = time.monotonic() - started
        if not report.exists():
            return Outcome(0, max(code, 1), 0, seconds)
        suite = next(ET.parse(report).iter("testsuite"))
    names = ("tests", "failures", "errors", "skipped")
    counts = {name: int(suite.get(name, "0")) for name in names}
    failed = counts["failures"] + counts["errors"]
    return Outcome(counts["tests"], failed or int(code != 0), counts["skipped"], seconds)


def main() -> int:
    """Run every group, even after a failure."""
    outcomes = {name: run_group(paths) for name, paths in GROUPS.items()}
    for name, outcome in outcomes.items():
        _say(f"soak: {name}: {outcome.tests} tests, {_verdict(outcome)}, {outcome.seconds:.0f} s")
    total = Outcome(*map(sum, zip(*outcomes.values(), strict=True)))
    _say(
        f"soak of {time.strftime('%Y-%m-%d', time.gmtime())}: {ROUNDS} rounds a loop,"
        f" {EXAMPLES} examples a law, {total.tests} tests, {_verdict(total)},"
        f" {total.seconds:.0f} s"
    )
    return 1 if total.failed else 0


def _verdict(outcome: Outcome) -> str:
    skipped = f", {outcome.skipped} skipped" if outcome.skipped else ""
    return (f"{outcome.failed} failed" if outcome.failed else "all passed") + skipped


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
