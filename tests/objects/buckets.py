"""Buckets of the servers in tests/objects/servers.py, and caches in them as BuildKit writes them.

A bucket here uses the vendor's own client, so that a test sees it as another program does.
"""

import hashlib
import io
import json
import posixpath
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from kitcache.options.objectcaches import parse_object_cache
from kitcache.store.objects.client import ObjectClient
from tests.objects.memory import MemoryClient

FIXTURE = Path(__file__).parents[1] / "data" / "objects" / "fixture.tar.gz"
FIXTURE_PREFIX = "fix/"
STORES = ("plain_bucket", "versioned_bucket", "moto_bucket", "azure_bucket")
"""The fixtures of the stores that a collector can work on."""
REGION = "us-east-1"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = (  # Azurite's documented key, the same everywhere.
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


class Key(NamedTuple):
    """A pair of S3 credentials."""

    access: str
    secret: str


ADMIN = Key("admin", "admin-secret")
READER = Key("reader", "reader-secret")
"""An identity of SeaweedFS that may list and read, and nothing else."""


class Server(NamedTuple):
    """A running server. `tail` returns the end of its log."""

    name: str
    url: str
    tail: Callable[[], str]


class MemoryBucket(NamedTuple):
    """The bucket of a MemoryClient. Its own requests are not counted and call no hook."""

    client: MemoryClient
    prefix: str = ""

    def blob_key(self, digest: str) -> str:
        return f"{self.prefix}blobs/{digest}"

    def root_key(self, name: str) -> str:
        return f"{self.prefix}manifests/{name}"

    def put(self, key: str, data: bytes) -> None:
        self.client._put(key, data)

    def put_if_missing(self, key: str, data: bytes) -> None:
        if self.get(key) is None:
            self.put(key, data)

    def get(self, key: str) -> bytes | None:
        held = self.client._current(key)
        return None if held is None else held[1]

    def remove(self, key: str) -> None:
        self.client.versions.pop(key, None)

    def keys(self) -> set[str]:
        return {key for key in self.client.versions if self.client._current(key) is not None}

    def modified_ns(self, key: str) -> int | None:
        held = self.client._current(key)
        return None if held is None else held[0].modified_ns

    def touch(self, key: str) -> None:
        data = self.get(key)
        if data is None:
            raise LookupError(key)
        self.put(key, data)


class Stored(NamedTuple):
    """An object, or one version of it. `is_marker`: a delete marker."""

    key: str
    data: bytes
    version: str = ""
    is_current: bool = True
    is_marker: bool = False


class Content(Protocol):
    """A bucket, or the part of one that a prefix has.

    Keys are whole keys. `blob_key` and `root_key` build them as BuildKit's exporters do.
    """

    @property
    def prefix(self) -> str: ...
    def blob_key(self, digest: str) -> str: ...
    def root_key(self, name: str) -> str: ...
    def put(self, key: str, data: bytes) -> None: ...
    def put_if_missing(self, key: str, data: bytes) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def remove(self, key: str) -> None: ...
    def keys(self) -> set[str]: ...
    def modified_ns(self, key: str) -> int | None: ...
    def touch(self, key: str) -> None: ...


class Bucket(Content, Protocol):
    """A bucket or container of a server."""

    server: Server
    name: str
    has_versions: bool

    def attributes(self, **changes: str) -> str: ...


class S3Bucket(NamedTuple):
    """A bucket of an S3 server. `client` is boto3's."""

    server: Server
    name: str
    prefix: str
    has_versions: bool
    client: Any

    @classmethod
    @contextmanager
    def open(
        cls,
        server: Server,
        name: str,
        prefix: str = "",
        *,
        has_versions: bool = False,
        key: Key = ADMIN,
        url: str = "",
    ) -> Iterator[Self]:
        client = s3_client(url or server.url, key)
        try:
            yield cls(server, name, prefix, has_versions, client)
        finally:
            client.close()

    def create(
        self, *, attempts: int = 1, has_versions: bool = False, has_object_lock: bool = False
    ) -> None:
        """Create the bucket. SeaweedFS refuses for a moment after it has started: try again."""
        for left in reversed(range(attempts)):
            try:
                self.client.create_bucket(
                    Bucket=self.name, ObjectLockEnabledForBucket=has_object_lock
                )
                self.client.put_object(Bucket=self.name, Key="ready", Body=b"ready")
                break
            except self.client.exceptions.ClientError:
                if not left:
                    raise
                time.sleep(0.25)
        self.client.delete_object(Bucket=self.name, Key="ready")
        if has_versions:
            self.client.put_bucket_versioning(
                Bucket=self.name, VersioningConfiguration={"Status": "Enabled"}
            )

    def attributes(self, **changes: str) -> str:
        """Return the value of --cache-to that names this cache, with other attributes."""
        attrs = {"type": "s3", "bucket": self.name, "region": REGION, "prefix": self.prefix}
        attrs |= {"endpoint_url": self.server.url, "use_path_style": "true"}
        attrs |= {"access_key_id": ADMIN.access, "secret_access_key": ADMIN.secret}
        return ",".join(f"{name}={value}" for name, value in (attrs | changes).items() if value)

    def blob_key(self, digest: str) -> str:
        return f"{self.prefix}blobs/{digest}"

    def root_key(self, name: str) -> str:
        return f"{self.prefix}manifests/{name}"

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes | None:
        try:
            answer = self.client.get_object(Bucket=self.name, Key=key)
        except self.client.exceptions.NoSuchKey:
            return None
        data: bytes = answer["Body"].read()
        return data

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def touch(self, key: str) -> None:
        """Copy an object onto itself, as BuildKit renews its date. LookupError if it is missing."""
        from botocore.exceptions import ConnectionClosedError  # noqa: PLC0415 - slow

        try:
            self._copy_onto_itself(key)
        except ConnectionClosedError:
            # SeaweedFS panics if the object is deleted during the copy. BuildKit's SDK tries again.
            self.touch(key)
        except self.client.exceptions.ClientError as error:
            raise LookupError(key) from error

    def _copy_onto_itself(self, key: str) -> None:
        self.client.copy_object(
            Bucket=self.name,
            Key=key,
            CopySource=f"{self.name}/{key}",
            MetadataDirective="REPLACE",
            Metadata={"updated-at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        )

    def put_if_missing(self, key: str, data: bytes) -> None:
        raise NotImplementedError("BuildKit's S3 exporter sends no condition")

    def modified_ns(self, key: str) -> int | None:
        """Return the date of an object as HEAD gives it, None if it is missing."""
        try:
            head = self.client.head_object(Bucket=self.name, Key=key)
        except self.client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            return None
        return to_ns(head["LastModified"])

    def keys(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=self.prefix
        )
        return {held["Key"] for page in pages for held in page.get("Contents", ())}

    def versions(self) -> list[Stored]:
        """Return all versions and delete markers below the prefix, without their bytes."""
        pages = self.client.get_paginator("list_object_versions").paginate(
            Bucket=self.name, Prefix=self.prefix
        )
        return [
            Stored(held["Key"], b"", held["VersionId"], held["IsLatest"], kind == "DeleteMarkers")
            for page in pages
            for kind in ("Versions", "DeleteMarkers")
            for held in page.get(kind, ())
        ]


class AzureBucket(NamedTuple):
    """A container of Azurite. `client` is azure-storage-blob's ContainerClient."""

    server: Server
    name: str
    prefix: str
    has_versions: bool
    client: Any

    @classmethod
    @contextmanager
    def open(cls, server: Server, name: str, prefix: str = "") -> Iterator[Self]:
        with azure_client(server.url, name) as client:
            yield cls(server, name, prefix, False, client)

    def create(self) -> None:
        self.client.create_container()

    def attributes(self, **changes: str) -> str:
        """Return the value of --cache-to that names this cache, with other attributes."""
        attrs = {"type": "azblob", "container": self.name, "prefix": self.prefix}
        attrs["account_url"] = f"{self.server.url}/{AZURITE_ACCOUNT}"
        attrs |= {"account_name": AZURITE_ACCOUNT, "secret_access_key": AZURITE_KEY}
        return ",".join(f"{name}={value}" for name, value in (attrs | changes).items() if value)

    def blob_key(self, digest: str) -> str:
        return posixpath.normpath(f"{self.prefix}/blobs/{digest}").lstrip("/")

    def root_key(self, name: str) -> str:
        return posixpath.normpath(f"{self.prefix}/manifests/{name}").lstrip("/")

    def put(self, key: str, data: bytes) -> None:
        self.client.upload_blob(key, data, overwrite=True)

    def get(self, key: str) -> bytes | None:
        from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415 - slow

        try:
            data: bytes = self.client.download_blob(key).readall()
        except ResourceNotFoundError:
            return None
        return data

    def remove(self, key: str) -> None:
        self.client.delete_blob(key)

    def touch(self, key: str) -> None:
        raise NotImplementedError("BuildKit's Azure exporter touches nothing")

    def put_if_missing(self, key: str, data: bytes) -> None:
        """Upload with If-None-Match: *, as BuildKit does. An existing object is not a failure."""
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415 - slow

        with suppress(ResourceExistsError):
            self.client.upload_blob(key, data, overwrite=False)

    def modified_ns(self, key: str) -> int | None:
        """Return the date of an object as HEAD gives it, None if it is missing."""
        from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415 - slow

        try:
            return to_ns(self.client.get_blob_client(key).get_blob_properties().last_modified)
        except ResourceNotFoundError:
            return None

    def keys(self) -> set[str]:
        return set(self.client.list_blob_names(name_starts_with=self.prefix or None))


def open_client(bucket: Bucket, **changes: str) -> ObjectClient:
    """Return kitcache's client of a bucket; the caller closes it."""
    cache = parse_object_cache(bucket.attributes(**changes), {})
    assert cache is not None
    if cache.kind == "s3":
        from kitcache.store.objects.s3 import open_s3  # noqa: PLC0415 - slow

        return open_s3(cache)
    from kitcache.store.objects.azure import open_azure  # noqa: PLC0415 - slow

    return open_azure(cache)


def s3_client(url: str, key: Key = ADMIN) -> Any:
    """Return boto3's client. It retries nothing, so a test sees each answer of the server."""
    import boto3  # noqa: PLC0415 - slow
    from botocore.config import Config  # noqa: PLC0415

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=key.access,
        aws_secret_access_key=key.secret,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=10,
            read_timeout=60,
        ),
    )


def azure_client(url: str, container: str) -> Any:
    from azure.storage.blob import ContainerClient  # noqa: PLC0415 - slow

    account = {"account_name": AZURITE_ACCOUNT, "account_key": AZURITE_KEY}
    return ContainerClient(f"{url}/{AZURITE_ACCOUNT}", container, credential=account)


def to_ns(date: datetime) -> int:
    return (date - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def make_cacheconfig(
    blobs: Sequence[bytes], created: str = "2026-11-29T17:23:29.2202Z", salt: str = ""
) -> bytes:
    """Return a cacheconfig of a chain of steps, each with one of the layers, as S3 has it."""
    layers = [
        {
            "blob": digest_of(data),
            "parent": number - 1,
            "annotations": {
                "mediaType": LAYER_TYPE,
                "diffID": digest_of(b"diff" + data),
                "size": len(data),
                "createdAt": created,
            },
        }
        for number, data in enumerate(blobs)
    ]
    source = {"digest": digest_of(f"source{salt}".encode())}
    steps = [
        {
            "layers": [{"layer": number, "createdAt": created}],
            "digest": digest_of(f"step {number}{salt}".encode()),
            "inputs": [[{"link": number}]],
        }
        for number in range(len(blobs))
    ]
    records = [source, *steps]
    return json.dumps({"layers": layers, "records": records}, separators=(",", ":")).encode()


def put_cache(
    bucket: Content, roots: Mapping[str, Sequence[bytes]], garbage: Sequence[bytes] = ()
) -> None:
    """Write a cache as BuildKit does: blobs first, then one cacheconfig for each name."""
    for data in {data: None for blobs in (*roots.values(), garbage) for data in blobs}:
        bucket.put(bucket.blob_key(digest_of(data)), data)
    for name, blobs in roots.items():
        bucket.put(bucket.root_key(name), make_cacheconfig(blobs))


def load_fixture(bucket: Content, kind: str) -> None:
    """Write one of the real caches of tests/data/objects below the prefix of the bucket."""
    for key, data in read_fixture(kind).items():
        bucket.put(bucket.prefix + key, data)


def read_fixture(kind: str) -> dict[str, bytes]:
    """Return the objects of the cache that BuildKit wrote to "s3" or "azblob", without prefix."""
    with tarfile.open(FIXTURE) as archive:
        listing = json.load(_member(archive, f"./{kind}/listing.json"))
        return {
            held["key"].removeprefix(FIXTURE_PREFIX): _member(
                archive, f"./{kind}/{held['file']}"
            ).read()
            for held in listing
        }


def _member(archive: tarfile.TarFile, name: str) -> io.BufferedReader:
    member = archive.extractfile(name)
    assert member is not None
    return member  # type: ignore[return-value]


def missing_blobs(bucket: Content) -> dict[str, set[str]]:
    """Return the blobs that each root lacks, by name; roots that lack none are left out."""
    keys = bucket.keys()
    manifests = bucket.root_key("x")[:-1]
    lacking: dict[str, set[str]] = {}
    for key in sorted(key for key in keys if key.startswith(manifests)):
        layers = json.loads(bucket.get(key) or b"{}").get("layers") or ()
        absent = {layer["blob"] for layer in layers if bucket.blob_key(layer["blob"]) not in keys}
        if absent:
            lacking[key.removeprefix(manifests)] = absent
    return lacking
