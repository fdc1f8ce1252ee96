"""store/index.py: index.json read while others rewrite it."""

import hashlib
import os

import pytest

from kitcache.errors import Damaged, Unsafe
from kitcache.oci.digest import Digest
from kitcache.store.files import INDEX
from kitcache.store.index import (
    read_index,
    read_stable_index,
    stamp_index,
)
from kitcache.store.ioerrors import check_rewritable
from kitcache.store.layout import Layout
from tests.hostile.build import Sample

TORN = b'{"schemaVersion":2,"manifests":[{"media'


class Pauses:
    """A pause that takes no time: it counts, and at the n-th one the file is whole again."""

    def __init__(self, sample: Sample, whole: bytes | None = None, at: int = 0) -> None:
        self.sample, self.whole, self.at = sample, whole, at
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.whole is not None and len(self.seconds) == self.at:
            self.sample.box.write_index(self.whole)


def sha256(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def test_the_file_as_it_is_now(sample: Sample, layout: Layout) -> None:
    path = sample.dir / INDEX
    data = path.read_bytes()
    assert read_index(layout) == (data, sha256(data), path.stat().st_mtime_ns)


def test_no_file_is_no_data(sample: Sample, layout: Layout) -> None:
    (sample.dir / INDEX).unlink()
    assert read_index(layout) == (None, sha256(b""), 0)
    assert read_stable_index(layout, Pauses(sample)) == (*read_index(layout), ())
    assert stamp_index(layout) is None


def test_it_has_a_cap(sample: Sample, layout: Layout) -> None:
    with (sample.dir / INDEX).open("r+b") as file:
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(Unsafe, match=r"index.json is larger than any index may be"):
        read_index(layout)


@pytest.mark.parametrize("at", [1, 3, 10])
def test_a_torn_one_is_read_again(sample: Sample, layout: Layout, at: int) -> None:
    whole = (sample.dir / INDEX).read_bytes()
    sample.box.write_index(TORN)
    pauses = Pauses(sample, whole, at)
    roots = read_stable_index(layout, pauses)
    assert roots.data == whole
    assert [entry.ref_name for entry in roots.entries] == ["main", "dev"]
    assert len(pauses.seconds) == at


def test_one_that_stays_torn_is_an_error_after_half_a_second(
    sample: Sample, layout: Layout
) -> None:
    sample.box.write_index(TORN)
    pauses = Pauses(sample)
    with pytest.raises(Damaged, match=r"index.json is invalid or ambiguous: not JSON"):
        read_stable_index(layout, pauses)
    assert sum(pauses.seconds) == pytest.approx(0.5)


def test_a_whole_one_is_not_waited_for(sample: Sample, layout: Layout) -> None:
    pauses = Pauses(sample)
    read_stable_index(layout, pauses)
    assert pauses.seconds == []


def test_one_that_vanishes_while_torn(sample: Sample, layout: Layout) -> None:
    sample.box.write_index(TORN)
    assert read_stable_index(layout, lambda _: (sample.dir / INDEX).unlink()).entries == ()


def test_the_stamp_changes_with_the_file(sample: Sample, layout: Layout) -> None:
    path = sample.dir / INDEX
    data, first = path.read_bytes(), stamp_index(layout)
    assert stamp_index(layout) == first
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(data[:-1] + b" ")
    os.utime(path, ns=times)
    second = stamp_index(layout)
    assert second != first
    path.rename(sample.dir / "old")
    path.write_bytes(data)
    assert stamp_index(layout) != second


@pytest.mark.parametrize("value", ["1e400", "-1e999"])
def test_a_number_that_cannot_be_written_back_is_found_before_anything_is_written(
    value: str,
) -> None:
    data = b'{"manifests": [], "org.example": %s}' % value.encode()
    with pytest.raises(Damaged) as caught:
        check_rewritable("cache", data)
    assert (caught.value.kind, caught.value.effect) == ("unwritable", "nothing was changed")
    check_rewritable("cache", b'{"manifests": [], "org.example": 1e4}')
