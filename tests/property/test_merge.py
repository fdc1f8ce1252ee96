"""Laws of merge: every tag of the sources reaches the same bytes; twice is once; in any order."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kitcache
from tests.property import witness
from tests.property.disk import REF_NAME, blob_path, blobs, snapshot, write
from tests.property.model import Cache, Entry, reach
from tests.property.strategies import caches, entries, nodes

RENAME = "{dir}/{tag}"
Meaning = dict[str | None, frozenset[str]]


@st.composite
def neighbours(draw: st.DrawFn) -> list[Cache]:
    """Up to four whole caches that share blobs; the first one is to be merged into."""
    pool = draw(nodes())
    ages_s = dict.fromkeys(pool, 7200)
    found = draw(st.lists(entries(pool), min_size=2, max_size=4))
    return [Cache(pool, roots, frozenset(), ages_s, (), ()) for roots in found]


@contextmanager
def side_by_side(found: Sequence[Cache]) -> Iterator[list[Path]]:
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="kitcache-test-", dir=place) as box:
        roots = [Path(box, f"c{n}") for n in range(len(found))]
        for cache, root in zip(found, roots, strict=True):
            root.mkdir()
            write(cache, root)
        yield roots


def meaning(root: Path) -> Meaning:
    """What each name stands for; None: all entries without one."""
    index = json.loads((root / "index.json").read_bytes())
    found: Meaning = {}
    for item in index["manifests"]:
        name = item.get("annotations", {}).get(REF_NAME)
        found[name] = found.get(name, frozenset()) | {item["digest"]}
    return found


def named(found: Sequence[Entry]) -> Meaning:
    names: Meaning = {}
    for entry in found:
        names[entry.ref_name] = names.get(entry.ref_name, frozenset()) | {entry.ref.digest}
    return names


def holes(root: Path) -> set[str]:
    return {hole.digest for hole in witness.holes(root)}


def absent_subjects(found: Sequence[Cache]) -> set[str]:
    """What an artifact is about need not be there, as OCI has it."""
    links = (ref for cache in found for node in cache.nodes.values() for ref in node.links)
    return {ref.digest for ref in links if ref.is_subject} - set().union(*(c.nodes for c in found))


def disagree(found: Sequence[Cache]) -> bool:
    """Whether a name stands for different things in two of them."""
    known: Meaning = {}
    for cache in found:
        for name, digests in named(cache.entries).items():
            if name is not None and known.setdefault(name, digests) != digests:
                return True
    return False


@given(neighbours())
def test_every_tag_reaches_the_same_bytes(found: list[Cache]) -> None:
    with side_by_side(found) as (target, *sources):
        before = [snapshot(root) for root in sources]
        own = json.loads((target / "index.json").read_bytes())["manifests"]
        merged = kitcache.merge(sources, target, rename=RENAME)
        assert [snapshot(root) for root in sources] == before
        after = meaning(target)
        assert json.loads((target / "index.json").read_bytes())["manifests"][: len(own)] == own
        expected = named(found[0].entries)
        nameless = expected.pop(None, frozenset())
        for root, cache in zip(sources, found[1:], strict=True):
            for name, digests in named(cache.entries).items():
                if name is None:
                    nameless |= digests
                else:
                    expected[f"{root.name}/{name}"] = digests
        assert after == expected | ({None: nameless} if nameless else {})
        for root, cache in zip(sources, found[1:], strict=True):
            for digest in reach(cache) & cache.present:
                assert blob_path(target, digest).read_bytes() == cache.nodes[digest].data
                assert blob_path(root, digest).exists()
        assert holes(target) <= absent_subjects(found)
        came = merged.linked.blobs + merged.copied.blobs + merged.reused.blobs
        assert came == len(set().union(*(reach(cache) & cache.present for cache in found[1:])))


@given(neighbours())
def test_twice_is_once_and_the_order_is_all_one(found: list[Cache]) -> None:
    with side_by_side(found) as (target, *sources):
        other = target.with_name("other")
        kitcache.merge(sources, target, rename=RENAME)
        first = snapshot(target)
        assert kitcache.merge(sources, target, rename=RENAME).outcome == "unchanged"
        assert snapshot(target) == first
        kitcache.merge([*reversed(sources)], other, rename=RENAME)
        kitcache.merge(sources, other.with_name("same"), rename=RENAME)
        assert meaning(other) == meaning(other.with_name("same"))
        assert blobs(other) == blobs(other.with_name("same"))


@given(neighbours())
def test_a_name_never_comes_to_stand_for_something_else(found: list[Cache]) -> None:
    with side_by_side(found) as (target, *sources):
        before = snapshot(target)
        if disagree(found):
            with pytest.raises(kitcache.KitcacheError, match=r"^.*\btag '.*' is "):
                kitcache.merge(sources, target)
            assert snapshot(target) == before
            return
        kitcache.merge(sources, target)
        expected: Meaning = {}
        for cache in found:
            for name, digests in named(cache.entries).items():
                expected[name] = expected.get(name, frozenset()) | digests
        assert meaning(target) == expected
        assert holes(target) <= absent_subjects(found)


@given(neighbours())
def test_replace_lets_the_sources_win(found: list[Cache]) -> None:
    with side_by_side(found) as (target, *sources):
        if disagree(found[1:]):
            return
        kitcache.merge(sources, target, replace=True)
        expected = named(found[0].entries)
        for cache in found[1:]:
            for name, digests in named(cache.entries).items():
                known = expected.get(name, frozenset()) if name is None else frozenset()
                expected[name] = known | digests
        assert meaning(target) == expected
        assert holes(target) <= absent_subjects(found)


@given(caches(with_ingests=False))
def test_no_hole_comes_along_that_was_not_there(cache: Cache) -> None:
    """A source that lacks something is refused, before anything is made; a whole one never is."""
    with side_by_side([cache]) as (source,):
        target = source.with_name("target")
        missing = holes(source)
        refusal = None
        try:
            kitcache.merge([source], target)
        except kitcache.Damaged as error:
            refusal = error
        if refusal is None:
            assert holes(target) <= missing
            assert meaning(target) == named(cache.entries)
        else:
            assert refusal.chain[-1].split()[0] in missing
            assert not target.exists()
