"""Laws of copy: any mix of tags, layers and forms, there and back, with any tags selected."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kitcache
from kitcache.store.objects import open as opening
from tests.hostile.build import digest_of
from tests.unit.upkeep.copying.copykit import (
    Buckets,
    address,
    blob_key,
    check_complete,
    make_cache,
    put,
    roots,
)

_NAMES = st.text("abc/-é", min_size=1, max_size=4).filter(lambda name: not name.startswith("/"))
_LAYERS = st.lists(st.integers(0, 8), min_size=1, max_size=5, unique=True)


class Caches(NamedTuple):
    """Tags and the numbers of their layers, each tag in one of the two local forms.

    there: Layers that the target has before the copy, and those of them with a wrong size.
    """

    tags: dict[str, list[int]]
    as_index: bool
    there: frozenset[int]
    wrong: frozenset[int]
    selected: list[str]


@st.composite
def caches(draw: st.DrawFn) -> Caches:
    tags = draw(st.dictionaries(_NAMES, _LAYERS, min_size=1, max_size=5))
    layers = st.frozensets(st.integers(0, 8), max_size=4)
    selected = draw(st.lists(st.sampled_from(sorted(tags)), unique=True))
    return Caches(tags, draw(st.booleans()), draw(layers), draw(layers), selected)


def data_of(number: int) -> bytes:
    return b"layer %d " % number * (number * number + 1)


@contextmanager
def opened() -> Iterator[tuple[Buckets, Path]]:
    buckets = Buckets()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as top:
        patch.setattr(opening, "_open_client", buckets.open)
        yield buckets, Path(top)


@given(caches())
def test_every_copied_root_is_complete_and_equal(case: Caches) -> None:
    with opened() as (buckets, top):
        tags = {name: map(data_of, layers) for name, layers in case.tags.items()}
        box = make_cache(top / "in", tags, as_index=case.as_index)
        bucket = buckets.bucket("a")
        for number in case.there:
            data = data_of(number)
            put(bucket, blob_key(digest_of(data)), data[:1] if number in case.wrong else data)
        sent = kitcache.copy(box.dir, address("a"), tags=case.selected)
        wanted = set(case.selected or case.tags)
        needed = {number for name in wanted for number in case.tags[name]}
        assert sent.copied.blobs == len(needed - (case.there - case.wrong))
        assert sent.copied.blobs + sent.reused.blobs == len(needed)
        assert set(roots(bucket)) == wanted
        for name, root in roots(bucket).items():
            layers = json.loads(root)["layers"]
            expected = [digest_of(data_of(number)) for number in case.tags[name]]
            assert [layer["blob"] for layer in layers] == expected
        for number in case.wrong & case.there - needed:
            del bucket.versions[blob_key(digest_of(data_of(number)))]
        check_complete(bucket)

        kitcache.copy(address("a"), top / "out")
        verified = kitcache.verify(top / "out")
        assert {tag.ref_name: tag.importable for tag in verified.tags} == dict.fromkeys(
            wanted, "full"
        )
        kitcache.copy(top / "out", address("b"))
        assert roots(buckets.bucket("b")) == roots(bucket)
        assert kitcache.copy(top / "out", address("a")).outcome == "unchanged"
