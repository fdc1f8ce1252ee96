"""Laws of a repair: every tag imports or is gone, and nothing that was whole is touched."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import kitcache
from kitcache.store.open import open_store
from kitcache.store.state import record_use
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.property import builds
from tests.property.conftest import EXAMPLES
from tests.property.disk import snapshot
from tests.property.harm import BLOB_HARMS, INDEX_HARMS, Harm, harms, inflict
from tests.property.importer import entries, name_of, see, see_tags

pytestmark = pytest.mark.usefixtures("impatient")

BLOBS_HARMED = st.lists(harms(*BLOB_HARMS), min_size=1, max_size=4)
ANY_HARMED = st.lists(harms(*BLOB_HARMS, *INDEX_HARMS), min_size=1, max_size=4)
# A torn index.json is read again for half a second, since BuildKit writes it in place.
SLOW = settings(max_examples=max(20, EXAMPLES // 4))


def harm_all(written: builds.Written, chosen: list[Harm]) -> None:
    for harm in chosen:
        inflict(written.root, harm, written.indexes[0])


def bytes_of(root: Path) -> Counter[str]:
    """The files below blobs/ and in the quarantine, by what is in them."""
    files = [*(root / "blobs").rglob("*"), *(root / ".kitcache" / "quarantine").glob("*-*")]
    return Counter(hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file())


def all_files(root: Path) -> dict[str, tuple[str, str]]:
    """With .kitcache too."""
    inside = snapshot(root / ".kitcache") if (root / ".kitcache").exists() else {}
    return snapshot(root) | {f".kitcache/{name}": what for name, what in inside.items()}


@given(builds.grown(), BLOBS_HARMED)
def test_every_tag_imports_or_is_gone(cache: builds.Grown, chosen: list[Harm]) -> None:
    with builds.on_disk(cache) as written:
        root = written.root
        harm_all(written, chosen)
        before, had = see_tags(root), bytes_of(root)
        entries_before = {name_of(entry): entry for entry in entries(root)}

        repaired = repair(root)

        after = see_tags(root)
        event(", ".join(sorted({step.kind for step in repaired.actions})) or "nothing")
        assert all(tag.is_whole for tag in after.values())
        assert repaired.verification.exit_code == verify(root).exit_code == 0
        assert after.keys() <= before.keys()
        for tag, seen in before.items():
            if seen.is_whole:
                assert after[tag] == seen
                entry = {name_of(entry): entry for entry in entries(root)}[tag]
                assert entry == entries_before[tag]
            elif seen.importable:
                assert after[tag].importable == seen.importable
            else:
                assert tag not in after
        # No byte is lost: what was bad is put aside.
        assert not had - bytes_of(root)
        # What nobody reached may be bad too, and would be believed by the next export.
        assert not [
            p
            for p in (root / "blobs/sha256").iterdir()
            if hashlib.sha256(p.read_bytes()).hexdigest() != p.name
        ]


@SLOW
@given(builds.grown(), ANY_HARMED)
def test_a_second_repair_changes_nothing(cache: builds.Grown, chosen: list[Harm]) -> None:
    with builds.on_disk(cache) as written:
        harm_all(written, chosen)
        repair(written.root)
        once = all_files(written.root)
        again = repair(written.root)
        assert (again.actions, again.exit_code) == ((), 0)
        assert all_files(written.root) == once


@SLOW
@given(builds.grown(), ANY_HARMED)
def test_a_dry_run_foretells_it_and_changes_nothing(
    cache: builds.Grown, chosen: list[Harm]
) -> None:
    with builds.on_disk(cache) as written:
        harm_all(written, chosen)
        before = all_files(written.root)
        dry = repair(written.root, dry_run=True)
        assert all_files(written.root) == before
        done = repair(written.root)
        assert [step[:3] for step in dry.actions] == [step[:3] for step in done.actions]
        assert all(" would be " in step.description for step in dry.actions)


@SLOW
@given(builds.grown(), ANY_HARMED)
def test_a_reset_works_again_and_takes_nothing(cache: builds.Grown, chosen: list[Harm]) -> None:
    with builds.on_disk(cache) as written:
        harm_all(written, chosen)
        repair(written.root)
        before = see_tags(written.root)
        report = kitcache.reset(written.root)
        assert (report.outcome, report.missing_blobs) == ("done", ())
        assert see_tags(written.root) == before


@SLOW
@given(builds.grown(), BLOBS_HARMED, harms(*INDEX_HARMS[:3], "index garbled"))
def test_a_lost_index_is_made_of_all_that_is_whole(
    cache: builds.Grown, chosen: list[Harm], lost: Harm
) -> None:
    """Under the names that the old file still shows; what no old index had may be there too."""
    with builds.on_disk(cache) as written:
        root = written.root
        harm_all(written, chosen)
        before = see_tags(root)
        inflict(root, lost)
        if not bytes_of(root):
            return  # without a blob there is nothing that an index.json could name
        try:
            json.loads((root / "index.json").read_bytes())["manifests"]
            return
        except (OSError, ValueError, KeyError, TypeError):
            pass
        old = (root / "index.json").read_bytes() if (root / "index.json").exists() else None
        repair(root)
        after = see_tags(root)
        assert all(tag.is_whole for tag in after.values())
        roots = {seen.digest for seen in after.values()}
        assert {seen.digest for seen in before.values() if seen.is_whole} <= roots
        for name, seen in after.items():
            assert seen == before.get(name) or str(name).startswith("recovered-") or name in before
        if old is not None:
            kept = [p.read_bytes() for p in (root / ".kitcache/quarantine").glob("index.json*")]
            assert kept == [old]


@given(builds.grown(), st.lists(harms(*BLOB_HARMS), max_size=2))
def test_an_index_of_yesterday_is_brought_up_to_date(
    cache: builds.Grown, chosen: list[Harm]
) -> None:
    """Where a reset has taken what it names: by the notes, to what is there of the last export."""
    with builds.on_disk(cache) as written:
        root = written.root
        with open_store(root) as layout:
            record_use(layout, written.digests, "exported", 1, digests=written.digests)
        kitcache.reset(root)
        for harm in chosen:
            inflict(root, harm)
        today = see_tags(root)
        (root / "index.json").write_bytes(written.indexes[0])
        before = see_tags(root)
        repaired = repair(root)
        after = see_tags(root)
        event(", ".join(sorted({step.kind for step in repaired.actions})) or "nothing")
        assert all(tag.is_whole for tag in after.values())
        for tag, seen in before.items():
            if seen.is_whole:
                assert after[tag] == seen
            elif seen.importable:
                assert after[tag].importable == seen.importable
            elif today[tag].is_whole:
                assert after[tag] == today[tag]
            elif today[tag].importable:
                assert after[tag].importable == today[tag].importable
            else:
                assert tag not in after


@given(
    builds.grown(),
    st.lists(harms(*BLOB_HARMS), min_size=1, max_size=4),
    st.lists(harms(*BLOB_HARMS), max_size=2),
)
def test_another_copy_gives_what_it_has_whole(
    cache: builds.Grown, chosen: list[Harm], chosen_there: list[Harm]
) -> None:
    """A copy may be damaged itself: what it has wrong is not believed."""
    with builds.on_disk(cache) as written, builds.on_disk(cache) as copy:
        root = written.root
        whole = see_tags(root)
        harm_all(written, chosen)
        harm_all(copy, chosen_there)
        there = snapshot(copy.root)
        before = see_tags(root)
        repair(root, sources=[copy.root])
        after = see_tags(root)
        assert snapshot(copy.root) == there
        assert verify(root).exit_code == 0
        for tag, seen in whole.items():
            if before[tag].is_whole or see(copy.root, seen.digest).is_whole:
                assert after[tag] == seen
        if not chosen_there:
            assert after == whole
