"""A repair in an object store: each root keeps just the steps whose layers exist.

Over random caches. `meaning` reads roots with nothing of kitcache.
"""

from hypothesis import given
from hypothesis import strategies as st

from kitcache.gc.control import Control
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.store import ObjectStore
from kitcache.upkeep.health.rootrepair import repair_roots
from tests.objects.memory import MemoryClient
from tests.property.cacheconfigs import POOL, Config, configs, layer_bytes, layer_digest, meaning

CACHE = ObjectCache("s3", "bucket", "ci/", "ci/blobs/", ("ci/manifests/",))
CONTROL = Control("s3://memory/", None, None)


def make_bucket(roots: dict[str, bytes], missing: set[int], cut: set[int]) -> MemoryClient:
    """A bucket without some of the pool's layers; others lack their last byte."""
    client = MemoryClient()
    for number in set(range(POOL)) - missing:
        data = layer_bytes(number)
        data = data[:-1] if number in cut else data
        client.write(f"ci/blobs/{layer_digest(number)}", data)
    for name, data in roots.items():
        client.write(f"ci/manifests/{name}", data)
    return client


def read(client: MemoryClient, key: str) -> bytes | None:
    held = client.versions.get(key)
    return held[-1][1] if held else None


@given(
    st.dictionaries(st.sampled_from(["main", "dev", "a/b"]), configs(), min_size=1),
    st.sets(st.integers(0, POOL - 1), max_size=4),
    st.sets(st.integers(0, POOL - 1), max_size=2),
)
def test_each_root_keeps_the_steps_that_can_be_loaded(
    drawn: dict[str, Config], missing: set[int], cut: set[int]
) -> None:
    roots = {name: config.bare().config for name, config in drawn.items()}
    client = make_bucket(roots, missing, cut)
    bad = {layer_digest(number) for number in missing | cut}
    with ObjectStore(CACHE, client) as store:
        dry = repair_roots(store, CONTROL, dry_run=True)
        assert {name: read(client, f"ci/manifests/{name}") for name in roots} == roots
        done = repair_roots(store, CONTROL)
    assert [(a.kind, a.tag, a.digest) for a in dry.actions] == [
        (a.kind, a.tag, a.digest) for a in done.actions
    ]
    is_any_left = any(read(client, f"ci/manifests/{name}") is not None for name in roots)
    # Without any root, the blobs may be those of another manifests_prefix.
    assert (done.exit_code == 0) == (is_any_left or len(missing) == POOL)
    for name, before in roots.items():
        after = read(client, f"ci/manifests/{name}")
        usable = [each for each in meaning(before).values() if bad.isdisjoint(each[1])]
        if not any(layer_digest(number) in bad for number in drawn[name].layers):
            assert after == before
        elif usable:
            assert after is not None
            assert sorted(meaning(after).values(), key=repr) == sorted(usable, key=repr)
            assert not any(digest in after.decode() for digest in bad)
        else:
            assert after is None
            assert read(client, f"ci/kitcache/quarantine/{name}") == before
    with ObjectStore(CACHE, client) as store:
        assert not is_any_left or repair_roots(store, CONTROL).actions == ()
