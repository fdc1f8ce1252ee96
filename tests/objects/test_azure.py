"""AzureClient: against Azurite, and against a server that answers what Azurite cannot."""

import os
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from azure.storage.blob import generate_container_sas

from kitcache.errors import KitcacheError, NotACache
from kitcache.options.objectcaches import ObjectCache, parse_object_cache
from kitcache.store.objects import azureclient, azurepages
from kitcache.store.objects.azure import open_azure
from kitcache.store.objects.client import Condition, ObjectClient, Target
from tests.objects.buckets import AZURITE_KEY, AzureBucket

CHANGED = "it has changed since it was listed"


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = {"initial_backoff": 0, "increment_base": 0, "random_jitter_range": 0}
    monkeypatch.setattr(azureclient, "_RETRY", {"retry_total": 3, **waits})


def cache_of(bucket: AzureBucket, **changes: str) -> ObjectCache:
    cache = parse_object_cache(bucket.attributes(**changes), {})
    assert cache is not None
    return cache


@pytest.fixture
def client(azure_bucket: AzureBucket) -> Iterator[ObjectClient]:
    client = open_azure(cache_of(azure_bucket))
    yield client
    client.close()


def keys(client: ObjectClient, prefix: str, **options: Any) -> list[list[str]]:
    return [[item.key for item in page.objects] for page in client.list_pages(prefix, **options)]


# Listings


def test_pages_have_all_blobs_once_in_the_order_of_their_keys(
    client: ObjectClient, azure_bucket: AzureBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"blobs/sha256:{n:02}" for n in range(7)]
    for name in (*names, "blob", "blobsX", "manifests/main"):
        azure_bucket.put(name, b"x")
    monkeypatch.setattr(azurepages, "PAGE_BLOBS", 3)
    pages = list(client.list_pages("blobs/"))
    assert [[item.key for item in page.objects] for page in pages] == [
        names[:3],
        names[3:6],
        names[6:],
    ]
    assert [page.is_last for page in pages] == [False, False, True]
    assert client.requests == {"list": 3}


def test_a_prefix_may_end_inside_a_name(client: ObjectClient, azure_bucket: AzureBucket) -> None:
    for name in ("blobs/sha256:a1", "blobs/sha256:a2", "blobs/sha256:b1"):
        azure_bucket.put(name, b"x")
    assert keys(client, "blobs/sha256:a") == [["blobs/sha256:a1", "blobs/sha256:a2"]]
    assert keys(client, "none") == [[]]


NESTED = [f"b/{n}" for n in range(7)]
NESTED += ["c", "c/x/y", "c/x/z", "c/z", "d/blobs/1", "d/blobs/2", "d/kitcache/live", "d/z", "e"]


@pytest.mark.parametrize("max_folders", [1, 100])
def test_a_listing_begins_after_a_key(
    client: ObjectClient,
    azure_bucket: AzureBucket,
    monkeypatch: pytest.MonkeyPatch,
    max_folders: int,
) -> None:
    for key in NESTED:
        azure_bucket.put(key, b"x")
    monkeypatch.setattr(azurepages, "PAGE_BLOBS", 2)
    monkeypatch.setattr(azurepages, "MAX_FOLDERS", max_folders)
    top = "\U0010ffff"
    for prefix in ("", "c", "d/"):
        for after in ("a", "b/2", "c/x/y", f"c/x/{top}", "d/blobs/1", f"d/blobs/{top}", "d/z", top):
            pages = list(client.list_pages(prefix, after=after))
            listed = [item.key for page in pages for item in page.objects]
            assert listed == [key for key in NESTED if key.startswith(prefix) and key > after]
            assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]


def test_a_listing_skips_a_folder_of_any_size_in_one_request(
    client: ObjectClient, azure_bucket: AzureBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (*NESTED, "d/live"):
        azure_bucket.put(key, b"x")
    monkeypatch.setattr(azurepages, "PAGE_BLOBS", 6)
    assert keys(client, "d/", after="d/kitcache/\U0010ffff") == [["d/live", "d/z"]]
    assert client.requests == {"list": 1}


def test_a_listing_has_the_facts_that_stat_read_and_write_return(
    client: ObjectClient, azure_bucket: AzureBucket
) -> None:
    written = client.write("manifests/main", b"{}")
    assert [page.objects for page in client.list_pages("manifests/")] == [[written]]
    assert client.stat("manifests/main") == written
    assert client.read("manifests/main", 100) == (b"{}", written)
    assert written is not None
    assert written.size == 2
    assert 0 <= client.now_ns() - written.modified_ns < 60 * 10**9
    assert written.etag.startswith('"0x')
    assert written.etag.endswith('"')


@pytest.mark.parametrize("name", ["a b", "a//b", "ü", "%41", "a?b#c", "x&<y>", "t/", "~", "+", "="])
def test_names_that_a_url_or_xml_escapes(client: ObjectClient, name: str) -> None:
    key = f"manifests/{name}"
    written = client.write(key, b"{}")
    assert [page.objects for page in client.list_pages("manifests/")] == [[written]]
    assert client.read(key, 10) == (b"{}", written)
    assert written is not None
    assert client.delete([Target(key, etag=written.etag)]) == {}
    assert client.stat(key) is None


def test_a_key_that_the_http_library_would_change_is_refused(client: ObjectClient) -> None:
    client.write("manifests/b", b"{}")
    for request in (client.stat, lambda key: client.write(key, b"other")):
        with pytest.raises(KitcacheError, match=r"a/\.\./b cannot be requested"):
            request("manifests/a/../b")
    assert client.read("manifests/b", 10) is not None


# Reads and writes


def test_a_missing_blob_is_none(client: ObjectClient) -> None:
    assert client.stat("x") is None
    assert client.read("x", 10) is None
    assert client.read_parts("x", 10) is None


def test_read_returns_at_most_the_limit_and_the_whole_size(client: ObjectClient) -> None:
    client.write("x", b"0123456789")
    client.write("empty", b"")
    data, info = client.read("x", 4) or (b"", None)
    assert (data, info and info.size) == (b"0123", 10)
    data, info = client.read("empty", 4) or (b"?", None)
    assert (data, info and info.size) == (b"", 0)
    assert list(client.read_parts("empty", 0) or [b"?"]) == []


def test_a_write_whose_condition_does_not_hold_writes_nothing(client: ObjectClient) -> None:
    new = Condition()
    first = client.write("x", b"1", new)
    assert first is not None
    assert client.write("x", b"2", new) is None
    second = client.write("x", b"3", Condition(first.etag))
    assert second is not None
    assert client.write("x", b"4", Condition(first.etag)) is None
    assert client.write("missing", b"5", Condition(first.etag)) is None
    assert client.read("x", 10) == (b"3", second)
    assert client.stat("missing") is None


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azureclient, "PART_BYTES", 1000)


@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 2000, 4321])
@pytest.mark.usefixtures("small_parts")
def test_an_upload_in_blocks_is_read_back_in_parts(azure_bucket: AzureBucket, size: int) -> None:
    client = open_azure(cache_of(azure_bucket))
    data = os.urandom(size)
    client.upload("x", size, (memoryview(data)[n : n + 300] for n in range(0, size, 300)))
    assert azure_bucket.get("x") == data
    blocks = -(-size // 1000)
    assert client.requests == {"put": 1 if size <= 1000 else blocks + 1}
    assert b"".join(client.read_parts("x", size) or ()) == data
    client.close()


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_fails_writes_nothing(azure_bucket: AzureBucket) -> None:
    client = open_azure(cache_of(azure_bucket))

    def parts() -> Iterator[bytes]:
        yield b"x" * 2500
        raise KitcacheError("source", "it broke")

    with pytest.raises(KitcacheError, match="it broke"):
        client.upload("x", 5000, parts())
    with pytest.raises(
        KitcacheError, match=r"x was not written: 2,500 bytes arrived instead of 5,000"
    ):
        client.upload("x", 5000, [b"x" * 2500])
    with pytest.raises(KitcacheError, match="10 bytes arrived instead of 20"):
        client.upload("x", 20, [b"x" * 10])
    assert azure_bucket.keys() == set()
    assert keys(client, "") == [[]]
    assert list(client.list_uploads("")) == []
    client.close()


@pytest.mark.usefixtures("small_parts")
def test_a_blob_that_changes_while_it_is_read_is_an_error(azure_bucket: AzureBucket) -> None:
    client = open_azure(cache_of(azure_bucket))
    azure_bucket.put("x", b"a" * 3000)
    parts = client.read_parts("x", 3000)
    assert parts is not None
    assert next(parts) == b"a" * 1000
    azure_bucket.put("x", b"b" * 3000)
    with pytest.raises(KitcacheError, match="changed while"):
        list(parts)
    client.close()


def test_renew_changes_date_and_etag(client: ObjectClient, azure_bucket: AzureBucket) -> None:
    before = client.write("x", b"data")
    client.renew("x")
    after = client.stat("x")
    assert before is not None
    assert after is not None
    assert after.etag != before.etag
    assert after.modified_ns >= before.modified_ns
    assert client.delete([Target("x", etag=before.etag)]) == {Target("x", "", before.etag): CHANGED}
    assert azure_bucket.get("x") == b"data"


# Deletion


def test_a_deletion_names_256_blobs(client: ObjectClient, azure_bucket: AzureBucket) -> None:
    for name in ("b/000", "b/255", "b/256"):
        azure_bucket.put(name, b"")
    targets = [Target(f"b/{n:03}") for n in range(257)]
    with pytest.raises(KitcacheError, match="257 deletions with 400 Exceeds"):
        client.delete(targets)
    assert len(azure_bucket.keys()) == 3
    client.requests.clear()
    assert client.delete(targets[: client.delete_batch_size]) == {}
    assert azure_bucket.keys() == {"b/256"}
    assert client.requests == {"delete": 1}


def test_a_deletion_keeps_what_has_changed_and_passes_over_what_is_missing(
    client: ObjectClient, azure_bucket: AzureBucket
) -> None:
    for name in "abc":
        azure_bucket.put(name, b"old")
    [page] = client.list_pages("")
    a, b, c = (Target(item.key, etag=item.etag) for item in page.objects)
    azure_bucket.put("b", b"new")
    azure_bucket.remove("c")
    assert client.delete([a, b, c, Target("never")]) == {b: CHANGED}
    assert azure_bucket.keys() == {"b"}


def test_a_blob_with_a_lease_is_not_deleted(
    client: ObjectClient, azure_bucket: AzureBucket
) -> None:
    azure_bucket.put("a", b"x")
    azure_bucket.put("b", b"x")
    azure_bucket.client.get_blob_client("a").acquire_lease()
    assert client.delete([Target("a"), Target("b")]) == {Target("a"): "a lease protects it"}
    assert azure_bucket.keys() == {"a"}


def test_abilities(client: ObjectClient, azure_bucket: AzureBucket) -> None:
    azure_bucket.put("blobs/sha256:a", b"x")
    abilities = client.abilities()
    assert abilities == (False, True, False)
    assert client.abilities() is abilities
    assert client.requests == {"list": 1}


def test_now_asks_the_service_once(client: ObjectClient) -> None:
    first = client.now_ns()
    times = [first, *(client.now_ns() for _ in range(3))]
    assert all(a <= b for a, b in pairwise(times))
    assert client.requests == {"list": 1}


# Failures


def fails(cache: ObjectCache) -> KitcacheError:
    client = open_azure(cache)
    with pytest.raises(KitcacheError) as caught:
        list(client.list_pages("blobs/"))
    client.close()
    text = str(caught.value)
    assert AZURITE_KEY not in text
    assert "sig=" not in text
    assert "nothing was changed" in text
    return caught.value


def test_no_container(azure_bucket: AzureBucket) -> None:
    error = fails(cache_of(azure_bucket, container="other"))
    assert isinstance(error, NotACache)
    assert "the container other does not exist" in str(error)
    client = open_azure(cache_of(azure_bucket, container="other"))
    for request in (
        client.stat,
        lambda key: client.read(key, 1),
        lambda key: client.write(key, b""),
    ):
        with pytest.raises(NotACache):
            request("x")
    with pytest.raises(NotACache):
        client.delete([Target("x")])
    client.close()


def test_a_wrong_key(azure_bucket: AzureBucket) -> None:
    error = fails(cache_of(azure_bucket, secret_access_key="d3Jvbmc="))
    assert "the credential" in str(error)
    assert "403" in str(error)
    assert "d3Jvbmc" not in str(error)


def test_a_key_that_is_not_base64(azure_bucket: AzureBucket) -> None:
    with pytest.raises(KitcacheError, match="it is not base64") as caught:
        open_azure(cache_of(azure_bucket, secret_access_key="not a key"))
    assert "not a key of" in str(caught.value)
    assert caught.value.exit_code == 1


def sas(bucket: AzureBucket, *, ends: timedelta, permission: str) -> str:
    token = generate_container_sas(
        "devstoreaccount1",
        bucket.name,
        account_key=AZURITE_KEY,
        permission=permission,
        start=datetime.now(UTC) - timedelta(hours=2),
        expiry=datetime.now(UTC) + ends,
    )
    return f"{bucket.server.url}/devstoreaccount1?{token}"


def test_a_sas_token(azure_bucket: AzureBucket) -> None:
    azure_bucket.put("blobs/x", b"data")
    url = sas(azure_bucket, ends=timedelta(hours=1), permission="rl")
    cache = cache_of(azure_bucket, secret_access_key="", account_url=url)
    client = open_azure(cache)
    assert keys(client, "blobs/") == [["blobs/x"]]
    with pytest.raises(KitcacheError, match="does not permit this request") as caught:
        client.write("blobs/y", b"")
    assert "sig=" not in str(caught.value)
    failures = client.delete([Target("blobs/x")])
    assert list(failures) == [Target("blobs/x")]
    assert failures[Target("blobs/x")] == "the credential does not permit it"
    client.close()
    assert azure_bucket.keys() == {"blobs/x"}


def test_an_expired_sas_token(azure_bucket: AzureBucket) -> None:
    url = sas(azure_bucket, ends=timedelta(hours=-1), permission="rl")
    error = fails(cache_of(azure_bucket, secret_access_key="", account_url=url))
    assert "403" in str(error)


def test_no_answer(azure_bucket: AzureBucket) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/devstoreaccount1"
        client = open_azure(cache_of(azure_bucket, account_url=url))
        with pytest.raises(KitcacheError, match=r"127\.0\.0\.1:\d+ does not answer"):
            client.stat("x")
        assert client.requests == {"head": 4}
        client.close()


def test_no_credential_and_no_azure_identity(
    azure_bucket: AzureBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(KitcacheError, match="azure-identity") as caught:
        open_azure(cache_of(azure_bucket, secret_access_key=""))
    assert caught.value.hints[0] == "pip install azure-identity"


def test_the_extra_is_not_installed(
    azure_bucket: AzureBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("kitcache.store.objects.azurec")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(KitcacheError, match="azure-storage-blob") as caught:
        open_azure(cache_of(azure_bucket))
    assert caught.value.hints == ("pip install 'kitcache[azure]'",)
