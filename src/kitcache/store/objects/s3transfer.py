"""The bytes of large objects: downloads that resume where a connection broke, and uploads."""

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, HTTPClientError

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.store.objects.client import ObjectInfo
from kitcache.store.objects.parts import check_size, regroup
from kitcache.store.objects.s3errors import CONDITION_FAILED, MISSING, error_code
from kitcache.store.objects.s3listing import read_date, read_size
from kitcache.store.objects.s3requests import FAILURES, Response, S3Requests

CONTENT_TYPE = "application/octet-stream"
NO_UPLOAD = {"NoSuchUpload", "404"}

READ_BYTES = 128 * 1024
"""The bytes of a download's part. A write of 1 MiB costs ext4 three times as much CPU per byte."""

SINGLE_PUT_BYTES = 16 << 20
"""A larger object is uploaded in parts, as BuildKit does."""

PART_BYTES = 8 << 20
_SEND_BYTES = 256 * 1024
_MAX_PARTS = 10_000
_PARALLEL_PARTS = 2
_RESUMES = 8
"""How many times a download without progress is opened again."""


def make_info(key: str, answer: Response) -> ObjectInfo:
    """Return the facts in an answer of GetObject or HeadObject."""
    return ObjectInfo(
        key,
        read_size(answer["ContentLength"]),
        read_date(answer["LastModified"]),
        answer.get("ETag", ""),
        answer.get("VersionId", ""),
    )


class Download(NamedTuple):
    """An object whose first answer has arrived; its bytes follow."""

    requests: S3Requests
    info: ObjectInfo
    body: Any

    def parts(self, limit: int) -> Generator[bytes]:
        """Yield the bytes of the object, at most about `limit`."""
        body, position, resumes = self.body, 0, 0
        end = min(limit, self.info.size)
        try:
            while position < end:
                try:
                    part = body.read(min(READ_BYTES, end - position))
                    problem: Exception | None = None if part else EOFError()
                except (HTTPClientError, BotoCoreError) as error:
                    part, problem = b"", error
                if problem is None:
                    position += len(part)
                    resumes = 0
                    yield part
                else:
                    body.close()
                    resumes += 1
                    body = self._resume(position, resumes, problem)
        finally:
            body.close()

    def _resume(self, position: int, resumes: int, problem: Exception) -> Any:
        if resumes > _RESUMES:
            raise self.requests.make_error("GetObject", problem)
        answer = self.requests.call_unless(
            MISSING | CONDITION_FAILED,
            "GetObject",
            Key=self.info.key,
            Range=f"bytes={position}-",
            IfMatch=self.info.etag,
        )
        if answer is None:
            raise KitcacheError(
                self.requests.cache.address,
                f"{self.info.key} changed or was deleted while it was read",
            )
        return answer["Body"]


def open_download(requests: S3Requests, key: str) -> Download | None:
    """Ask for an object, and return None if it is missing."""
    answer = requests.call_unless(MISSING, "GetObject", Key=key)
    if answer is None:
        return None
    with requests.reading("GetObject"):
        return Download(requests, make_info(key, answer), answer["Body"])


def upload(requests: S3Requests, key: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
    """Write an object from its parts, in one request or as a multipart upload."""
    if size <= SINGLE_PUT_BYTES:
        data = next(regroup(parts, size + 1))
        check_size(requests.cache.address, key, size, len(data))
        requests.call(
            "PutObject",
            effect=NOTHING_CHANGED,
            Key=key,
            Body=_Body(data),
            ContentType=CONTENT_TYPE,
        )
        return
    answer = requests.call(
        "CreateMultipartUpload", effect=NOTHING_CHANGED, Key=key, ContentType=CONTENT_TYPE
    )
    names = {"Key": key, "UploadId": answer["UploadId"]}
    try:
        numbered = _upload_parts(requests, names, size, parts)
        _complete(requests, names, size, numbered)
    except BaseException:
        requests.call_unless(NO_UPLOAD, "AbortMultipartUpload", **names)
        raise


def _complete(
    requests: S3Requests, names: dict[str, str], size: int, numbered: list[dict[str, object]]
) -> None:
    try:
        requests.send("CompleteMultipartUpload", MultipartUpload={"Parts": numbered}, **names)
    except FAILURES as error:
        # If the answer of a first request was lost, the store does not know the upload any more.
        if error_code(error) in NO_UPLOAD:
            answer = requests.call_unless(MISSING, "HeadObject", Key=names["Key"])
            if answer and answer["ContentLength"] == size:
                return
        raise requests.make_error("CompleteMultipartUpload", error, NOTHING_CHANGED) from error


def _upload_parts(
    requests: S3Requests, names: dict[str, str], size: int, parts: Iterable[bytes | memoryview]
) -> list[dict[str, object]]:
    part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))
    sent: list[Future[Response]] = []
    length = 0
    with ThreadPoolExecutor(_PARALLEL_PARTS) as pool:
        for number, data in enumerate(regroup(parts, part_bytes), start=1):
            length += len(data)
            if number > _PARALLEL_PARTS:
                sent[number - 1 - _PARALLEL_PARTS].result()
            sent.append(
                pool.submit(
                    requests.call,
                    "UploadPart",
                    effect=NOTHING_CHANGED,
                    PartNumber=number,
                    Body=_Body(data),
                    **names,
                )
            )
        check_size(requests.cache.address, names["Key"], size, length)
        return [
            {"PartNumber": number, "ETag": future.result()["ETag"]}
            for number, future in enumerate(sent, start=1)
        ]


class _Body:
    """The bytes of a request as a file that is read in larger pieces than the 16 KiB asked for."""

    def __init__(self, data: bytearray) -> None:
        self._data = memoryview(data)
        self._position = 0

    def __len__(self) -> int:
        return len(self._data)

    def read(self, _size: int = -1) -> memoryview:
        start = self._position
        self._position = min(start + _SEND_BYTES, len(self._data))
        return self._data[start : self._position]

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, len(self._data))[whence]
        return self._position

    def tell(self) -> int:
        return self._position
