"""kitcache merge: directories, names by pattern, and what is said of them."""

import fcntl
import json
from pathlib import Path

import pytest

from tests.hostile.build import REF_NAME, Box, Sample
from tests.hostile.command import run


def tags(cache: Path) -> list[str]:
    entries = json.loads((cache / "index.json").read_bytes())["manifests"]
    return [entry["annotations"][REF_NAME] for entry in entries]


@pytest.fixture
def top(sample: Sample) -> Path:
    """Beside the sample: two/cache, which has another main."""
    (sample.box.top / "two").mkdir()
    box = Box(sample.box.top / "two")
    box.tag("main", box.manifest([box.blob(b"another main")]))
    return sample.box.top


def test_several_into_one(top: Path, sample: Sample) -> None:
    answer = run(top, "merge", "cache", "all")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[:2] == [
        f"all: added main of cache, {sample.main['digest']}",
        f"all: added dev of cache, {sample.dev['digest']}",
    ]
    assert answer.out.splitlines()[2].startswith(f"all: 2 tags; {len(sample.live)} blobs, ")
    assert tags(top / "all") == ["main", "dev"]


def test_a_clash_and_its_ways_out(top: Path) -> None:
    clash = run(top, "merge", "cache", "two/cache", "all")
    assert (clash.code, clash.out) == (1, "")
    assert "tag 'main' is sha256:" in clash.err
    assert "--rename '{dir}-{tag}'" in clash.err
    assert not (top / "all").exists()
    words = ["--rename", "dev=develop", "--rename", "*={tag}", "cache", "all"]
    assert run(top, "merge", *words).code == 0
    assert tags(top / "all") == ["main", "develop"]
    assert run(top, "merge", "two/cache", "all").code == 1
    moved = run(top, "merge", "--replace", "two/cache", "all", "--json").value
    assert [tag["state"] for tag in moved["tags"]] == ["moved"]


def test_a_dry_run(top: Path) -> None:
    answer = run(top, "merge", "--dry-run", "cache", "all")
    assert answer.code == 0
    assert answer.out.startswith("all: would add main of cache, ")
    assert not (top / "all").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("cache",), 2, "DST"),
        (("--rename", "{name}", "cache", "all"), 2, "{name} is neither {tag} nor {dir}"),
        (("cache", "cache"), 2, "are one directory"),
        (("nowhere", "all"), 10, "nowhere: not a cache"),
        (("cache", "."), 10, ".: not a cache"),
    ],
)
def test_what_cannot_be_done(top: Path, words: tuple[str, ...], code: int, says: str) -> None:
    answer = run(top, "merge", *words)
    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err
    assert not (top / "all").exists()


def test_a_sources_name_is_no_words_to_a_terminal(top: Path, sample: Sample) -> None:
    evil = sample.dir.rename(top / "a\x1b]0;pwn\x07").name
    (top / evil / "kitcache.lock").mkdir()
    answer = run(top, "merge", evil, "all")
    assert (answer.code, "a\\x1b]0;pwn\\x07" in answer.err) == (0, True)


def test_lock_timeout_and_quiet(top: Path, sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = run(top, "merge", "--lock-timeout", "0", "cache", "all")
        assert (answer.code, (top / "all").exists()) == (11, False)
        assert "kitcache: cache: kitcache.lock is held by" in answer.err
    answer = run(top, "merge", "--quiet", "cache", "all")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_an_unprotected_source_is_told_also_to_who_wants_quiet(top: Path, sample: Sample) -> None:
    (sample.dir / "kitcache.lock").symlink_to("nowhere")
    answer = run(top, "merge", "--quiet", "cache", "all")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.startswith("kitcache: cache: the cache is not protected from a")
    assert run(top, "merge", "cache", "all", "--json").value["warnings"] != []
