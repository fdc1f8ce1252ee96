"""Law: `why` names a path for exactly the blobs that are reached, and each path is a real one."""

from itertools import pairwise

import pytest
from hypothesis import given

import kitcache
from tests.property.disk import on_disk
from tests.property.model import Cache, digest_of, reach
from tests.property.strategies import caches


@given(caches(with_ingests=False))
def test_why_names_a_path_for_exactly_the_reachable(cache: Cache) -> None:
    live = reach(cache)
    with on_disk(cache) as root:
        for digest in sorted(live | cache.present):
            answer = kitcache.why(root, digest)
            assert (answer.size is not None) == (digest in cache.present)
            assert bool(answer.paths) == (digest in live)
            assert answer.is_unreachable == (digest not in live)
            for path in answer.paths:
                chain = [str(link.descriptor.digest) for link in path.links]
                assert_is_path(cache, path.root.ref_name, chain, digest)


def assert_is_path(cache: Cache, ref_name: str | None, chain: list[str], digest: str) -> None:
    assert chain[-1] == digest
    assert (ref_name, chain[0]) in {(e.ref_name, e.ref.digest) for e in cache.entries}
    for parent, child in pairwise(chain):
        assert child in {ref.digest for ref in cache.nodes[parent].links}
    assert all(digest in cache.present for digest in chain[:-1])


@given(caches(with_ingests=False))
def test_every_tag_that_keeps_a_blob_is_named(cache: Cache) -> None:
    with on_disk(cache) as root:
        for digest in sorted(reach(cache)):
            answer = kitcache.why(root, digest)
            tags = {e.ref_name for e in cache.entries if digest in reach(cache, [e])}
            named = {path.root.ref_name for path in answer.paths}
            assert named == tags or (answer.has_more_paths and named <= tags)


@given(caches(with_ingests=False))
def test_why_knows_nothing_of_a_blob_that_never_was(cache: Cache) -> None:
    with on_disk(cache) as root, pytest.raises(kitcache.KitcacheError) as caught:
        kitcache.why(root, digest_of(b"never was"))
    assert caught.value.exit_code == 1
