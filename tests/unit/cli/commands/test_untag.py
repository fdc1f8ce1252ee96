"""kitcache untag: names to take out, and what is said of it."""

import fcntl
import json

from tests.hostile.build import Sample
from tests.hostile.command import run


def count(sample: Sample) -> int:
    return len(json.loads((sample.dir / "index.json").read_bytes())["manifests"])


def test_what_was_taken_out_and_what_was_not_done(sample: Sample) -> None:
    answer = run(sample.box.top, "untag", "cache", "main", sample.dev["digest"])
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"cache: untagged main, {sample.main['digest']}",
        f"cache: untagged dev, {sample.dev['digest']}",
        "cache: no blob was deleted; kitcache reset does that",
    ]
    assert count(sample) == 0


def test_a_dry_run(sample: Sample) -> None:
    answer = run(sample.box.top, "untag", "--dry-run", "cache", "main")
    assert answer.out == f"cache: would untag main, {sample.main['digest']}\n"
    assert count(sample) == 2


def test_no_such_tag(sample: Sample) -> None:
    answer = run(sample.box.top, "untag", "cache", "main", "nope")
    assert (answer.code, answer.out) == (1, "")
    assert "'nope'" in answer.err
    assert "  nothing was changed" in answer.err.splitlines()
    assert count(sample) == 2


def test_lock_timeout(sample: Sample) -> None:
    with (sample.dir / "index.json.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = run(sample.box.top, "untag", "--lock-timeout", "0", "cache", "main")
    assert answer.code == 11
    assert count(sample) == 2


def test_quiet(sample: Sample) -> None:
    answer = run(sample.box.top, "untag", "--quiet", "cache", "main")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_a_pattern(sample: Sample) -> None:
    nothing = run(sample.box.top, "untag", "cache", "pr-*")
    assert (nothing.code, count(sample)) == (1, 2)
    assert "no entry of index.json has a tag that matches 'pr-*'" in nothing.err
    dry = run(sample.box.top, "untag", "--dry-run", "cache", "d*")
    assert dry.out == f"cache: would untag dev, {sample.dev['digest']}\n"
    assert count(sample) == 2
    assert run(sample.box.top, "untag", "cache", "d*").code == 0
    assert count(sample) == 1
