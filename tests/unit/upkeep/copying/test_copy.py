"""copy: the tags of directories and buckets, in every direction, whole or not at all."""

from pathlib import Path
from threading import Event

import pytest

import kitcache
from kitcache import Damaged, KitcacheError, NotFound, UsageError
from kitcache.gc.values import Progress
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES
from kitcache.upkeep.copying import documents
from tests.hostile.build import IMAGE_CONFIG, Box, digest_of
from tests.hostile.importable import UNCOMPRESSED, add_cache
from tests.objects.buckets import read_fixture
from tests.unit.upkeep.copying.copykit import (
    DAY_NS,
    TIMES,
    Buckets,
    address,
    blob_key,
    check_complete,
    large_root,
    layer,
    make_cache,
    put,
    root_key,
    roots,
)
from tests.unit.upkeep.naming.mergekit import tags

NO_TAG_CHANGED = "no tag was changed"


def blobs(buckets: Buckets, name: str) -> set[str]:
    start = blob_key("")
    return {key[len(start) :] for key in buckets.bucket(name).versions if key.startswith(start)}


def test_a_cache_of_buildkit_goes_to_a_directory_and_back(buckets: Buckets, tmp_path: Path) -> None:
    for key, data in read_fixture("s3").items():
        put(buckets.bucket("a"), f"ci/{key}", data)
    result = kitcache.copy(address("a"), tmp_path / "local")
    assert result.outcome == "done"
    assert {tag.target_name for tag in result.tags} == {"main", "first", "feature/x"}
    (skipped,) = result.skipped
    assert (skipped.ref_name, "names no layers" in skipped.reason) == ("empty", True)
    assert kitcache.verify(tmp_path / "local").exit_code == 0
    kitcache.copy(tmp_path / "local", address("b"))
    check_complete(buckets.bucket("b"))
    originals = roots(buckets.bucket("a"))
    assert roots(buckets.bucket("b")) == {n: d for n, d in originals.items() if n != "empty"}


@pytest.mark.parametrize("held_bytes", [0, documents._HELD_BYTES])
@pytest.mark.parametrize("as_index", [False, True])
def test_a_directory_goes_to_a_bucket_and_back(
    buckets: Buckets,
    tmp_path: Path,
    as_index: bool,
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documents, "_HELD_BYTES", held_bytes)
    box = make_cache(tmp_path / "in", {"main": [b"one", b"two"]}, as_index=as_index)
    result = kitcache.copy(box.dir, address("a"))
    assert (result.copied.blobs, result.reused.blobs, result.linked.blobs) == (2, 0, 0)
    check_complete(buckets.bucket("a"))
    kitcache.copy(address("a"), tmp_path / "out")
    verified = kitcache.verify(tmp_path / "out")
    assert [(tag.ref_name, tag.importable, tag.steps) for tag in verified.tags] == [
        ("main", "full", 2)
    ]


def test_a_bucket_goes_to_a_bucket_with_its_own_bytes(buckets: Buckets, cache: Box) -> None:
    kitcache.copy(cache.dir, address("a"))
    put(buckets.bucket("a"), root_key("empty"), b"{}")
    kitcache.copy(address("a"), address("b"))
    assert roots(buckets.bucket("b")) == roots(buckets.bucket("a"))
    check_complete(buckets.bucket("b"))


def test_a_second_copy_sends_nothing(buckets: Buckets, cache: Box, tmp_path: Path) -> None:
    for source, target in ((cache.dir, address("a")), (address("a"), tmp_path / "out")):
        first = kitcache.copy(source, target)
        second = kitcache.copy(source, target)
        assert (first.outcome, first.copied.blobs) == ("done", 3)
        assert (second.outcome, second.copied.blobs, second.reused.blobs) == ("unchanged", 0, 3)
        assert {tag.state for tag in second.tags} == {"unchanged"}


def test_a_blob_that_is_old_gets_a_new_date(buckets: Buckets, cache: Box) -> None:
    """Otherwise a sweep that has not seen the new root could delete the blob."""
    bucket = buckets.bucket("a")
    kitcache.copy(cache.dir, address("a"), tags="main")
    bucket.clock_ns += DAY_NS // 2
    kitcache.copy(cache.dir, address("a"), tags="main")
    assert bucket.requests.get("copy", 0) == 0
    bucket.clock_ns += DAY_NS
    kitcache.copy(cache.dir, address("a"), tags="dev")
    assert bucket.requests["copy"] == 1  # the layer that both tags have
    base = digest_of(b"base" * 20)
    assert bucket.versions[blob_key(base)][-1][0].modified_ns == bucket.clock_ns
    check_complete(bucket)


def test_a_blob_of_another_size_is_replaced(buckets: Buckets, cache: Box) -> None:
    put(buckets.bucket("a"), blob_key(digest_of(b"base" * 20)), b"half")
    assert kitcache.copy(cache.dir, address("a")).copied.blobs == 3
    check_complete(buckets.bucket("a"))


def test_some_tags_are_copied_by_name_and_pattern(buckets: Buckets, cache: Box) -> None:
    result = kitcache.copy(cache.dir, address("a"), tags=["m*", "main"], rename="{tag}-of-{dir}")
    assert [(tag.source_name, tag.target_name) for tag in result.tags] == [
        ("main", "main-of-cache")
    ]
    assert set(roots(buckets.bucket("a"))) == {"main-of-cache"}
    assert blobs(buckets, "a") == {digest_of(b"base" * 20), digest_of(b"main" * 30)}
    with pytest.raises(NotFound, match="'x-\\*'"):
        kitcache.copy(cache.dir, address("a"), tags=["main", "x-*"])


def test_the_name_of_a_bucket_is_the_end_of_its_prefix(buckets: Buckets, cache: Box) -> None:
    kitcache.copy(cache.dir, address("a"), tags="main")
    bucket = buckets.bucket("a")
    for key, held in list(bucket.versions.items()):
        put(bucket, key.removeprefix("ci/"), held[-1][1])
    for prefix, name in (("ci/", "ci"), ("", "a")):
        source = address("a", prefix=prefix)
        kitcache.copy(source, address("b"), rename="{dir}-{tag}")
        assert f"{name}-main" in roots(buckets.bucket("b"))


def test_directories_are_merged_with_hard_links(cache: Box, tmp_path: Path) -> None:
    result = kitcache.copy(cache.dir, tmp_path / "out", tags="main")
    assert (result.outcome, result.linked.blobs, result.copied.blobs) == ("done", 4, 0)
    assert set(tags(tmp_path / "out")) == {"main"}
    with pytest.raises(NotFound):
        kitcache.copy(cache.dir, tmp_path / "out", tags="nope")


def test_a_damaged_tag_that_is_not_selected_does_not_matter(cache: Box, tmp_path: Path) -> None:
    cache.damage(digest_of(b"dev" * 40), None)
    kitcache.copy(cache.dir, tmp_path / "out", tags="main")
    with pytest.raises(Damaged, match="tag 'dev' is not complete"):
        kitcache.copy(cache.dir, tmp_path / "out")


@pytest.mark.parametrize("has_bucket", [True, False])
def test_a_name_with_another_root_is_refused_unless_it_may_move(
    buckets: Buckets, cache: Box, tmp_path: Path, has_bucket: bool
) -> None:
    target = address("b") if has_bucket else str(tmp_path / "out")
    kitcache.copy(cache.dir, address("a"))
    kitcache.copy(address("a"), target, rename="dev=main", tags="dev")
    with pytest.raises(KitcacheError, match="tag 'main' is"):
        kitcache.copy(address("a"), target)
    result = kitcache.copy(address("a"), target, replace=True)
    assert {tag.target_name: tag.state for tag in result.tags} == {"dev": "new", "main": "moved"}


@pytest.mark.parametrize("damage", [b"x" * 80, b"short", None])
def test_a_source_that_is_not_complete_publishes_nothing(
    buckets: Buckets, cache: Box, damage: bytes | None
) -> None:
    base = digest_of(b"base" * 20)
    cache.damage(base, damage)
    with pytest.raises(Damaged, match=base[:19]) as caught:
        kitcache.copy(cache.dir, address("a"))
    assert caught.value.exit_code == 12
    assert caught.value.tag in ("main", "dev")
    assert roots(buckets.bucket("a")) == {}
    assert base not in blobs(buckets, "a")


@pytest.mark.parametrize("damage", [b"x" * 80, b"short", None])
def test_a_bucket_that_is_not_complete_publishes_nothing(
    buckets: Buckets, cache: Box, tmp_path: Path, damage: bytes | None
) -> None:
    kitcache.copy(cache.dir, address("a"))
    base = digest_of(b"base" * 20)
    if damage is None:
        del buckets.bucket("a").versions[blob_key(base)]
    else:
        put(buckets.bucket("a"), blob_key(base), damage)
    for target in (tmp_path / "out", address("b")):
        with pytest.raises(Damaged, match=base[:19]) as caught:
            kitcache.copy(address("a"), target)
        assert caught.value.tag in ("main", "dev")
    assert roots(buckets.bucket("b")) == {}
    assert base not in blobs(buckets, "b")
    assert not (tmp_path / "out" / "blobs" / "sha256" / base[7:]).exists()


def test_a_blob_that_vanishes_during_the_copy(buckets: Buckets, cache: Box, tmp_path: Path) -> None:
    kitcache.copy(cache.dir, address("a"))
    source = buckets.bucket("a")
    lost = digest_of(b"dev" * 40)

    def vanish(kind: str, key: str) -> None:
        if kind == "get" and key == blob_key(lost):
            source.versions.pop(key, None)

    source.hooks.append(vanish)
    with pytest.raises(Damaged, match=f"tag 'dev' is not complete: blob {lost[:19]}") as caught:
        kitcache.copy(address("a"), tmp_path / "out")
    assert caught.value.effect.startswith(NO_TAG_CHANGED)
    assert tags(tmp_path / "out") == {}


def test_a_layer_without_its_diff_id_is_refused_before_the_first_byte(
    buckets: Buckets, cache: Box
) -> None:
    bare = cache.blob(b"bare")
    add_cache(cache, "old", [bare | {"annotations": {TIMES: "2026-06-01T10:00:00Z"}}])
    with pytest.raises(Damaged, match=f"tag 'old' cannot be copied: .*{UNCOMPRESSED}") as caught:
        kitcache.copy(cache.dir, address("a"))
    assert caught.value.tag == "old"
    assert buckets.bucket("a").versions == {}
    kitcache.copy(cache.dir, address("a"), tags=["main", "dev"])
    check_complete(buckets.bucket("a"))


def test_an_image_or_an_unnamed_root_is_skipped_or_refused(buckets: Buckets, cache: Box) -> None:
    config = cache.document({"rootfs": {}}, IMAGE_CONFIG)
    cache.tag("image", cache.manifest([layer(cache, b"image")], config))
    cache.tag(None, cache.manifest([layer(cache, b"no name")]))
    result = kitcache.copy(cache.dir, address("a"))
    assert {skipped.ref_name: skipped.reason for skipped in result.skipped} == {
        "image": "is an image, which an object store cannot hold",
        None: "has no name, which an object store needs",
    }
    assert set(roots(buckets.bucket("a"))) == {"main", "dev"}
    with pytest.raises(KitcacheError, match="tag 'image' is an image"):
        kitcache.copy(cache.dir, address("b"), tags="image")
    assert kitcache.copy(cache.dir, address("b"), tags="im*").tags == ()


def test_two_roots_of_one_name_are_refused(buckets: Buckets, cache: Box) -> None:
    add_cache(cache, "main", [layer(cache, b"another")])
    with pytest.raises(UsageError, match="'main' names 2 roots"):
        kitcache.copy(cache.dir, address("a"))
    assert buckets.bucket("a").versions == {}


def test_a_root_that_no_import_from_a_directory_reads_is_refused_or_trimmed(
    buckets: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_HELD_BYTES", 0)
    put(buckets.bucket("a"), blob_key(digest_of(b"layer")), b"layer")
    put(buckets.bucket("a"), root_key("big"), large_root(3000))
    put(buckets.bucket("a"), root_key("small"), large_root(3))
    with pytest.raises(KitcacheError, match="tag 'big' would have a document of") as caught:
        kitcache.copy(address("a"), tmp_path / "out")
    assert "without their least recently used steps" in caught.value.hints[0]
    assert not (tmp_path / "out").exists()
    result = kitcache.copy(address("a"), tmp_path / "out", trim=True)
    (trimmed,) = result.trimmed
    assert (trimmed.ref_name, trimmed.steps) == ("big", 3000)
    status = {tag.ref_name: tag for tag in kitcache.verify(tmp_path / "out").tags}
    assert status["big"].importable == "full"
    assert status["big"].steps == 3000 - trimmed.removed_steps
    largest = max(path.stat().st_size for path in (tmp_path / "out" / "blobs").rglob("*"))
    assert 0.9 * IMPORT_LIMIT_BYTES < largest <= IMPORT_LIMIT_BYTES
    # From a bucket, BuildKit imports documents of any size.
    kitcache.copy(address("a"), address("b"))
    assert roots(buckets.bucket("b")) == roots(buckets.bucket("a"))


def test_a_dry_run_changes_nothing(buckets: Buckets, cache: Box, tmp_path: Path) -> None:
    result = kitcache.copy(cache.dir, address("a"), dry_run=True)
    assert (result.outcome, result.copied.blobs, result.copied.bytes) == ("dry-run", 3, 320)
    assert buckets.bucket("a").versions == {}
    kitcache.copy(cache.dir, address("a"), tags="main")
    result = kitcache.copy(address("a"), tmp_path / "out", dry_run=True)
    assert (result.copied.blobs, [tag.state for tag in result.tags]) == (2, ["new"])
    assert not (tmp_path / "out").exists()
    result = kitcache.copy(cache.dir, address("a"), dry_run=True)
    assert (result.copied.blobs, result.reused.blobs) == (1, 2)


def test_progress_has_the_bytes_of_all_blobs(buckets: Buckets, cache: Box) -> None:
    events: list[Progress] = []
    kitcache.copy(
        cache.dir,
        address("a"),
        on_progress=lambda e: events.append(e) if isinstance(e, Progress) else None,
    )
    last = [event for event in events if event.phase == "copy"][-1]
    assert (last.blobs, last.bytes, last.total_bytes) == (3, 320, 320)


def test_a_cancelled_copy_leaves_garbage_only(buckets: Buckets, cache: Box) -> None:
    cancel = Event()
    buckets.bucket("a").hooks.append(lambda kind, _: cancel.set() if kind == "put" else None)
    with pytest.raises(kitcache.Cancelled):
        kitcache.copy(cache.dir, address("a"), cancel=cancel)
    assert roots(buckets.bucket("a")) == {}
    kitcache.copy(cache.dir, address("a"))
    check_complete(buckets.bucket("a"))


def test_caches_that_cannot_be_copied_together(
    buckets: Buckets, cache: Box, tmp_path: Path
) -> None:
    kitcache.copy(cache.dir, address("a"))
    with pytest.raises(UsageError, match="in one step"):
        kitcache.copy([cache.dir, address("a")], tmp_path / "out")
    with pytest.raises(UsageError, match="both a source and the target"):
        kitcache.copy(address("a"), address("a"))
    with pytest.raises(UsageError, match="at least one cache"):
        kitcache.copy([], address("a"))
    # Into a bucket all kinds can be copied at once.
    result = kitcache.copy([cache.dir, address("a")], address("b"))
    assert {tag.target_name for tag in result.tags} == {"main", "dev"}


def test_the_last_use_of_a_tag_is_copied_to_a_directory(
    buckets: Buckets, cache: Box, tmp_path: Path
) -> None:
    buckets.bucket("a").clock_ns = 1_790_000_000 * 10**9
    kitcache.copy(cache.dir, address("a"))
    kitcache.copy(address("a"), tmp_path / "out")
    used = {tag.ref_name: tag.last_used_ns for tag in kitcache.ls(tmp_path / "out").tags}
    assert used == dict.fromkeys(("main", "dev"), buckets.bucket("a").clock_ns)


def test_a_source_without_tags_warns_and_creates_nothing(buckets: Buckets, tmp_path: Path) -> None:
    result = kitcache.copy(address("a"), tmp_path / "out")
    assert (result.outcome, result.tags) == ("unchanged", ())
    assert result.warnings == ("s3://a/ci/: ci/manifests/ has no tags",)
    assert not (tmp_path / "out").exists()


def test_a_bad_blob_of_the_directory_is_replaced(
    buckets: Buckets, cache: Box, tmp_path: Path
) -> None:
    kitcache.copy(cache.dir, address("a"))
    kitcache.copy(address("a"), tmp_path / "out")
    path = tmp_path / "out" / "blobs" / "sha256" / digest_of(b"base" * 20)[7:]
    path.chmod(0o644)
    path.write_bytes(b"x" * 80)
    result = kitcache.copy(address("a"), tmp_path / "out")
    assert (result.outcome, result.copied.blobs, result.reused.blobs) == ("done", 1, 2)
    assert kitcache.verify(tmp_path / "out").exit_code == 0
