"""health/mend.py: entries that move, go, or are made anew for a lost index.json. No disk."""

import json

from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import parse_digest
from kitcache.upkeep.health.indexrecovery import RecoveredEntry
from kitcache.upkeep.health.repairplan import RepairPlan
from tests.hostile.build import CACHECONFIG, INDEX, MANIFEST, REF_NAME, digest_of
from tests.unit.upkeep.health.healthkit import kinds
from tests.unit.upkeep.health.shelf import Shelf, mend, tags


def test_a_tag_whose_root_is_gone_moves_to_its_last_export(shelf: Shelf) -> None:
    old, new = shelf.cache([shelf.layer("old")]), shelf.cache([shelf.layer("new")])
    shelf.tag("main", old)
    shelf.noted["main"] = Descriptor(MANIFEST, parse_digest(new["digest"]), new["size"])
    assert mend(shelf).actions == (), "it is whole: a note moves no tag"
    shelf.lose(old)
    mending = mend(shelf)
    assert kinds(mending) == [("move-tag", "main")]
    assert tags(mending)["main"]["digest"] == new["digest"]


def test_a_last_export_that_is_damaged_is_rewritten_on_the_way(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    old, new = shelf.cache([shelf.layer("old")]), shelf.cache(layers, as_index=True)
    shelf.tag("main", old)
    shelf.noted["main"] = Descriptor(INDEX, parse_digest(new["digest"]), new["size"])
    shelf.lose(old)
    shelf.lose(layers[1])
    mending = mend(shelf)
    assert kinds(mending) == [("move-tag", "main")]
    _, manifest = mending.new_blobs.values()
    assert mending.moved_exports == {
        "main": (parse_digest(new["digest"]), parse_digest(digest_of(manifest)))
    }
    # The other form of a cache: what the entry says of its blob has to be true.
    assert tags(mending)["main"]["mediaType"] == INDEX


def test_an_entry_that_moves_keeps_its_place_and_all_else_it_says(shelf: Shelf) -> None:
    """Also where it gets a root of the other form; another entry of that tag is not touched."""
    gone, new = shelf.cache([shelf.layer("gone")], as_index=True), shelf.cache([shelf.layer("new")])
    shelf.tag("main", gone | {"org.example.unknown": 1})
    shelf.tag("main", shelf.cache([shelf.layer("other")]))
    shelf.noted["main"] = Descriptor(MANIFEST, parse_digest(new["digest"]), new["size"])
    shelf.lose(gone)
    mending = mend(shelf)
    assert kinds(mending) == [("move-tag", "main")]
    assert "the last export that kitcache recorded: index " in mending.actions[0].description
    assert mending.new_index is not None
    assert json.loads(mending.new_index)["manifests"] == [
        shelf.entries[0] | new,
        shelf.entries[1],
    ]


def test_an_entry_that_cannot_be_read_goes(shelf: Shelf) -> None:
    shelf.tag("main", shelf.cache([shelf.layer("a")]))
    shelf.entries.insert(0, {"mediaType": MANIFEST, "digest": 7, "size": 1})
    mending = mend(shelf)
    assert kinds(mending) == [("remove-tag", None)]
    assert mending.actions[0].description.startswith("entry 0 was removed from index.json: ")
    assert list(tags(mending)) == ["main"]


def test_a_corrected_size_is_told(shelf: Shelf) -> None:
    shelf.tag("main", shelf.cache([shelf.layer("a")]))
    mending = mend(shelf, corrected=frozenset([0]))
    assert kinds(mending) == [("move-tag", "main")]
    assert mending.new_index is not None


def lost_index(shelf: Shelf, named_by: dict[str, str]) -> RepairPlan:
    candidates = [
        RecoveredEntry(
            entry,
            parse_digest(entry["digest"]),
            named_by[entry["annotations"][REF_NAME]],  # type: ignore[arg-type]
        )
        for entry in shelf.entries
    ]
    return mend(shelf, lost="missing although there are blobs", candidates=candidates)


def test_a_lost_index_has_an_entry_for_what_is_whole_or_named(shelf: Shelf) -> None:
    for name in ("index", "records", "unknown"):
        layers = [shelf.layer(f"{name} {n}") for n in range(2)]
        shelf.tag(f"{name}-whole", shelf.cache(layers))
        cut = [shelf.layer(f"{name} cut {n}") for n in range(2)]
        shelf.tag(f"{name}-cut", shelf.cache(cut))
        shelf.lose(cut[1])
        gone = shelf.cache([shelf.layer(f"{name} gone")])
        shelf.tag(f"{name}-gone", gone)
        shelf.lose(gone)
    named_by = {
        f"{name}-{how}": name
        for name in ("index", "records", "unknown")
        for how in ("whole", "cut", "gone")
    }
    mending = lost_index(shelf, named_by)
    assert set(tags(mending)) == {
        "index-whole", "index-cut", "records-whole", "records-cut", "unknown-whole"
    }  # fmt: skip
    assert kinds(mending) == [
        ("rebuild-index", None),
        ("rebuild-index", "index-whole"),
        ("rebuild-index", "index-cut"),
        ("rebuild-index", "records-whole"),
        ("rebuild-index", "records-cut"),
        ("rebuild-index", "unknown-whole"),
        ("rewrite-cache", "index-cut"),
        ("remove-tag", "index-gone"),
        ("rewrite-cache", "records-cut"),
    ]
    assert (
        mending.actions[0].description
        == "index.json (missing although there are blobs) was rebuilt, with 5 entries"
    )


def test_what_a_killed_repair_wrote_is_no_find(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers))
    shelf.lose(layers[1])
    (config, manifest) = mend(shelf).new_blobs.values()
    shelf.put(config, CACHECONFIG)
    shelf.tag("recovered-x", shelf.put(manifest, MANIFEST))
    mending = lost_index(shelf, {"main": "index", "recovered-x": "unknown"})
    assert list(tags(mending)) == ["main"]
