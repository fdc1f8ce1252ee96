"""store/quarantine.py: blobs are put aside by a rename, over nothing, and through no link."""

import os
from pathlib import Path

import pytest

from kitcache.errors import KitcacheError, Unsafe
from kitcache.oci.digest import parse_digest
from kitcache.store import quarantine as module
from kitcache.store.layout import Layout
from kitcache.store.quarantine import Quarantine
from kitcache.store.scan import quarantined, scan_foreign
from kitcache.store.state import delete_stale_files, open_state_dir
from kitcache.store.values import HeldLock
from tests.hostile.build import Sample


@pytest.fixture
def held(layout: Layout) -> HeldLock:
    return HeldLock(layout, "exclusive")


def aside(sample: Sample) -> Path:
    return sample.dir / ".kitcache" / "quarantine"


def test_a_blob_is_moved_and_keeps_its_bytes(sample: Sample, held: HeldLock) -> None:
    digest = parse_digest(sample.layers[0]["digest"])
    path = sample.box.path_of(str(digest))
    data, inode = path.read_bytes(), path.stat().st_ino
    with Quarantine(held) as quarantine:
        quarantine.take_blob(digest)
        quarantine.sync()
    (kept,) = aside(sample).iterdir()
    assert kept.name == f"sha256-{digest.hex}"
    assert (kept.read_bytes(), kept.stat().st_ino) == (data, inode)
    assert not path.exists()


def test_nothing_there_is_written_over(sample: Sample, held: HeldLock) -> None:
    blob = sample.layers[0]
    digest = parse_digest(blob["digest"])
    seen = []
    for n in range(3):
        data = b"bad %d" % n
        sample.box.path_of(str(digest)).unlink(missing_ok=True)
        sample.box.path_of(str(digest)).write_bytes(data)
        with Quarantine(held) as quarantine:
            quarantine.take_blob(digest)
        seen.append(data)
    assert sorted(path.read_bytes() for path in aside(sample).iterdir()) == seen
    assert {path.name for path in aside(sample).iterdir()} == {
        f"sha256-{digest.hex}{ending}" for ending in ("", ".2", ".3")
    }


def test_a_blob_that_is_gone_is_nothing(sample: Sample, held: HeldLock) -> None:
    digest = parse_digest(sample.layers[0]["digest"])
    sample.box.path_of(str(digest)).unlink()
    with Quarantine(held) as quarantine:
        quarantine.take_blob(digest)
    assert list(aside(sample).iterdir()) == []


def test_it_is_made_only_for_something(sample: Sample, held: HeldLock) -> None:
    with Quarantine(held) as quarantine:
        quarantine.sync()
    assert not aside(sample).exists()


def test_the_old_index_has_a_second_name_until_it_is_replaced(
    sample: Sample, held: HeldLock
) -> None:
    index = sample.dir / "index.json"
    with Quarantine(held) as quarantine:
        quarantine.keep_index(index.read_bytes())
        quarantine.keep_index(index.read_bytes())
    kept = sorted(aside(sample).iterdir())
    assert [path.name for path in kept] == ["index.json", "index.json.2"]
    assert all(path.samefile(index) for path in kept)


def test_a_link_in_place_of_the_index_is_kept_as_one(sample: Sample, held: HeldLock) -> None:
    """Somebody was faster: what it points at gets no second name in here."""
    (sample.dir / "index.json").rename(sample.box.top / "elsewhere.json")
    (sample.dir / "index.json").symlink_to(sample.box.top / "elsewhere.json")
    with Quarantine(held) as quarantine:
        quarantine.keep_index(b"")
    assert (aside(sample) / "index.json").is_symlink()
    assert (sample.box.top / "elsewhere.json").stat().st_nlink == 1


def test_without_hard_links_the_old_index_is_copied(
    sample: Sample, held: HeldLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*args: object, **more: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.os, "link", no_link)
    with Quarantine(held) as quarantine:
        quarantine.keep_index(b"wrong-size")
    assert (aside(sample) / "index.json").read_bytes() == b"wrong-size"


@pytest.mark.parametrize("place", [".kitcache", ".kitcache/quarantine"])
@pytest.mark.parametrize("thing", ["link", "file"])
def test_what_is_no_directory_is_refused_and_nothing_moves(
    sample: Sample, held: HeldLock, place: str, thing: str
) -> None:
    (sample.box.top / "elsewhere").mkdir()
    path = sample.dir / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(sample.box.top / "elsewhere") if thing == "link" else path.touch()
    digest = parse_digest(sample.layers[0]["digest"])
    with Quarantine(held) as quarantine, pytest.raises(Unsafe, match=r"quarantine|kitcache"):
        quarantine.take_blob(digest)
    assert sample.box.path_of(str(digest)).exists()
    assert list((sample.box.top / "elsewhere").iterdir()) == []


def test_a_blob_that_cannot_be_moved_is_where_it_was(
    sample: Sample, held: HeldLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_rename(*args: object, **more: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(module.os, "rename", no_rename)
    digest = parse_digest(sample.layers[0]["digest"])
    with Quarantine(held) as quarantine, pytest.raises(KitcacheError, match="cross-device"):
        quarantine.take_blob(digest)
    assert sample.box.path_of(str(digest)).exists()


def test_only_the_exclusive_lock_opens_it(layout: Layout) -> None:
    with pytest.raises(ValueError, match="exclusive"):
        Quarantine(HeldLock(layout, "shared", -1))


def test_it_is_weighed_and_nobody_clears_it(sample: Sample, layout: Layout) -> None:
    assert quarantined(layout) == (0, 0)
    with Quarantine(HeldLock(layout, "exclusive")) as quarantine:
        quarantine.take_blob(parse_digest(sample.layers[0]["digest"]))
        quarantine.keep_index(b"")
    for path in aside(sample).iterdir():
        os.utime(path, (0, 0))
    sizes = [sample.layers[0]["size"], (sample.dir / "index.json").stat().st_size]
    assert quarantined(layout) == (2, sum(sizes))
    with open_state_dir(layout) as room_fd:
        assert room_fd is not None
        delete_stale_files(room_fd)
    assert quarantined(layout) == (2, sum(sizes))
    assert list(scan_foreign(layout)) == []
