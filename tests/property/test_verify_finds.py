"""Law: whatever befalls one blob, verify names it, and what it costs; and finds nothing else."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

import kitcache
from tests.property.cacheconfigs import Config, configs, layer_bytes, meaning
from tests.property.disk import blob_path, on_disk, put_blob, write_index
from tests.property.make import leaf
from tests.property.model import INDEX, MANIFEST, Cache, Entry, Node, Ref, digest_of
from tests.property.strategies import caches


class Tagged(NamedTuple):
    """A cache under a tag: its root's digest, its cacheconfig's, its layers', and its bytes."""

    ref_name: str
    root: str
    config: str
    layers: frozenset[str]
    data: bytes

    @property
    def needs(self) -> frozenset[str]:
        return self.layers | {self.root, self.config}


class Store(NamedTuple):
    """What BuildKit could import, as a model that `on_disk` writes."""

    cache: Cache
    tags: tuple[Tagged, ...]


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """One to three caches of BuildKit's in either form, which share layers, and some garbage."""
    blobs: list[bytes] = [b"garbage %d" % n for n in range(draw(st.integers(0, 2)))]
    tags, entries = [], []
    for number, config in enumerate(draw(st.lists(configs(), min_size=1, max_size=3))):
        is_index = draw(st.booleans())
        tag, media_type = _tagged(f"tag-{number}", config, is_index=is_index)
        tags.append(tag)
        tree = config.tree(is_index=is_index)
        blobs += [tree.manifest, tree.config, *map(layer_bytes, config.layers)]
        entries.append(Entry(Ref(tag.root, media_type), len(tree.manifest), tag.ref_name))
    nodes: dict[str, Node] = {node.digest: node for node in map(leaf, blobs)}
    ages = dict.fromkeys(nodes, 10)
    return Store(Cache(nodes, tuple(entries), frozenset(), ages, (), ()), tuple(tags))


def _tagged(name: str, config: Config, *, is_index: bool) -> tuple[Tagged, str]:
    tree = config.tree(is_index=is_index)
    layers = frozenset(digest_of(layer_bytes(n)) for n in config.layers)
    tag = Tagged(name, digest_of(tree.manifest), digest_of(tree.config), layers, tree.config)
    return tag, INDEX if is_index else MANIFEST


def changed(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with one bit flipped, cut short, or with something after them."""
    flips = st.integers(0, 8 * len(data) - 1).map(
        lambda at: data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]
    )
    return st.one_of(flips, st.integers(0, len(data) - 1).map(lambda n: data[:n]), more(data))


def more(data: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=9).map(lambda end: data + end)


@st.composite
def hurt_stores(draw: st.DrawFn) -> tuple[Store, str, bytes | None]:
    """A store, one of its blobs, and what is there in place of it; None: nothing."""
    store = draw(stores())
    digest = draw(st.sampled_from(sorted(store.cache.nodes)))
    there = draw(st.one_of(st.none(), changed(store.cache.nodes[digest].data)))
    return store, digest, there


@contextmanager
def hurt(store: Store, digest: str, there: bytes | None) -> Iterator[Path]:
    with on_disk(store.cache) as root:
        if there is None:
            blob_path(root, digest).unlink()
        else:
            put_blob(root, digest, there, 10**9)
        yield root


@given(stores())
def test_a_sound_cache_is_clean(store: Store) -> None:
    with on_disk(store.cache) as root:
        found = kitcache.verify(root)
    assert (found.exit_code, found.bad_blobs, found.warnings) == (0, (), ())
    assert found.blobs.blobs == len(store.cache.nodes)
    assert found.blobs.bytes == sum(len(node.data) for node in store.cache.nodes.values())
    assert [(v.ref_name, v.importable, v.steps) for v in found.tags] == [
        (tag.ref_name, "full", len(meaning(tag.data))) for tag in store.tags
    ]


@given(hurt_stores())
def test_every_change_of_a_blob_is_found(drawn: tuple[Store, str, bytes | None]) -> None:
    store, digest, there = drawn
    with hurt(store, digest, there) as root:
        found = kitcache.verify(root)
    assert [str(one.digest) for one in found.bad_blobs] == ([] if there is None else [digest])
    is_needed = any(digest in tag.needs for tag in store.tags)
    assert (found.exit_code == 12) == (is_needed or there is not None)
    for tag, verdict in zip(store.tags, found.tags, strict=True):
        assert (verdict.importable == "full") == (digest not in tag.needs)
        if digest in (tag.root, tag.config):
            assert verdict.importable == "none"


@given(hurt_stores())
def test_the_steps_that_are_lost_are_those_of_that_layer(
    drawn: tuple[Store, str, bytes | None],
) -> None:
    store, digest, there = drawn
    with hurt(store, digest, there) as root:
        found = kitcache.verify(root)
    for tag, verdict in zip(store.tags, found.tags, strict=True):
        if digest in (tag.root, tag.config):
            continue
        steps = meaning(tag.data)
        lost = [key for key, (_, layers, _) in steps.items() if digest in layers]
        assert sorted(miss.key for miss in verdict.unusable_steps) == sorted(lost)
        assert {str(layer) for miss in verdict.unusable_steps for layer in miss.layers} <= {digest}
        records = json.loads(tag.data)["records"]
        assert all(
            miss.cache_key == records[miss.key[0]]["digest"] for miss in verdict.unusable_steps
        )
        if steps and len(lost) == len(steps):
            assert verdict.importable == "none"


def path_as_digest(path: str) -> str:
    """What blobs/sha256/12… would be the blob of."""
    _, algorithm, name = path.split("/")
    return f"{algorithm}:{name}"


@given(caches(with_ingests=False), st.data())
def test_whatever_a_cache_holds_its_blobs_are_told_apart(cache: Cache, data: st.DataObject) -> None:
    """Of any layout, with its links, strange names and missing leaves."""
    odd = {path_as_digest(thing.path) for thing in cache.foreign if thing.kind == "dir"}
    with on_disk(cache) as root:
        assert {str(one.digest) for one in kitcache.verify(root).bad_blobs} == odd
        present = sorted(d for d in cache.present if cache.nodes[d].data)
        hurt_ones = data.draw(st.sets(st.sampled_from(present), max_size=3)) if present else ()
        for digest in hurt_ones:
            there = data.draw(changed(cache.nodes[digest].data))
            put_blob(root, digest, there, 10**9)
        found = kitcache.verify(root)
        # The index decides who is judged, never what is hashed.
        write_index(root, ())
        blind = kitcache.verify(root)
    assert {str(one.digest) for one in found.bad_blobs} == odd | set(hurt_ones)
    assert blind.bad_blobs == tuple(
        one._replace(problem=b.problem)
        for one, b in zip(found.bad_blobs, blind.bad_blobs, strict=True)
    )
    assert found.blobs.blobs == blind.blobs.blobs == len(cache.present)
