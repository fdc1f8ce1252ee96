"""S3Requests: a botocore client that counts its requests and raises KitcacheErrors."""

import random
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from kitcache.errors import NOTHING_DELETED, KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import RequestKind
from kitcache.store.objects.s3errors import error_code, is_busy, is_passing, make_error
from kitcache.store.objects.s3listing import InvalidAnswerError, nanoseconds, replace_parsing

_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
_MAX_CONNECTIONS = 32
_MAX_ATTEMPTS = 8
"""Of one request, unless retry_max_attempts is given. All its waits together are below 46 s."""

_FIRST_ATTEMPTS = 3
"""Of a request to a store that never answered: its address can be wrong. BuildKit's number."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0

_KINDS: dict[str, RequestKind] = {
    "ListObjectsV2": "list",
    "ListObjectVersions": "list",
    "ListMultipartUploads": "list",
    "ListParts": "list",
    "GetObject": "get",
    "GetBucketVersioning": "get",
    "GetBucketLifecycleConfiguration": "get",
    "HeadBucket": "head",
    "HeadObject": "head",
    "CopyObject": "copy",
    "DeleteObject": "delete",
    "DeleteObjects": "delete",
    "AbortMultipartUpload": "delete",
}

FAILURES = (
    *(BotoCoreError, ClientError, ResponseParserError, InvalidAnswerError),
    *(ValueError, ArithmeticError),
)
"""The exceptions of a request. botocore raises ValueError for a date in an answer that is not one,
and UnicodeError for a key with bytes that are not UTF-8, which cannot be sent."""

Response = dict[str, Any]


class _LastAnswer(threading.local):
    """The status of the last answer to this thread. botocore changes it in its own exceptions."""

    status = 0


class S3Requests:
    """Requests to the bucket of a cache. Callable from several threads.

    A request is sent again if it fails for a passing reason. botocore's own retries are off: they
    sleep up to 20 s at a time and cannot be cancelled, and their times differ between versions. If
    the store asks one thread to slow down, all wait, as BuildKit's retry_mode=adaptive does.

    Attributes:
        counts: How many requests of each kind were sent, retries included.
        date_ns: The Date header of the last answer, 0 before the first.
        pause: Waits before a request is sent again. It may raise to cancel.
    """

    def __init__(self, cache: ObjectCache) -> None:
        self.cache = cache
        self.counts: dict[RequestKind, int] = {}
        self.date_ns = 0
        self.pause: Callable[[float], None] = time.sleep
        self._has_answered = False
        self._paused_until_s = 0.0
        self._lock = threading.Lock()
        self._answers = _LastAnswer()
        try:
            self._client = _create_client(cache)
        except (BotoCoreError, ValueError) as error:
            raise make_error(cache, "", error) from error
        events = self._client.meta.events
        events.register("before-send.s3.*", self._count)
        # `*` in the middle lets a handler run before botocore's own. That one replaces the status
        # of some answers, and parses each page to see whether it is an error, which costs 4 ms.
        events.register_first("before-parse.*.*", self._note_date)
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
        except FAILURES as error:
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
        except FAILURES as error:
            if error_code(error) in codes:
                return None
            raise self.make_error(operation, error, effect) from error

    def make_error(
        self, operation: str, error: Exception, effect: str = NOTHING_DELETED
    ) -> KitcacheError:
        """Return the KitcacheError for a failed request."""
        return make_error(self.cache, operation, error, effect, self._answers.status)

    @contextmanager
    def reading(self, operation: str) -> Iterator[None]:
        """Raise KitcacheError if the answer of a request lacks a value or has an invalid one."""
        try:
            yield
        except KeyError as error:
            raise self.make_error(operation, InvalidAnswerError(f"no {error.args[0]}")) from None
        except (InvalidAnswerError, ValueError, ArithmeticError) as error:
            raise self.make_error(operation, error) from None

    def on_event(self, event: str, handler: Callable[..., None]) -> None:
        """Let botocore call a function at an event of each request."""
        self._client.meta.events.register(event, handler)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send(self, operation: str, **parameters: object) -> Response:
        """Send a request, also repeatedly. botocore's exceptions pass."""
        method = getattr(self._client, botocore.xform_name(operation))
        attempts = 0
        while True:
            left_s = self._paused_until_s - time.monotonic()
            if left_s > 0:
                self.pause(left_s)
            attempts += 1
            try:
                response: Response = method(Bucket=self.cache.bucket, **parameters)
            except FAILURES as error:
                if not is_passing(error) or not self.wait_for(attempts, is_busy=is_busy(error)):
                    raise
            else:
                return response

    def wait_for(self, attempts: int, *, is_busy: bool) -> bool:
        """Wait before the next attempt of a request. Return False if it is not sent again.

        Args:
            is_busy: The store has asked to slow down: all threads wait, before their next request.
        """
        if attempts >= self._max_attempts:
            return False
        wait_s = min(_FIRST_WAIT_S * 2 ** (attempts - 1), _LONGEST_WAIT_S)
        wait_s *= random.uniform(0.5, 1)  # noqa: S311 - it spreads the threads
        if is_busy:
            self._paused_until_s = time.monotonic() + wait_s
        else:
            self.pause(wait_s)
        return True

    @property
    def _max_attempts(self) -> int:
        limit = self.cache.retry_max_attempts or _MAX_ATTEMPTS
        return limit if self._has_answered else min(limit, _FIRST_ATTEMPTS)

    def _count(self, event_name: str, **_: object) -> None:
        kind = _KINDS.get(event_name.rpartition(".")[2], "put")
        with self._lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def _note_date(self, response_dict: dict[str, Any], **_: object) -> None:
        self._has_answered = True
        self._answers.status = response_dict["status_code"]
        date = response_dict["headers"].get("date")
        if date and response_dict["status_code"] < 500:
            with suppress(ValueError):
                self.date_ns = nanoseconds(parsedate_to_datetime(date))


def _create_client(cache: ObjectCache) -> Any:
    has_pair = bool(cache.access_key_id and cache.secret_access_key)
    use_path = cache.endpoint_url and cache.use_path_style
    style: Literal["path", "virtual"] = "path" if use_path else "virtual"
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        max_pool_connections=_MAX_CONNECTIONS,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": 1},
        # kitcache verifies digests; a CRC or a hash of each payload would double the work.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": style, "payload_signing_enabled": False},
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
