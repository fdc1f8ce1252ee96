"""Law: where a structural blob is missing, torn or lies, a reset removes nothing at all."""

from pathlib import Path

import pytest
from hypothesis import given

import kitcache
from tests.property.disk import blob_path, blobs, on_disk, put_blob, snapshot
from tests.property.model import Cache, reach
from tests.property.strategies import Damage, caches, damaged_caches


def inflict(root: Path, damage: Damage) -> None:
    if damage.how == "missing":
        blob_path(root, damage.digest).unlink()
    else:
        put_blob(root, damage.digest, damage.data, 10**9)


@given(damaged_caches())
def test_damage_removes_nothing(drawn: tuple[Cache, Damage]) -> None:
    cache, damage = drawn
    with on_disk(cache) as root:
        inflict(root, damage)
        before = snapshot(root)
        for dry_run in (True, False):
            with pytest.raises(kitcache.Damaged) as caught:
                kitcache.reset(root, dry_run=dry_run)
            assert snapshot(root) == before
    tags = {entry.ref_name for entry in cache.entries if damage.digest in reach(cache, [entry])}
    assert caught.value.tag in tags
    assert caught.value.chain[-1].startswith(damage.digest)


@given(damaged_caches())
def test_damage_is_named_by_du_and_ls(drawn: tuple[Cache, Damage]) -> None:
    cache, damage = drawn
    with on_disk(cache) as root:
        inflict(root, damage)
        usage, listing = kitcache.du(root), kitcache.ls(root)
    assert usage.exit_code == listing.exit_code == 12
    for found in (usage.damage, listing.damage):
        assert damage.digest in {str(item.chain[-1].digest) for item in found}
    marked = [tag for tag in listing.tags if tag.problem]
    assert {tag.ref_name for tag in marked} == {
        entry.ref_name for entry in cache.entries if damage.digest in reach(cache, [entry])
    }


@given(caches(with_ingests=False))
def test_a_torn_cacheconfig_loses_no_layer_of_a_manifest(cache: Cache) -> None:
    """Refuse or go on, but what the manifest lists stays."""
    live = reach(cache)
    configs = [d for d in live & cache.present if cache.nodes[d].kind == "cacheconfig"]
    others = Cache(
        {d: n._replace(links=() if d in configs else n.links) for d, n in cache.nodes.items()},
        *cache[1:],
    )
    with on_disk(cache) as root:
        for digest in configs:
            put_blob(root, digest, cache.nodes[digest].data[:-1], 10**9)
        before = blobs(root)
        try:
            kitcache.reset(root)
        except kitcache.Damaged:
            assert blobs(root) == before
        assert reach(others) & cache.present <= blobs(root)
