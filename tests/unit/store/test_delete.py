"""store/delete.py: what is deleted, and the lock that it takes."""

import os

import pytest

from kitcache.gc.reset import reset
from kitcache.store.delete import delete_ingest
from kitcache.store.directory import DirectoryStore
from kitcache.store.scan import REMOVING
from kitcache.store.values import HeldLock, Ingest
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import Sample


class Deleter:
    """The deletions of a store whose exclusive lock is held."""

    def __init__(self, store: DirectoryStore) -> None:
        self.store = store
        self.lock = HeldLock(store, "exclusive")

    def blobs(self, *names: str) -> tuple[list[str], dict[str, str]]:
        missing, failures = self.store.delete_names(self.lock, "sha256", names)
        return list(missing), dict(failures)

    def ingest(self, name: str) -> None:
        delete_ingest(self.store, self.lock, name)


@pytest.fixture
def deleter(layout: DirectoryStore) -> Deleter:
    return Deleter(layout)


def test_without_the_exclusive_lock_of_this_store_nothing_is_deleted(
    sample: Sample, layout: DirectoryStore
) -> None:
    name = sample.box.ingest("a")
    before = take_snapshot(sample.box.top)
    with layout.reopen() as other:
        for lock in (HeldLock(layout, "shared"), HeldLock(other, "exclusive")):
            with pytest.raises(ValueError, match="exclusive lock"):
                layout.delete_names(lock, "sha256", [min(sample.garbage)])
            with pytest.raises(ValueError, match="exclusive lock"):
                delete_ingest(layout, lock, name)
    assert differences(before, take_snapshot(sample.box.top)) == []


def test_one_blob_is_deleted_and_nothing_else(sample: Sample, deleter: Deleter) -> None:
    name = min(sample.garbage)
    before = take_snapshot(sample.box.top)
    assert deleter.blobs(name) == ([], {})
    assert differences(before, take_snapshot(sample.box.top)) == [
        f"gone: cache/blobs/sha256/{name}"
    ]


def test_names_that_are_missing_or_cannot_be_deleted_do_not_stop_the_others(
    sample: Sample, deleter: Deleter
) -> None:
    first, last = min(sample.garbage), max(sample.garbage)
    gone, folder = "0" * 64, "1" * 64
    (sample.dir / "blobs" / "sha256" / folder).mkdir()
    missing, failures = deleter.blobs(first, gone, folder, last)
    assert missing == [gone]
    assert failures.keys() == {folder}
    assert failures[folder] in ("Is a directory", "Operation not permitted")
    assert not {first, last} & set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_an_upload_that_was_written_since_the_survey_or_is_gone_is_not_deleted(
    sample: Sample, layout: DirectoryStore, deleter: Deleter
) -> None:
    name = sample.box.ingest("a")
    (ingest,) = layout.writer_activity().ingests
    (sample.dir / "ingest" / name / "data").write_bytes(b"half a blob, and more")
    assert not layout.delete_ingest(deleter.lock, ingest)
    assert not layout.delete_ingest(deleter.lock, Ingest("0" * 64, (0,), 0))
    (ingest,) = layout.writer_activity().ingests
    assert layout.delete_ingest(deleter.lock, ingest)
    assert os.listdir(sample.dir / "ingest") == []


def test_an_upload_goes_with_all_its_files(sample: Sample, deleter: Deleter) -> None:
    gone, stays = sample.box.ingest("a"), sample.box.ingest("b")
    deleter.ingest(gone)
    assert os.listdir(sample.dir / "ingest") == [stays]
    assert (sample.dir / "ingest" / stays / "data").exists()


def test_a_removal_that_was_cut_off_is_finished(sample: Sample, deleter: Deleter) -> None:
    folder = sample.dir / "ingest" / sample.box.ingest("a")
    (folder / "ref").unlink()
    marked = folder.rename(folder.with_name(folder.name + REMOVING))
    deleter.ingest(marked.name)
    assert os.listdir(sample.dir / "ingest") == []


def test_an_upload_has_a_mark_while_it_is_removed(
    sample: Sample, deleter: Deleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = sample.box.ingest("a")
    real_unlink, seen = os.unlink, []

    def unlink(inner: str, **how: int) -> None:
        seen.extend(os.listdir(sample.dir / "ingest"))
        real_unlink(inner, **how)

    monkeypatch.setattr(os, "unlink", unlink)
    deleter.ingest(name)
    assert set(seen) == {name + REMOVING}


def test_an_upload_that_cannot_go_has_its_own_name_again(
    sample: Sample, deleter: Deleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = sample.box.ingest("a")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionError):
        deleter.ingest(name)
    assert os.listdir(sample.dir / "ingest") == [name]


def test_one_that_went_in_part_keeps_its_mark(
    sample: Sample, deleter: Deleter, monkeypatch: pytest.MonkeyPatch
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
        deleter.ingest(name)
    assert os.listdir(sample.dir / "ingest") == [name + REMOVING]
    monkeypatch.undo()
    assert reset(sample.dir).ingests_deleted.blobs == 1
    assert os.listdir(sample.dir / "ingest") == []


@pytest.mark.parametrize("odd", ["directory", "link"])
def test_an_upload_that_holds_anything_else_keeps_all_it_has(
    sample: Sample, deleter: Deleter, odd: str
) -> None:
    folder = sample.dir / "ingest" / sample.box.ingest("a")
    if odd == "directory":
        (folder / "odd").mkdir()
    else:
        (folder / "odd").symlink_to(sample.box.top / "bystander")
    before = take_snapshot(sample.box.top)
    with pytest.raises(OSError, match="odd in it is not a regular file"):
        deleter.ingest(folder.name)
    assert differences(before, take_snapshot(sample.box.top)) == []


def test_a_link_in_place_of_an_upload_is_not_followed(sample: Sample, deleter: Deleter) -> None:
    target = sample.box.top / "elsewhere"
    (sample.dir / "ingest" / sample.box.ingest("a")).rename(target)
    (sample.dir / "ingest" / ("0" * 64)).symlink_to(target)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        deleter.ingest("0" * 64)
    assert (target / "data").exists()
