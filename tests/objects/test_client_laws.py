"""The laws of an ObjectClient, kept by the clients of real stores and by the one in memory.

The properties use MemoryClient. They hold on a store only as far as both keep these laws.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from kitcache.errors import KitcacheError, NotACache
from kitcache.store.objects.client import Condition, ObjectClient, ObjectInfo, Target
from tests.objects.buckets import STORES, AzureBucket, MemoryBucket, S3Bucket, open_client
from tests.objects.memory import MemoryClient

KINDS = ("memory", "memory versioned", "memory azure", *STORES)
SECOND_NS = 10**9
NO_CONDITION = Condition()


class Opened(NamedTuple):
    """A client and the bucket behind it, which has other clients. Keys begin with `prefix`."""

    client: ObjectClient
    bucket: Any
    kind: str

    @property
    def prefix(self) -> str:
        return str(self.bucket.prefix)

    @property
    def has_versions(self) -> bool:
        return "versioned" in self.kind

    @property
    def is_azure(self) -> bool:
        return "azure" in self.kind


def open_memory(kind: str) -> Opened:
    client = MemoryClient(has_versions="versioned" in kind, renews="azure" not in kind)
    return Opened(client, MemoryBucket(client, "t/"), kind)


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, tuple[ObjectClient, str]]]:
    """The client of each S3 server, and its bucket. A client takes 0.1 s to create."""
    opened: dict[str, tuple[ObjectClient, str]] = {}
    yield opened
    for client, _ in opened.values():
        client.close()


def open_kind(request: pytest.FixtureRequest) -> Iterator[Opened]:
    if request.param.startswith("memory"):
        yield open_memory(request.param)
        return
    bucket: Any = request.getfixturevalue(request.param)
    if request.param == "azure_bucket":
        with closing(open_client(bucket)) as client:
            yield Opened(client, bucket, request.param)
        return
    clients = request.getfixturevalue("clients")
    if request.param not in clients:
        clients[request.param] = open_client(bucket), bucket.name
    client, name = clients[request.param]
    prefix = bucket.prefix or f"{bucket.name}/"
    yield Opened(client, bucket._replace(name=name, prefix=prefix), request.param)


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    yield from open_kind(request)


def listed(opened: Opened, prefix: str = "", **options: Any) -> list[ObjectInfo]:
    pages = list(opened.client.list_pages(opened.prefix + prefix, **options))
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    return [info for page in pages for info in page.objects]


def names(opened: Opened, infos: list[ObjectInfo]) -> list[str]:
    return [info.key.removeprefix(opened.prefix) for info in infos]


class TestReading:
    def test_a_listing_has_the_facts_of_each_object(self, opened: Opened) -> None:
        for name in ("b/2", "b/10", "a", "c"):
            opened.bucket.put(opened.prefix + name, name.encode() * 3)
        infos = listed(opened)
        assert sorted(names(opened, infos)) == ["a", "b/10", "b/2", "c"]
        assert {info.size for info in infos} == {3, 9, 12}
        for info in infos:
            assert info.is_current
            assert not info.is_marker
            assert abs(info.modified_ns - opened.client.now_ns()) < 60 * SECOND_NS
            stat = opened.client.stat(info.key)
            assert stat is not None
            assert stat._replace(version="") == info

    def test_a_prefix_ends_anywhere_in_a_name(self, opened: Opened) -> None:
        for name in ("blobs/sha256:a1", "blobs/sha256:a2", "blobs/sha256:b1", "blobsx"):
            opened.bucket.put(opened.prefix + name, b"x")
        assert names(opened, listed(opened, "blobs/sha256:a")) == [
            "blobs/sha256:a1",
            "blobs/sha256:a2",
        ]
        assert listed(opened, "nothing") == []

    def test_a_listing_goes_on_after_a_key(self, opened: Opened) -> None:
        for number in range(6):
            opened.bucket.put(f"{opened.prefix}blobs/{number}", b"x")
        after = f"{opened.prefix}blobs/2"
        assert names(opened, listed(opened, after=after)) == ["blobs/3", "blobs/4", "blobs/5"]

    def test_names_of_any_characters_are_listed_read_and_deleted(self, opened: Opened) -> None:
        odd = {"sp ace", "pl+us", "per%20cent", "ünï", "a&b<c>", "q?x=1", 'quo"te', "tab\tx"}
        for name in odd:
            opened.bucket.put(opened.prefix + name, name.encode())
        infos = listed(opened)
        assert set(names(opened, infos)) == odd
        for info in infos:
            found = opened.client.read(info.key, 100)
            assert found is not None
            assert found[0].decode() == info.key.removeprefix(opened.prefix)
        targets = [Target(info.key, found_version(opened, info.key)) for info in infos]
        assert opened.client.delete(targets) == {}
        assert listed(opened) == []

    def test_an_object_is_read_up_to_a_limit(self, opened: Opened) -> None:
        key = f"{opened.prefix}x"
        opened.bucket.put(key, b"0123456789")
        for limit in (4, 10, 100):
            found = opened.client.read(key, limit)
            assert found is not None
            assert (found[0], found[1].size) == (b"0123456789"[:limit], 10)

    def test_an_empty_object_is_read(self, opened: Opened) -> None:
        opened.bucket.put(f"{opened.prefix}x", b"")
        found = opened.client.read(f"{opened.prefix}x", 100)
        assert found is not None
        assert (found[0], found[1].size) == (b"", 0)
        parts = opened.client.read_parts(f"{opened.prefix}x", 0)
        assert parts is not None
        assert b"".join(parts) == b""

    def test_a_missing_object_is_none(self, opened: Opened) -> None:
        key = f"{opened.prefix}x"
        assert opened.client.read(key, 10) is None
        assert opened.client.stat(key) is None
        assert opened.client.read_parts(key, 10) is None

    def test_the_clock_is_the_stores(self, opened: Opened) -> None:
        opened.bucket.put(f"{opened.prefix}x", b"x")
        info = opened.client.stat(f"{opened.prefix}x")
        assert info is not None
        assert 0 <= opened.client.now_ns() - info.modified_ns < 60 * SECOND_NS

    def test_requests_are_counted(self, opened: Opened) -> None:
        opened.client.abilities()
        before = dict(opened.client.requests)
        key = f"{opened.prefix}x"
        opened.client.write(key, b"x")
        opened.client.stat(key)
        opened.client.read(key, 1)
        list(opened.client.list_pages(opened.prefix))
        opened.client.delete([Target(key)])
        counts = {
            kind: number - before.get(kind, 0) for kind, number in opened.client.requests.items()
        }
        assert {kind: number for kind, number in counts.items() if number} == {
            "put": 1,
            "head": 1,
            "get": 1,
            "list": 1,
            "delete": 1,
        }


class TestWriting:
    def test_a_condition_that_holds_is_a_write(self, opened: Opened) -> None:
        key = f"{opened.prefix}x"
        first = opened.client.write(key, b"one", NO_CONDITION)
        assert first is not None
        second = opened.client.write(key, b"two", Condition(first.etag))
        assert second is not None
        assert opened.client.stat(key) is not None
        assert opened.bucket.get(key) == b"two"
        assert second.etag != first.etag
        found = opened.client.read(key, 10)
        assert found is not None
        assert found[1].etag == second.etag

    def test_a_condition_that_fails_writes_nothing(self, opened: Opened) -> None:
        key = f"{opened.prefix}x"
        assert opened.client.write(key, b"a", Condition('"0123456789abcdef"')) is None
        first = opened.client.write(key, b"one")
        assert first is not None
        opened.bucket.put(key, b"another client's")
        assert opened.client.write(key, b"two", NO_CONDITION) is None
        assert opened.client.write(key, b"two", Condition(first.etag)) is None
        assert opened.bucket.get(key) == b"another client's"

    def test_a_condition_works_after_a_deletion(self, opened: Opened) -> None:
        """In a bucket with versions, a delete marker is not an object."""
        key = f"{opened.prefix}x"
        opened.bucket.put(key, b"old")
        assert opened.client.delete([Target(key)]) == {}
        assert opened.client.write(key, b"new", NO_CONDITION) is not None
        assert opened.bucket.get(key) == b"new"

    def test_a_renewed_object_has_a_new_date_and_the_same_bytes(self, opened: Opened) -> None:
        key = f"{opened.prefix}x"
        opened.bucket.put(key, b"x" * 100)
        before = opened.client.stat(key)
        wait_a_second(opened.client)
        opened.client.renew(key)
        (after,) = listed(opened)
        assert before is not None
        assert after.modified_ns > before.modified_ns
        assert opened.bucket.get(key) == b"x" * 100
        assert (after.etag == before.etag) == (not opened.is_azure)

    @pytest.mark.parametrize("size", [0, 1, 5 * 2**20, 17 * 2**20])
    def test_an_upload_is_read_back(self, opened: Opened, size: int) -> None:
        key = f"{opened.prefix}blobs/sha256:x"
        part = bytes(range(256)) * 4096
        data = part * 17
        parts = (memoryview(data)[at : min(at + 777_777, size)] for at in range(0, size, 777_777))
        opened.client.upload(key, size, parts)
        assert opened.bucket.get(key) == data[:size]
        read = opened.client.read_parts(key, size)
        assert read is not None
        assert b"".join(read) == data[:size]
        assert list(opened.client.list_uploads(opened.prefix)) == []

    @pytest.mark.parametrize(
        ("size", "share"),
        [(10, 2), (20 * 2**20, 2), (10, 1), (8 * 2**20, 1), (32 * 2**20, 1)],
    )
    def test_an_upload_whose_source_fails_leaves_nothing(
        self, opened: Opened, size: int, share: int
    ) -> None:
        """Also if it fails after the last byte: the source verifies all bytes at its end."""

        def parts() -> Iterator[bytes]:
            yield bytes(size // share)
            raise KeyError("the source")

        with pytest.raises(KeyError, match="the source"):
            opened.client.upload(f"{opened.prefix}x", size, parts())
        assert listed(opened) == []
        assert list(opened.client.list_uploads(opened.prefix)) == []


class TestDeleting:
    def test_a_batch_is_deleted_and_missing_keys_are_not_failures(self, opened: Opened) -> None:
        keys = [f"{opened.prefix}blobs/{number}" for number in range(20)]
        for key in keys[:10]:
            opened.bucket.put(key, b"x")
        assert opened.client.delete([Target(key) for key in keys]) == {}
        assert listed(opened) == []
        assert opened.bucket.keys() == set()


class TestEtags:
    """Azure's ETags change with every write, so a deletion names the state that was looked at."""

    @pytest.fixture(params=[kind for kind in KINDS if "azure" in kind])
    def opened(self, request: pytest.FixtureRequest) -> Iterator[Opened]:
        yield from open_kind(request)

    def test_by_etag_only_what_was_looked_at_is_deleted(self, opened: Opened) -> None:
        keys = [f"{opened.prefix}{name}" for name in ("changed", "renewed", "same")]
        for key in keys:
            opened.bucket.put(key, b"x")
        targets = [Target(info.key, etag=info.etag) for info in listed(opened)]
        opened.bucket.put(keys[0], b"y")
        opened.client.renew(keys[1])
        failures = opened.client.delete(targets)
        assert {target.key for target in failures} == set(keys[:2])
        assert opened.bucket.keys() == set(keys[:2])


class TestVersions:
    @pytest.fixture(params=[kind for kind in KINDS if "versioned" in kind])
    def opened(self, request: pytest.FixtureRequest) -> Iterator[Opened]:
        yield from open_kind(request)

    def test_the_versions_of_a_key_are_listed_newest_first(self, opened: Opened) -> None:
        key = f"{opened.prefix}x"
        for data in (b"1", b"22", b"333"):
            opened.bucket.put(key, data)
        opened.bucket.put(f"{opened.prefix}y", b"4444")
        infos = listed(opened, versions=True)
        assert [info.size for info in infos] == [3, 2, 1, 4]
        assert [info.is_current for info in infos] == [True, False, False, True]
        assert len({info.version for info in infos}) == 4
        assert [info.version for info in listed(opened)] == ["", ""]

    def test_only_the_named_version_is_deleted(self, opened: Opened) -> None:
        key = f"{opened.prefix}x"
        opened.bucket.put(key, b"old")
        (judged,) = listed(opened, versions=True)
        opened.bucket.touch(key)
        assert opened.client.delete([Target(key, judged.version)]) == {}
        (left,) = listed(opened, versions=True)
        assert left.version != judged.version
        assert opened.bucket.get(key) == b"old"

    def test_without_a_version_a_marker_hides_all(self, opened: Opened) -> None:
        key = f"{opened.prefix}x"
        opened.bucket.put(key, b"old")
        assert opened.client.delete([Target(key)]) == {}
        assert listed(opened) == []
        marker, old = listed(opened, versions=True)
        assert (marker.is_marker, marker.is_current) == (True, True)
        assert (old.is_marker, old.is_current, old.size) == (False, False, 3)
        assert opened.client.delete([Target(key, marker.version), Target(key, old.version)]) == {}
        assert listed(opened, versions=True) == []

    def test_the_versions_of_a_key_are_on_one_page(self, opened: Opened) -> None:
        for number in range(3):
            for _ in range(2):
                opened.bucket.put(f"{opened.prefix}{number}", b"x")
        pages = list(opened.client.list_pages(opened.prefix, versions=True))
        for first, second in pairwise(pages):
            assert first.objects[-1].key != second.objects[0].key

    def test_the_abilities_name_versions(self, opened: Opened) -> None:
        abilities = opened.client.abilities()
        assert (abilities.has_versions, abilities.deletes_exactly, abilities.renews) == (
            True,
            True,
            True,
        )


def test_a_store_without_versions_has_other_abilities(
    plain_bucket: S3Bucket, azure_bucket: AzureBucket
) -> None:
    abilities = []
    for bucket in (plain_bucket, azure_bucket):
        with closing(open_client(bucket)) as client:
            abilities.append(tuple(client.abilities()))
    assert abilities == [(False, False, True), (False, True, False)]
    memory = [open_memory("memory").client, open_memory("memory azure").client]
    assert [tuple(client.abilities()) for client in memory] == abilities


@pytest.mark.parametrize("kind", ["plain_bucket", "moto_bucket"])
def test_unfinished_uploads_are_listed_and_aborted(
    kind: str, request: pytest.FixtureRequest
) -> None:
    bucket: S3Bucket = request.getfixturevalue(kind)
    key = f"{bucket.prefix}blobs/sha256:x"
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="elsewhere/x")
    with closing(open_client(bucket)) as client:
        (upload,) = client.list_uploads(f"{bucket.prefix}blobs/")
        assert upload.key == key
        assert client.abort_upload(upload)
        assert list(client.list_uploads(f"{bucket.prefix}blobs/")) == []
        # SeaweedFS answers the same for a missing upload.
        assert client.abort_upload(upload) == (kind == "plain_bucket")


class TestFailures:
    @pytest.fixture(params=["plain_bucket", "moto_bucket", "azure_bucket"])
    def bucket(self, request: pytest.FixtureRequest) -> Any:
        return request.getfixturevalue(request.param)

    def test_a_missing_bucket_is_not_a_cache(self, bucket: Any) -> None:
        for request in REQUESTS:
            with (
                closing(open_client(bucket._replace(name="no-such-bucket"))) as client,
                pytest.raises(NotACache),
            ):
                request(client)


REQUESTS: tuple[Callable[[ObjectClient], object], ...] = (
    lambda client: list(client.list_pages("x/")),
    lambda client: client.read("x/y", 10),
    lambda client: client.write("x/y", b"x"),
)


@pytest.mark.parametrize("kind", ["plain_bucket", "azure_bucket"])
def test_a_wrong_key_is_an_error_without_the_secret(
    kind: str, request: pytest.FixtureRequest
) -> None:
    bucket: Any = request.getfixturevalue(kind)
    secret = "bm90IHRoZSBzZWNyZXQgb2YgdGhpcyBhY2NvdW50"
    with closing(open_client(bucket, secret_access_key=secret)) as client:
        for send in REQUESTS:
            with pytest.raises(KitcacheError) as caught:
                send(client)
            assert secret not in str(caught.value) + repr(caught.value.hints)


def found_version(opened: Opened, key: str) -> str:
    """Return the version to name in a deletion that frees the space."""
    if not opened.has_versions:
        return ""
    pages = opened.client.list_pages(key, versions=True)
    return next(info.version for page in pages for info in page.objects if info.key == key)


def wait_a_second(client: ObjectClient) -> None:
    """Dates have whole seconds, so a later date needs a second."""
    if isinstance(client, MemoryClient):
        client.clock_ns += SECOND_NS
    else:
        time.sleep(1.1)
