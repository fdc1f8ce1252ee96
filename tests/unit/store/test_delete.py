"""store/delete.py: the one door, and who may go through it."""

import os

import pytest

from kitcache.gc.reset import reset
from kitcache.store.delete import BlobDeleter
from kitcache.store.layout import Layout
from kitcache.store.locks import HeldLock
from kitcache.store.scan import REMOVING
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import Sample


@pytest.fixture
def remover(layout: Layout) -> BlobDeleter:
    return BlobDeleter(HeldLock(layout, "exclusive", -1))


def test_a_shared_lock_is_not_enough(layout: Layout) -> None:
    with pytest.raises(ValueError, match="exclusive"):
        BlobDeleter(HeldLock(layout, "shared", -1))


def test_one_blob_goes_and_nothing_else(sample: Sample, remover: BlobDeleter) -> None:
    name = min(sample.garbage)
    before = take_snapshot(sample.box.top)
    remover.blob("sha256", name)
    assert differences(before, take_snapshot(sample.box.top)) == [
        f"gone: cache/blobs/sha256/{name}"
    ]


def test_what_is_not_there_or_is_a_directory_is_an_error(
    sample: Sample, remover: BlobDeleter
) -> None:
    with pytest.raises(FileNotFoundError):
        remover.blob("sha256", "0" * 64)
    (sample.dir / "blobs" / "sha256" / ("0" * 64)).mkdir()
    with pytest.raises(OSError, match=r"Is a directory|Operation not permitted"):
        remover.blob("sha256", "0" * 64)


def test_an_upload_goes_with_all_its_files(sample: Sample, remover: BlobDeleter) -> None:
    gone, stays = sample.box.ingest("a"), sample.box.ingest("b")
    remover.ingest(gone)
    assert os.listdir(sample.dir / "ingest") == [stays]
    assert (sample.dir / "ingest" / stays / "data").exists()


def test_a_removal_that_was_cut_off_is_finished(sample: Sample, remover: BlobDeleter) -> None:
    folder = sample.dir / "ingest" / sample.box.ingest("a")
    (folder / "ref").unlink()
    marked = folder.rename(folder.with_name(folder.name + REMOVING))
    remover.ingest(marked.name)
    assert os.listdir(sample.dir / "ingest") == []


def test_an_upload_has_a_mark_while_it_is_removed(
    sample: Sample, remover: BlobDeleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = sample.box.ingest("a")
    real_unlink, seen = os.unlink, []

    def unlink(inner: str, **how: int) -> None:
        seen.extend(os.listdir(sample.dir / "ingest"))
        real_unlink(inner, **how)

    monkeypatch.setattr(os, "unlink", unlink)
    remover.ingest(name)
    assert set(seen) == {name + REMOVING}


def test_an_upload_that_cannot_go_has_its_own_name_again(
    sample: Sample, remover: BlobDeleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = sample.box.ingest("a")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionError):
        remover.ingest(name)
    assert os.listdir(sample.dir / "ingest") == [name]


def test_one_that_went_in_part_keeps_its_mark(
    sample: Sample, remover: BlobDeleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next reset takes the times of our own removal for those of an export."""
    name = sample.box.ingest("a")
    real_unlink, gone = os.unlink, []

    def stop(inner: str, **how: int) -> None:
        if gone:
            raise PermissionError(13, "Permission denied")
        gone.append(inner)
        real_unlink(inner, **how)

    monkeypatch.setattr(os, "unlink", stop)
    with pytest.raises(PermissionError):
        remover.ingest(name)
    assert os.listdir(sample.dir / "ingest") == [name + REMOVING]
    monkeypatch.undo()
    assert reset(sample.dir).ingests_deleted.blobs == 1
    assert os.listdir(sample.dir / "ingest") == []


@pytest.mark.parametrize("odd", ["directory", "link"])
def test_an_upload_that_holds_anything_else_keeps_all_it_has(
    sample: Sample, remover: BlobDeleter, odd: str
) -> None:
    folder = sample.dir / "ingest" / sample.box.ingest("a")
    if odd == "directory":
        (folder / "odd").mkdir()
    else:
        (folder / "odd").symlink_to(sample.box.top / "bystander")
    before = take_snapshot(sample.box.top)
    with pytest.raises(OSError, match="odd in it is no regular file"):
        remover.ingest(folder.name)
    assert differences(before, take_snapshot(sample.box.top)) == []


def test_a_link_in_place_of_an_upload_is_not_followed(sample: Sample, remover: BlobDeleter) -> None:
    target = sample.box.top / "elsewhere"
    (sample.dir / "ingest" / sample.box.ingest("a")).rename(target)
    (sample.dir / "ingest" / ("0" * 64)).symlink_to(target)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        remover.ingest("0" * 64)
    assert (target / "data").exists()
