"""cli/commands/verify.py: what people read of a verification and of a repair."""

from typing import Any

import pytest

from kitcache.cli.commands.verify import repair_lines, verify_lines, verify_warnings
from kitcache.cli.text import progress_line
from kitcache.gc.values import DamagedPath, Progress, Root, Tally
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.upkeep.results import (
    BadBlob,
    RepairAction,
    RepairResult,
    TagStatus,
    UnusableStep,
    VerifyResult,
)

ONE, TWO = Digest("sha256", "1" * 64), Digest("sha256", "2" * 64)
CLEAN = VerifyResult("cache", Tally(3, 4_200_000), (), "", (), (), (), 1.24)
FULLY = TagStatus(0, "main", ONE, "cache", "full", steps=12)


def miss(number: int, created_ns: int | None = None) -> UnusableStep:
    return UnusableStep(
        (number, 0), f"sha256:{number:064}", created_ns, (TWO,), "layer x is missing"
    )


def lines(*verdicts: TagStatus, **changes: Any) -> list[str]:
    return list(verify_lines(CLEAN._replace(tags=verdicts, **changes)))


def warnings(*verdicts: TagStatus, **changes: Any) -> list[str]:
    return list(verify_warnings(CLEAN._replace(tags=verdicts, **changes)))


def test_a_clean_cache() -> None:
    assert lines(FULLY) == [
        "cache: 3 blobs, 4.2 MB hashed in 1.2 s: all intact",
        "TAG   KIND   STEPS  STATUS",
        "main  cache     12  importable",
    ]
    assert warnings(FULLY) == []


def test_a_cache_without_tags() -> None:
    assert lines() == ["cache: 3 blobs, 4.2 MB hashed in 1.2 s: all intact"]


@pytest.mark.parametrize(
    ("kind", "imports", "steps", "row"),
    [
        ("cache", "full", 0, "0  importable"),
        ("cache", "partial", 1234, "1,234  partly importable"),
        ("cache", "none", 0, "-  not importable"),
        ("cache", "none", 3, "3  not importable"),
        ("image", "full", 0, "-  complete"),
        ("artifact", "none", 0, "-  not complete"),
        ("unknown", "none", 0, "-  not importable"),
    ],
)
def test_each_verdict(kind: Any, imports: Any, steps: int, row: str) -> None:
    verdict = TagStatus(0, "main", ONE, kind, imports, "why", steps)
    assert lines(verdict)[2].endswith(row)
    assert bool(warnings(verdict)) == (imports != "full")


def test_an_entry_without_a_tag() -> None:
    verdict = TagStatus(3, None, ONE, "artifact", "none", "it is cold")
    assert lines(verdict)[2].startswith(f"{ONE.short}  artifact")
    assert warnings(verdict) == [
        f"cache: entry 3 ({ONE.short}) is not complete: it is cold",
        "cache: hint: kitcache verify cache --repair",
    ]
    nameless = verdict._replace(digest=None, kind="unknown")
    assert warnings(nameless)[0] == "cache: entry 3 is not importable: it is cold"


def test_steps_that_miss_are_named_and_counted() -> None:
    misses = (miss(0, 1_780_308_000 * 10**9), *(miss(n) for n in range(1, 7)))
    verdict = FULLY._replace(importable="partial", reason="7 of 12 steps", unusable_steps=misses)
    assert warnings(verdict) == [
        "cache: tag 'main' is partly importable: 7 of 12 steps",
        f"cache:   step sha256:{0:064} of 2026-06-01: layer x is missing",
        f"cache:   step sha256:{1:064}: layer x is missing",
        f"cache:   step sha256:{2:064}: layer x is missing",
        "cache:   and 4 more steps",
        "cache: hint: kitcache verify cache --repair",
    ]


@pytest.mark.parametrize("created_ns", [10**30, -(10**30)])
def test_a_time_that_no_calendar_has(created_ns: int) -> None:
    verdict = FULLY._replace(importable="partial", unusable_steps=(miss(0, created_ns),))
    assert " of an unknown day: " in warnings(verdict)[1]


def test_bad_blobs() -> None:
    bad = tuple(BadBlob(Digest("sha256", f"{n:064}"), "is empty", 0) for n in range(12))
    assert lines(FULLY, bad_blobs=bad[:1])[0].endswith("hashed in 1.2 s: 1 bad blob")
    said = warnings(FULLY, bad_blobs=bad)
    assert said[:10] == [f"cache: blob sha256:{n:064} is empty" for n in range(10)]
    assert said[10:] == [
        "cache: and 2 more bad blobs",
        "cache: hint: kitcache verify cache --repair",
    ]


def test_a_lost_index() -> None:
    said = warnings(index_problem="index.json is missing")
    assert said[0] == "cache: no tag can be verified: index.json is missing"


def test_other_damage_and_warnings() -> None:
    root = Root(0, "main", Descriptor("", ONE, 1))
    damage = DamagedPath(root, (Descriptor("", TWO, 1),), "malformed", "is odd")
    said = warnings(FULLY, damage=(damage,), warnings=("it is late",))
    assert said[0] == f"cache: tag 'main' cannot be read: blob {TWO.short} is odd"
    assert said[2:] == ["cache: it is late", "cache: hint: kitcache verify cache --repair"]
    assert warnings(FULLY, warnings=("it is late",)) == ["cache: it is late"]


def test_a_damaged_subject_of_the_index_is_nothing_that_a_repair_mends() -> None:
    damage = DamagedPath(Root(-1, None, Descriptor("", ONE, 1)), (), "malformed", "is odd")
    assert "--repair" not in "".join(warnings(FULLY, damage=(damage,)))
    assert "--repair" in "".join(warnings(FULLY._replace(importable="none"), damage=(damage,)))


def test_names_from_a_disk_are_escaped() -> None:
    verdict = TagStatus(0, "a\x1b[2Jb", ONE, "cache", "none", "c\rd", unusable_steps=(miss(0),))
    odd = verdict._replace(unusable_steps=(miss(0)._replace(cache_key="\u202e"),))
    for said in (*lines(odd), *warnings(odd)):
        assert said.isprintable()


def test_the_next_step_can_be_pasted() -> None:
    found = CLEAN._replace(path="my cache", index_problem="gone")
    assert list(verify_warnings(found))[-1] == "my cache: hint: kitcache verify 'my cache' --repair"


def test_what_a_repair_did() -> None:
    step = RepairAction("remove-tag", "main", ONE, "tag 'main' was removed from index.json: why")
    done = RepairResult("cache", "done", (step,), CLEAN)
    assert list(repair_lines(done)) == [f"cache: {step.description}"]
    dry = done._replace(outcome="dry-run")
    assert list(repair_lines(dry)) == [f"cache: {step.description}", "cache: nothing was changed"]
    assert list(repair_lines(done._replace(actions=()))) == ["cache: nothing to repair"]
    bad = CLEAN._replace(index_problem="it is gone still")
    assert list(verify_warnings(bad, was_repaired=True)) == [
        "cache: no tag can be verified: it is gone still"
    ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Progress("verify", 3, 0), "cache: hashed 0 B"),
        (Progress("verify", 3, 10**9, 0, 0.5), "cache: hashed 1.0 GB, 2.0 GB/s"),
        (
            Progress("verify", 3, 10**9, 5 * 10**9, 0.5),
            "cache: hashed 1.0 GB of 5.0 GB, 2.0 GB/s, 2 s left",
        ),
        (
            Progress("verify", 3, 10**6, 10**9, 1.0),
            "cache: hashed 1.0 MB of 1.0 GB, 1.0 MB/s, 16 min left",
        ),
        # More came since it was counted.
        (
            Progress("verify", 3, 60 * 10**9, 5 * 10**9, 1.0),
            "cache: hashed 60.0 GB of 5.0 GB, 60.0 GB/s, 0 s left",
        ),
    ],
)
def test_progress(event: Progress, line: str) -> None:
    assert progress_line("cache", event) == line
