"""health/mend.py: from what is broken to what is done, without a disk."""

import hashlib
import json
from typing import Any

import pytest

from kitcache.gc.values import Damage, MissingLeaf, NodeKey, Root, Survey, key_of
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES, read_cacheconfig
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import DocumentError
from kitcache.oci.index import NewEntry, read_entries
from kitcache.oci.links import Link, kind_of, read_links
from kitcache.upkeep.health.mend import CacheRoot, Found, Mending, make_mending
from kitcache.upkeep.health.salvage import Candidate
from tests.hostile.build import CACHECONFIG, IMAGE_CONFIG, INDEX, LAYER, MANIFEST, Json, encode
from tests.hostile.importable import UNCOMPRESSED, chain_of_steps
from tests.unit.gc.surveys import EMPTY, digest

NOW_NS = 10**18


def word(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Shelf:
    """Blobs without a disk, and what a survey of them would say."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.bad: dict[Digest, str] = {}
        self.offers: dict[Digest, str] = {}
        self.noted: dict[str, Descriptor] = {}
        self.entries: list[Json] = []

    def put(self, data: bytes, media_type: str = LAYER, **more: Any) -> Json:
        self.blobs[parse_digest(word(data))] = data
        return {"mediaType": media_type, "digest": word(data), "size": len(data), **more}

    def layer(self, name: str) -> Json:
        data = f"layer {name}".encode()
        return self.put(data, annotations={UNCOMPRESSED: word(b"tar " + data)})

    def cache(
        self, layers: list[Json], config: Json | None = None, *, as_index: bool = False
    ) -> Json:
        described = self.put(encode(config or chain_of_steps(layers)), CACHECONFIG)
        if as_index:
            return self.put(encode({"manifests": [*layers, described]}), INDEX)
        return self.put(encode({"config": described, "layers": layers}), MANIFEST)

    def image(self, layers: list[Json]) -> Json:
        config = self.put(b"{}", IMAGE_CONFIG)
        return self.put(encode({"config": config, "layers": layers}), MANIFEST)

    def tag(self, name: str | None, root: Json) -> None:
        named = {} if name is None else {"annotations": {"org.opencontainers.image.ref.name": name}}
        self.entries.append({**root, **named})

    def lose(self, blob: Json) -> Digest:
        """It is missing."""
        gone = parse_digest(blob["digest"])
        self.blobs.pop(gone, None)
        return gone

    def spoil(self, blob: Json) -> Digest:
        """It holds other bytes: hidden from the survey, and known to be bad."""
        gone = self.lose(blob)
        self.bad[gone] = "holds other bytes"
        return gone

    def found(self, **more: Any) -> Found:
        data = encode({"schemaVersion": 2, "manifests": self.entries})
        entries = read_entries(data)
        roots = tuple(Root(n, e.ref_name, e.descriptor) for n, e in enumerate(entries))
        survey = self.survey(roots, [(e.problem, r) for e, r in zip(entries, roots, strict=True)])
        digests = {r.descriptor.digest for r in roots if r.descriptor}
        digests |= {last.digest for last in self.noted.values()}
        caches = {d: root for d in digests if (root := self.read_cache(d)) is not None}
        whole = Found(
            data, survey, self.noted, caches, {}, self.bad, self.offers, frozenset(), "", {}
        )
        return whole._replace(**more)

    def read_cache(self, root: Digest) -> CacheRoot | None:
        try:
            cache = read_cache_manifest(self.blobs.get(root, b"{}"))
        except DocumentError:
            return None
        if cache is None:
            return None
        return CacheRoot(self.blobs[root], self.blobs.get(cache.config.digest))

    def survey(self, roots: tuple[Root, ...], problems: list[tuple[str, Root]]) -> Survey:
        live: dict[Digest, int] = {}
        links: dict[NodeKey, tuple[Link, ...]] = {}
        missing: dict[Digest, MissingLeaf] = {}
        damage = [Damage(root, (), "malformed", problem) for problem, root in problems if problem]
        starts = [(root, root.descriptor) for root in roots if root.descriptor]
        starts += [(Root(-1, tag, last), last) for tag, last in self.noted.items()]
        for root, start in starts:
            todo = [(Link(start, "manifest"), (start,))]
            while todo:
                link, chain = todo.pop()
                found = self.blobs.get(link.descriptor.digest)
                if found is not None:
                    live[link.descriptor.digest] = len(found)
                    kind = kind_of(link.descriptor.media_type)
                    below = read_links(kind, found) if kind != "leaf" else ()
                    links[key_of(link.descriptor)] = below
                    todo += [(one, (*chain, one.descriptor)) for one in below]
                elif kind_of(link.descriptor.media_type) in ("index", "manifest"):
                    damage.append(Damage(root, chain, "missing", "is missing"))
                else:
                    leaf = MissingLeaf(link.descriptor.digest, root.ref_name)
                    missing.setdefault(link.descriptor.digest, leaf)
        return EMPTY._replace(
            roots=roots,
            live=live,
            links=links,
            missing_leaves=tuple(missing.values()),
            damage=tuple(damage),
        )


def mend(shelf: Shelf, **more: Any) -> Mending:
    return make_mending(shelf.found(**more), now_ns=NOW_NS, is_dry=False)


def kinds(mending: Mending) -> list[tuple[str, str | None]]:
    return [(step.kind, step.tag) for step in mending.steps]


def tags(mending: Mending) -> dict[str | None, Json]:
    assert mending.new_index is not None
    found = json.loads(mending.new_index)["manifests"]
    return {(e.get("annotations") or {}).get("org.opencontainers.image.ref.name"): e for e in found}


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_nothing_is_done_where_nothing_is_broken(shelf: Shelf) -> None:
    layers = [shelf.layer("a"), shelf.layer("b")]
    shelf.tag("main", shelf.cache(layers))
    shelf.tag("list", shelf.cache(layers, as_index=True))
    shelf.tag(None, shelf.image(layers))
    assert mend(shelf) == Mending((), {}, {}, None, {}, ())


@pytest.mark.parametrize("as_index", [False, True])
def test_the_steps_that_need_a_lost_layer_go(shelf: Shelf, as_index: bool) -> None:
    """And two tags on one root move together; a whole one beside them stays as it is."""
    layers = [shelf.layer(name) for name in "abc"]
    root, whole = shelf.cache(layers, as_index=as_index), shelf.cache(layers[:2])
    shelf.tag("main", root | {"org.example.unknown": 1})
    shelf.tag("alias", root)
    shelf.tag("whole", whole)
    lost = shelf.lose(layers[2])

    mending = mend(shelf)

    assert kinds(mending) == [("rewrite", "main"), ("rewrite", "alias")]
    after = tags(mending)
    assert after["whole"] == shelf.entries[2]
    assert after["main"]["org.example.unknown"] == 1
    config, manifest = mending.new_blobs.values()
    assert {after["main"]["digest"], after["alias"]["digest"]} == {word(manifest)}
    assert after["main"]["size"] == len(manifest)
    assert [len(r.results) for r in read_cacheconfig(config).records] == [1, 1]
    root_after = read_cache_manifest(manifest)
    assert root_after is not None
    assert root_after.config.digest == parse_digest(word(config))
    assert [one.descriptor.digest for one in root_after.layers] == [
        parse_digest(layer["digest"]) for layer in layers[:2]
    ]
    assert mending.steps[0].what == (
        f"tag 'main' was rewritten without 1 of its 3 steps: layer {lost.short} is missing"
    )
    assert mending.steps[0].digest == parse_digest(word(manifest))
    moved = parse_digest(root["digest"]), parse_digest(word(manifest))
    assert mending.became == {"main": moved, "alias": moved}


def test_a_dry_run_says_would(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers))
    shelf.spoil(layers[1])
    mending = make_mending(shelf.found(), now_ns=NOW_NS, is_dry=True)
    assert [step.what.split(" would be ")[1].split()[0] for step in mending.steps] == [
        "rewritten",
        "put",
    ]


def test_a_bad_blob_is_put_aside_whoever_reaches_it(shelf: Shelf) -> None:
    shelf.tag("main", shelf.cache([shelf.layer("a")]))
    stray = shelf.spoil(shelf.put(b"nobody's"))
    mending = mend(shelf)
    assert kinds(mending) == [("quarantine", None)]
    assert (mending.bad, mending.new_index) == ((stray,), None)
    assert mending.steps[0].what.endswith("was put into the quarantine: it holds other bytes")


def test_what_another_copy_has_is_taken_and_the_tag_stays(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers))
    bad = parse_digest(layers[1]["digest"])
    shelf.bad[bad] = "is empty"
    # The survey is of the store with what the copy has.
    shelf.offers[bad] = "./other"
    mending = mend(shelf)
    assert kinds(mending) == [("take", None), ("quarantine", None)]
    assert (mending.takes, mending.comes) == ({bad: "./other"}, {bad})
    assert mending.new_index is None
    assert "was taken from ./other: here it is empty" in mending.steps[0].what


def test_nothing_is_taken_for_a_tag_that_goes_or_is_cut(shelf: Shelf) -> None:
    """What a dropped tag lacked, or a step that goes, is nobody's loss."""
    layers = [shelf.layer(name) for name in "abc"]
    image = shelf.image([layers[0], shelf.layer("gone")])
    shelf.tag("image", image)
    shelf.tag("main", shelf.cache(layers))
    shelf.lose({"digest": word(b"layer gone")})
    shelf.lose(layers[1])
    # c lies on b: without b nobody needs it.
    shelf.offers[parse_digest(layers[2]["digest"])] = "./other"
    mending = mend(shelf)
    assert kinds(mending) == [("drop-tag", "image"), ("rewrite", "main")]
    assert mending.takes == {}


@pytest.mark.parametrize("what", ["root", "config"])
def test_without_its_structure_nothing_of_a_tag_is_left(shelf: Shelf, what: str) -> None:
    root = shelf.cache([shelf.layer("a")])
    shelf.tag("main", root)
    shelf.tag("other", shelf.cache([shelf.layer("b")]))
    gone = root if what == "root" else {"digest": word(encode(chain_of_steps([shelf.layer("a")])))}
    bad = shelf.spoil(gone)
    mending = mend(shelf)
    assert kinds(mending) == [("drop-tag", "main"), ("quarantine", None)]
    assert list(tags(mending)) == ["other"]
    kind = "manifest" if what == "root" else "cacheconfig"
    assert mending.steps[0].what == (
        f"tag 'main' was taken out of index.json: {kind} {bad.short} holds other bytes"
    )


def test_a_cache_of_which_no_step_is_left_goes(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers))
    shelf.lose(layers[0])
    mending = mend(shelf)
    assert kinds(mending) == [("drop-tag", "main")]
    assert "none of its steps is left" in mending.steps[0].what


def test_a_cacheconfig_that_buildkit_refuses_leaves_nothing(shelf: Shelf) -> None:
    layers = [shelf.layer("a")]
    looping = chain_of_steps(layers) | {"records": [{"digest": "x", "inputs": [[{"link": 0}]]}]}
    shelf.tag("main", shelf.cache(layers, looping))
    mending = mend(shelf)
    assert kinds(mending) == [("drop-tag", "main")]
    assert "BuildKit would import none of it" in mending.steps[0].what


def test_an_image_that_lacks_a_blob_goes(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("app", shelf.image(layers))
    shelf.lose(layers[0])
    mending = mend(shelf)
    assert kinds(mending) == [("drop-tag", "app")]
    assert (mending.new_blobs, json.loads(mending.new_index or b"")["manifests"]) == ({}, [])


def test_a_tag_whose_root_is_gone_moves_to_its_last_export(shelf: Shelf) -> None:
    old, new = shelf.cache([shelf.layer("old")]), shelf.cache([shelf.layer("new")])
    shelf.tag("main", old)
    shelf.noted["main"] = Descriptor(MANIFEST, parse_digest(new["digest"]), new["size"])
    assert mend(shelf).steps == (), "it is whole: a note moves no tag"
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
    assert mending.became == {"main": (parse_digest(new["digest"]), parse_digest(word(manifest)))}
    # The other form of a cache: what the entry says of its blob has to be true.
    assert tags(mending)["main"]["mediaType"] == INDEX


def test_an_entry_that_cannot_be_read_goes(shelf: Shelf) -> None:
    shelf.tag("main", shelf.cache([shelf.layer("a")]))
    shelf.entries.insert(0, {"mediaType": MANIFEST, "digest": 7, "size": 1})
    mending = mend(shelf)
    assert kinds(mending) == [("drop-tag", None)]
    assert mending.steps[0].what.startswith("entry 0 was taken out of index.json: ")
    assert list(tags(mending)) == ["main"]


def test_a_corrected_size_is_told(shelf: Shelf) -> None:
    shelf.tag("main", shelf.cache([shelf.layer("a")]))
    mending = mend(shelf, corrected=frozenset([0]))
    assert kinds(mending) == [("move-tag", "main")]
    assert mending.new_index is not None


def large(shelf: Shelf, count: int) -> Json:
    """A cache of independent steps, the first the oldest, with long names."""
    layers = [shelf.layer(f"{n}") for n in range(count)]
    records = [
        {
            "digest": f"{n:02000}",
            "layers": [
                {
                    "layer": n,
                    "createdAt": f"2026-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z",
                }
            ],
        }
        for n in range(count)
    ]
    listed = [{"blob": layer["digest"], "parent": -1} for layer in layers]
    return shelf.cache(layers, {"layers": listed, "records": records})


def test_what_is_above_buildkits_cap_loses_its_coldest_steps(shelf: Shelf) -> None:
    shelf.tag("main", large(shelf, 600))
    mending = mend(shelf)
    assert kinds(mending) == [("rewrite", "main")]
    config, manifest = mending.new_blobs.values()
    assert max(len(config), len(manifest)) <= IMPORT_LIMIT_BYTES
    left = [record.digest for record in read_cacheconfig(config).records]
    assert left == [f"{n:02000}" for n in range(600 - len(left), 600)]
    assert 400 < len(left) < 600
    assert "BuildKit imports 1,048,576 at most" in mending.steps[0].what


def lost_index(shelf: Shelf, named_by: dict[str, str]) -> Mending:
    candidates = {
        name: Candidate(
            NewEntry(entry["mediaType"], entry["digest"], entry["size"], name),
            parse_digest(entry["digest"]),
            named_by[name],  # type: ignore[arg-type]
        )
        for entry in shelf.entries
        for name in [entry["annotations"]["org.opencontainers.image.ref.name"]]
    }
    return mend(shelf, lost="missing beside blobs", candidates=candidates)


def test_a_lost_index_has_an_entry_for_what_is_whole_or_named(shelf: Shelf) -> None:
    for name in ("index", "notes", "nobody"):
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
        for name in ("index", "notes", "nobody")
        for how in ("whole", "cut", "gone")
    }
    mending = lost_index(shelf, named_by)
    assert set(tags(mending)) == {
        "index-whole", "index-cut", "notes-whole", "notes-cut", "nobody-whole"
    }  # fmt: skip
    assert kinds(mending) == [
        ("rebuild-index", None),
        ("rebuild-index", "index-whole"),
        ("rebuild-index", "index-cut"),
        ("rebuild-index", "notes-whole"),
        ("rebuild-index", "notes-cut"),
        ("rebuild-index", "nobody-whole"),
        ("rewrite", "index-cut"),
        ("drop-tag", "index-gone"),
        ("rewrite", "notes-cut"),
    ]
    assert (
        mending.steps[0].what == "index.json, missing beside blobs, was made anew, with 5 entries"
    )


def test_what_a_killed_repair_wrote_is_no_find(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers))
    shelf.lose(layers[1])
    (config, manifest) = mend(shelf).new_blobs.values()
    shelf.put(config, CACHECONFIG)
    shelf.tag("recovered-x", shelf.put(manifest, MANIFEST))
    mending = lost_index(shelf, {"main": "index", "recovered-x": "nobody"})
    assert list(tags(mending)) == ["main"]


def test_a_subject_may_be_missing(shelf: Shelf) -> None:
    never_here = {"mediaType": MANIFEST, "digest": str(digest("subject")), "size": 3}
    config = shelf.put(b"{}", IMAGE_CONFIG)
    body = {"config": config, "layers": [shelf.layer("a")], "subject": never_here}
    shelf.tag("artifact", shelf.put(encode(body), MANIFEST))
    found = shelf.found()
    # A survey notes an absent subject as a leaf that is missing.
    survey = found.survey._replace(
        damage=(), missing_leaves=(MissingLeaf(digest("subject"), "artifact"),)
    )
    assert make_mending(found._replace(survey=survey), now_ns=0, is_dry=False).steps == ()


def test_a_layer_that_is_gone_and_that_no_step_needs_goes_from_the_manifest(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers, chain_of_steps(layers[:1])))
    shelf.lose(layers[1])
    mending = mend(shelf)
    assert kinds(mending) == [("rewrite", "main")]
    assert ", with all its steps: layer " in mending.steps[0].what
    _, manifest = mending.new_blobs.values()
    root = read_cache_manifest(manifest)
    assert root is not None
    assert len(root.layers) == 1


def test_a_root_that_is_manifest_and_index_at_once_is_nobodys_cache(shelf: Shelf) -> None:
    layers = [shelf.layer("a")]
    config = shelf.put(encode(chain_of_steps(layers)), CACHECONFIG)
    both = {"config": config, "layers": layers, "manifests": []}
    shelf.tag("main", shelf.put(encode(both), MANIFEST))
    mending = mend(shelf)
    assert kinds(mending) == [("drop-tag", "main")]
    assert "BuildKit would import none of it" in mending.steps[0].what


def test_what_a_rewrite_does_not_mend_goes(shelf: Shelf) -> None:
    """The cache is whole, and what it is about has a hole: the next repair would find it again."""
    layers = [shelf.layer("a")]
    config = shelf.put(encode(chain_of_steps(layers)), CACHECONFIG)
    lost = shelf.image([shelf.layer("lost")])
    subject = shelf.put(encode({"manifests": [lost]}), INDEX)
    root = {"config": config, "layers": layers, "subject": subject}
    shelf.tag("main", shelf.put(encode(root), MANIFEST))
    shelf.lose(lost)
    mending = mend(shelf)
    assert kinds(mending) == [("drop-tag", "main")]


def test_a_lost_manifest_that_another_calls_a_layer_is_lost_to_both(shelf: Shelf) -> None:
    """A survey tells of it once, as damage."""
    lost = shelf.cache([shelf.layer("a")])
    shelf.tag("list", shelf.put(encode({"manifests": [lost]}), INDEX))
    shelf.tag("image", shelf.image([lost | {"mediaType": LAYER}]))
    shelf.lose(lost)
    found = shelf.found()
    survey = found.survey._replace(missing_leaves=())
    mending = make_mending(found._replace(survey=survey), now_ns=0, is_dry=False)
    assert kinds(mending) == [("drop-tag", "list"), ("drop-tag", "image")]
