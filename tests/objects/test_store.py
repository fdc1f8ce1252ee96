"""store/objects/store.py on a bucket in memory, whose clock the tests set."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kitcache.errors import Damaged, NotConfirmed, Unsafe, UsageError
from kitcache.gc.collect import collect, survey_and_plan
from kitcache.gc.control import Control
from kitcache.gc.sweep import dry_run_sweep
from kitcache.gc.values import SweepResult
from kitcache.oci.digest import Digest
from kitcache.oci.index import edit_entries
from kitcache.options.objectcaches import ObjectCache
from kitcache.options.sweep import SweepOptions
from kitcache.store.objects.client import Page, Target, Upload
from kitcache.store.objects.live import decode_state
from kitcache.store.objects.store import ObjectStore
from kitcache.store.values import WaitPolicy
from tests.objects.memory import MemoryClient

CONTROL = Control("s3://memory/", None, None)
NO_WAIT = WaitPolicy(0, lambda _: None, lambda _: None)
HOUR_NS = 3600 * 10**9
CONFIRMED = SweepOptions(confirmed=True)


class Bucket:
    """A bucket with one cache in it."""

    def __init__(self, **abilities: Any) -> None:
        self.client = MemoryClient(**abilities)
        self.cache = ObjectCache("s3", "memory", "ci/", "ci/blobs/", ("ci/manifests/",))

    def blob(self, data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        self.client.write(f"ci/blobs/sha256:{name}", data)
        return name

    def root(self, name: str, *blobs: str) -> None:
        layers = [{"blob": f"sha256:{blob}", "parent": -1} for blob in blobs]
        self.client.write(f"ci/manifests/{name}", json.dumps({"layers": layers}).encode())

    def age(self, hours: float) -> None:
        self.client.clock_ns += int(hours * HOUR_NS)

    def store(self) -> ObjectStore:
        return ObjectStore(self.cache, self.client)

    def reset(self, options: SweepOptions = CONFIRMED) -> SweepResult:
        with self.store() as store, store.lock("exclusive", NO_WAIT) as lock:
            return collect(lock, options, CONTROL)[1]

    @property
    def blobs(self) -> set[str]:
        start = len("ci/blobs/sha256:")
        return {key[start:] for key in self.client.versions if key.startswith("ci/blobs/")}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    """The self-test waits for the next second of the store's clock."""

    def sleep(seconds: float) -> None:
        bucket.client.clock_ns += int(seconds * 10**9)

    monkeypatch.setattr("kitcache.store.objects.checks.time.sleep", sleep)


@pytest.fixture(params=["plain", "versioned"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    return Bucket(has_versions=request.param == "versioned")


@pytest.fixture
def cache(bucket: Bucket) -> Bucket:
    """Three live blobs and two old ones that no root names."""
    live = [bucket.blob(b"one"), bucket.blob(b"two"), bucket.blob(b"three")]
    bucket.blob(b"old")
    bucket.blob(b"older")
    bucket.root("main", *live[:2])
    bucket.root("feature/x", *live[1:])
    bucket.age(49)
    return bucket


def names(*texts: bytes) -> set[str]:
    return {hashlib.sha256(text).hexdigest() for text in texts}


LIVE = names(b"one", b"two", b"three")


def test_old_blobs_without_a_root_are_deleted(cache: Bucket) -> None:
    swept = cache.reset()
    assert swept.deleted == (2, len(b"old") + len(b"older"))
    assert cache.blobs == LIVE


def test_a_dry_run_agrees_and_deletes_nothing(cache: Bucket) -> None:
    before = cache.blobs
    with cache.store() as store:
        surveyed = survey_and_plan(store, CONFIRMED, CONTROL, None)
        counted = dry_run_sweep(surveyed.plan, store, CONTROL)
    assert cache.blobs == before
    assert cache.reset().deleted == counted.deleted


def test_a_blob_younger_than_the_grace_is_kept(cache: Bucket) -> None:
    young = cache.blob(b"young")
    cache.age(47)
    assert cache.reset().too_young.blobs == 1
    cache.age(2)
    assert young in cache.blobs
    cache.reset()
    assert cache.blobs == LIVE


def test_the_first_run_needs_a_confirmation(cache: Bucket) -> None:
    with pytest.raises(NotConfirmed, match="first run"):
        cache.reset(SweepOptions())
    assert len(cache.blobs) == 5
    cache.reset()
    cache.age(1)
    cache.reset(SweepOptions())


def test_a_live_set_that_shrank_by_more_than_half_needs_a_confirmation(cache: Bucket) -> None:
    cache.reset()
    del cache.client.versions["ci/manifests/main"]
    del cache.client.versions["ci/manifests/feature/x"]
    cache.root("main", *names(b"one"))
    cache.age(100)
    with pytest.raises(NotConfirmed, match="far fewer blobs are live than in the last run: 1 of 3"):
        cache.reset(SweepOptions())
    assert cache.blobs == LIVE
    cache.reset()
    assert cache.blobs == LIVE  # They may have been live until just now.
    cache.age(25)
    cache.reset()
    assert cache.blobs == names(b"one")


def test_a_blob_that_was_live_in_a_recent_run_is_kept_for_running_imports(cache: Bucket) -> None:
    cache.reset()
    cache.root("main", *names(b"one"))
    cache.root("feature/x", *names(b"two"))
    cache.age(24)
    result = cache.reset()
    assert cache.blobs == LIVE
    assert result.too_young.blobs == 1
    cache.age(25)
    cache.reset()
    assert cache.blobs == names(b"one", b"two")


def test_superseded_versions_are_deleted_at_once() -> None:
    bucket = Bucket(has_versions=True)
    name = bucket.blob(b"one")
    bucket.root("main", name)
    bucket.age(30)
    bucket.client.renew(f"ci/blobs/sha256:{name}")
    with bucket.store() as store, store.lock("exclusive", NO_WAIT) as lock:
        store.prepare_sweep = lambda live: None  # type: ignore[method-assign]
        swept = collect(lock, CONFIRMED, CONTROL)[1]
    assert swept.deleted == (1, 3)
    (kept,) = bucket.client.versions[f"ci/blobs/sha256:{name}"]
    assert kept[0].is_current


@pytest.mark.parametrize("bucket", ["versioned"], indirect=True)
def test_a_renewed_blob_is_kept_if_the_renewal_came_after_the_last_look(bucket: Bucket) -> None:
    bucket.root("main", bucket.blob(b"one"))
    name = bucket.blob(b"reused")
    bucket.age(49)

    def renew(kind: str, key: str) -> None:
        if kind == "delete" and "blobs" in key:
            bucket.client.hooks.clear()
            bucket.client.renew(f"ci/blobs/sha256:{name}")

    bucket.client.hooks.append(renew)
    bucket.reset()
    assert name in bucket.blobs


@pytest.mark.parametrize("has_versions", [False, True])
def test_azure_deletes_a_blob_only_after_a_whole_grace_without_a_root(has_versions: bool) -> None:
    bucket = Bucket(has_versions=has_versions, renews=False)
    bucket.root("main", bucket.blob(b"one"))
    old = bucket.blob(b"old")
    bucket.age(1000)
    assert bucket.reset().deleted.blobs == 0
    bucket.age(47)
    assert bucket.reset().deleted.blobs == 0
    bucket.age(2)
    listed: list[str] = []
    bucket.client.hooks.append(lambda kind, key: listed.append(key) if kind == "list" else None)
    assert bucket.reset().deleted.blobs == 1
    assert old not in bucket.blobs
    assert listed.count("ci/blobs/sha256:") == 0, "an ETag decides, not one more listing"


def test_a_root_that_is_not_a_cacheconfig_stops_the_sweep(cache: Bucket) -> None:
    for number, data in enumerate((b"", b"[]", b'{"a": 1}', b'{"layers": 7}', b"\xff\xfe")):
        cache.client.write("ci/manifests/bad", data)
        with pytest.raises(Damaged, match="tag 'bad' cannot be read: it is not a cacheconfig"):
            cache.reset()
        assert len(cache.blobs) == 5, number
    cache.client.write("ci/manifests/bad", b"{}")
    assert cache.reset().deleted.blobs == 2


def test_no_roots_and_blobs_stop_the_sweep(cache: Bucket) -> None:
    for key in [key for key in cache.client.versions if "manifests" in key]:
        del cache.client.versions[key]
    with pytest.raises(Damaged):
        cache.reset()
    assert len(cache.blobs) == 5


def test_roots_of_another_prefix_that_use_the_blobs_stop_the_sweep(cache: Bucket) -> None:
    document = {"layers": [{"blob": f"sha256:{name}"} for name in names(b"old")]}
    cache.client.write("ci/other/main", json.dumps(document).encode())
    with pytest.raises(Unsafe, match="the object ci/other/main looks like a root"):
        cache.reset()
    assert len(cache.blobs) == 5
    document = {"layers": [{"blob": f"sha256:{name}"} for name in (*LIVE, "0" * 64)]}
    cache.client.write("ci/other/main", json.dumps(document).encode())
    assert cache.reset().deleted.blobs == 2


def test_a_store_that_does_not_show_renewals_is_refused(
    cache: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.client, "renew", lambda key: None)
    with pytest.raises(Unsafe, match="does not change its date"):
        cache.reset()
    assert len(cache.blobs) == 5
    assert not [key for key in cache.client.versions if "self-test" in key]


@pytest.mark.parametrize(
    ("skew_ns", "age"), [(72 * HOUR_NS, "3 d later"), (-HOUR_NS - 10**9, "1 h earlier")]
)
def test_a_store_with_two_clocks_is_refused(
    cache: Bucket, monkeypatch: pytest.MonkeyPatch, skew_ns: int, age: str
) -> None:
    """Its answers are dated by another clock than its objects, as behind some proxies."""
    client = cache.client
    monkeypatch.setattr(client, "now_ns", lambda: client.clock_ns + skew_ns)
    with pytest.raises(Unsafe, match=f"dated {age} than an object"):
        cache.reset()
    assert len(cache.blobs) == 5


def test_a_root_that_is_published_during_the_sweep_is_read(cache: Bucket) -> None:
    """It names a blob that was to be deleted: the plan is made again."""
    (old,) = names(b"old")

    def publish(kind: str, key: str) -> None:
        if kind == "put" and key.endswith("live"):
            cache.client.hooks.clear()
            cache.root("late", old)

    cache.client.hooks.append(publish)
    cache.reset()
    assert cache.blobs == LIVE | {old}


def test_a_loss_is_reported_with_the_name_and_the_blob(cache: Bucket) -> None:
    (old,) = names(b"old")

    def publish(kind: str, key: str) -> None:
        if kind == "delete" and "blobs" in key:
            cache.client.hooks.clear()
            cache.root("late", old)

    cache.client.hooks.append(publish)
    with pytest.raises(Damaged, match="tag 'late' was published during the sweep") as caught:
        cache.reset()
    assert any(old in line for line in caught.value.details)


def test_a_blob_that_cannot_be_deleted_is_listed(cache: Bucket) -> None:
    (old,) = names(b"old")
    cache.client.undeletable[f"ci/blobs/sha256:{old}"] = "AccessDenied"
    swept = cache.reset()
    assert swept.not_deleted == ((f"blobs/sha256/{old}", "AccessDenied"),)
    assert swept.deleted.blobs == 1


def test_a_removed_root_is_gone_and_its_blobs_stay(cache: Bucket) -> None:
    with cache.store() as store:
        roots = store.read_roots(CONTROL.pause)
        assert [entry.ref_name for entry in roots.entries] == ["feature/x", "main"]
        after = edit_entries(roots.data or b"", remove={1})
        committed = store.commit_roots(lambda _: after, NO_WAIT, before=roots)
        assert committed is not None
        assert [entry.ref_name for entry in committed.entries] == ["feature/x"]
    assert [key for key in cache.client.versions if "manifests" in key] == [
        "ci/manifests/feature/x"
    ]


def test_a_root_is_replaced_only_if_it_has_not_changed(cache: Bucket) -> None:
    with cache.store() as store:
        roots = store.read_roots(CONTROL.pause)
        digest = store.write_blob(b'{"layers":[]}')
        after = edit_entries(roots.data or b"", move={1: (digest, 13)})

        def change(kind: str, key: str) -> None:
            if kind == "put":
                cache.client.hooks.clear()
                cache.root("main", *names(b"three"))

        cache.client.hooks.append(change)
        assert store.commit_roots(lambda _: after, NO_WAIT, before=roots) is None
        assert b"layers" in (cache.client.read("ci/manifests/main", 999) or (b"",))[0]
        roots = store.read_roots(CONTROL.pause)
        assert store.commit_roots(lambda _: after, NO_WAIT, before=roots) is not None
    assert (cache.client.read("ci/manifests/main", 999) or (b"",))[0] == b'{"layers":[]}'


@pytest.mark.parametrize("data", [b"torn", b"{}", b'{"schema":"kitcache.live/1"}\n'])
def test_a_damaged_state_stops_the_sweep(cache: Bucket, data: bytes) -> None:
    cache.client.write("ci/kitcache/live", data)
    with pytest.raises(Damaged, match="ci/kitcache/live"):
        cache.reset()
    assert len(cache.blobs) == 5


def test_a_state_of_another_version_stops_the_sweep(cache: Bucket) -> None:
    cache.client.write("ci/kitcache/live", b'{"schema":"kitcache.live/9"}\n')
    with pytest.raises(Unsafe, match=r"kitcache\.live/9"):
        cache.reset()
    assert len(cache.blobs) == 5


def test_two_runs_at_once_record_both(cache: Bucket) -> None:
    cache.reset()

    def other(kind: str, key: str) -> None:
        if kind == "put" and key.endswith("live"):
            cache.client.hooks.clear()
            cache.reset()

    cache.client.hooks.append(other)
    cache.reset()
    data = (cache.client.read("ci/kitcache/live", 9999) or (b"",))[0]
    assert decode_state(data).runs[-1].names == LIVE


def test_percentages_of_a_disk_are_refused(cache: Bucket) -> None:
    with cache.store() as store, pytest.raises(UsageError, match="no disk"):
        store.disk_size()


def test_more_pages_than_one_are_listed_in_parallel_and_completely(bucket: Bucket) -> None:
    bucket.client.page_keys = 10
    kept = [bucket.blob(f"{n}".encode()) for n in range(0, 1500, 10)]
    for n in range(1500):
        if n % 10:
            bucket.blob(f"{n}".encode())
    bucket.client.write("ci/blobs/zzz", b"foreign")
    bucket.client.write("ci/blobs/aaa", b"foreign")
    bucket.root("main", *kept)
    bucket.age(49)
    swept = bucket.reset()
    assert swept.deleted.blobs == 1350
    assert sorted(swept.foreign) == ["ci/blobs/aaa", "ci/blobs/zzz"]
    assert bucket.blobs == {*kept, *(key for key in bucket.blobs if len(key) < 64)}


def test_uploads_are_aborted_when_they_are_old(cache: Bucket) -> None:
    for number, hours in enumerate((1, 60)):
        began_ns = cache.client.clock_ns - hours * HOUR_NS
        upload = Upload("ci/blobs/sha256:x", f"u{number}", began_ns, 7)
        cache.client.uploads[upload.upload_id] = upload
    assert cache.reset().ingests_deleted == (1, 7)
    assert list(cache.client.uploads) == ["u0"]


def test_the_requests_of_a_reset_are_counted(cache: Bucket) -> None:
    with cache.store() as store, store.lock("exclusive", NO_WAIT) as lock:
        collect(lock, CONFIRMED, CONTROL)
        report = store.report()
    assert report.requests is not None
    assert report.requests.delete >= 1
    assert report.requests.get >= 2


def test_read_blob_answers_for_a_root(cache: Bucket) -> None:
    with cache.store() as store:
        roots = store.read_roots(CONTROL.pause)
        for entry in roots.entries:
            assert entry.descriptor is not None
            data = store.read_blob(entry.descriptor.digest, entry.descriptor.size)
            assert data is not None
            assert json.loads(data)["layers"]
        with pytest.raises(Damaged, match="is missing"):
            store.read_blob(Digest("sha256", "0" * 64), None)


def test_threads_that_ask_for_the_stamp_at_once_share_a_later_listing(cache: Bucket) -> None:
    entered, release = threading.Event(), threading.Event()
    stamps: list[object] = []

    def hold(kind: str, key: str) -> None:
        entered.set()
        release.wait(5)

    with cache.store() as store:
        first = threading.Thread(target=lambda: stamps.append(store.roots_stamp()))
        cache.client.hooks.append(hold)
        first.start()
        entered.wait(5)
        cache.client.hooks.clear()
        before = cache.client.requests["list"]
        others = [
            threading.Thread(target=lambda: stamps.append(store.roots_stamp())) for _ in range(5)
        ]
        for thread in others:
            thread.start()
        time.sleep(0.2)
        cache.root("late", *names(b"old"))
        release.set()
        for thread in (first, *others):
            thread.join()
        assert cache.client.requests["list"] == before + 1
        assert len(set(stamps)) == 1
        assert stamps[1:] == [store.roots_stamp()] * 5


def test_a_root_can_be_removed_while_another_cannot_be_read(cache: Bucket) -> None:
    """The entry of a root that was not read has a digest that no document has."""
    cache.client.write("ci/manifests/bad", b"never read")
    read = cache.client.read

    def hide(key: str, limit: int) -> Any:
        return None if key.endswith("bad") else read(key, limit)

    cache.client.read = hide  # type: ignore[method-assign]
    with cache.store() as store:
        roots = store.read_roots(lambda _: None)
        assert [entry.descriptor is None for entry in roots.entries] == [True, False, False]
        after = edit_entries(roots.data or b"", remove={1})
        assert store.commit_roots(lambda _: after, NO_WAIT) is not None
    assert sorted(key for key in cache.client.versions if "manifests" in key) == [
        "ci/manifests/bad",
        "ci/manifests/main",
    ]


def test_a_root_that_is_published_after_the_sweep_is_found_if_the_run_settles(
    cache: Bucket,
) -> None:
    """Without that, only the next run reports it."""
    (old,) = names(b"old")
    waits: list[float] = []

    class Settling(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout and timeout > 10:
                waits.append(timeout)
                cache.root("late", old)
            return False

    control = Control("s3://memory/", None, Settling())
    options = SweepOptions(confirmed=True, settles=True)
    with (
        cache.store() as store,
        store.lock("exclusive", NO_WAIT) as lock,
        pytest.raises(Damaged, match="tag 'late' was published during the sweep") as caught,
    ):
        collect(lock, options, control)
    assert waits == [24 * 3600]
    assert any(old in line for line in caught.value.details)


def test_roots_of_two_prefixes_with_one_name_are_both_read(bucket: Bucket) -> None:
    """`ci/manifests/other/main` and `ci/other/main` are two roots of the same blobs."""
    bucket.cache = bucket.cache._replace(manifests_keys=("ci/manifests/", "ci/other/"))
    one, two = bucket.blob(b"one"), bucket.blob(b"two")
    bucket.root("other/main", one)
    bucket.client.write(
        "ci/other/main", json.dumps({"layers": [{"blob": f"sha256:{two}"}]}).encode()
    )
    bucket.blob(b"old")
    bucket.age(49)
    with bucket.store() as store:
        roots = store.read_roots(CONTROL.pause)
    assert [entry.ref_name for entry in roots.entries] == ["other/main", "/other/main"]
    assert bucket.reset().deleted.blobs == 1
    assert bucket.blobs == {one, two}


@pytest.mark.parametrize("bucket", ["versioned"], indirect=True)
@pytest.mark.parametrize("has_marker", [True, False])
def test_old_versions_of_a_blob_that_a_root_names_are_kept_if_no_version_is_current(
    cache: Bucket, has_marker: bool
) -> None:
    """They can bring the blob back."""
    key = f"ci/blobs/sha256:{hashlib.sha256(b'one').hexdigest()}"
    cache.client.renew(key)
    cache.client.delete([Target(key)])
    listed = cache.client.list_pages

    def list_pages(*args: Any, **keywords: Any) -> Iterator[Page]:
        for page in listed(*args, **keywords):
            infos = [info for info in page.objects if has_marker or not info.is_marker]
            yield page._replace(objects=infos)

    cache.client.list_pages = list_pages  # type: ignore[method-assign]
    cache.age(100)
    assert cache.reset().deleted.blobs == 2
    assert len(cache.client.versions[key]) == 3


def test_a_root_that_is_too_large_stops_the_sweep_whatever_its_name_is(cache: Bucket) -> None:
    name = "ci/manifests/\udcff"
    cache.client.write(name, b"{}")
    info, data = cache.client.versions[name][0]
    cache.client.versions[name] = [(info._replace(size=65 * 2**20), data)]
    with pytest.raises(Damaged, match="is too large"):
        cache.reset()
    assert len(cache.blobs) == 5


@pytest.mark.parametrize("other", ["ci/other/sha256:1", "ci/sha256:x/main"])
def test_another_root_is_found_whatever_its_key_contains(cache: Bucket, other: str) -> None:
    document = {"layers": [{"blob": f"sha256:{name}"} for name in names(b"old")]}
    cache.client.write(other, json.dumps(document).encode())
    with pytest.raises(Unsafe, match=f"the object {other} looks like a root"):
        cache.reset()
    assert len(cache.blobs) == 5


def test_another_root_is_found_if_the_prefix_looks_like_a_digest(bucket: Bucket) -> None:
    top = "sha256:ci/"
    keys = (f"{top}manifests/",)
    bucket.cache = bucket.cache._replace(prefix=top, blobs_key=f"{top}blobs/", manifests_keys=keys)
    (old,) = names(b"old")
    document = json.dumps({"layers": [{"blob": f"sha256:{old}"}]}).encode()
    bucket.client.write(f"{top}blobs/sha256:{old}", b"old")
    bucket.client.write(f"{top}manifests/main", b"{}")
    bucket.client.write(f"{top}other/main", document)
    bucket.age(49)
    with pytest.raises(Unsafe, match="looks like a root"):
        bucket.reset()
