"""Every command on caches whose roots are cacheconfigs, as BuildKit wrote them to S3 and Azure."""

import json
from typing import Any

import pytest

import kitcache
from kitcache.errors import Damaged, LimitNotReached, NotFound
from kitcache.oci.cacheconfig import read_cacheconfig
from kitcache.oci.digest import Digest
from kitcache.oci.index import read_entries
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy
from kitcache.options.sweep import SweepOptions
from tests.contract.bare import load_bare, sha256
from tests.contract.memory import MemoryStore
from tests.objects.buckets import read_fixture

GARBAGE = "06314724690dc233b6df33182625b0fc57343701986143e6c02330d927696c1f"
"""Of the cache in S3: no root, but `first` names it."""


@pytest.fixture(params=["s3", "azblob"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = load_bare(kind)
    for module in (
        "gc.ls",
        "gc.du",
        "gc.why",
        "gc.reset",
        "upkeep.contents",
        "upkeep.naming.tag",
        "upkeep.naming.untag",
        "upkeep.trimming.trim",
        "upkeep.pruning.prune",
    ):
        for name in ("open_store", "open_published_store"):
            monkeypatch.setattr(f"kitcache.{module}.{name}", lambda _: store, raising=False)
    return store


def roots(store: MemoryStore) -> dict[str | None, Digest]:
    entries = read_entries(store.index or b"")
    return {entry.ref_name: entry.descriptor.digest for entry in entries if entry.descriptor}


def document(store: MemoryStore, digest: Digest) -> Any:
    return json.loads(store.read_blob(digest, None) or b"")


def layers_of(store: MemoryStore, name: str) -> set[str]:
    return {each["blob"] for each in document(store, roots(store)[name]).get("layers") or ()}


class TestReading:
    def test_the_names_are_caches_with_layers_and_dates(self, store: MemoryStore) -> None:
        listing = kitcache.ls("x")
        assert {tag.ref_name: (tag.kind, tag.layers, tag.missing) for tag in listing.tags} == {
            "empty": ("cache", 0, 0),
            "feature/x": ("cache", 3, 0),
            "first": ("cache", 3, 0),
            "main": ("cache", 3, 0),
        }
        assert listing.damage == ()
        assert {tag.created_from for tag in listing.tags if tag.layers} == {"cacheconfig"}
        for tag in listing.tags:
            named = {digest.split(":")[1] for digest in layers_of(store, tag.ref_name or "")}
            sizes = [len(store.blobs[Digest("sha256", name)].data) for name in named]
            root = roots(store)[tag.ref_name]
            assert tag.size == (len(named) + 1, sum(sizes) + len(store.inline[root].data))

    def test_du_tells_what_is_shared(self, store: MemoryStore) -> None:
        usage = kitcache.du("x")
        assert usage.missing_blobs == usage.damage == ()
        shared = {tag.ref_name: (tag.unique.blobs, tag.shared.blobs) for tag in usage.tags}
        # main has a layer of its own in neither store; each has its own root.
        assert shared["empty"] == (1, 0)
        assert sum(shared["main"]) == sum(shared["first"]) == 4
        everything = set().union(*(layers_of(store, name or "") for name in roots(store)))
        assert usage.live.blobs == len(everything) + len(set(roots(store).values()))
        assert usage.reclaimable.blobs == len(store.blobs) - len(everything)

    def test_why_goes_from_the_root_to_the_layer(self, store: MemoryStore) -> None:
        blob = min(layers_of(store, "main"))
        references = kitcache.why("x", blob)
        assert {path.root.ref_name for path in references.paths} == {
            name for name in roots(store) if name and blob in layers_of(store, name)
        }
        main = next(path for path in references.paths if path.root.ref_name == "main")
        assert [str(link.descriptor.digest) for link in main.links] == [
            str(roots(store)["main"]),
            blob,
        ]

    def test_a_tag_is_listed_with_the_steps_of_its_layers(self, store: MemoryStore) -> None:
        contents = kitcache.ls_tag("x", "main")
        assert contents.kind == "cache"
        layers = {str(blob.digest): blob for blob in contents.blobs if blob.role == "layer"}
        assert layers.keys() == layers_of(store, "main")
        assert all(blob.step is not None for blob in layers.values())
        assert {blob.media_type for blob in layers.values()} == {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        }

    def test_a_layer_of_another_length_is_a_missing_blob(self, store: MemoryStore) -> None:
        """The annotations have the size, so a listing is enough to find it."""
        digest = Digest("sha256", min(layers_of(store, "main")).split(":")[1])
        store.blobs[digest] = store.blobs[digest]._replace(data=b"short")
        (fault,) = kitcache.du("x").missing_blobs
        assert (fault.digest, fault.problem.split(" (")[0]) == (digest, "is truncated")


class TestTrim:
    def test_a_bare_root_becomes_a_smaller_bare_root(self, store: MemoryStore) -> None:
        before, old = document(store, roots(store)["main"]), roots(store)
        whole = next(tag for tag in kitcache.ls("x").tags if tag.ref_name == "main").size.bytes
        dry = kitcache.trim("x", "main", whole - 1, dry_run=True)
        assert roots(store) == old
        done = kitcache.trim("x", "main", whole - 1)
        assert done.reset is not None
        assert (dry.after, dry.removed_steps) == (done.after, done.removed_steps)
        new = roots(store)
        assert {name: digest for name, digest in new.items() if old[name] != digest} == {
            "main": done.after
        }
        after = document(store, done.after)
        config = read_cacheconfig(store.read_blob(done.after, None) or b"")
        assert 0 < sum(1 for _ in config.results()) == len(done.kept_steps)
        annotations = [each["annotations"] for each in after["layers"]]
        assert all(
            each in [layer["annotations"] for layer in before["layers"]] for each in annotations
        )
        assert done.after_size.bytes <= whole - 1
        assert kitcache.ls("x").damage == ()

    def test_what_no_step_fits_is_refused(self, store: MemoryStore) -> None:
        before = store.index
        with pytest.raises(LimitNotReached):
            kitcache.trim("x", "main", 10)
        assert store.index == before

    def test_an_empty_root_has_nothing_to_trim(self, store: MemoryStore) -> None:
        assert kitcache.trim("x", "empty", 2).outcome == "unchanged"

    def test_prune_trims_to_a_limit(self, store: MemoryStore) -> None:
        live = kitcache.du("x").live.bytes
        policy = PrunePolicy(max_used=DiskSpace(bytes=live - 1), keep_tags=("*",), trim=True)
        done = kitcache.prune("x", policy)
        assert done.exit_code == 0
        assert done.trimmed
        assert kitcache.du("x").live.bytes <= live - 1
        for name in filter(None, roots(store)):
            present = {f"sha256:{digest.hex}" for digest in store.blobs}
            assert layers_of(store, name) <= present


@pytest.mark.parametrize("export_time_ns", [0, 3_600_000_000_000])
def test_prune_drops_a_name_and_what_only_it_reached(
    store: MemoryStore, export_time_ns: int
) -> None:
    """A build that began before the prune may import the tag: its blobs stay for that time."""
    own = layers_of(store, "first") - layers_of(store, "main") - layers_of(store, "feature/x")
    policy = PrunePolicy(keep_tags=("main", "feature/*", "empty"))
    kitcache.prune("x", policy, options=SweepOptions(export_time_ns=export_time_ns))
    assert sorted(filter(None, roots(store))) == ["empty", "feature/x", "main"]
    assert own
    present = own & {f"sha256:{digest.hex}" for digest in store.blobs}
    assert present == (own if export_time_ns else set())


class TestNames:
    def test_a_tag_is_the_same_document_under_another_name(self, store: MemoryStore) -> None:
        done = kitcache.tag("x", "main", "release/1")
        assert roots(store)["release/1"] == roots(store)["main"]
        assert done.digest == str(roots(store)["main"])
        assert kitcache.tag("x", "main", "release/1").outcome == "unchanged"
        assert kitcache.tag("x", "first", "release/1").previous_digests == (done.digest,)

    def test_untag_removes_it(self, store: MemoryStore) -> None:
        kitcache.untag("x", ["feature/*", "first"])
        assert sorted(filter(None, roots(store))) == ["empty", "main"]

    def test_an_unknown_name_says_where_names_are(self, store: MemoryStore) -> None:
        for call in (
            lambda: kitcache.untag("x", ["man"]),
            lambda: kitcache.tag("x", "man", "y"),
            lambda: kitcache.trim("x", "man", 1),
            lambda: kitcache.ls_tag("x", "man"),
        ):
            with pytest.raises(NotFound, match=r"no entry of manifests/ has .*'man'") as caught:
                call()
            assert caught.value.hints[0] == "did you mean 'main'?"


def test_the_fixture_is_read_as_it_is(kind: str) -> None:
    store = load_bare(kind)
    for key, data in read_fixture(kind).items():
        if key.startswith("manifests/"):
            assert roots(store)[key.removeprefix("manifests/")] == sha256(data)


def test_without_any_root_no_name_is_known(store: MemoryStore) -> None:
    store.index = None
    with pytest.raises(NotFound, match="no entry of manifests/ has the tag or digest 'main'"):
        kitcache.untag("x", ["main"])


def test_without_any_root_nothing_is_deleted(store: MemoryStore) -> None:
    """Perhaps the exporters use another manifests_prefix."""
    store.index, before = None, dict(store.blobs)
    with pytest.raises(Damaged, match="there are blobs, and no object below manifests/") as caught:
        kitcache.reset("x")
    assert caught.value.hints[0] == "name every manifests_prefix that exporters use"
    assert store.blobs == before


def test_a_root_that_cannot_be_read_is_named_with_its_prefix(store: MemoryStore) -> None:
    del store.inline[roots(store)["main"]]
    with pytest.raises(Damaged, match="tag 'main' cannot be read") as caught:
        kitcache.reset("x")
    assert caught.value.chain == ("manifests/", f"{roots(store)['main']} (cacheconfig)")
