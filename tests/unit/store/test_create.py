"""store/create.py: a directory becomes a cache."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kitcache.errors import KitcacheError, NotACache, Unsafe
from kitcache.store import create as module
from kitcache.store.create import check_writable, make_index, make_layout
from kitcache.store.layout import Layout
from kitcache.store.values import WaitPolicy
from tests.hostile.build import Sample

NO_WAIT = WaitPolicy(0.0, lambda _: None, lambda _: None)


def test_parents_have_0755_whatever_the_umask_leaves(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with make_layout(tmp_path / "a" / "b" / "c"):
            pass
    finally:
        os.umask(umask)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "a").rglob("*")} == {0o755}


@pytest.mark.parametrize("name", ["new", "new/", "./new", "a/../new"])
def test_any_spelling_of_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    with make_layout(name) as layout:
        assert layout.path == name
    assert (tmp_path / "new").is_dir()


def test_a_link_to_a_directory_is_followed_once_and_a_dangling_one_is_no_cache(
    tmp_path: Path,
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with make_layout(tmp_path / "link") as layout:
        assert os.path.samestat(os.fstat(layout.root_fd), (tmp_path / "real").stat())
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotACache, match="no such directory"):
        make_layout(tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("names", [[], ["lost+found"], ["blobs", "ingest"], [".kitcache"]])
def test_what_may_have_been_there_before(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    with make_layout(tmp_path) as layout:
        make_index(layout, NO_WAIT)
    assert (tmp_path / "oci-layout").exists()
    assert (tmp_path / "index.json").exists() == ("blobs" not in names)


def test_another_directory_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(NotACache, match=r"contains other files \('photos'\)"):
        make_layout(tmp_path)
    assert os.listdir(tmp_path) == ["photos"]


def test_a_version_that_nobody_knows_is_refused(sample: Sample) -> None:
    (sample.dir / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(Unsafe, match=r"of version '2\.0\.0'"):
        make_layout(sample.dir)


def test_a_whole_cache_is_not_locked_to_find_that_out(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(*_: object) -> None:
        raise AssertionError("locked")

    before = (sample.dir / "index.json").read_bytes()
    monkeypatch.setattr(module, "lock_index", lock)
    make_index(layout, NO_WAIT)
    assert (sample.dir / "index.json").read_bytes() == before


def test_what_another_made_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exporters find the same empty directory; the second gets the lock later."""

    @contextmanager
    def after_the_other(*_: object) -> Iterator[None]:
        (tmp_path / "index.json").write_bytes(b"published already")
        yield

    monkeypatch.setattr(module, "lock_index", after_the_other)
    with make_layout(tmp_path) as layout:
        make_index(layout, NO_WAIT)
    assert (tmp_path / "index.json").read_bytes() == b"published already"


def test_a_missing_oci_layout_is_made(sample: Sample, layout: Layout) -> None:
    (sample.dir / "oci-layout").unlink()
    make_index(layout, NO_WAIT)
    assert (sample.dir / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'


def test_a_full_disk_is_found_before_a_build(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(layout)
    assert os.listdir(sample.dir / ".kitcache") == []

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KitcacheError, match="cannot be written to: No space left"):
        check_writable(layout)
    assert os.listdir(sample.dir / ".kitcache") == []
