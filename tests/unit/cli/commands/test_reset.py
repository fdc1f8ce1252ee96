"""kitcache reset: its options reach the library, its answer and remarks reach the right stream."""

import fcntl
import os

import pytest

from tests.hostile.build import Sample, make_sample
from tests.hostile.command import run


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_the_answer_is_one_line(sample: Sample) -> None:
    answer = run(sample.box.top, "reset", "cache")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("cache: deleted 4 blobs, 1.4 kB; kept 7, 2.0 kB, for 2 tags (")
    assert blobs(sample) == sample.live


def test_a_dry_run(sample: Sample) -> None:
    answer = run(sample.box.top, "reset", "--dry-run", "cache")
    assert answer.out.startswith("cache: would delete 4 blobs")
    assert len(blobs(sample)) == 11


@pytest.mark.parametrize(("age", "removed"), [("30m", 4), ("2h", 0)])
def test_min_age(sample: Sample, age: str, removed: int) -> None:
    answer = run(sample.box.top, "reset", "--min-age", age, "cache")
    assert len(blobs(sample)) == 11 - removed
    spared = "cache: 4 blobs, 1.4 kB of them kept: too young to delete" in answer.err
    assert spared is (removed == 0)


@pytest.mark.parametrize(("age", "removed"), [("5m", 1), ("15m", 0), (None, 0)])
def test_ingest_age(sample: Sample, age: str | None, removed: int) -> None:
    sample.box.ingest("slow", age_s=600)
    answer = run(sample.box.top, "reset", "cache", *(["--ingest-age", age] if age else []))
    assert len(os.listdir(sample.dir / "ingest")) == 1 - removed
    assert ("(last written 10 min ago)" in answer.err) is (removed == 0)


def test_lock_timeout(sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        answer = run(sample.box.top, "reset", "--lock-timeout", "0", "cache")
    assert (answer.code, answer.out) == (11, "")
    assert "kitcache.lock is held by process " in answer.err
    assert "waited" not in answer.err


def test_each_dir_is_judged_on_its_own_and_the_worst_code_counts(sample: Sample) -> None:
    for name in ("other", "broken"):
        (sample.box.top / name).mkdir()
    other = make_sample(sample.box.top / "other")
    broken = make_sample(sample.box.top / "broken")
    broken.box.damage(broken.main["digest"], None)
    dirs = ["broken/cache", "nowhere", "cache", "other/cache"]
    answer = run(sample.box.top, "reset", *dirs)
    assert answer.code == 12
    assert [line.partition(":")[0] for line in answer.out.splitlines()] == ["cache", "other/cache"]
    assert blobs(sample) == sample.live
    assert blobs(other) == other.live
    assert len(blobs(broken)) == 10
    values = run(sample.box.top, "reset", "--json", *dirs).values
    assert [value["path"] for value in values] == dirs
    assert [value["exit_code"] for value in values] == [12, 10, 0, 0]


def test_quiet_says_nothing_about_what_is_in_order(sample: Sample) -> None:
    (sample.dir / "notes").touch()
    sample.box.damage(sample.layers[0]["digest"], None)
    answer = run(sample.box.top, "reset", "--quiet", "cache")
    assert (answer.code, answer.out) == (0, "")
    told, step = answer.err.splitlines()
    assert "missing or incomplete, first reached by tag 'main'" in told
    assert step == "kitcache: cache: hint: kitcache verify cache --repair"


def test_what_was_left_alone_is_told_on_stderr(sample: Sample) -> None:
    (sample.dir / "notes").touch()
    answer = run(sample.box.top, "reset", "cache")
    assert answer.err == "kitcache: cache: kept 1 foreign file: notes\n"
