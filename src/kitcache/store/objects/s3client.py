"""S3Client: the requests of a cache to a bucket of S3, sent with botocore."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import (
    PAGE_KEYS,
    Abilities,
    Condition,
    NoBucket,
    ObjectInfo,
    Page,
    RequestKind,
    Target,
    Upload,
)
from kitcache.store.objects.lifecycle import LifecycleRule
from kitcache.store.objects.s3deletion import S3Deletions
from kitcache.store.objects.s3errors import CONDITION_FAILED, DENIED, MISSING
from kitcache.store.objects.s3listing import (
    LISTING,
    S3Page,
    convert_listing,
    group_versions,
    read_date,
)
from kitcache.store.objects.s3requests import S3Requests
from kitcache.store.objects.s3transfer import (
    CONTENT_TYPE,
    NO_UPLOAD,
    make_info,
    open_download,
    upload,
)

_UNKNOWN = {"NotImplemented", "501", "MethodNotAllowed", "405"}
_NOT_WRITTEN = MISSING | CONDITION_FAILED | {"OperationAborted"}
_NO_LIFECYCLE = {"NoSuchLifecycleConfiguration"}
_MAX_EMPTY_PAGES = 1000
_NOT_LISTED = "more keys follow, but the store does not list them"


class S3Client:
    """An ObjectClient for S3. The protocol documents the methods."""

    delete_batch_size = PAGE_KEYS

    def __init__(self, cache: ObjectCache) -> None:
        self.address = cache.address
        self._requests = S3Requests(cache)
        self.requests: dict[RequestKind, int] = self._requests.counts
        self.warnings: list[str] = []
        self._deletions = S3Deletions(self._requests)
        self._abilities: Abilities | None = None

    @property
    def pause(self) -> Callable[[float], None]:
        return self._requests.pause

    @pause.setter
    def pause(self, pause: Callable[[float], None]) -> None:
        self._requests.pause = pause

    def now_ns(self) -> int:
        if not self._requests.date_ns:
            self.abilities()
        if not self._requests.date_ns:
            raise KitcacheError(
                self.address,
                "the answers of the store have no date, so the age of blobs is unknown",
                hints=("check for a proxy in front of the store that changes the header Date",),
            )
        return self._requests.date_ns

    def abilities(self) -> Abilities:
        if self._abilities is None:
            self._abilities = self._read_abilities()
        return self._abilities

    def _read_abilities(self) -> Abilities:
        answer = self._requests.call_unless(DENIED | _UNKNOWN, "GetBucketVersioning")
        if answer is not None:
            status = answer.get("Status", "")
            # A write replaces the version "null" of a bucket whose versioning is suspended.
            return Abilities(bool(status), status == "Enabled", renews=True)
        try:
            page = next(self.list_pages(self._requests.cache.prefix, versions=True))
        except NoBucket:
            raise
        except KitcacheError:
            return Abilities(False, False, renews=True)
        has_versions = any(info.version not in {"", "null"} for info in page.objects)
        return Abilities(has_versions, False, renews=True)

    def read_lifecycle(self) -> Sequence[LifecycleRule] | None:
        operation = "GetBucketLifecycleConfiguration"
        try:
            answer = self._requests.call_unless(_NO_LIFECYCLE, operation) or {}
        except NoBucket:
            raise
        except KitcacheError:  # It is not needed to read or delete.
            return None
        return tuple(filter(None, map(_read_rule, answer.get("Rules", ()))))

    def list_pages(self, prefix: str, *, after: str = "", versions: bool = False) -> Iterator[Page]:
        if not versions:
            start = {"StartAfter": after} if after else {}
            for listing in self._list("ListObjectsV2", prefix, start):
                yield Page(listing.objects, not listing.is_truncated)
            return
        held: list[ObjectInfo] = []
        start = {"KeyMarker": after} if after else {}
        for listing in self._list("ListObjectVersions", prefix, start):
            # Some stores begin with the key of the marker itself.
            groups = group_versions(held + [i for i in listing.objects if i.key > after])
            # More versions of the last key can follow: show all of them in the next page.
            held = (
                groups.pop(listing.next_page.get("KeyMarker", ""), [])
                if listing.is_truncated
                else []
            )
            yield Page([*chain.from_iterable(groups.values())], not listing.is_truncated)

    def _list(self, operation: str, prefix: str, page: dict[str, str]) -> Iterator[S3Page]:
        empty_pages = 0
        before: Collection[tuple[str, str]] = ()
        while True:
            answer = self._requests.call(
                operation, Prefix=prefix, MaxKeys=PAGE_KEYS, EncodingType="url", **page
            )
            with self._requests.reading(operation):
                listing: S3Page | None = answer.get(LISTING) or convert_listing(answer)
            if listing is None:
                raise self._incomplete(operation, "an answer is not a complete listing")
            # Some stores repeat a key: in a page, or at the beginning of the next one.
            unique = {(info.key, info.version): info for info in listing.objects}
            new = [info for name, info in unique.items() if name not in before]
            listing, before = listing._replace(objects=new), unique.keys()
            yield listing
            if not listing.is_truncated:
                return
            empty_pages = 0 if listing.objects else empty_pages + 1
            if not listing.next_page or listing.next_page == page or empty_pages > _MAX_EMPTY_PAGES:
                raise self._incomplete(operation, _NOT_LISTED)
            page = listing.next_page

    def _incomplete(self, operation: str, problem: str) -> KitcacheError:
        return KitcacheError(self.address, f"{operation} failed: {problem}")

    def read(self, key: str, limit: int) -> tuple[bytes, ObjectInfo] | None:
        download = open_download(self._requests, key)
        if download is None:
            return None
        data = bytearray()
        with closing(download.parts(limit)) as parts:
            for part in parts:
                data += part
        return bytes(data[:limit]), download.info

    def stat(self, key: str) -> ObjectInfo | None:
        answer = self._requests.call_unless(MISSING, "HeadObject", Key=key)
        with self._requests.reading("HeadObject"):
            return None if answer is None else make_info(key, answer)

    def read_parts(self, key: str, size: int) -> Iterator[bytes | memoryview] | None:
        download = open_download(self._requests, key)
        return None if download is None else download.parts(size)

    def write(self, key: str, data: bytes, condition: Condition | None = None) -> ObjectInfo | None:
        """Write a small object. The date of the result is the store's time of its answer."""
        conditions: dict[str, str] = {}
        if condition is not None:
            conditions = {"IfMatch": condition.etag} if condition.etag else {"IfNoneMatch": "*"}
        answer = self._requests.call_unless(
            _NOT_WRITTEN if conditions else (),
            "PutObject",
            effect=NOTHING_CHANGED,
            Key=key,
            Body=data,
            ContentType=CONTENT_TYPE,
            **conditions,
        )
        if answer is None:
            return None
        version = answer.get("VersionId", "")
        return ObjectInfo(key, len(data), self.now_ns(), answer.get("ETag", ""), version)

    def upload(self, key: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
        upload(self._requests, key, size, parts)

    def renew(self, key: str) -> None:
        self._requests.call_unless(
            MISSING,
            "CopyObject",
            effect=NOTHING_CHANGED,
            Key=key,
            CopySource={"Bucket": self._requests.cache.bucket, "Key": key},
            ContentType=CONTENT_TYPE,
            MetadataDirective="REPLACE",
            Metadata={"updated-at": str(time.time_ns())},
        )

    def delete(self, targets: Sequence[Target]) -> Mapping[Target, str]:
        return self._deletions.delete(targets)

    def restore(self, key: str) -> bool:  # noqa: ARG002 - of the protocol
        """Return False: a version that was deleted by its ID cannot be restored."""
        return False

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        page: dict[str, str] = {}
        while True:
            answer = self._requests.call("ListMultipartUploads", Prefix=prefix, **page)
            for entry in answer.get("Uploads", ()):
                with self._requests.reading("ListMultipartUploads"):
                    began_ns = read_date(entry["Initiated"])
                    upload = Upload(entry["Key"], entry["UploadId"], began_ns)
                yield upload
            if not answer.get("IsTruncated"):
                return
            before = page
            page = {
                "KeyMarker": answer.get("NextKeyMarker", ""),
                "UploadIdMarker": answer.get("NextUploadIdMarker", ""),
            }
            if page == before or not page["KeyMarker"]:
                raise self._incomplete("ListMultipartUploads", _NOT_LISTED)

    def abort_upload(self, upload: Upload) -> bool:
        answer = self._requests.call_unless(
            NO_UPLOAD, "AbortMultipartUpload", Key=upload.key, UploadId=upload.upload_id
        )
        return answer is not None

    def close(self) -> None:
        self._requests.close()


def _read_rule(rule: Mapping[str, Any]) -> LifecycleRule | None:
    """Return a rule, None if it is disabled or applies to objects with tags only."""
    filtered = rule.get("Filter") or {}
    both = filtered.get("And") or {}
    if rule.get("Status") != "Enabled" or filtered.get("Tag") or both.get("Tags"):
        return None
    expiration = rule.get("Expiration") or {}
    days = expiration.get("Days", 0 if "Date" in expiration else None)
    prefix = rule.get("Prefix") or filtered.get("Prefix") or both.get("Prefix") or ""
    return LifecycleRule(rule.get("ID", ""), prefix, days, "NoncurrentVersionExpiration" in rule)
