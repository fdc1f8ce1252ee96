"""The bytes of blobs in an object store, in parts: read and verified, written, used again."""

import hashlib
from collections.abc import Iterable, Iterator

from kitcache.errors import NOTHING_CHANGED, Damaged
from kitcache.oci.digest import Digest
from kitcache.store.ioerrors import size_problem
from kitcache.store.objects.client import ObjectClient
from kitcache.store.values import BlobStat


def read_blob_parts(
    client: ObjectClient, key: str, digest: Digest, size: int
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a blob, and verify them at the end; see EditableStore.read_parts."""
    if not digest.is_known:
        raise _damaged(client, digest, "unknown-algorithm", "has an unknown algorithm")
    parts = client.read_parts(key, size)
    if parts is None:
        raise _damaged(client, digest, "missing", "is missing")
    hasher = hashlib.new(digest.algorithm)
    length = 0
    for part in parts:
        length += len(part)
        hasher.update(part)
        yield part
    if length != size:
        raise _damaged(client, digest, "wrong-size", size_problem(length, size))
    if hasher.hexdigest() != digest.hex:
        raise _damaged(client, digest, "wrong-digest", "does not match its digest")


def put_blob(
    client: ObjectClient, key: str, size: int, parts: Iterable[bytes | memoryview]
) -> None:
    """Write a blob from its parts; see EditableStore.put_blob."""
    # A part is valid until the next one, and a client may collect several.
    client.upload(key, size, map(bytes, parts))


def reuse_blob(client: ObjectClient, key: str, stat: BlobStat, touch_refresh_ns: int) -> bool:
    """Give a blob that an exporter would renew a new date; see EditableStore.reuse_blob.

    Source: BuildKit, cache/remotecache/s3/s3.go, touch.
    """
    if client.now_ns() - stat.mtime_ns > touch_refresh_ns:
        client.renew(key)
    return True


def _damaged(client: ObjectClient, digest: Digest, kind: str, problem: str) -> Damaged:
    return Damaged(
        client.address, f"blob {digest.short} {problem}", kind=kind, effect=NOTHING_CHANGED
    )
