"""AzureClient: the requests to one container of Azure Blob Storage, by azure-storage-blob."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from logging import NullHandler, getLogger
from threading import Lock
from time import gmtime, monotonic_ns, sleep, strftime
from typing import Any, TypeVar
from uuid import uuid4

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient, ExponentialRetry

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.azuredeletion import AzureDeletions
from kitcache.store.objects.azureerrors import explained, is_container_missing
from kitcache.store.objects.azurelisting import date_ns
from kitcache.store.objects.azurepages import PageLister
from kitcache.store.objects.client import (
    Abilities,
    Condition,
    ObjectInfo,
    Page,
    RequestKind,
    Target,
    Upload,
)
from kitcache.store.objects.parts import check_size, regroup

_T = TypeVar("_T")

PART_BYTES = 8 * 1024 * 1024
_MAX_BLOCKS = 50_000
_NO_SUCH_RANGE = 416
_RETRY: dict[str, Any] = {
    "retry_total": 3,
    "initial_backoff": 1,
    "increment_base": 2,
    "random_jitter_range": 1,
}

# The SDK logs warnings, which Python prints if no program has set up logging.
getLogger("azure").addHandler(NullHandler())

_KINDS: dict[str, RequestKind] = {"GET": "get", "HEAD": "head", "PUT": "put", "POST": "delete"}


class _Retry(ExponentialRetry):
    """The SDK's retries, with the waits of the client."""

    def __init__(self, client: "AzureClient") -> None:
        super().__init__(**_RETRY)
        self._client = client

    def sleep(self, settings: Any, transport: Any) -> None:  # noqa: ARG002 - of the SDK
        self._client.pause(self.get_backoff_time(settings))


class AzureClient:
    """The ObjectClient of a container.

    An uncommitted block is in no listing, and the service deletes it after a week.
    """

    delete_batch_size = 256

    def __init__(self, cache: ObjectCache, credential: Any) -> None:
        self.address = cache.address
        self.requests: dict[RequestKind, int] = {}
        self.warnings: list[str] = []
        self.pause: Callable[[float], None] = sleep
        self._cache = cache
        self._lock = Lock()
        self._date: tuple[int, int] | None = None
        self._abilities: Abilities | None = None
        with explained(self._cache):
            self._container = ContainerClient(
                cache.endpoint_url,
                cache.bucket,
                credential=credential,
                retry_policy=_Retry(self),
                connection_timeout=10,
                max_single_get_size=PART_BYTES,
                max_chunk_get_size=PART_BYTES,
                raw_request_hook=self._count,
                raw_response_hook=self._read_date,
            )
        self._pages = PageLister(cache, self._container, self._read_date)
        self._deletions = AzureDeletions(cache, self._container, self._find_etag, self.warnings)

    def _blob(self, key: str) -> BlobClient:
        """Return the client of a blob.

        Raises:
            KitcacheError: The HTTP library would replace a/../b by b, which is another blob.
        """
        if not {".", ".."}.isdisjoint(key.split("/")):
            raise KitcacheError(
                self.address,
                f"{key} cannot be requested, because its name has the part . or ..",
                effect=NOTHING_CHANGED,
                hints=("delete this blob with another program",),
            )
        return self._container.get_blob_client(key)

    def _find(self, request: Callable[[], _T]) -> _T | None:
        """Return the answer to a request, None if the blob is missing."""
        with explained(self._cache):
            try:
                return request()
            except ResourceNotFoundError as error:
                if is_container_missing(error):
                    raise
                return None

    def _count(self, request: Any) -> None:
        kind = _KINDS.get(request.http_request.method, "get")
        if kind == "get" and "comp=list" in request.http_request.url:
            kind = "list"
        with self._lock:
            self.requests[kind] = self.requests.get(kind, 0) + 1

    def _read_date(self, response: Any) -> None:
        date = response.http_response.headers.get("Date")
        if date:
            self._date = date_ns(date), monotonic_ns()

    def now_ns(self) -> int:
        if self._date is None:
            self.abilities()
        if self._date is None:
            raise KitcacheError(self.address, "the service does not send its time")
        date, read_at = self._date
        return date + monotonic_ns() - read_at

    def abilities(self) -> Abilities:
        if self._abilities is None:
            page = self._pages.read_page(self._cache.blobs_key, versions=True, size=100)
            has_versions = any(item.version for item in page.objects)
            self._abilities = Abilities(has_versions, deletes_exactly=True, renews=False)
        return self._abilities

    def read_lifecycle(self) -> None:
        """Return None: the rules belong to the account, and only its management API has them."""

    def list_pages(self, prefix: str, *, after: str = "", versions: bool = False) -> Iterator[Page]:
        return self._pages.list_pages(prefix, after, versions=versions)

    def read(self, key: str, limit: int) -> tuple[bytes, ObjectInfo] | None:
        def request() -> tuple[bytes, ObjectInfo]:
            try:
                stream = self._blob(key).download_blob(offset=0, length=limit)
            except HttpResponseError as error:
                if error.status_code != _NO_SUCH_RANGE:
                    raise
                # An empty blob has no first byte.
                stream = self._blob(key).download_blob()
            size = (stream.properties.content_range or "/0").rpartition("/")[2]
            return stream.readall(), _info(key, int(size), stream.properties)

        return self._find(request)

    def stat(self, key: str) -> ObjectInfo | None:
        return self._stat(key)

    def _stat(self, key: str, version: str | None = None) -> ObjectInfo | None:
        facts = self._find(lambda: self._blob(key).get_blob_properties(version_id=version))
        return None if facts is None else _info(key, facts.size, facts)

    def read_parts(self, key: str, size: int) -> Iterator[bytes | memoryview] | None:  # noqa: ARG002
        stream = self._find(lambda: self._blob(key).download_blob())
        return None if stream is None else self._yield_chunks(stream.chunks())

    def _yield_chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes | memoryview]:
        """Yield chunks. Each is a request with If-Match, which is sent again if it breaks."""
        while True:
            with explained(self._cache):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def write(self, key: str, data: bytes, condition: Condition | None = None) -> ObjectInfo | None:
        options: Any = {"overwrite": condition is None or bool(condition.etag)}
        if condition is not None and condition.etag:
            options |= {"etag": condition.etag, "match_condition": MatchConditions.IfNotModified}
        with explained(self._cache):
            try:
                answer = self._blob(key).upload_blob(data, **options)
            except (ResourceExistsError, ResourceModifiedError):
                return None
        return _info(key, len(data), answer)

    def upload(self, key: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
        blob = self._blob(key)
        block_bytes = max(PART_BYTES, -(-size // _MAX_BLOCKS))
        if size <= block_bytes:
            # The source verifies its bytes at its end, so it is read to its end first.
            data = b"".join(parts)
            check_size(self.address, key, size, len(data))
            with explained(self._cache):
                blob.upload_blob(data, overwrite=True)
            return
        blocks: list[BlobBlock] = []
        name = uuid4().hex
        sent = 0
        for part in regroup(parts, block_bytes):
            data = bytes(part)
            sent += len(data)
            with explained(self._cache):
                blocks.append(BlobBlock(block_id=f"{name}-{len(blocks):05}"))
                blob.stage_block(blocks[-1].id, data, length=len(data))
        check_size(self.address, key, size, sent)
        with explained(self._cache):
            blob.commit_block_list(blocks)

    def renew(self, key: str) -> None:
        """Write the metadata, which changes the date and the ETag. No exporter does it."""
        now = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(self.now_ns() // 10**9))
        with explained(self._cache):
            self._blob(key).set_blob_metadata({"updated_at": now})

    def delete(self, targets: Sequence[Target]) -> Mapping[Target, str]:
        with explained(self._cache):
            return self._deletions.delete(targets)

    def _find_etag(self, key: str, version: str) -> str:
        info = self._stat(key, version or None)
        return info.etag if info else ""

    def restore(self, key: str) -> bool:
        with explained(self._cache), suppress(HttpResponseError):
            # Without soft delete, the service finds no blob, or does not know the request.
            self._blob(key).undelete_blob()
        return self.stat(key) is not None

    def list_uploads(self, prefix: str) -> Iterator[Upload]:  # noqa: ARG002
        return iter(())

    def abort_upload(self, upload: Upload) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        self._container.close()


def _info(key: str, size: int, facts: Any) -> ObjectInfo:
    modified_ns = int(facts["last_modified"].timestamp()) * 10**9
    return ObjectInfo(key, size, modified_ns, facts["etag"], facts.get("version_id") or "")
