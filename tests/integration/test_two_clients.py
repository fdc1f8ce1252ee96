"""kitcache reset beside a client that knows no lock of ours: never a silent loss.

A build exports into a directory while resets run on it, one after another. BuildKit does not write
again what it finds there, so a blob that is garbage now may be what the export counts on, and only
its upload of *other* blobs could tell. What the rounds below ask for: after each, every tag is
whole, or a reset has named what it lacks.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from . import witness
from .daemon import Daemon, cache_to
from .kit import Answer, kitcache, must

pytestmark = pytest.mark.xdist_group("daemon")

ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "20"))
ATTRS = {"mode": "max", "image_manifest": "true"}
# Where in a build the resets begin: a line of its plain progress that starts or ends so.
MOMENTS = ("#1 ", "exporting cache", "preparing build cache", "writing layer", "writing config")


class Round(NamedTuple):
    """What one export and the resets beside it did."""

    progress: str
    code: int
    answers: list[Answer]


def test_never_a_silent_loss(
    daemon: Daemon, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """In even rounds the export finds all its blobs, as garbage; in odd ones all but a few."""
    cache, context = tmp_path / "cache", tmp_path / "context"
    losses = removals = 0
    for number in range(ROUNDS):
        make_garbage_of_a(daemon, context, cache)
        write(context, layer="a", top=f"top {number}" if number % 2 else "top")
        moment = MOMENTS[number % len(MOMENTS)]
        told = export_beside_resets(daemon, context, cache, moment)
        assert told.code == 0, f"a reset made an export fail:\n{told.progress}"
        losses += judge(cache, told.answers)
        removals += sum(answer.code == 0 and removed(answer) > 0 for answer in told.answers)
    assert removals, "no reset removed anything: these rounds prove nothing"
    heal_and_check(daemon, context, cache)
    record_property("losses", losses)


def judge(cache: Path, answers: list[Answer]) -> int:
    """Proves that whatever a tag lacks was named; 1 where something is missing, else 0."""
    text = "\n".join(map(str, answers))
    for answer in answers:
        assert answer.code in (0, 11, 12), answer
        value = json.loads(answer.out)
        assert (value["schema"], value["exit_code"]) == (
            "kitcache.report/1" if answer.code == 0 else "kitcache.error/1",
            answer.code,
        )
    (root,) = witness.entries(cache)
    missing = witness.look(cache).missing
    alarms = [answer for answer in answers if answer.code == 12]
    assert bool(alarms) <= bool(missing), f"a false alarm:\n{text}"
    if root["digest"] in missing:
        assert alarms, f"the manifest of 'main' is gone, and no reset exited 12:\n{text}"
    for alarm in alarms:
        assert "main" in alarm.json["message"], alarm
    for digest in missing:
        assert any(digest in answer.out for answer in answers), f"{digest} unnamed:\n{text}"
    return int(bool(missing))


def export_beside_resets(daemon: Daemon, context: Path, cache: Path, moment: str) -> Round:
    """Exports to `main`; from that line of progress on resets run, the last after the export."""
    options = ["--output=type=cacheonly", f"--cache-to={cache_to(cache, tag='main', **ATTRS)}"]
    ended = threading.Event()
    resets: Future[list[Answer]] | None = None
    lines = []
    with (
        ThreadPoolExecutor(1) as thread,
        subprocess.Popen(
            ["docker", *daemon.build_command(context, *options)],
            env=daemon.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as build,
    ):
        assert build.stdout is not None
        try:
            for line in build.stdout:
                lines.append(line)
                if moment in line and resets is None:
                    resets = thread.submit(reset_until, ended, cache)
            build.wait()
        finally:
            ended.set()
    assert resets is not None, f"{moment!r} never came:\n{''.join(lines)}"
    return Round("".join(lines), build.returncode, resets.result())


def reset_until(ended: threading.Event, cache: Path) -> list[Answer]:
    """Resets one after another; the last one begins after the event."""
    answers = []
    is_last = False
    while not is_last:
        is_last = ended.is_set()
        answers.append(kitcache("reset", cache, "--json"))
    return answers


def make_garbage_of_a(daemon: Daemon, context: Path, cache: Path) -> None:
    """Leaves `main` on other layers, with all blobs of the next export beside them as garbage."""
    for layer in ("a", "b"):
        write(context, layer=layer, top="top")
        daemon.export(context, cache, tag="main", **ATTRS)
    assert witness.look(cache).missing == frozenset()
    assert witness.garbage(cache)


def heal_and_check(daemon: Daemon, context: Path, cache: Path) -> None:
    """Another export mends whatever a round lost, and then a reset has nothing to say."""
    daemon.export(write(context, layer="a", top="top"), cache, tag="main", **ATTRS)
    assert must("reset", cache, "--json").json["missing_leaves"] == []
    assert witness.look(cache).missing == frozenset()
    assert set(witness.blobs(cache)) == witness.look(cache).reached


def write(context: Path, *, layer: str, top: str) -> Path:
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY layer /layer\nCOPY top /top\n")
    (context / "layer").write_text(layer)
    (context / "top").write_text(top)
    return context


def removed(answer: Answer) -> int:
    blobs = answer.json["removed"]["blobs"]
    assert isinstance(blobs, int)
    return blobs
