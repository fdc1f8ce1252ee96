"""S3Client on real servers, and behind a proxy with answers that these servers do not give."""

import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trustme

import kitcache
from kitcache.errors import Cancelled, KitcacheError, NotACache
from kitcache.options.objectcaches import ObjectCache, parse_object_cache
from kitcache.store.objects import s3client, s3listing, s3requests, s3transfer
from kitcache.store.objects.client import CHANGED, ObjectInfo, Target
from kitcache.store.objects.s3 import open_s3
from kitcache.store.objects.s3client import S3Client
from tests.objects.buckets import ADMIN, READER, S3Bucket, put_cache
from tests.objects.proxy import Predicate, Proxy, Request, error_response, run_proxy
from tests.objects.servers import free_ports

S3_STORES = ("plain_bucket", "versioned_bucket", "moto_bucket", "locked_bucket")
ODD_KEYS = ["a b", "a+b", "a%2Bb", "a&<>\"'b", "ü€𝄞", "a:b~*(),;=@$!", "a//b", "x/", "..", "a\\b"]


@pytest.fixture(params=S3_STORES)
def bucket(request: pytest.FixtureRequest) -> S3Bucket:
    """Each S3 store that a collector can work on, one after the other."""
    return stored_in(request, request.param)


def stored_in(request: pytest.FixtureRequest, name: str) -> S3Bucket:
    """Return a bucket with a prefix. Without one, a bucket with versions is never empty."""
    bucket: S3Bucket = request.getfixturevalue(name)
    return bucket if bucket.prefix else bucket._replace(prefix="p/")


def cache_of(held: S3Bucket, **changes: str) -> ObjectCache:
    cache = parse_object_cache(held.attributes(**changes), {})
    assert cache is not None
    return cache


@contextmanager
def opened(held: S3Bucket, **changes: str) -> Iterator[S3Client]:
    client = open_s3(cache_of(held, **changes))
    assert isinstance(client, S3Client)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def proxied(bucket: S3Bucket, **changes: str) -> Iterator[tuple[Proxy, S3Client]]:
    with (
        run_proxy(bucket.server.url) as proxy,
        opened(bucket, endpoint_url=proxy.url, **changes) as client,
    ):
        yield proxy, client


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3requests, "_FIRST_WAIT_S", 0.001)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3client, "PAGE_KEYS", 3)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the smallest size that S3 allows."""
    monkeypatch.setattr(s3transfer, "PART_BYTES", 5 << 20)
    monkeypatch.setattr(s3transfer, "SINGLE_PUT_BYTES", 5 << 20)


def all_of(client: S3Client, prefix: str, **options: object) -> list[ObjectInfo]:
    pages = client.list_pages(prefix, **options)  # type: ignore[arg-type]
    return [info for page in pages for info in page.objects]


def is_query(text: str) -> Predicate:
    return lambda request: text in request.query


def is_method(name: str) -> Predicate:
    return lambda request: request.method == name


def answer_of(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


# --- abilities


def test_abilities(bucket: S3Bucket) -> None:
    with opened(bucket) as client:
        abilities = client.abilities()
        assert abilities == (bucket.has_versions, bucket.has_versions, True)
        assert client.abilities() == abilities
        assert client.requests == {"get": 1}


def test_suspended_versioning_has_versions_but_deletes_inexactly(moto_bucket: S3Bucket) -> None:
    for status in ("Enabled", "Suspended"):
        moto_bucket.client.put_bucket_versioning(
            Bucket=moto_bucket.name, VersioningConfiguration={"Status": status}
        )
    with opened(moto_bucket) as client:
        assert client.abilities() == (True, False, True)


def test_a_store_without_versioning(rclone_bucket: S3Bucket) -> None:
    with opened(rclone_bucket) as client:
        assert client.abilities() == (False, False, True)


@pytest.mark.parametrize(
    ("name", "has_versions"), [("moto_bucket", False), ("locked_bucket", True)]
)
def test_versions_are_listed_if_the_state_of_versioning_is_secret(
    name: str, has_versions: bool, request: pytest.FixtureRequest
) -> None:
    bucket: S3Bucket = request.getfixturevalue(name)
    bucket.put("k", b"")
    with proxied(bucket) as (proxy, client):
        proxy.answer(is_query("versioning"), error_response("403 Forbidden", "AccessDenied"))
        assert client.abilities() == (has_versions, False, True)


# --- listings


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("versions", [False, True])
def test_pages_list_each_key_once(bucket: S3Bucket, versions: bool) -> None:
    keys = [f"{bucket.prefix}blobs/sha256:{n:02d}" for n in range(8)]
    with opened(bucket) as client:
        for key in keys:
            client.write(key, b"1")
        client.write(f"{bucket.prefix}blocks", b"1")
        pages = list(client.list_pages(f"{bucket.prefix}blobs/", versions=versions))
        assert [info.key for page in pages for info in page.objects] == keys
        assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
        assert client.requests["list"] == len(pages) == 3
        inside = f"{bucket.prefix}blobs/sha256:0"
        # moto omits the first version after a key marker that is not a key.
        is_exact = bucket.server.name != "moto" or not versions
        for after in (keys[2], keys[2] + "x") if is_exact else keys[2:3]:
            listed = all_of(client, inside, after=after, versions=versions)
            assert [info.key for info in listed] == keys[3:]
        assert all_of(client, f"{bucket.prefix}none", versions=versions) == []


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("name", ["versioned_bucket", "locked_bucket"])
def test_the_versions_of_a_key_are_on_one_page(name: str, request: pytest.FixtureRequest) -> None:
    bucket = stored_in(request, name)
    keys = [f"{bucket.prefix}{n}" for n in range(3)]
    with opened(bucket) as client:
        for key in keys:
            for data in (b"1", b"12", b"123"):
                client.write(key, data)
        client.delete([Target(keys[1])])
        pages = [page.objects for page in client.list_pages(bucket.prefix, versions=True)]
        listed = [info for page in pages for info in page]
        assert [info.key for info in listed] == [keys[0]] * 3 + [keys[1]] * 4 + [keys[2]] * 3
        assert sum(len({info.key for info in page}) for page in pages) == len(keys)
        flags = [info.is_current for info in listed]
        assert flags == [True, False, False, True, False, False, False, True, False, False]
        assert [info.is_marker for info in listed].index(True) == 3
        assert sorted(i.size for i in listed if i.key == keys[0]) == [1, 2, 3]


@pytest.mark.parametrize("versions", [False, True])
def test_any_key_is_listed_as_it_was_written(moto_bucket: S3Bucket, versions: bool) -> None:
    for key in ODD_KEYS:
        moto_bucket.put(key, b"1")
    with opened(moto_bucket) as client:
        listed = [info.key for info in all_of(client, "", versions=versions)]
        assert listed == sorted(ODD_KEYS, key=str.encode)
        for key in ODD_KEYS:
            assert client.read(key, 9) is not None
        assert client.delete([Target(key) for key in ODD_KEYS]) == {}
    assert moto_bucket.keys() == set()


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("versions", [False, True])
def test_a_botocore_without_the_event_lists_the_same(
    bucket: S3Bucket, versions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a+b c", "b", "c", "d"):
        bucket.put(bucket.prefix + key, b"1")
    with opened(bucket) as client:
        expected = all_of(client, bucket.prefix, versions=versions)
    monkeypatch.setattr(s3requests, "replace_parsing", lambda **_: None)
    monkeypatch.setattr(s3listing, "parse_listing", None)
    with opened(bucket) as client:
        assert all_of(client, bucket.prefix, versions=versions) == expected
        assert len(expected) == 4


LISTED = b"<ListBucketResult><Name>b</Name>%s</ListBucketResult>"


@pytest.mark.usefixtures("fast_retries")
@pytest.mark.parametrize(
    "body",
    [
        LISTED % b"<IsTruncated>true</IsTruncated>",
        LISTED % b"",
        b"<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>",
        b"<html>log in</html>",
        b"",
    ],
)
def test_an_incomplete_listing_is_an_error(moto_bucket: S3Bucket, body: bytes) -> None:
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(is_query("list-type=2"), answer_of(body))
        with pytest.raises(KitcacheError, match="ListObjectsV2 failed"):
            all_of(client, "")


def entry(key: str, *, size: str = "5", date: str = "2026-01-01T00:00:00.000Z") -> str:
    facts = f"<LastModified>{date}</LastModified><ETag>e</ETag><Size>{size}</Size>"
    return f"<Contents><Key>{key}</Key>{facts}</Contents>"


def listing(entries: str, end: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    return answer_of(f"<ListBucketResult>{entries}{end}</ListBucketResult>".encode())


@pytest.mark.parametrize(
    ("response", "match"),
    [
        (listing(entry("k", size="-5")), "an invalid value: the size '-5'"),
        (listing(entry("k", size="1" + "0" * 23)), "an invalid value: the size '10000"),
        (listing(entry("k", size="five")), "an invalid value: the size 'five'"),
        (listing(entry("k", date="never")), "an invalid value: the date 'never'"),
        (listing(entry("k", date="0001-01-01T00:00:00Z")), "an invalid value: the date '0001"),
        (listing(entry("k", date="9999-12-31T23:59:59Z")), "an invalid value: the date '9999"),
        (answer_of(b"{}"), "the store answered 200 with a body that is not one of S3"),
        (answer_of(b"", "307 Moved", "Location: /\r\n"), "the store answered 307"),
    ],
)
@pytest.mark.usefixtures("fast_retries")
def test_an_answer_that_cannot_be_is_an_error(
    moto_bucket: S3Bucket, response: bytes, match: str
) -> None:
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(is_query("list-type=2"), response)
        with pytest.raises(KitcacheError, match=f"ListObjectsV2 failed: .*{match}"):
            all_of(client, "")


@pytest.mark.parametrize("headers", ["", "Last-Modified: never\r\n"])
def test_an_object_without_a_date_is_an_error(moto_bucket: S3Bucket, headers: str) -> None:
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(lambda _: True, answer_of(b"data", headers=headers))
        with pytest.raises(KitcacheError, match="GetObject failed: the store's answer"):
            client.read("k", 9)
        with pytest.raises(KitcacheError, match="HeadObject failed: the store's answer"):
            client.stat("k")


def test_a_key_that_is_listed_twice_counts_once(moto_bucket: S3Bucket) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>"
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(is_query("continuation-token"), listing(entry("b") + entry("c") * 2))
        proxy.answer(is_query("list-type=2"), listing(entry("a") * 2 + entry("b"), more))
        assert [info.key for info in all_of(client, "")] == ["a", "b", "c"]


def test_nothing_of_the_authorization_is_printed(moto_bucket: S3Bucket) -> None:
    """A store, or a proxy in front of it, may repeat the header in its answer."""
    credential = f"Credential={ADMIN.access}/20261204/us-east-1/s3/aws4_request"
    signature = "0123456789abcdef" * 4
    header = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host;x-amz-date, Signature={signature}"
    bodies = (
        f"<Error><Code>Odd</Code><Message>not {header}</Message></Error>",
        f"<Error><Code>{header}</Code><Message>no</Message></Error>",
        f"<Error><Code>Odd</Code><Message>signature {signature} is odd</Message></Error>",
    )
    for body in bodies:
        with proxied(moto_bucket) as (proxy, client):
            proxy.answer(is_query("list-type=2"), answer_of(body.encode(), "409 Conflict"))
            with pytest.raises(KitcacheError, match="the store answered") as caught:
                all_of(client, "")
            assert signature not in str(caught.value)
            assert "aws4_request" not in str(caught.value)


def test_a_listing_that_never_advances_is_an_error(moto_bucket: S3Bucket) -> None:
    page = b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(is_query("list-type=2"), answer_of(LISTED % page))
        with pytest.raises(KitcacheError, match="more keys follow"):
            all_of(client, "")
        assert client.requests["list"] == 2


@pytest.mark.usefixtures("fast_retries")
@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_listing_whose_body_is_cut_is_asked_for_again(moto_bucket: S3Bucket, cut: int) -> None:
    moto_bucket.put("k", b"1")
    with proxied(moto_bucket) as (proxy, client):
        body = answer_of(LISTED % b"<IsTruncated>false</IsTruncated>")
        proxy.answer(is_query("list-type=2"), body[:-cut], times=2)
        assert [info.key for info in all_of(client, "")] == ["k"]
        assert client.requests["list"] == 3


# --- deletion


def test_an_object_with_another_etag_stays(bucket: S3Bucket) -> None:
    key = f"{bucket.prefix}root"
    with opened(bucket) as client:
        written = client.write(key, b"1")
        assert written is not None
        other = Target(key, etag='"00000000000000000000000000000000"')
        assert client.delete([other]) == {other: CHANGED}
        assert bucket.get(key) == b"1"
        assert client.delete([Target(key, etag=written.etag)]) == {}
        assert bucket.get(key) is None


def test_several_etags_at_once(plain_bucket: S3Bucket) -> None:
    keys = [f"{plain_bucket.prefix}{n}" for n in range(2)]
    with opened(plain_bucket) as client:
        written = [client.write(key, b"1") for key in keys]
        targets = [Target(keys[0], etag='"0"'), Target(keys[1], etag=written[1].etag)]  # type: ignore[union-attr]
        assert list(client.delete(targets)) == targets[:1]
        assert plain_bucket.keys() == {keys[0]}


def test_a_locked_version_stays_and_the_others_go(locked_bucket: S3Bucket) -> None:
    with opened(locked_bucket) as client:
        for key in ("a", "b"):
            client.write(key, b"1")
        locked_bucket.client.put_object_legal_hold(
            Bucket=locked_bucket.name, Key="a", LegalHold={"Status": "ON"}
        )
        targets = [Target(info.key, info.version) for info in all_of(client, "", versions=True)]
        reasons = client.delete(targets)
        assert list(reasons) == targets[:1]
        assert "access denied, or a lock of the bucket" in reasons[targets[0]]
        assert locked_bucket.keys() == {"a"}


def needs_md5(request: Request) -> bool:
    return request.method == "POST" and "content-md5" not in request.headers


def is_batch(request: Request) -> bool:
    return request.method == "POST" and "delete" in request.query


@pytest.mark.parametrize("code", ["400 Bad Request", "501 Not Implemented"])
def test_an_older_store_gets_a_content_md5(plain_bucket: S3Bucket, code: str) -> None:
    keys = [f"{plain_bucket.prefix}{n}" for n in range(3)]
    for key in keys:
        plain_bucket.put(key, b"1")
    name = "InvalidRequest" if code[0] == "4" else "NotImplemented"
    with proxied(plain_bucket) as (proxy, client):
        proxy.answer(needs_md5, error_response(code, name))
        assert client.delete([Target(keys[0])]) == {}
        assert client.delete([Target(keys[1])]) == {}
        assert plain_bucket.keys() == {keys[2]}
        assert client.requests["delete"] == 3
        assert not any("x-amz-checksum-crc32" in request.headers for request in proxy.requests)


@pytest.mark.usefixtures("fast_retries")
@pytest.mark.parametrize(("times", "is_deleted"), [(2, True), (99, False)])
def test_a_key_for_which_the_store_is_busy_is_tried_again(
    plain_bucket: S3Bucket, times: int, is_deleted: bool
) -> None:
    """DeleteObjects reports some keys as SlowDown, and deletes the others."""
    keys = [f"{plain_bucket.prefix}{name}" for name in "ab"]
    for key in keys:
        plain_bucket.put(key, b"1")
    error = f"<Error><Key>{keys[0]}</Key><Code>SlowDown</Code><Message>wait</Message></Error>"
    busy = answer_of(f"<DeleteResult>{error}</DeleteResult>".encode())
    with proxied(plain_bucket) as (proxy, client):
        proxy.answer(is_batch, busy, times)
        reasons = client.delete([Target(key) for key in keys])
        # The proxy has answered in place of the store, so only the last request deletes.
        assert client.requests["delete"] == (3 if is_deleted else 8)
        assert reasons == (
            {} if is_deleted else {Target(keys[0]): "the store answered SlowDown: wait"}
        )
        assert (plain_bucket.get(keys[0]) is None) == is_deleted


def test_a_store_without_batches_gets_single_deletions(locked_bucket: S3Bucket) -> None:
    with proxied(locked_bucket) as (proxy, client):
        for key in ("a", "b"):
            client.write(key, b"1")
        locked_bucket.client.put_object_legal_hold(
            Bucket=locked_bucket.name, Key="a", LegalHold={"Status": "ON"}
        )
        proxy.answer(is_batch, error_response("501 Not Implemented", "NotImplemented"))
        targets = [Target(info.key, info.version) for info in all_of(client, "", versions=True)]
        targets.append(Target("none"))
        assert list(client.delete(targets)) == targets[:1]
        assert client.requests["delete"] == 2 + len(targets)
        assert locked_bucket.keys() == {"a"}


# --- transfer


def test_a_large_object_is_uploaded_in_parts(bucket: S3Bucket, small_parts: None) -> None:
    key = f"{bucket.prefix}big"
    data = bytes(range(256)) * (13 << 12)
    with opened(bucket) as client:
        pieces = [memoryview(data)[i : i + 300_000] for i in range(0, len(data), 300_000)]
        client.upload(key, len(data), pieces)
        assert client.requests["put"] == 1 + 3 + 1
        assert b"".join(client.read_parts(key, len(data)) or ()) == data
        client.upload(key, 3, [b"ab", b"c"])
        assert bucket.get(key) == b"abc"


@pytest.mark.parametrize("size", [10, 11 << 20])
@pytest.mark.parametrize("failure", ["raises", "short", "long"])
def test_a_failed_upload_leaves_nothing(
    plain_bucket: S3Bucket, small_parts: None, size: int, failure: str
) -> None:
    def parts() -> Iterator[bytes]:
        yield b"1" * (size - 1)
        if failure == "raises":
            raise KitcacheError("source", "cannot be read")
        yield b"1" * (0 if failure == "short" else 2)

    with opened(plain_bucket) as client:
        with pytest.raises(KitcacheError):
            client.upload(f"{plain_bucket.prefix}big", size, parts())
        assert list(client.list_uploads(plain_bucket.prefix)) == []
    assert plain_bucket.keys() == set()


@pytest.mark.usefixtures("fast_retries")
def test_an_upload_that_is_refused_is_aborted(plain_bucket: S3Bucket, small_parts: None) -> None:
    size = 11 << 20
    with proxied(plain_bucket) as (proxy, client):
        proxy.answer(is_query("partNumber=2"), error_response("403 Forbidden", "AccessDenied"))
        with pytest.raises(KitcacheError, match="s3:PutObject") as caught:
            client.upload(f"{plain_bucket.prefix}big", size, [b"1" * size])
        assert caught.value.effect == "nothing was changed"
        assert list(client.list_uploads(plain_bucket.prefix)) == []


@pytest.mark.usefixtures("fast_retries")
def test_a_completion_whose_answer_is_lost_has_happened(
    moto_bucket: S3Bucket, small_parts: None
) -> None:
    size = 11 << 20
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(is_completion, error_response("404 Not Found", "NoSuchUpload"))
        with pytest.raises(KitcacheError, match="NoSuchUpload"):
            client.upload("big", size, [b"1" * size])
        moto_bucket.put("big", b"1" * size)
        client.upload("big", size, [b"1" * size])


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


@pytest.mark.usefixtures("fast_retries")
def test_a_broken_download_goes_on_where_it_broke(plain_bucket: S3Bucket) -> None:
    key = f"{plain_bucket.prefix}blob"
    data = bytes(range(256)) * 40
    plain_bucket.put(key, data)
    etag = plain_bucket.client.head_object(Bucket="plain", Key=key)["ETag"]
    date = "Last-Modified: Sun, 29 Nov 2026 10:20:30 GMT\r\n"
    whole = answer_of(data, headers=f"ETag: {etag}\r\n{date}")
    with proxied(plain_bucket) as (proxy, client):
        proxy.answer(is_method("GET"), whole[:-10_000], times=1)
        assert b"".join(client.read_parts(key, len(data)) or ()) == data
        resumed = proxy.requests[-1].headers
        assert (resumed["range"], resumed["if-match"]) == (f"bytes={len(data) - 10_000}-", etag)
        proxy.answer(is_method("GET"), whole[:-10_000], times=1)
        answer = client.read(key, 9000)
        assert answer is not None
        assert (answer[0], answer[1].size, answer[1].etag) == (data[:9000], len(data), etag)


@pytest.mark.usefixtures("fast_retries")
@pytest.mark.parametrize("change", ["changed", "deleted"])
def test_a_download_never_mixes_two_objects(plain_bucket: S3Bucket, change: str) -> None:
    key = f"{plain_bucket.prefix}blob"
    if change == "changed":
        plain_bucket.put(key, b"2" * 100)
    headers = 'ETag: "first"\r\nLast-Modified: Sun, 29 Nov 2026 10:20:30 GMT\r\n'
    with proxied(plain_bucket) as (proxy, client):
        proxy.answer(is_method("GET"), answer_of(b"1" * 100, headers=headers)[:-50], times=1)
        parts = client.read_parts(key, 100)
        assert parts is not None
        with pytest.raises(KitcacheError, match="changed or was deleted while it was read"):
            list(parts)


# --- failures


def raises_on_list(held: S3Bucket, match: str, **changes: str) -> KitcacheError:
    with opened(held, **changes) as client, pytest.raises(KitcacheError, match=match) as caught:
        all_of(client, "")
    text = str(caught.value)
    assert ADMIN.secret not in text
    assert "botocore" not in text.lower()
    assert caught.value.path == client.address
    return caught.value


def test_no_such_bucket(bucket: S3Bucket) -> None:
    error = raises_on_list(
        bucket, "the bucket nowhere-at-all does not exist", bucket="nowhere-at-all"
    )
    assert isinstance(error, NotACache)
    assert "oci-layout" not in str(error)


def test_wrong_credentials(plain_bucket: S3Bucket) -> None:
    raises_on_list(plain_bucket, "secret key does not match", secret_access_key="wrong-secret")
    raises_on_list(plain_bucket, "does not know the access key", access_key_id="nobody")


def test_a_denied_write_names_the_permission(plain_bucket: S3Bucket) -> None:
    plain_bucket.put(f"{plain_bucket.prefix}k", b"1")
    changes = {"access_key_id": READER.access, "secret_access_key": READER.secret}
    with opened(plain_bucket, **changes) as client:
        with pytest.raises(KitcacheError, match="PutObject needs the permission s3:PutObject"):
            client.write(f"{plain_bucket.prefix}k", b"2")
        target = Target(f"{plain_bucket.prefix}k")
        try:
            reasons = client.delete([target])
        except KitcacheError as error:
            reasons = {target: error.problem}
        assert "denied" in reasons[target]
        assert client.read(f"{plain_bucket.prefix}k", 9) is not None


@pytest.mark.parametrize(
    ("response", "match"),
    [
        (("400 Bad Request", "ExpiredToken"), "the session token has expired"),
        (("403 Forbidden", "AccessDenied"), "ListObjectsV2 needs the permission s3:ListBucket"),
        (("403 Forbidden", "RequestTimeTooSkewed"), "the clock of this machine"),
        (("409 Conflict", "Odd"), "the store answered Odd: told so"),
        (("405 Method Not Allowed", "MethodNotAllowed"), "MethodNotAllowed"),
    ],
)
def test_errors_of_the_store(moto_bucket: S3Bucket, response: tuple[str, str], match: str) -> None:
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(is_method("GET"), error_response(*response))
        with pytest.raises(KitcacheError, match=match):
            all_of(client, "")
        assert client.requests == {"list": 1}


@pytest.mark.parametrize(
    ("status", "code"),
    [("301 Moved", "PermanentRedirect"), ("400 Bad Request", "AuthorizationHeaderMalformed")],
)
def test_the_right_region_is_named(moto_bucket: S3Bucket, status: str, code: str) -> None:
    body = f"<Error><Code>{code}</Code><Region>eu-west-3</Region></Error>".encode()
    header = "x-amz-bucket-region: eu-west-3\r\n"
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(lambda _: True, answer_of(body, status, header))
        with pytest.raises(KitcacheError, match="region eu-west-3, not in us-east-1") as caught:
            all_of(client, "")
        assert caught.value.hints == ("set region=eu-west-3",)


def test_no_credentials(
    moto_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, f"{tmp_path}/none")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    changes = {"access_key_id": "", "secret_access_key": ""}
    raises_on_list(moto_bucket, "no complete credentials", **changes)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(KitcacheError, match="profile that AWS_PROFILE names"):
        open_s3(cache_of(moto_bucket, **changes))


def test_credentials_of_the_environment(
    plain_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN.access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
    with opened(plain_bucket, access_key_id="", secret_access_key="") as client:
        assert all_of(client, plain_bucket.prefix) == []


def test_a_store_that_does_not_answer(moto_bucket: S3Bucket, fast_retries: None) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    error = raises_on_list(moto_bucket, f"{url} does not answer", endpoint_url=url)
    assert "use_path_style" not in str(error.hints)
    error = raises_on_list(moto_bucket, "does not answer", endpoint_url=url, use_path_style="")
    assert "use_path_style=true" in error.hints[-1]


def test_a_certificate_that_is_not_trusted(moto_bucket: S3Bucket, fast_retries: None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as connection:
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        raises_on_list(moto_bucket, "its certificate is not trusted", endpoint_url=url)
        thread.join()


@pytest.mark.usefixtures("fast_retries")
def test_a_store_that_is_busy_is_asked_again(moto_bucket: S3Bucket) -> None:
    moto_bucket.put("k", b"1")
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(is_method("GET"), error_response("503 Slow Down", "SlowDown"), times=3)
        proxy.answer(is_method("GET"), error_response("500 Error", "InternalError"), times=2)
        proxy.answer(is_method("GET"), b"", times=2)
        assert [info.key for info in all_of(client, "")] == ["k"]
        assert client.requests == {"list": 8}


@pytest.mark.usefixtures("fast_retries")
@pytest.mark.parametrize(("limit", "count"), [("", 8), ("2", 2)])
def test_a_store_that_stays_busy_is_an_error(moto_bucket: S3Bucket, limit: str, count: int) -> None:
    with proxied(moto_bucket, retry_max_attempts=limit) as (proxy, client):
        proxy.answer(is_method("GET"), error_response("503 Slow Down", "SlowDown"))
        with pytest.raises(KitcacheError, match="asked to slow down"):
            all_of(client, "")
        assert client.requests == {"list": count}


def test_a_waiting_request_is_cancelled(moto_bucket: S3Bucket) -> None:
    with proxied(moto_bucket) as (proxy, client):
        waits: list[float] = []

        def pause(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                raise Cancelled(client.address)

        client.pause = pause
        proxy.answer(is_method("GET"), error_response("503 Slow Down", "SlowDown"))
        with pytest.raises(Cancelled):
            all_of(client, "")
        assert client.requests == {"list": 3}
        assert waits == sorted(waits)


def test_a_store_waits_as_its_caller_does(moto_bucket: S3Bucket) -> None:
    """Ctrl-C ends a command that waits for a busy store."""
    put_cache(moto_bucket, {"main": [b"one"]})
    cancel = threading.Event()
    with run_proxy(moto_bucket.server.url) as proxy:
        proxy.answer(is_query("list-type=2"), error_response("503 Slow Down", "SlowDown"))
        address = moto_bucket.attributes(endpoint_url=proxy.url)
        timer = threading.Timer(0.2, cancel.set)
        timer.start()
        with pytest.raises(Cancelled):
            kitcache.reset(address, cancel=cancel)
        timer.join()
    assert len(moto_bucket.keys()) == 2


def test_the_clock_is_the_stores(moto_bucket: S3Bucket) -> None:
    ok = answer_of(b"<VersioningConfiguration/>", headers="Date: Sun, 29 Nov 2026 10:20:30 GMT\r\n")
    with proxied(moto_bucket) as (proxy, client):
        proxy.answer(is_query("versioning"), ok)
        assert client.now_ns() == 1_795_947_630 * 10**9


@pytest.mark.parametrize("headers", ["", "Date: \r\n", "Date: tomorrow\r\n"])
def test_answers_without_a_date_are_refused(moto_bucket: S3Bucket, headers: str) -> None:
    with proxied(moto_bucket) as (proxy, client):
        answer = answer_of(b"<VersioningConfiguration/>", headers=headers)
        proxy.answer(is_query("versioning"), answer)
        with pytest.raises(KitcacheError, match="have no date"):
            client.now_ns()


def test_without_boto3(moto_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("kitcache.store.objects.s3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(KitcacheError, match="needs the package boto3") as caught:
        open_s3(cache_of(moto_bucket))
    assert caught.value.hints == ("pip install 'kitcache[s3]'",)
    assert caught.value.exit_code == 1
