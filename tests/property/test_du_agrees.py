"""Law: du, reset and ls are one picture: what du calls reclaimable is what reset removes."""

from hypothesis import given
from hypothesis import strategies as st

import kitcache
from kitcache.store.open import open_store
from kitcache.store.state import record_use
from tests.property.disk import on_disk
from tests.property.model import Cache, Entry, reach, size_of
from tests.property.strategies import caches


@given(caches())
def test_du_and_reset_agree(cache: Cache) -> None:
    with on_disk(cache) as root:
        usage = kitcache.du(root)
        report = kitcache.reset(root)
    assert usage.live == report.kept
    assert usage.reclaimable == report.deleted
    assert usage.foreign.blobs == report.foreign_count
    assert usage.missing_blobs == report.missing_blobs
    assert usage.ingest.blobs == report.ingests_deleted.blobs + len(report.ingests_kept)


@given(caches())
def test_a_tag_has_what_only_it_reaches_and_what_it_shares(cache: Cache) -> None:
    with on_disk(cache) as root:
        usage = kitcache.du(root)
    assert len(usage.tags) == len(cache.entries)
    for at, tag in enumerate(usage.tags):
        entry = cache.entries[at]
        own = reach(cache, [entry]) & cache.present
        others = reach(cache, [e for e in cache.entries if owner_of(e) != owner_of(entry)])
        assert (tag.ref_name, str(tag.digest)) == (entry.ref_name, entry.ref.digest)
        for tally, digests in ((tag.unique, own - others), (tag.shared, own & others)):
            assert tally == kitcache.Tally(len(digests), size_of(cache, digests))


def owner_of(entry: Entry) -> object:
    """The entries of one tag are removed together; without a tag, those of one root."""
    return entry.ref if entry.ref_name is None else entry.ref_name


@given(caches())
def test_ls_counts_what_du_counts(cache: Cache) -> None:
    with on_disk(cache) as root:
        usage, listing = kitcache.du(root), kitcache.ls(root)
    assert [(t.ref_name, t.digest) for t in listing.tags] == [
        (t.ref_name, t.digest) for t in usage.tags
    ]
    for listed, used in zip(listing.tags, usage.tags, strict=True):
        assert listed.size == used.unique.plus(used.shared)


@given(caches())
def test_what_a_tag_alone_holds_is_what_du_says(cache: Cache) -> None:
    with on_disk(cache) as root:
        usage = kitcache.du(root)
        roots = {(tag.ref_name, tag.digest) for tag in usage.tags}
        names = [name for name, _ in roots]
        for tag in usage.tags:
            if tag.ref_name and names.count(tag.ref_name) == 1:
                contents = kitcache.ls_tag(root, tag.ref_name)
                assert (contents.unique, contents.size) == (tag.unique, tag.unique.plus(tag.shared))
                assert sum(blob.unique_bytes for blob in contents.blobs) == tag.unique.bytes


@given(caches(), st.data())
def test_ls_says_of_the_last_use_what_prune_goes_by(cache: Cache, data: st.DataObject) -> None:
    names = sorted({entry.ref_name for entry in cache.entries if entry.ref_name is not None})
    with on_disk(cache) as root:
        with open_store(root) as layout:
            for name in data.draw(st.lists(st.sampled_from(names))) if names else ():
                used_ns = data.draw(st.integers(0, 2**62))
                record_use(
                    layout, [name], data.draw(st.sampled_from(["exported", "imported"])), used_ns
                )
        listing = kitcache.ls(root)
        pruned = kitcache.prune(root, kitcache.PrunePolicy(), dry_run=True)
    for decision in pruned.tags:
        if decision.ref_name is not None:
            listed = [tag for tag in listing.tags if tag.ref_name == decision.ref_name]
            assert {tag.last_used_from for tag in listed} == {decision.last_used_from}
            # A time that is ahead counts as now, which is later for the second of the two.
            assert all(
                0 <= decision.last_used_ns - (tag.last_used_ns or 0) < 60 * 10**9 for tag in listed
            )
