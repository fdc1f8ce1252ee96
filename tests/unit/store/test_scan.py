"""store/scan.py: which names are blobs, which are uploads, and which are nobody's."""

import os
import time
from collections.abc import Iterator

import pytest

from kitcache.errors import KitcacheError
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from kitcache.store.scan import (
    REMOVING,
    foreign_bytes,
    is_ingest_name,
    next_tick_ns,
    scan_blobs,
    scan_foreign,
    scan_ingests,
    uploads_changed_ns,
)
from kitcache.store.values import BATCH_SIZE
from tests.hostile.build import Box, Sample

HEX = "0" * 64


@pytest.fixture
def opened(box: Box) -> Iterator[Layout]:
    with open_store(box.dir) as layout:
        yield layout


def seen(layout: Layout, algorithm: str = "sha256") -> tuple[set[str], set[str]]:
    """The blobs and the odd names of one algorithm's directory, as they are now."""
    layout.open_directories()
    batches = list(scan_blobs(layout, algorithm))
    names = [name for batch in batches for name in batch.names]
    odd = [path.rpartition("/")[2] for batch in batches for path in batch.foreign]
    assert len(set(names)) == len(names)
    assert len(set(odd)) == len(odd)
    return set(names), set(odd)


def test_blobs_are_told_from_odd_names(box: Box, opened: Layout) -> None:
    folder = box.dir / "blobs" / "sha256"
    (folder / HEX).touch()
    for name in (HEX[:-1], HEX + "0", "A" * 64, HEX[:-1] + "g", HEX[:-4] + ".tmp", "x"):
        (folder / name).touch()
    (folder / ("1" * 64)).mkdir()
    (folder / ("2" * 64)).symlink_to(HEX)
    os.mkfifo(folder / ("3" * 64))
    (folder / ("4" * 128)).touch()
    names, odd = seen(opened)
    assert names == {HEX}
    assert odd == {path.name for path in folder.iterdir()} - {HEX}


def test_each_algorithm_has_its_length(box: Box, opened: Layout) -> None:
    (box.dir / "blobs" / "sha512").mkdir()
    (box.dir / "blobs" / "sha512" / ("4" * 128)).touch()
    (box.dir / "blobs" / "sha512" / HEX).touch()
    assert seen(opened, "sha512") == ({"4" * 128}, {HEX})


def test_no_directory_has_no_blobs(opened: Layout) -> None:
    assert seen(opened, "sha384") == (set(), set())


@pytest.mark.parametrize("count", [0, 1, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1])
def test_names_are_streamed_in_batches(box: Box, opened: Layout, count: int) -> None:
    folder = box.dir / "blobs" / "sha256"
    for n in range(count):
        (folder / (f"{n:064x}" if n % 2 else f"odd {n}")).touch()
    names, odd = seen(opened)
    assert len(names) + len(odd) == count
    sizes = [len(batch.names) + len(batch.foreign) for batch in scan_blobs(opened, "sha256")]
    assert max(sizes) <= BATCH_SIZE
    assert sum(sizes) == count


def test_two_scans_at_once_both_see_everything(box: Box, opened: Layout) -> None:
    for n in range(2 * BATCH_SIZE):
        (box.dir / "blobs" / "sha256" / f"{n:064x}").touch()
    opened.open_directories()
    one, other = scan_blobs(opened, "sha256"), scan_blobs(opened, "sha256")
    first = len(next(one).names)
    assert sum(len(batch.names) for batch in other) == 2 * BATCH_SIZE
    assert first + sum(len(batch.names) for batch in one) == 2 * BATCH_SIZE


def test_a_directory_that_cannot_be_listed(opened: Layout) -> None:
    opened.open_directories()
    fd = opened.blobs["sha256"]
    with open(os.devnull) as null:
        opened.blobs["sha256"] = null.fileno()
        with pytest.raises(KitcacheError, match="cannot list blobs/sha256: Not a directory"):
            list(scan_blobs(opened, "sha256"))
        opened.blobs["sha256"] = fd


def test_an_upload_has_times_and_a_size(box: Box, opened: Layout) -> None:
    name = box.ingest("layer", data=b"half a blob")
    folder = box.dir / "ingest" / name
    os.utime(folder / "data", ns=(0, 5_000_000_001))
    opened.open_directories()
    (ingest,) = scan_ingests(opened).ingests
    assert (ingest.name, ingest.is_marked) == (name, False)
    assert ingest.bytes == sum(path.stat().st_size for path in folder.iterdir())
    files = [folder, *folder.iterdir()]
    assert list(ingest.writes_ns) == sorted(path.stat().st_mtime_ns for path in files)
    assert 5_000_000_001 in ingest.writes_ns


def test_uploads_come_in_name_order(box: Box, opened: Layout) -> None:
    names = [box.ingest(f"ref {n}") for n in range(20)]
    opened.open_directories()
    assert [ingest.name for ingest in scan_ingests(opened).ingests] == sorted(names)


def test_an_upload_that_holds_what_no_upload_makes_is_foreign(box: Box, opened: Layout) -> None:
    (box.dir / "ingest" / box.ingest("a") / "folder").mkdir()
    (box.dir / "ingest" / box.ingest("b") / "link").symlink_to("data")
    opened.open_directories()
    assert scan_ingests(opened).ingests == ()
    assert len(scan_ingests(opened).other_writes_ns) > 2


def test_an_upload_that_a_killed_reset_had_begun_to_remove_is_known(
    box: Box, opened: Layout
) -> None:
    folder = box.dir / "ingest" / box.ingest("a")
    folder.rename(folder.with_name(folder.name + REMOVING))
    opened.open_directories()
    (ingest,) = scan_ingests(opened).ingests
    assert (ingest.name, ingest.is_marked) == (folder.name + REMOVING, True)
    assert list(scan_foreign(opened)) == []


def test_what_is_no_upload(box: Box, opened: Layout) -> None:
    ingest = box.dir / "ingest"
    (ingest / "short").mkdir()
    (ingest / HEX).touch()
    (ingest / ("1" * 64)).symlink_to("short")
    opened.open_directories()
    assert scan_ingests(opened).ingests == ()
    assert len(scan_ingests(opened).other_writes_ns) == 3
    assert set(scan_foreign(opened)) == {"ingest/short/", f"ingest/{HEX}", f"ingest/{'1' * 64}"}


def test_an_upload_is_named_after_a_sha256() -> None:
    assert is_ingest_name(HEX)
    assert is_ingest_name(HEX + REMOVING)
    assert not is_ingest_name(REMOVING)
    assert not is_ingest_name(HEX[1:])
    assert not is_ingest_name("A" * 64)


def test_no_ingest_directory_has_no_uploads(box: Box, opened: Layout) -> None:
    (box.dir / "ingest").rmdir()
    opened.open_directories()
    assert scan_ingests(opened) == ((), (), 0)


def test_a_sound_cache_holds_nothing_foreign(sample: Sample) -> None:
    sample.box.ingest("left behind")
    for name in ("kitcache.lock", "index.json.lock", "index.json.kitcache-new"):
        (sample.dir / name).touch()
    (sample.dir / ".kitcache").mkdir()
    with open_store(sample.dir) as layout:
        layout.open_directories()
        assert list(scan_foreign(layout)) == []


def test_what_is_foreign(box: Box, opened: Layout) -> None:
    (box.dir / "notes.txt").write_text("mine")
    (box.dir / "folder" / "below").mkdir(parents=True)
    (box.dir / "folder" / "below" / "file").write_bytes(b"x" * 1000)
    (box.dir / "folder" / "link").symlink_to("/etc/passwd")
    (box.dir / "link").symlink_to("folder")
    (box.dir / "blobs" / "blake3").mkdir()
    (box.dir / "blobs" / "blake3" / "aa").write_bytes(b"x" * 10)
    (box.dir / "blobs" / "file").touch()
    opened.open_directories()
    weights = {name: foreign_bytes(opened, name) for name in scan_foreign(opened)}
    assert weights == {
        "notes.txt": 4,
        "folder/": 1000,
        "link": 0,
        "blobs/blake3/": 10,
        "blobs/file": 0,
    }


def test_what_vanished_weighs_nothing(opened: Layout) -> None:
    assert foreign_bytes(opened, "nowhere") == 0
    assert foreign_bytes(opened, "nowhere/") == 0


def test_a_tick_lies_between_what_was_and_what_comes(box: Box) -> None:
    fd = os.open(box.dir / "lock", os.O_RDONLY | os.O_CREAT)
    for n in range(50):
        (old := box.dir / f"old {n}").touch()
        tick_ns = next_tick_ns(fd)
        (new := box.dir / f"new {n}").touch()
        os.utime(new, ns=(0, 0))
        assert old.stat().st_ctime_ns < tick_ns <= new.stat().st_ctime_ns
    os.close(fd)


def test_where_no_file_can_be_dated_the_clock_answers_rounded_down(box: Box) -> None:
    """As the coarsest file system rounds: FAT, by two seconds."""
    (box.dir / "lock").touch()
    fd = os.open(box.dir / "lock", os.O_PATH)
    for n in range(50):
        now_ns = next_tick_ns(fd)
        assert now_ns % (2 * 10**9) == 0
        assert abs(now_ns - time.time_ns()) < 3 * 10**9
        (box.dir / f"{n}").touch()
        assert (box.dir / f"{n}").stat().st_ctime_ns // 10**9 * 10**9 >= now_ns
    os.close(fd)


def test_when_names_in_a_directory_last_changed(box: Box, opened: Layout) -> None:
    os.utime(box.dir / "ingest", ns=(0, 5_000_000_001))
    opened.open_directories()
    assert uploads_changed_ns(opened) == 5_000_000_001
    (box.dir / "ingest").rmdir()
    opened.open_directories()
    assert uploads_changed_ns(opened) == 0
