"""store/: reading takes memory by what is there; hostile JSON is refused before it is parsed."""

import tracemalloc
from collections.abc import Callable

import pytest

from kitcache.errors import Unsafe
from kitcache.oci.digest import parse_digest
from kitcache.store.index import read_index
from kitcache.store.layout import STRUCTURAL_LIMIT_VALUES, Layout
from kitcache.store.state import read_tag_uses
from tests.hostile.build import MANIFEST, Sample

MIB = 1 << 20
NUMBERS = b'{"manifests":[' + b",".join([b"0"] * (STRUCTURAL_LIMIT_VALUES + 1)) + b"]}"


def peak_bytes(work: Callable[[], object]) -> int:
    """How much memory a call takes at its height."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refuses(work: Callable[[], object], match: str) -> Callable[[], None]:
    def attempt() -> None:
        with pytest.raises(Unsafe, match=match):
            work()

    return attempt


def test_a_short_index_takes_no_64_mib(layout: Layout) -> None:
    assert peak_bytes(lambda: read_index(layout)) < 2 * MIB


def test_short_notes_take_no_4_mib(sample: Sample, layout: Layout) -> None:
    (sample.dir / ".kitcache").mkdir()
    (sample.dir / ".kitcache" / "tags.json").write_bytes(b"{}")
    assert peak_bytes(lambda: read_tag_uses(layout)) < 2 * MIB


def test_an_index_of_a_million_values_is_refused_before_one_is_made(
    sample: Sample, layout: Layout
) -> None:
    sample.box.write_index(NUMBERS)
    told = refuses(lambda: read_index(layout), r"1,000,00\d of at most 1,000,000")
    assert peak_bytes(told) < 3 * len(NUMBERS) + MIB


def test_so_is_a_manifest(sample: Sample, layout: Layout) -> None:
    blob = sample.box.blob(NUMBERS, MANIFEST)
    told = refuses(
        lambda: layout.read_blob(parse_digest(blob["digest"]), len(NUMBERS)),
        r"more values than an.* .* manifest",
    )
    assert peak_bytes(told) < 3 * len(NUMBERS) + MIB


def test_what_can_be_no_json_may_have_any_bytes(sample: Sample, layout: Layout) -> None:
    data = b"x" + NUMBERS
    blob = sample.box.blob(data)
    assert layout.read_blob(parse_digest(blob["digest"]), len(data)) == data
