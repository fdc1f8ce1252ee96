"""kitcache tag: two names, and what is said of them."""

import fcntl
import json

import pytest

from tests.hostile.build import REF_NAME, Sample
from tests.hostile.command import run


def tags(sample: Sample) -> list[str]:
    entries = json.loads((sample.dir / "index.json").read_bytes())["manifests"]
    return [entry["annotations"][REF_NAME] for entry in entries]


def test_a_further_name(sample: Sample) -> None:
    answer = run(sample.box.top, "tag", "cache", "main", "release")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"cache: release is {sample.main['digest']}, as main\n"
    assert tags(sample) == ["main", "dev", "release"]


def test_a_dry_run(sample: Sample) -> None:
    answer = run(sample.box.top, "tag", "--dry-run", "cache", "main", "dev")
    assert answer.out.splitlines() == [
        f"cache: dev would be {sample.main['digest']}, as main",
        f"cache: dev is now {sample.dev['digest']}",
    ]
    assert run(sample.box.top, "tag", "cache", "main", "dev", "--json").value[
        "previous_digests"
    ] == [sample.dev["digest"]]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nope", "new"), 1, "'nope'"),
        (("main", ""), 2, "it is empty"),
        (("main", "a\tb"), 2, r"'a\tb' is not a valid tag"),
        (("main",), 2, "TARGET"),
        (("main", "a", "b"), 2, "b"),
    ],
)
def test_what_cannot_be_done(sample: Sample, words: tuple[str, ...], code: int, says: str) -> None:
    answer = run(sample.box.top, "tag", "cache", *words)
    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err
    assert tags(sample) == ["main", "dev"]


def test_lock_timeout_and_quiet(sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        answer = run(sample.box.top, "tag", "--lock-timeout", "0", "cache", "main", "new")
    assert answer.code == 11
    answer = run(sample.box.top, "tag", "--quiet", "cache", "main", "new")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
