"""S3Requests: a botocore client that counts its requests and raises KitcacheErrors."""

import threading
from collections.abc import Callable, Container
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kitcache.errors import NOTHING_DELETED, KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import RequestKind
from kitcache.store.objects.s3errors import error_code, make_error
from kitcache.store.objects.s3listing import nanoseconds, replace_parsing

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
MAX_ATTEMPTS = 8
"""Of one request, unless retry_max_attempts is given. All waits together take about 40 s."""

MAX_CONNECTIONS = 32

_KINDS: dict[str, RequestKind] = {
    "ListObjectsV2": "list",
    "ListObjectVersions": "list",
    "ListMultipartUploads": "list",
    "ListParts": "list",
    "GetObject": "get",
    "GetBucketVersioning": "get",
    "HeadObject": "head",
    "CopyObject": "copy",
    "DeleteObject": "delete",
    "DeleteObjects": "delete",
    "AbortMultipartUpload": "delete",
}

Response = dict[str, Any]


class S3Requests:
    """Requests to the bucket of a cache. Callable from several threads.

    Attributes:
        counts: How many requests of each kind were sent, retries included.
        date_ns: The Date header of the last answer, 0 before the first.
    """

    def __init__(self, cache: ObjectCache) -> None:
        self.cache = cache
        self.counts: dict[RequestKind, int] = {}
        self.date_ns = 0
        self._lock = threading.Lock()
        try:
            self._client = _create_client(cache)
        except BotoCoreError as error:
            raise make_error(cache, "", error) from error
        events = self._client.meta.events
        events.register("before-send.s3.*", self._count)
        events.register("before-parse.s3.*", self._note_date)
        # `*` in the middle lets this handler run before botocore parses the page to see whether it
        # is an error, which costs 4 ms. In another order the result is the same.
        events.register("before-parse.*.ListObjectsV2", replace_parsing)
        events.register("before-parse.*.ListObjectVersions", replace_parsing)

    def call(
        self, operation: str, *, effect: str = NOTHING_DELETED, **parameters: object
    ) -> Response:
        """Send a request, again if it fails for a passing reason, and return the answer.

        Args:
            operation: The S3 action, such as ListObjectsV2.
            effect: The effect that an error names.
        """
        try:
            return self.send(operation, **parameters)
        except (BotoCoreError, ClientError) as error:
            raise self.make_error(operation, error, effect) from error

    def call_unless(
        self,
        codes: Container[str],
        operation: str,
        *,
        effect: str = NOTHING_DELETED,
        **parameters: object,
    ) -> Response | None:
        """Send a request as call does, and return None if the store answers with such a code."""
        try:
            return self.send(operation, **parameters)
        except (BotoCoreError, ClientError) as error:
            if error_code(error) in codes:
                return None
            raise self.make_error(operation, error, effect) from error

    def make_error(
        self, operation: str, error: Exception, effect: str = NOTHING_DELETED
    ) -> KitcacheError:
        """Return the KitcacheError for a failed request."""
        return make_error(self.cache, operation, error, effect)

    def on_event(self, event: str, handler: Callable[..., None]) -> None:
        """Let botocore call a function at an event of each request."""
        self._client.meta.events.register(event, handler)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send(self, operation: str, **parameters: object) -> Response:
        """Send a request with botocore, whose exceptions pass."""
        method = getattr(self._client, botocore.xform_name(operation))
        response: Response = method(Bucket=self.cache.bucket, **parameters)
        return response

    def _count(self, event_name: str, **_: object) -> None:
        kind = _KINDS.get(event_name.rpartition(".")[2], "put")
        with self._lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def _note_date(self, response_dict: dict[str, Any], **_: object) -> None:
        date = response_dict["headers"].get("date")
        if date and response_dict["status_code"] < 500:
            self.date_ns = nanoseconds(parsedate_to_datetime(date))


def _create_client(cache: ObjectCache) -> Any:
    has_pair = bool(cache.access_key_id and cache.secret_access_key)
    style = "path" if cache.endpoint_url and cache.use_path_style else "virtual"
    signing: Any = {"addressing_style": style, "payload_signing_enabled": False}
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=MAX_CONNECTIONS,
        tcp_keepalive=True,
        retries={
            "mode": "adaptive" if cache.retry_mode == "adaptive" else "standard",
            "total_max_attempts": cache.retry_max_attempts or MAX_ATTEMPTS,
        },
        # kitcache verifies digests; a CRC or a hash of each payload would double the work.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3=signing,
    )
    return botocore.session.Session().create_client(
        "s3",
        region_name=cache.region or None,
        endpoint_url=cache.endpoint_url or None,
        aws_access_key_id=cache.access_key_id if has_pair else None,
        aws_secret_access_key=cache.secret_access_key if has_pair else None,
        aws_session_token=(cache.session_token or None) if has_pair else None,
        config=config,
    )
