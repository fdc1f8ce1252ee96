"""store/state.py: best effort, one step at a time, never in the way."""

import fcntl
import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from kitcache.store.state import (
    TagUse,
    count_skipped_sweep,
    delete_stale_files,
    finish_sweep_state,
    open_state_dir,
    read_layer_uses,
    read_skipped_sweeps,
    read_tag_uses,
    record_layer_uses,
    record_use,
    write_tag_uses,
)
from tests.hostile.build import Sample


def test_nothing_is_noted_at_first_and_reading_makes_nothing(
    sample: Sample, layout: Layout
) -> None:
    assert read_tag_uses(layout) == {}
    assert read_layer_uses(layout) == {}
    assert read_skipped_sweeps(layout) == 0
    finish_sweep_state(layout)
    record_layer_uses(layout, (), 10)
    write_tag_uses(layout, {"main": TagUse()})
    assert not (sample.dir / ".kitcache").exists()


def test_each_use_has_its_time(layout: Layout) -> None:
    record_use(layout, ["main", "dev"], "exported", 10)
    record_use(layout, ["main"], "imported", 20)
    record_use(layout, ["main"], "exported", 30)
    assert read_tag_uses(layout) == {"main": TagUse(30, 20), "dev": TagUse(10, None)}
    assert read_tag_uses(layout)["main"].used_ns == 30


def test_the_digest_is_that_of_the_last_export(layout: Layout) -> None:
    record_use(layout, ["main", "dev"], "exported", 10, digests={"main": "sha256:a"})
    record_use(layout, ["main"], "imported", 20)
    assert read_tag_uses(layout) == {"main": TagUse(10, 20, "sha256:a"), "dev": TagUse(10)}
    record_use(layout, ["main"], "exported", 30)
    assert read_tag_uses(layout)["main"] == TagUse(30, 20, None)


def test_notes_that_are_put_take_the_place_of_those_before(layout: Layout) -> None:
    record_use(layout, ["main", "dev", "old"], "exported", 10, digests={"main": "sha256:a"})
    write_tag_uses(layout, {"main": TagUse(5, 6, "sha256:b"), "new": TagUse(7), "old": TagUse()})
    assert read_tag_uses(layout) == {
        "main": TagUse(5, 6, "sha256:b"),
        "dev": TagUse(10),
        "new": TagUse(7),
    }


def test_each_layer_has_the_time_of_its_last_use(layout: Layout) -> None:
    record_layer_uses(layout, ["sha256:a", "sha256:b"], 10)
    record_layer_uses(layout, iter(["sha256:b"]), 20)
    assert read_layer_uses(layout) == {"sha256:a": 10, "sha256:b": 20}


def test_of_ten_thousand_layers_the_oldest_go(sample: Sample, layout: Layout) -> None:
    record_layer_uses(layout, [f"sha512:{n:0128x}" for n in range(9_999)], 10)
    record_layer_uses(layout, ["old"], 5)
    record_layer_uses(layout, ["new"], 20)
    uses = read_layer_uses(layout)
    assert len(uses) == 10_000
    assert "new" in uses
    assert "old" not in uses
    assert (sample.dir / ".kitcache" / "layers.json").stat().st_size < 2_000_000


def test_skips_count_up_and_are_forgotten(sample: Sample, layout: Layout) -> None:
    assert [count_skipped_sweep(layout) for _ in range(3)] == [1, 2, 3]
    assert read_skipped_sweeps(layout) == 3
    finish_sweep_state(layout)
    assert read_skipped_sweeps(layout) == 0
    assert os.listdir(sample.dir / ".kitcache") == []


def test_of_a_thousand_tags_the_oldest_go(layout: Layout) -> None:
    record_use(layout, [f"pr-{n}" for n in range(999)], "exported", 10)
    record_use(layout, ["old"], "exported", 5)
    record_use(layout, ["new"], "exported", 20)
    notes = read_tag_uses(layout)
    assert len(notes) == 1000
    assert "new" in notes
    assert "old" not in notes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"tags": [], "layers": [1]}',
        b'{"tags": {"main": 7}, "layers": {"sha256:a": "noon"}}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_cannot_be_read_is_nothing(sample: Sample, layout: Layout, data: bytes) -> None:
    (sample.dir / ".kitcache").mkdir()
    (sample.dir / ".kitcache" / "tags.json").write_bytes(data)
    (sample.dir / ".kitcache" / "layers.json").write_bytes(data)
    (sample.dir / ".kitcache" / "skipped-sweeps").write_bytes(data)
    assert read_tag_uses(layout) == {}
    assert read_layer_uses(layout) == {}
    assert read_skipped_sweeps(layout) == 0
    record_use(layout, ["main"], "exported", 10)
    assert read_tag_uses(layout) == {"main": TagUse(10)}
    record_layer_uses(layout, ["sha256:b"], 10)
    assert read_layer_uses(layout) == {"sha256:b": 10}
    assert count_skipped_sweep(layout) == 1


def test_odd_times_count_as_never(sample: Sample, layout: Layout) -> None:
    (sample.dir / ".kitcache").mkdir()
    tags = {"main": {"exported_ns": "noon", "imported_ns": True, "digest": 7}}
    (sample.dir / ".kitcache" / "tags.json").write_text(json.dumps({"tags": tags}))
    assert read_tag_uses(layout) == {"main": TagUse()}


def test_a_file_of_an_older_kitcache_reads(sample: Sample, layout: Layout) -> None:
    (sample.dir / ".kitcache").mkdir()
    tags = {"main": {"exported_ns": 10, "imported_ns": None}}
    (sample.dir / ".kitcache" / "tags.json").write_text(json.dumps({"tags": tags}))
    assert read_tag_uses(layout) == {"main": TagUse(10)}


def test_a_link_or_a_file_in_the_way_is_left_alone(sample: Sample, layout: Layout) -> None:
    outside = sample.box.top / "outside"
    outside.mkdir()
    (sample.dir / ".kitcache").symlink_to(outside)
    record_use(layout, ["main"], "exported", 10)
    assert count_skipped_sweep(layout) == 1
    finish_sweep_state(layout)
    with open_state_dir(layout) as room_fd:
        assert room_fd is None
    assert os.listdir(outside) == []


def test_a_pipe_for_a_file_is_not_waited_for(sample: Sample, layout: Layout) -> None:
    (sample.dir / ".kitcache").mkdir()
    os.mkfifo(sample.dir / ".kitcache" / "tags.json")
    assert read_tag_uses(layout) == {}


def test_a_writer_that_hangs_is_not_waited_for_long(sample: Sample, layout: Layout) -> None:
    with open_state_dir(layout) as room_fd:
        assert room_fd is not None
        fcntl.flock(room_fd, fcntl.LOCK_EX)
        record_use(layout, ["main"], "exported", 10)
        write_tag_uses(layout, {"main": TagUse(10)})
        record_layer_uses(layout, ["sha256:a"], 10)
        assert count_skipped_sweep(layout) == 1
    assert read_tag_uses(layout) == {}
    assert read_layer_uses(layout) == {}
    assert read_skipped_sweeps(layout) == 0


def test_many_at_once_lose_nothing(sample: Sample) -> None:
    def work(n: int) -> None:
        with open_store(sample.dir) as layout:
            if n % 3:
                record_use(layout, [f"t{n}"], "exported", n)
            else:
                record_layer_uses(layout, [f"sha256:{n}"], n)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))
    with open_store(sample.dir) as layout:
        assert set(read_tag_uses(layout)) == {f"t{n}" for n in range(12) if n % 3}
        assert set(read_layer_uses(layout)) == {f"sha256:{n}" for n in range(0, 12, 3)}
    assert sorted(os.listdir(sample.dir / ".kitcache")) == ["layers.json", "tags.json"]


def test_the_room_is_made_as_the_cache_is(sample: Sample, layout: Layout) -> None:
    sample.dir.chmod(0o775)
    (sample.dir / "index.json").chmod(0o664)
    umask = os.umask(0o077)
    try:
        record_use(layout, ["main"], "exported", 10)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((sample.dir / ".kitcache").stat().st_mode) == 0o775
    assert stat.S_IMODE((sample.dir / ".kitcache" / "tags.json").stat().st_mode) == 0o664


def test_what_killed_writers_left_goes_after_an_hour(sample: Sample, layout: Layout) -> None:
    count_skipped_sweep(layout)
    room = sample.dir / ".kitcache"
    old_s = time.time() - 7200
    for name in ("index.json.a1", "tags.json.b2", "layers.json.c3", "probe.d4", "notes.txt"):
        (room / name).touch()
        os.utime(room / name, (old_s, old_s))
    (room / "index.json.fresh").touch()
    with open_state_dir(layout) as room_fd:
        assert room_fd is not None
        delete_stale_files(room_fd)
    assert sorted(os.listdir(room)) == ["index.json.fresh", "notes.txt", "skipped-sweeps"]
