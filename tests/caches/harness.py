"""Runs `kitcache reset` on a packed cache and judges what it did by expect.json.

README.md beside the archives says what an expectation means. `judge` is a function
of values, so that each of its complaints can be provoked without a collector.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.caches.snapshot import Tree, differences
from tests.caches.steps import Stage

CACHES = Path(__file__).parent.parent / "data" / "caches"
# A reset reads the time from the first, and says with the second that ingest/ changed by its hand.
MAY_BE_DATED = {"cache/kitcache.lock", "cache/index.json"}
MAY_BE_NEW = {"cache/kitcache.lock", "cache/.kitcache", "cache/index.json.lock"}
DEFAULT_LIMIT_S = 20.0


class Expectation(NamedTuple):
    """One entry of expect.json. Names are as written there, prefixes and all."""

    name: str
    keep: list[str]
    remove: list[str]
    allow: list[str]
    refuse: bool | str
    exit: list[int | str]
    upstream_keep: Any
    setup: list[list[Any]]
    args: list[str]
    dir: str
    limit_s: float
    dry: bool
    prints: list[str]
    never_prints: list[str]


class Run(NamedTuple):
    """What one command did. No code: it did not end in time."""

    code: int | None
    stdout: str
    stderr: str


def read_expectations() -> dict[str, Expectation]:
    """All of expect.json, by name."""
    document = json.loads((CACHES / "expect.json").read_text())
    return {name: expectation(name, entry) for name, entry in document["caches"].items()}


def expectation(name: str, entry: dict[str, Any]) -> Expectation:
    return Expectation(
        name=name,
        keep=entry["keep"],
        remove=entry["remove"],
        allow=entry.get("allow", []),
        refuse=entry["refuse"],
        exit=entry["exit"],
        upstream_keep=entry["upstream_keep"],
        setup=entry.get("setup", []),
        args=entry.get("args", []),
        dir=entry.get("dir", "cache"),
        limit_s=float(entry.get("limit", DEFAULT_LIMIT_S)),
        dry=entry.get("dry", True),
        prints=entry.get("prints", []),
        never_prints=entry.get("never_prints", []),
    )


def unpack(name: str, box: Path) -> Path:
    """The cache `name` as box/cache, with bystanders beside it; modes and times are as packed."""
    cache = box / "cache"
    cache.mkdir()
    with tarfile.open(CACHES / f"{name}.tar.gz") as archive:
        # Not the "data" filter: it would make read-only blobs writable.
        archive.extractall(cache, filter="tar")
    bystander = box / "neighbour" / "blobs" / "sha256"
    bystander.mkdir(parents=True)
    (bystander / ("5" * 64)).write_text("another cache's blob")
    (box / "bystander").write_text("a file beside")
    return cache


def run_reset(wanted: Expectation, box: Path, *extra: str, stage: Stage | None = None) -> Run:
    """The real command line in a process of its own, in `box`."""
    command = [sys.executable, "-m", "kitcache", "reset", wanted.dir, *wanted.args, *extra]
    environment = {**os.environ, "HOME": str(box), "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        command,
        cwd=box,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        if stage is not None:
            stage.start()
        try:
            out, err = process.communicate(timeout=wanted.limit_s)
            code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            code = None
    return Run(code, out.decode(errors="replace"), err.decode(errors="replace"))


def resolve(word: str, tree: Tree) -> str:
    """The one name below box that a word of keep, remove or allow stands for.

    Raises ValueError where there is none or more than one: the expectation is then wrong.
    """
    plain = f"cache/{word}"
    if plain in tree:
        return plain
    short = re.fullmatch(r"(?:(sha\d+)/)?([0-9a-f]{16})", word)
    if short is None:
        raise ValueError(f"{word} is not in the cache")
    start = f"cache/blobs/{short[1] or 'sha256'}/{short[2]}"
    found = [name for name in tree if name.startswith(start) and name.count("/") == 3]
    if len(found) != 1:
        raise ValueError(f"{word} stands for {len(found)} names")
    return found[0]


def under(name: str, tops: set[str]) -> bool:
    return any(name == top or name.startswith(f"{top}/") for top in tops)


def judge(wanted: Expectation, before: Tree, after: Tree, run: Run) -> list[str]:
    """Every way in which a reset broke its expectation, a line each."""
    complaints = judge_output(wanted, run)
    remove = {resolve(word, before) for word in wanted.remove}
    allow = {resolve(word, before) for word in wanted.allow}
    for word in wanted.keep:
        resolve(word, before)
    gone = before.keys() - after.keys()
    left = sorted(name for name in remove if name in after)
    refused = wanted.refuse is True or (wanted.refuse == "may" and run.code != 0)
    if wanted.refuse is True and run.code == 0:
        complaints.append("it did not refuse")
    if refused:
        complaints += [f"removed in spite of a refusal: {name}" for name in sorted(gone)]
    else:
        complaints += [f"not removed: {name}" for name in left]
        complaints += [
            f"removed, and was to stay: {name}"
            for name in sorted(gone)
            if not under(name, remove | allow)
        ]
    complaints += [
        f"changed: {name}: {before[name]} -> {after[name]}"
        for name in sorted(before.keys() & after.keys())
        if not is_as_it_was(name, before, after) and not under(name, allow)
    ]
    complaints += [
        f"new: {name}"
        for name in sorted(after.keys() - before.keys())
        if not under(name, MAY_BE_NEW)
    ]
    return complaints


def is_as_it_was(name: str, before: Tree, after: Tree) -> bool:
    """Also where nothing but its date is new, of what a reset may date."""
    then, now = before[name], after[name]
    if name in MAY_BE_DATED and then.kind == "file":
        then = then._replace(mtime_ns=now.mtime_ns)
    return then == now


def judge_output(wanted: Expectation, run: Run) -> list[str]:
    """What is wrong with the exit code and the texts alone."""
    if run.code is None:
        return [f"it did not end within {wanted.limit_s} s"]
    complaints = []
    if not allowed(run.code, wanted.exit):
        complaints.append(f"exit code {run.code}, allowed are {wanted.exit}: {run.stderr}")
    both = run.stdout + run.stderr
    if "Traceback" in both:
        complaints.append(f"a traceback: {both}")
    complaints += [f"does not say {text!r}: {both}" for text in wanted.prints if text not in both]
    complaints += [f"says {text!r} raw" for text in wanted.never_prints if text in both]
    return complaints


def allowed(code: int, codes: list[int | str]) -> bool:
    return code in codes or ("fail" in codes and code > 0 and code != 2)


def judge_dry(wanted: Expectation, before: Tree, after: Tree, run: Run) -> list[str]:
    """Every way in which `--dry-run --json` broke its promise: nothing changes, JSON comes out."""
    complaints = judge_output(wanted, run)
    complaints += differences(before, after)
    try:
        values = [json.loads(line) for line in run.stdout.splitlines()]
    except ValueError as error:
        return [*complaints, f"standard output is not JSON: {error}: {run.stdout!r}"]
    if len(values) != 1 or not isinstance(values[0], dict):
        return [*complaints, f"not one object for one directory: {run.stdout!r}"]
    value = values[0]
    if value.get("exit_code") != run.code:
        complaints.append(f"says exit code {value.get('exit_code')}, had {run.code}")
    if value.get("schema") == "kitcache.reset/1":
        complaints += judge_counts(wanted, before, value)
    elif value.get("schema") != "kitcache.error/1":
        complaints.append(f"an unknown schema: {value.get('schema')}")
    return complaints


def judge_counts(wanted: Expectation, before: Tree, value: dict[str, Any]) -> list[str]:
    """A dry run foretells exactly what the run is to remove, in blobs and bytes."""
    blobs = [resolve(word, before) for word in wanted.remove if not word.startswith("ingest/")]
    tally = {"blobs": len(blobs), "bytes": sum(before[name].size for name in blobs)}
    if value.get("deleted") != tally:
        return [f"foretells {value.get('deleted')}, to be removed are {tally}"]
    return []
