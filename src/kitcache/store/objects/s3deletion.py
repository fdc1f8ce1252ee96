"""S3Deletions: deletes objects by the thousand, or one by one if a store cannot do that."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from kitcache.store.objects.client import CHANGED, Target
from kitcache.store.objects.s3errors import (
    BUCKET_CODES,
    BUSY,
    CONDITION_FAILED,
    DENIED,
    MISSING,
    PASSING,
    clean_text,
    error_code,
    error_message,
)
from kitcache.store.objects.s3requests import FAILURES, Response, S3Requests

_NOT_SUPPORTED = {
    "400",
    "501",
    "BadDigest",
    "InvalidArgument",
    "InvalidDigest",
    "InvalidRequest",
    "MalformedXML",
    "MissingContentMD5",
    "MissingDigest",
    "NotImplemented",
}


class S3Deletions:
    """DeleteObjects in the form that the store understands, which the first requests find out.

    botocore sends a CRC32 of the request, which older stores refuse with 400 or 501: they need
    Content-MD5. A store that refuses that too gets one DeleteObject for each key.
    """

    def __init__(self, requests: S3Requests) -> None:
        self._requests = requests
        self._needs_md5 = False
        self._is_single = False
        requests.on_event("before-sign.s3.DeleteObjects", self._replace_checksum)

    def delete(self, targets: Sequence[Target]) -> Mapping[Target, str]:
        """Delete objects. Return the reason for each that could not be deleted."""
        # Some stores look at an ETag only if it is a header.
        if len(targets) == 1 and targets[0].etag and not targets[0].version:
            return self._delete_singly(targets)
        while not self._is_single:
            needed_md5 = self._needs_md5
            reasons = self._delete_together(targets)
            if reasons is not None:
                return reasons
            self._needs_md5, self._is_single = True, needed_md5
        return self._delete_singly(targets)

    def _delete_together(self, targets: Sequence[Target]) -> dict[Target, str] | None:
        """Delete objects in one request; those for which the store is busy in further requests.

        Return None if the store does not understand the request.
        """
        reasons: dict[Target, str] = {}
        attempts = 0
        while targets:
            answer = self._requests.call_unless(
                _NOT_SUPPORTED,
                "DeleteObjects",
                Delete={"Objects": [_identify(t) for t in targets], "Quiet": True},
            )
            if answer is None:
                return None
            attempts += 1
            errors = _find_errors(targets, answer)
            busy = [target for target, (code, _) in errors.items() if code in BUSY | PASSING]
            reasons |= {target: _reason(*error) for target, error in errors.items()}
            targets = busy if busy and self._requests.wait_for(attempts, is_busy=True) else []
            for target in targets:
                del reasons[target]
        return {target: reason for target, reason in reasons.items() if reason}

    def _delete_singly(self, targets: Sequence[Target]) -> dict[Target, str]:
        reasons = {}
        for target in targets:
            parameters = _identify(target)
            if "ETag" in parameters:
                parameters["IfMatch"] = parameters.pop("ETag")
            try:
                self._requests.send("DeleteObject", **parameters)
            except FAILURES as error:
                code = error_code(error)
                if not code or code in BUCKET_CODES:
                    raise self._requests.make_error("DeleteObject", error) from error
                if reason := _reason(code, error_message(error)):
                    reasons[target] = reason
        return reasons

    def _replace_checksum(self, request: Any, **_: object) -> None:
        if self._needs_md5:
            for name in [n for n in request.headers if n.lower().startswith("x-amz-checksum-")]:
                del request.headers[name]
            del request.headers["x-amz-sdk-checksum-algorithm"]
            digest = hashlib.md5(request.data, usedforsecurity=False).digest()
            request.headers["Content-MD5"] = base64.b64encode(digest).decode()


def _identify(target: Target) -> dict[str, str]:
    if target.version:
        return {"Key": target.key, "VersionId": target.version}
    if target.etag:
        return {"Key": target.key, "ETag": target.etag}
    return {"Key": target.key}


def _find_errors(targets: Sequence[Target], answer: Response) -> dict[Target, tuple[str, str]]:
    """Return the code and the text of each deletion that failed."""
    errors = {
        (error.get("Key", ""), error.get("VersionId", "")): error
        for error in answer.get("Errors", ())
    }
    found = {}
    for target in targets if errors else ():
        error = errors.get((target.key, target.version)) or errors.get((target.key, ""))
        if error:
            found[target] = error.get("Code", ""), clean_text(error.get("Message", ""))
    return found


def _reason(code: str, message: str) -> str:
    """Return the reason of a failed deletion, "" if the object is missing."""
    if code in MISSING:
        return ""
    if code in CONDITION_FAILED:
        return CHANGED
    if code in DENIED:
        return f"access denied, or a lock of the bucket protects it ({message or code})"
    code = clean_text(code)
    return f"the store answered {code}: {message}" if message else f"the store answered {code}"
