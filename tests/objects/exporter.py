"""BuildKit's exporters to S3 and Azure, as far as a bucket sees them, with a clock and stalls.

An export is a generator: it yields before each request, so a test does at that moment what it
wants, such as a whole reset, or never continues, as a killed BuildKit.

Sources: BuildKit, cache/remotecache/s3/s3.go (243-339) and cache/remotecache/azblob/exporter.go.
Layers are exported one after the other; BuildKit's S3 exporter has four under way at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from tests.objects.buckets import Content, digest_of, make_cacheconfig


class Request(NamedTuple):
    """The request that an export is about to send."""

    kind: Literal["head", "put", "touch", "root"]
    key: str


Export = Iterator[Request]


def export_s3(
    bucket: Content,
    names: Sequence[str],
    blobs: Sequence[bytes],
    *,
    now_ns: Callable[[], int],
    touch_refresh_ns: int,
) -> Export:
    """HEAD each blob, upload or touch it, and publish each name. Nothing is looked at again.

    Raises:
        LookupError: A blob that it touches is missing: the build fails, without a root.

    """
    for data in dict.fromkeys(blobs):
        key = bucket.blob_key(digest_of(data))
        yield Request("head", key)
        modified_ns = bucket.modified_ns(key)
        if modified_ns is None:
            yield Request("put", key)
            bucket.put(key, data)
        elif now_ns() - modified_ns > touch_refresh_ns:
            yield Request("touch", key)
            bucket.touch(key)
    yield from _publish(bucket, names, blobs)


def export_azure(bucket: Content, names: Sequence[str], blobs: Sequence[bytes]) -> Export:
    """HEAD each blob, upload it if it is missing, and publish each name. Nothing is touched."""
    for data in dict.fromkeys(blobs):
        key = bucket.blob_key(digest_of(data))
        yield Request("head", key)
        if bucket.modified_ns(key) is None:
            yield Request("put", key)
            bucket.put_if_missing(key, data)
    yield from _publish(bucket, names, blobs)


def _publish(bucket: Content, names: Sequence[str], blobs: Sequence[bytes]) -> Export:
    document = make_cacheconfig(blobs)
    for name in names:
        key = bucket.root_key(name)
        yield Request("root", key)
        bucket.put(key, document)


def finish(export: Export) -> list[Request]:
    """Send all requests that are left. Return them."""
    return list(export)


def run_until(export: Export, kind: str) -> Request:
    """Send requests until the next one is of that kind, which is not sent. Return it."""
    for request in export:
        if request.kind == kind:
            return request
    raise AssertionError(f"the export sends no {kind}")
