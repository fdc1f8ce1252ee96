"""buildkit/sharedkey.py: one name for the same directories, another for all others."""

import os
from pathlib import Path

import pytest

from kitcache.buildkit.sharedkey import make_shared_key


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("a/same", "b/same"):
        (tmp_path / name).mkdir(parents=True)
        os.utime(tmp_path / name, ns=(0, 0))
    return tmp_path


def key(**directories: Path | str) -> str:
    return make_shared_key({name: str(path) for name, path in directories.items()})


def test_the_same_directory_has_the_same_key_each_time(top: Path) -> None:
    assert key(context=top / "a/same") == key(context=top / "a/same")


def test_whatever_path_leads_there(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "link").symlink_to("a")
    monkeypatch.chdir(top / "a/same")
    wanted = key(context=top / "a/same")
    paths = (top / "link/same", f"{top}/b/../a/same/", ".", f"{top}//a/./same")
    for path in paths:
        assert key(context=path) == wanted, path


def test_what_is_in_it_does_not_count(top: Path) -> None:
    before = key(context=top / "a/same")
    (top / "a/same/file").write_text("x")
    assert key(context=top / "a/same") == before


def test_directories_that_look_alike_have_keys_of_their_own(top: Path) -> None:
    assert key(context=top / "a/same") != key(context=top / "b/same")


def test_another_directory_at_the_same_path_has_another_key(top: Path) -> None:
    before = key(context=top / "a/same")
    (top / "a/same").rename(top / "a/before")
    (top / "a/same").mkdir()
    assert key(context=top / "a/same") != before


def test_it_counts_what_a_directory_is_for_and_all_of_them(top: Path) -> None:
    one, other = top / "a/same", top / "b/same"
    keys = [
        key(context=one),
        key(dockerfile=one),
        key(context=one, dockerfile=other),
        key(context=other, dockerfile=one),
        key(context=one, dockerfile=one),
        key(),
    ]
    assert len(set(keys)) == len(keys)
    assert key(context=one, dockerfile=other) == key(dockerfile=other, context=one)


def test_it_tells_no_path_and_is_a_header(top: Path) -> None:
    (top / "\udcff\n").mkdir()
    for path in (top / "a/same", top / "\udcff\n"):
        found = key(context=path)
        assert len(found) == 64
        assert set(found) <= set("0123456789abcdef")
