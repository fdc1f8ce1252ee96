"""The errors of a store that speaks S3, as KitcacheErrors with cause and hints.

The messages are made here: botocore's own contain URLs and Python objects, and stores answer with
whole documents.
"""

import re
from typing import Any

from botocore import exceptions

from kitcache.errors import NOTHING_DELETED, KitcacheError
from kitcache.masking import HIDDEN, hide_password
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import NoBucket
from kitcache.store.objects.s3listing import InvalidAnswerError

_PERMISSIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "GetBucketVersioning": "s3:GetBucketVersioning",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "CopyObject": "s3:GetObject and s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject and s3:DeleteObjectVersion",
    "DeleteObjects": "s3:DeleteObject and s3:DeleteObjectVersion",
}
_WRITE = "s3:PutObject"

_KEY = "check access_key_id, the environment and the profile"
_LOGIN = "log in again, or renew the credentials"
_CREDENTIALS = {
    "InvalidAccessKeyId": ("the store does not know the access key", _KEY),
    "SignatureDoesNotMatch": ("the secret key does not match the access key", _KEY),
    "ExpiredToken": ("the session token has expired", _LOGIN),
    "ExpiredTokenException": ("the session token has expired", _LOGIN),
    "TokenRefreshRequired": ("the session token has expired", _LOGIN),
    "InvalidToken": ("the session token is not valid", _LOGIN),
    "RequestTimeTooSkewed": (
        "the clock of this machine differs too much from the store's",
        "set the clock",
    ),
}
_CONNECTION = (exceptions.ConnectionError, exceptions.HTTPClientError)
_PATH_STYLE = (
    "set use_path_style=true if the store does not serve each bucket under its own host name"
)
_LOCAL: tuple[tuple[Any, str, str], ...] = (
    (
        (exceptions.NoCredentialsError, exceptions.PartialCredentialsError),
        "no complete credentials for S3 were found",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
    (exceptions.ProfileNotFound, "the profile that AWS_PROFILE names does not exist", _KEY),
    (
        (
            exceptions.CredentialRetrievalError,
            exceptions.SSOError,
            exceptions.TokenRetrievalError,
            exceptions.RefreshWithMFAUnsupportedError,
        ),
        "the credentials of the profile cannot be read or renewed",
        _LOGIN,
    ),
    (exceptions.NoRegionError, "no region is set", "set region or AWS_REGION"),
    (
        exceptions.SSLError,
        "the TLS connection to {endpoint} failed: its certificate is not trusted, or it has no TLS",
        "set AWS_CA_BUNDLE to the certificate of the store's authority",
    ),
    (
        exceptions.ProxyConnectionError,
        "the proxy in front of {endpoint} does not answer",
        "check HTTPS_PROXY and NO_PROXY",
    ),
    (
        _CONNECTION,
        "{endpoint} does not answer, also after all retries",
        "check the network and the endpoint",
    ),
)
MISSING = {"NoSuchKey", "NoSuchVersion", "404"}
CONDITION_FAILED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"}
_MAX_MESSAGE = 200
_SIGNATURE = r"(?<!sha256:)\b[0-9a-f]{64}\b"
_NOT_S3 = ("check the endpoint, and for a proxy in front of the store",)
BUSY = {
    "SlowDown",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "TooManyRequests",
    "429",
    "503",
}
PASSING = {"InternalError", "RequestTimeout", "OperationAborted", "500", "502", "504"}
_LASTING = (exceptions.SSLError, exceptions.ProxyConnectionError)
_OTHER_REGION = {
    "PermanentRedirect",
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}


BUCKET_CODES = {"NoSuchBucket", *_CREDENTIALS, *BUSY, *PASSING}
"""The codes of errors that all requests to a bucket can have, whatever the object."""


def error_code(error: Exception) -> str:
    """Return the code of a store's answer, such as NoSuchKey or 404, "" if there was no answer."""
    return str(_details(error).get("Code", ""))


def error_message(error: Exception) -> str:
    """Return the text of a store's answer on one line, "" if there is none."""
    return clean_text(str(_details(error).get("Message", "")))


def clean_text(text: str) -> str:
    """Return a text of a store on one line, without parts of the request's Authorization."""
    text = hide_password(" ".join(text.split())[:_MAX_MESSAGE])
    return re.sub(_SIGNATURE, HIDDEN, text)


def _details(error: Exception) -> dict[str, Any]:
    response = getattr(error, "response", None) or {}
    details: dict[str, Any] = response.get("Error", {})
    return details


def is_busy(error: Exception) -> bool:
    """Return True if the store asks to slow down."""
    return error_code(error) in BUSY or _status(error) in {429, 503}


def is_passing(error: Exception) -> bool:
    """Return True if the same request can succeed later."""
    if isinstance(error, _CONNECTION):
        return not isinstance(error, _LASTING)
    is_passing = error_code(error) in PASSING or _status(error) in {500, 502, 504}
    return is_passing or is_busy(error)


def _status(error: Exception) -> int:
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def make_error(
    cache: ObjectCache,
    operation: str,
    error: Exception,
    effect: str = NOTHING_DELETED,
    status: int = 0,
) -> KitcacheError:
    """Return the KitcacheError for a failed request.

    Args:
        operation: The S3 action, such as ListObjectsV2.
        error: An exception of botocore.
        status: Of the store's answer; botocore's exception has 500 for some others.
    """
    if isinstance(error, (InvalidAnswerError, ValueError, ArithmeticError)):
        problem, hints = _invalid(operation, error)
    elif not isinstance(error, exceptions.ClientError):
        problem, hints = _unanswered(cache, error)
    elif error_code(error) == "NoSuchBucket":
        return NoBucket(cache.address, f"the bucket {cache.bucket} does not exist")
    elif region := _other_region(cache, error):
        problem = f"the bucket {cache.bucket} is in the region {region}, not in {cache.region}"
        hints = (f"set region={region}",)
    else:
        problem, hints = _answered(operation, error, status)
    return KitcacheError(cache.address, problem, effect=effect, hints=hints)


def _other_region(cache: ObjectCache, error: Exception) -> str:
    """Return the region that the answer names if the bucket is not in the region of the cache."""
    if error_code(error) not in _OTHER_REGION and _status(error) not in {301, 400}:
        return ""
    metadata = getattr(error, "response", {}).get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    region = str(headers.get("x-amz-bucket-region") or _details(error).get("Region") or "")
    return region if region != cache.region else ""


def _invalid(operation: str, error: Exception) -> tuple[str, tuple[str, ...]]:
    """Return the problem of an answer with a value that cannot be."""
    if isinstance(error, UnicodeError):
        return f"{operation} failed: a key is not UTF-8", ()
    text = clean_text(str(error))
    return f"{operation} failed: the store's answer has an invalid value: {text}", _NOT_S3


def _answered(operation: str, error: Exception, status: int) -> tuple[str, tuple[str, ...]]:
    code = error_code(error)
    if code == "500" and status and status != 500:
        problem = (
            f"{operation} failed: the store answered {status} with a body that is not one of S3"
        )
        return problem, _NOT_S3
    status = _status(error)
    if code in _CREDENTIALS:
        problem, hint = _CREDENTIALS[code]
        return problem, (hint,)
    if code in DENIED or status == 403:
        permission = _PERMISSIONS.get(operation, _WRITE)
        return f"access denied: {operation} needs the permission {permission}", (
            f"allow {permission} for these credentials",
        )
    if is_busy(error):
        return f"{operation} failed: the store asked to slow down, also after all retries", (
            "run the same command again later",
        )
    text = error_message(error)
    problem = f"{operation} failed: the store answered {clean_text(code) or status}"
    return f"{problem}: {text}" if text else problem, ()


def _unanswered(cache: ObjectCache, error: Exception) -> tuple[str, tuple[str, ...]]:
    endpoint = cache.endpoint_url or f"S3 in {cache.region}"
    for kinds, problem, hint in _LOCAL:
        if isinstance(error, kinds):
            is_host = kinds is _CONNECTION and cache.endpoint_url and not cache.use_path_style
            hints = (hint, _PATH_STYLE) if is_host else (hint,)
            return problem.format(endpoint=endpoint), hints
    return f"the request could not be made: {type(error).__name__}", ()
