"""DIR exists, and no export was published in it: a first build failed, or a file system made it.

Law: a nightly `reset */` and `prune */` do not fail for it, say so, and leave it as it is; whoever
asks what is in there is told that it is no cache; and an export makes it one.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kitcache.errors import NotACache
from kitcache.store.create import find_layout, make_layout
from tests.caches.snapshot import take_snapshot
from tests.hostile.build import Sample
from tests.hostile.command import run
from tests.hostile.privilege import NOBODY, give, needs_root, reachable_box, run_as

HEX = "ab" * 32
TOLD = "nothing to delete: no export was published here yet"
CLEAN = "nothing to verify: no export was published here yet"


def make(*names: str) -> Callable[[Path], Path]:
    def make_in(top: Path) -> Path:
        for name in names:
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name.endswith("/") else path.write_text("x")
        return top / names[0].partition("/")[0]

    return make_in


FRESH = {
    "an empty directory": make("dir/"),
    "an upload that broke off": make("dir/blobs/sha256/", f"dir/ingest/{HEX}/data"),
    "a client that was killed": make("dir/ingest/", "dir/.fsverity-check-204/"),
    "a disk of its own": make("dir/lost+found/"),
    "lost+found itself": make("lost+found/#12"),
    "our own lock": make("dir/kitcache.lock", "dir/.kitcache/"),
}
STRANGE = {
    "something else beside it": make("dir/.fsverity-check-204/", "dir/notes"),
    "blobs that no tag can reach": make(f"dir/blobs/sha256/{HEX}"),
    "something among the blobs": make("dir/blobs/sha256/README"),
    "something in blobs": make("dir/blobs/README"),
    "a name that only looks like it": make("dir/my.fsverity-check-204/"),
}


@pytest.mark.parametrize("words", [["reset"], ["reset", "--dry-run"], ["prune", "--keep-tag", "x"]])
@pytest.mark.parametrize("place", FRESH)
def test_a_nightly_line_goes_on(tmp_path: Path, place: str, words: list[str]) -> None:
    name = FRESH[place](tmp_path).name
    before = take_snapshot(tmp_path)
    answer = run(tmp_path, *words, name)
    assert take_snapshot(tmp_path) == before
    assert (answer.code, answer.out, answer.err) == (0, f"{name}: {TOLD}\n", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["verify"], CLEAN),
        (["verify", "--repair"], "nothing to repair"),
        (["verify", "--repair", "--dry-run"], "nothing to repair"),
    ],
)
@pytest.mark.parametrize("place", FRESH)
def test_a_weekly_line_goes_on(tmp_path: Path, place: str, words: list[str], told: str) -> None:
    name = FRESH[place](tmp_path).name
    before = take_snapshot(tmp_path)
    answer = run(tmp_path, *words, name)
    assert (answer.code, answer.out, answer.err) == (0, f"{name}: {told}\n", "")
    assert run(tmp_path, *words, "--quiet", name).out == ""
    assert run(tmp_path, *words, "--json", name).value["exit_code"] == 0
    assert take_snapshot(tmp_path) == before


def test_a_repair_from_a_copy_wants_a_cache(tmp_path: Path, sample: Sample) -> None:
    (tmp_path / "dir").mkdir()
    assert run(tmp_path, "verify", "--repair", "--from", "cache", "dir").code == 10


def test_machines_are_told_too(tmp_path: Path, sample: Sample) -> None:
    (tmp_path / "dir").mkdir()
    empty, full = run(tmp_path, "reset", "--json", "dir", "cache").values
    assert (empty["outcome"], empty["exit_code"], empty["reason"]) == ("done", 0, TOLD)
    assert (full["outcome"], full["deleted"]["blobs"]) == ("done", len(sample.garbage))


@pytest.mark.parametrize("words", [["reset"], ["prune", "--keep-tag", "x"], ["verify"]])
@pytest.mark.parametrize("place", STRANGE)
def test_what_others_put_there_is_no_cache(tmp_path: Path, place: str, words: list[str]) -> None:
    name = STRANGE[place](tmp_path).name
    before = take_snapshot(tmp_path)
    answer = run(tmp_path, *words, name)
    assert take_snapshot(tmp_path) == before
    assert answer.code == 10
    assert "not a cache" in answer.err


@pytest.mark.parametrize("command", [["du"], ["ls"], ["why", "{}", HEX]])
def test_who_asks_what_is_in_there_is_told(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "dir").mkdir()
    words = ["dir" if word == "{}" else word for word in command]
    answer = run(tmp_path, *(words if "{}" in command else [*words, "dir"]))
    assert answer.code == 10
    assert os.listdir(tmp_path / "dir") == []


def test_lost_and_found_is_for_root_alone() -> None:
    needs_root()
    with reachable_box() as box:
        (box / "lost+found").mkdir(mode=0o700)
        answer = run_as(NOBODY, box, "reset", "lost+found")
        assert (answer.code, answer.out) == (0, f"lost+found: {TOLD}\n")
        (box / "shut").mkdir(mode=0o700)
        give(box / "shut", 1)
        assert run_as(NOBODY, box, "reset", "shut").code == 1


@pytest.mark.parametrize("place", [p for p in FRESH if p != "lost+found itself"])
def test_an_export_makes_it_a_cache(tmp_path: Path, place: str) -> None:
    path = FRESH[place](tmp_path)
    with make_layout(path) as layout:
        assert os.path.samestat(os.fstat(layout.root_fd), path.stat())


def test_an_export_does_not_take_what_others_have(tmp_path: Path) -> None:
    path = STRANGE["something else beside it"](tmp_path)
    for open_it in (make_layout, find_layout):
        with pytest.raises(NotACache, match="notes"):
            open_it(path)
