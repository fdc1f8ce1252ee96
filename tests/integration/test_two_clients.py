"""kitcache reset beside a client that knows no lock of ours: never a silent loss.

A build exports into a directory while resets run on it, one after another. BuildKit does not write
again what it finds there, so a blob that is garbage now may be what the export counts on, and only
its upload of *other* blobs could tell. What the rounds below ask for: after each, every tag is
whole, or a reset has named what it lacks.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from . import witness
from .daemon import Daemon, Finished, cache_to
from .kit import Answer, kitcache, must

ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "20"))
ATTRS = {"mode": "max", "image_manifest": "true"}
# When the resets begin: a part of the time that the same export took just before. What BuildKit
# prints comes too late to tell, and nothing in the directory does.
MOMENTS = (0.0, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9)


class Reset(NamedTuple):
    """One reset: when it began, in seconds since the epoch, and what it said."""

    began: float
    answer: Answer


class Round(NamedTuple):
    """What one export and the resets beside it did; published: the time of index.json after it."""

    build: Finished
    published: float
    resets: list[Reset]


def test_never_a_silent_loss(
    daemon: Daemon, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """In even rounds the export finds all its blobs, as garbage; in odd ones all but a few."""
    cache, context = tmp_path / "cache", tmp_path / "context"
    losses = early_removals = 0
    for number in range(ROUNDS):
        took_s = make_garbage_of_a(daemon, context, cache)
        write(context, layer="a", top=f"top {number}" if number % 2 else "top")
        wait_s = took_s * MOMENTS[number % len(MOMENTS)]
        told = export_beside_resets(daemon, context, cache, wait_s)
        assert told.build.code == 0, f"a reset made an export fail:\n{told.build.text}"
        losses += judge(cache, [reset.answer for reset in told.resets])
        early_removals += sum(
            reset.began < told.published and reset.answer.code == 0 and removed(reset.answer) > 0
            for reset in told.resets
        )
    assert early_removals, "no reset removed anything while a build ran: this proves nothing"
    heal_and_check(daemon, context, cache)
    record_testsuite_property("resets that removed blobs while a build ran", early_removals)
    record_testsuite_property("losses, all named", losses)


def judge(cache: Path, answers: list[Answer]) -> int:
    """Proves that whatever a tag lacks was named; 1 where something is missing, else 0."""
    text = "\n".join(map(str, answers))
    for answer in answers:
        assert answer.code in (0, 11, 12), answer
        value = json.loads(answer.out)
        assert (value["schema"], value["exit_code"]) == (
            "kitcache.reset/1" if answer.code == 0 else "kitcache.error/1",
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


def export_beside_resets(daemon: Daemon, context: Path, cache: Path, wait_s: float) -> Round:
    """Exports to `main`; after so long resets run, one after another, the last after the export."""
    options = ["--output=type=cacheonly", f"--cache-to={cache_to(cache, tag='main', **ATTRS)}"]
    ended = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        resets = thread.submit(reset_until, ended, cache, wait_s)
        try:
            build = daemon.docker(*daemon.build_command(context, *options))
        finally:
            ended.set()
    return Round(build, (cache / "index.json").stat().st_mtime, resets.result())


def reset_until(ended: threading.Event, cache: Path, wait_s: float) -> list[Reset]:
    """Resets one after another, the first after so long; the last one begins after the event."""
    resets = []
    ended.wait(wait_s)
    is_last = False
    while not is_last:
        is_last = ended.is_set()
        began = time.time()
        resets.append(Reset(began, kitcache("reset", cache, "--json")))
    return resets


def make_garbage_of_a(daemon: Daemon, context: Path, cache: Path) -> float:
    """Leaves `main` on other layers, with all blobs of the next export beside them as garbage.

    How long the last export took, in seconds.
    """
    for layer in ("a", "b"):
        write(context, layer=layer, top="top")
        started = time.monotonic()
        daemon.export(context, cache, tag="main", **ATTRS)
    assert witness.look(cache).missing == frozenset()
    assert witness.garbage(cache)
    return time.monotonic() - started


def heal_and_check(daemon: Daemon, context: Path, cache: Path) -> None:
    """Another export mends whatever a round lost, and then a reset has nothing to say."""
    daemon.export(write(context, layer="a", top="top"), cache, tag="main", **ATTRS)
    assert must("reset", cache, "--json").json["missing_blobs"] == []
    assert witness.look(cache).missing == frozenset()
    assert set(witness.blobs(cache)) == witness.look(cache).reached


def write(context: Path, *, layer: str, top: str) -> Path:
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY layer /layer\nCOPY top /top\n")
    (context / "layer").write_text(layer)
    (context / "top").write_text(top)
    return context


def removed(answer: Answer) -> int:
    blobs = answer.json["deleted"]["blobs"]
    assert isinstance(blobs, int)
    return blobs
