"""The requests that a cache in an object store needs, and their values.

store/objects/s3.py and store/objects/azure.py implement ObjectClient; tests/objects/memory.py does
in memory. Everything about caches is in store/objects/store.py, which uses only this protocol.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from kitcache.errors import NotACache, fixed_field
from kitcache.store.objects.lifecycle import LifecycleRule

PAGE_KEYS = 1000
"""The most keys that one page of a listing, or one deletion, has on S3."""

CHANGED = "it has changed since it was listed"
"""The reason of a deletion that its condition has prevented."""

RequestKind = Literal["list", "get", "head", "put", "copy", "delete"]


class ObjectInfo(NamedTuple):
    """One object, or one version of it, as a listing shows it.

    Attributes:
        size: In bytes.
        modified_ns: When it was written last, by the clock of the store. S3 has whole seconds.
        etag: As the store wrote it, with its quotation marks if it has some.
        version: The version ID; "" in a store or a listing without versions.
        is_current: False for a version that a newer version or a delete marker has replaced.
        is_marker: It is a delete marker: it has no bytes, and hides all older versions.
    """

    key: str
    size: int
    modified_ns: int
    etag: str
    version: str = ""
    is_current: bool = True
    is_marker: bool = False


class NoBucket(NotACache):
    """The bucket or the container does not exist."""

    details: tuple[str, ...] = fixed_field(())
    hints: tuple[str, ...] = fixed_field(("check the names of the bucket and of the endpoint",))


class Page(NamedTuple):
    """One page of a listing.

    Attributes:
        objects: In the order of their keys. The versions of a key follow each other, newest first.
        is_last: No key follows.
    """

    objects: list[ObjectInfo]
    is_last: bool


class Upload(NamedTuple):
    """A multipart upload that is neither complete nor aborted. Its bytes are in no listing.

    Attributes:
        began_ns: By the clock of the store.
        bytes: The sum of the sizes of its parts, 0 if that was not asked for.
    """

    key: str
    upload_id: str
    began_ns: int
    bytes: int = 0


class Target(NamedTuple):
    """One object to delete.

    Attributes:
        version: The version to delete. "" deletes the key: in a bucket with versions, that only
            adds a delete marker.
        etag: If it is not "", the client deletes the object only with that ETag, if it can.
    """

    key: str
    version: str = ""
    etag: str = ""


class Condition(NamedTuple):
    """The condition of a write.

    Attributes:
        etag: The object must have this ETag; "" if the object must not exist.
    """

    etag: str = ""


class Abilities(NamedTuple):
    """The abilities of a store, as its kind and its settings show them.

    Attributes:
        has_versions: Deletion must name versions, because otherwise nothing is freed. True if
            versioning is enabled or suspended, or if it is unknown and a listing shows versions.
        deletes_exactly: A deletion by version or by ETag deletes only the object that was looked
            at. True for Azure, whose ETags change with every write, and for S3 with versions.
        renews: Exporters renew the date of a blob that they use again. False for Azure.
    """

    has_versions: bool
    deletes_exactly: bool
    renews: bool


class ObjectClient(Protocol):
    """The requests to one bucket or container. Callable from several threads.

    Failures are KitcacheErrors: NoBucket if the bucket does not exist; KitcacheError for a denied,
    expired or wrong credential and a wrong region. A store that does not answer is a failure after
    the retries. A missing object is not a failure where the result can be None. No message contains
    a secret.

    Attributes:
        address: The cache as messages name it, such as s3://bucket/prefix/.
        requests: How many requests of each kind were sent, retries included.
        pause: Waits before a request is sent again: time.sleep, or a function that can raise.
        warnings: Sentences for the result of a run.
    """

    address: str
    requests: dict[RequestKind, int]
    pause: Callable[[float], None]
    warnings: list[str]

    @property
    def delete_batch_size(self) -> int:
        """How many objects one deletion can name: 1,000 on S3, 256 on Azure."""

    def now_ns(self) -> int:
        """Return the time of the store's clock, which dates objects, in ns since 1970.

        It follows from the Date header of the last answer. It is never ahead of the store's clock
        by more than the time that an answer takes.
        """

    def abilities(self) -> Abilities:
        """Return the abilities of the store. Only the first call sends a request."""

    def read_lifecycle(self) -> Sequence[LifecycleRule] | None:
        """Return the rules by which the store itself deletes objects, None if they are unknown."""

    def list_pages(self, prefix: str, *, after: str = "", versions: bool = False) -> Iterator[Page]:
        """Yield the pages of the objects whose keys begin with a prefix, one request each.

        A prefix that ends inside a name, such as `blobs/sha256:a`, is allowed.

        Args:
            after: Only keys that are greater than this one, in the order of UTF-8 bytes.
            versions: List all versions and delete markers, not only current objects.
        """

    def read(self, key: str, limit: int) -> tuple[bytes, ObjectInfo] | None:
        """Return the first `limit` bytes of an object, None if it is missing."""

    def stat(self, key: str) -> ObjectInfo | None:
        """Return one object's facts, None if it is missing."""

    def read_parts(self, key: str, size: int) -> Iterator[bytes | memoryview] | None:
        """Yield the bytes of an object of that size, in parts, None if it is missing.

        A connection that breaks is opened again where it broke. Bytes are not verified.
        """

    def write(self, key: str, data: bytes, condition: Condition | None = None) -> ObjectInfo | None:
        """Write a small object in one request. Return None if the condition does not hold."""

    def upload(self, key: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
        """Write an object of that size from its parts; a large one as a multipart upload.

        If `parts` raises, or the upload fails, the object is not written and the upload is aborted.
        """

    def renew(self, key: str) -> None:
        """Copy an object onto itself, as an exporter does, so that its date becomes now."""

    def delete(self, targets: Sequence[Target]) -> Mapping[Target, str]:
        """Delete objects in one request. Return the reason for each that could not be deleted.

        A missing object counts as deleted.
        """

    def restore(self, key: str) -> bool:
        """Undelete an object. Return True if the object exists then: Azure with soft delete."""

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the unfinished multipart uploads below a prefix. Azure has none."""

    def abort_upload(self, upload: Upload) -> bool:
        """Abort an upload. Return False if it does not exist any more."""

    def close(self) -> None:
        """Close all connections."""
