"""verify and repair of real caches in a bucket in memory, with races and failures."""

import json
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

import kitcache
from kitcache.errors import Cancelled, KitcacheError, UsageError
from kitcache.gc.control import Control
from kitcache.gc.values import Progress
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import ObjectInfo, Page
from kitcache.store.objects.store import ObjectStore
from kitcache.upkeep.results import RepairResult, VerifyResult
from tests.objects.buckets import LAYER_TYPE, digest_of, make_cacheconfig, read_fixture
from tests.objects.memory import MemoryClient

PREFIX = "ci/"
QUARANTINE = "ci/kitcache/quarantine/"


class Bucket:
    """The cache that BuildKit wrote, below ci/."""

    def __init__(self, kind: str, *, has_versions: bool = False) -> None:
        self.client = MemoryClient(has_versions=has_versions, renews=kind == "s3")
        keys = (f"{PREFIX}blobs/", (f"{PREFIX}manifests/",))
        cache = ObjectCache("s3", "memory", PREFIX, *keys, region="r")
        if kind != "s3":
            url = "https://account.blob.core.windows.net"
            cache = cache._replace(
                kind="azblob", endpoint_url=url, account_name="account", region=""
            )
        self.cache, self.address = cache, cache.address
        for key, data in read_fixture(kind).items():
            self.client.write(PREFIX + key, data)
        self.client.requests.clear()

    def open(self) -> ObjectStore:
        return ObjectStore(self.cache, self.client)

    def get(self, key: str) -> bytes | None:
        answer = self.client.read(PREFIX + key, 1 << 30)
        return answer and answer[0]

    def root(self, name: str) -> Any:
        data = self.get(f"manifests/{name}")
        return None if data is None else json.loads(data)

    def layers(self, name: str) -> list[str]:
        return list(dict.fromkeys(layer["blob"] for layer in self.root(name).get("layers") or ()))

    def top(self, name: str) -> str:
        """The blob of a layer that is not the parent of another: not every step needs it."""
        layers = self.root(name)["layers"]
        below = {layers[layer["parent"]]["blob"] for layer in layers if layer["parent"] >= 0}
        return next(layer["blob"] for layer in layers if layer["blob"] not in below)

    def put(self, key: str, data: bytes) -> None:
        self.client.write(PREFIX + key, data)

    def lose(self, blob: str) -> None:
        del self.client.versions[f"{PREFIX}blobs/{blob}"]

    @property
    def objects(self) -> dict[str, bytes]:
        """All current objects."""
        return {key: held[-1][1] for key, held in self.client.versions.items()}


@pytest.fixture(params=["s3", "azblob", "versioned s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    version, _, kind = request.param.rpartition(" ")
    bucket = Bucket(kind, has_versions=bool(version))
    for module in ("verify.open_published_store", "repair.open_object_store"):
        monkeypatch.setattr(f"kitcache.upkeep.health.{module}", lambda _: bucket.open())
    return bucket


def verify(bucket: Bucket, **how: Any) -> VerifyResult:
    return kitcache.verify(bucket.address, **how)


def repair(bucket: Bucket, **how: Any) -> RepairResult:
    return kitcache.repair(bucket.address, **how)


def importable(result: VerifyResult) -> dict[str | None, str]:
    return {tag.ref_name: tag.importable for tag in result.tags}


INTACT = dict.fromkeys(["empty", "feature/x", "first", "main"], "full")


class TestVerify:
    def test_a_listing_is_enough_for_a_sound_cache(self, bucket: Bucket) -> None:
        result = verify(bucket)
        assert (importable(result), result.exit_code, result.hashed) == (INTACT, 0, False)
        assert result.warnings == (
            "tag 'empty': it is empty: its last export had nothing to cache",
        )
        blobs = [data for key, data in bucket.objects.items() if "/blobs/" in key]
        assert result.blobs == (len(blobs), sum(map(len, blobs)))
        # Each root was read once, and no blob was.
        assert bucket.client.requests["get"] == 4
        assert "head" not in bucket.client.requests

    def test_a_missing_blob_is_a_fault_of_all_that_need_it(self, bucket: Bucket) -> None:
        lost = bucket.top("main")
        users = {name for name in ("feature/x", "first", "main") if lost in bucket.layers(name)}
        bucket.lose(lost)
        result = verify(bucket)
        assert result.exit_code == 12
        assert {name for name, how in importable(result).items() if how != "full"} == users
        main = next(tag for tag in result.tags if tag.ref_name == "main")
        assert (main.importable, main.kind) == ("partial", "cache")
        assert "is missing" in main.unusable_steps[0].reason

    def test_a_blob_of_another_size_is_a_fault_too(self, bucket: Bucket) -> None:
        blob = bucket.top("main")
        bucket.put(f"blobs/{blob}", b"x")
        result = verify(bucket)
        assert importable(result)["main"] == "partial"
        main = next(tag for tag in result.tags if tag.ref_name == "main")
        assert "is truncated (1 of" in main.unusable_steps[0].reason

    def test_a_root_that_is_not_a_cacheconfig_is_reported(self, bucket: Bucket) -> None:
        bucket.put("manifests/torn", b'{"layers":[{"blob"')
        result = verify(bucket)
        assert importable(result) == INTACT | {"torn": "none"}
        assert result.exit_code == 12

    def test_without_roots_no_tag_can_be_verified(self, bucket: Bucket) -> None:
        for key in [key for key in bucket.client.versions if "/manifests/" in key]:
            del bucket.client.versions[key]
        result = verify(bucket)
        assert (result.tags, result.exit_code) == ((), 12)
        assert "no object below ci/manifests/" in result.index_problem


class TestRepair:
    def test_nothing_is_done_to_a_sound_cache(self, bucket: Bucket) -> None:
        before = bucket.objects
        result = repair(bucket)
        assert (result.actions, result.exit_code) == ((), 0)
        assert bucket.objects == before

    def test_a_root_loses_just_the_steps_that_need_the_blob(self, bucket: Bucket) -> None:
        lost = bucket.top("main")
        bucket.lose(lost)
        before, whole = bucket.objects, bucket.root("main")
        users = {name for name in ("feature/x", "first", "main") if lost in bucket.layers(name)}
        dry = repair(bucket, dry_run=True)
        assert bucket.objects == before
        assert {(a.kind, a.tag) for a in dry.actions} == {("rewrite-cache", u) for u in users}
        done = repair(bucket)
        assert [action.digest for action in done.actions] == [a.digest for a in dry.actions]
        assert (importable(done.verification), done.exit_code) == (INTACT, 0)
        changed = {key for key, data in bucket.objects.items() if before.get(key) != data}
        assert changed == {f"ci/manifests/{name}" for name in users}
        after = bucket.root("main")
        assert 0 < len(after["layers"]) < len(whole["layers"])
        assert all(layer["blob"] != lost for layer in after["layers"])
        described = [layer["annotations"] for layer in whole["layers"]]
        assert all(layer["annotations"] in described for layer in after["layers"])
        assert repair(bucket).actions == ()

    def test_a_root_without_a_step_left_is_quarantined(self, bucket: Bucket) -> None:
        for blob in bucket.layers("main"):
            bucket.lose(blob)
        before = bucket.get("manifests/main")
        done = repair(bucket)
        assert ("remove-tag", "main") in {(a.kind, a.tag) for a in done.actions}
        assert bucket.root("main") is None
        assert bucket.objects[f"{QUARANTINE}main"] == before
        (copied,) = [a for a in done.actions if (a.kind, a.tag) == ("quarantine-root", "main")]
        assert copied.description == (
            "the document of tag 'main' was copied to ci/kitcache/quarantine/main"
        )
        assert done.exit_code == 0
        assert bucket.root("empty") == {}

    @pytest.mark.parametrize("data", [b"", b"[]", b"\x1f\x8b", b'{"layers":[{"blob"'])
    def test_a_root_that_buildkit_refuses_is_removed(self, bucket: Bucket, data: bytes) -> None:
        bucket.put("manifests/feature/torn", data)
        before = bucket.objects
        dry = repair(bucket, dry_run=True)
        assert bucket.objects == before
        done = repair(bucket)
        assert [a.kind for a in dry.actions] == [a.kind for a in done.actions]
        assert [(a.kind, a.tag) for a in done.actions] == [
            ("quarantine-root", "feature/torn"),
            ("remove-tag", "feature/torn"),
        ]
        assert "was removed from ci/manifests/: it is not a cacheconfig" in (
            done.actions[1].description
        )
        del before["ci/manifests/feature/torn"]
        assert bucket.objects == before | {f"{QUARANTINE}feature/torn": data}
        assert done.exit_code == 0

    def test_the_document_of_another_program_is_kept(self, bucket: Bucket) -> None:
        """BuildKit reads it as an empty cache."""
        bucket.put("manifests/state.json", b'{"version": 4}')
        before = bucket.objects
        done = repair(bucket)
        assert (done.actions, done.exit_code) == ((), 12)
        assert bucket.objects == before

    def test_a_root_that_was_not_read_completely_is_kept(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = bucket.client.read

        def cut(key: str, limit: int) -> tuple[bytes, ObjectInfo] | None:
            answer = real(key, limit)
            is_main = key == "ci/manifests/main"
            return (answer[0][:100], answer[1]) if answer and is_main else answer

        monkeypatch.setattr(bucket.client, "read", cut)
        before = bucket.objects
        done = repair(bucket)
        assert (done.actions, done.exit_code) == ((), 12)
        assert bucket.objects == before

    def test_a_blob_that_only_the_listing_lacks_is_not_missing(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A listing can be late: a root was published whole, and must not lose its steps."""
        late, real = f"ci/blobs/{bucket.top('main')}", bucket.client.list_pages

        def listing(prefix: str, **how: Any) -> Iterator[Page]:
            for page in real(prefix, **how):
                yield page._replace(objects=[o for o in page.objects if o.key != late])

        monkeypatch.setattr(bucket.client, "list_pages", listing)
        before = bucket.objects
        assert verify(bucket).exit_code == 0
        assert repair(bucket).actions == ()
        assert bucket.objects == before

    def test_an_export_during_the_repair_is_not_overwritten(self, bucket: Bucket) -> None:
        lost = bucket.top("main")
        bucket.lose(lost)
        mine = make_cacheconfig([b"mine"])
        puts: list[str] = []

        def publish(kind: str, key: str) -> None:
            if kind == "put" and key == "ci/manifests/main" and not puts:
                puts.append(key)
                bucket.put(f"blobs/{digest_of(b'mine')}", b"mine")
                bucket.put("manifests/main", mine)

        bucket.client.hooks.append(publish)
        done = repair(bucket)
        assert bucket.get("manifests/main") == mine
        assert done.exit_code == 0

    def test_a_layer_without_a_diff_id_costs_only_its_steps(self, bucket: Bucket) -> None:
        root = bucket.root("main")
        for layer in root["layers"]:
            if layer["blob"] == bucket.top("main"):
                del layer["annotations"]["diffID"]
        bucket.put("manifests/main", json.dumps(root).encode())
        assert importable(verify(bucket))["main"] == "none"
        done = repair(bucket)
        assert [(a.kind, a.tag) for a in done.actions] == [("rewrite-cache", "main")]
        assert importable(done.verification) == INTACT

    def test_other_caches_are_not_copied_from(self, bucket: Bucket) -> None:
        with pytest.raises(UsageError, match="copies no blobs") as caught:
            repair(bucket, sources=["other"])
        assert caught.value.hints == (f"first run kitcache copy other '{bucket.address}'",)

    def test_a_write_that_fails_changes_no_other_root(self, bucket: Bucket) -> None:
        bucket.lose(bucket.top("main"))
        before = bucket.objects

        def refuse(kind: str, key: str) -> None:
            if kind == "put":
                raise KitcacheError("s3://memory/", f"{key} may not be written")

        bucket.client.hooks.append(refuse)
        with pytest.raises(KitcacheError, match="may not be written"):
            repair(bucket)
        assert bucket.objects == before


class TestRead:
    def test_a_blob_of_other_bytes_is_found_and_then_cut_off(self, bucket: Bucket) -> None:
        blob = bucket.top("main")
        size = len(bucket.get(f"blobs/{blob}") or b"")
        bucket.put(f"blobs/{blob}", b"x" * size)
        assert verify(bucket).exit_code == 0
        result = verify(bucket, read=True)
        assert (result.hashed, result.exit_code) == (True, 12)
        assert [(str(bad.digest), bad.problem) for bad in result.bad_blobs] == [
            (blob, "does not match its digest")
        ]
        assert importable(result)["main"] == "partial"
        done = repair(bucket, read=True)
        assert {(a.kind, a.tag) for a in done.actions} >= {("rewrite-cache", "main")}
        assert importable(done.verification) == INTACT
        # No root names it now, but it is still bad.
        assert done.exit_code == 12

    def test_one_bad_transfer_costs_no_step(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key, real = f"ci/blobs/{bucket.top('main')}", bucket.client.read_parts
        reads: list[str] = []

        def garble(name: str, size: int) -> Any:
            reads.append(name)
            if name == key and reads.count(key) == 1:
                return iter([bytes(size)])
            return real(name, size)

        monkeypatch.setattr(bucket.client, "read_parts", garble)
        before = bucket.objects
        done = repair(bucket, read=True)
        assert (done.actions, done.exit_code, reads.count(key)) == ((), 0, 2)
        assert bucket.objects == before

    def test_the_size_is_reported_before_the_first_byte(self, bucket: Bucket) -> None:
        seen: list[Progress] = []

        def on_progress(event: Any) -> None:
            if event.phase == "verify":
                seen.append(event)
            assert len(seen) > 1 or bucket.client.requests["get"] == 4

        result = verify(bucket, read=True, on_progress=on_progress)
        assert seen[0] == Progress("verify", 0, 0, result.blobs.bytes)
        assert seen[-1][:4] == ("verify", *result.blobs, result.blobs.bytes)
        assert bucket.client.requests["get"] == 4 + result.blobs.blobs

    def test_a_caller_can_cancel(self, bucket: Bucket) -> None:
        cancel = Event()

        def stop(kind: str, key: str) -> None:
            if kind == "get" and "/blobs/" in key:
                cancel.set()

        bucket.client.hooks.append(stop)
        with pytest.raises(Cancelled):
            verify(bucket, read=True, cancel=cancel)

    def test_a_store_that_does_not_answer_is_an_error(self, bucket: Bucket) -> None:
        """No blob is called bad because of it."""

        def fail(kind: str, key: str) -> None:
            if kind == "get" and "/blobs/" in key:
                raise KitcacheError("s3://memory/", "the store does not answer")

        bucket.client.hooks.append(fail)
        with pytest.raises(KitcacheError, match="does not answer"):
            verify(bucket, read=True)


def test_a_superseded_version_is_not_read() -> None:
    bucket = Bucket("s3", has_versions=True)
    blob = bucket.top("main")
    right = bucket.get(f"blobs/{blob}") or b""
    bucket.put(f"blobs/{blob}", b"wrong")
    bucket.put(f"blobs/{blob}", right)
    from kitcache.upkeep.health.verify import verify_locked  # noqa: PLC0415

    with bucket.open() as store:
        result, _ = verify_locked(store, Control("x", None, None), read=True)
    assert (result.exit_code, result.blobs.blobs) == (0, 6)
    assert LAYER_TYPE in json.dumps(bucket.root("main"))
