"""The errors of a store that speaks S3, as KitcacheErrors with cause and hints.

The messages are made here: botocore's own contain URLs and Python objects, and stores answer with
whole documents.
"""

from typing import Any

from botocore import exceptions

from kitcache.errors import NOTHING_DELETED, KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import NoBucket

_PERMISSIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "GetBucketVersioning": "s3:GetBucketVersioning",
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
        "the TLS connection to {endpoint} failed: its certificate is not trusted",
        "set AWS_CA_BUNDLE to the certificate of the store's authority",
    ),
    (
        exceptions.ProxyConnectionError,
        "the proxy in front of {endpoint} does not answer",
        "check HTTPS_PROXY and NO_PROXY",
    ),
    (
        exceptions.HTTPClientError,
        "{endpoint} does not answer, also after all retries",
        "check the network and the endpoint",
    ),
)
_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"}
_BUSY = {"SlowDown", "503", "ServiceUnavailable", "Throttling", "RequestLimitExceeded"}
_OTHER_REGION = {
    "PermanentRedirect",
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}


def error_code(error: Exception) -> str:
    """Return the code of a store's answer, such as NoSuchKey or 404, "" if there was no answer."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def make_error(
    cache: ObjectCache, operation: str, error: Exception, effect: str = NOTHING_DELETED
) -> KitcacheError:
    """Return the KitcacheError for a failed request.

    Args:
        operation: The S3 action, such as ListObjectsV2.
        error: A BotoCoreError or a ClientError.
    """
    if isinstance(error, exceptions.ClientError):
        return _answered(cache, operation, {**error.response}, effect)
    problem, hints = _unanswered(cache, error)
    return KitcacheError(cache.address, problem, effect=effect, hints=hints)


def _answered(
    cache: ObjectCache, operation: str, response: dict[str, Any], effect: str
) -> KitcacheError:
    details = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    code, status = str(details.get("Code", "")), metadata.get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return NoBucket(cache.address, f"the bucket {cache.bucket} does not exist")
    region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region") or details.get("Region")
    if region and region != cache.region and (code in _OTHER_REGION or status in {301, 400}):
        return KitcacheError(
            cache.address,
            f"the bucket {cache.bucket} is in the region {region}, not in {cache.region}",
            effect=effect,
            hints=(f"set region={region}",),
        )
    problem, hints = _explain(operation, code, status, details)
    return KitcacheError(cache.address, problem, effect=effect, hints=hints)


def _explain(
    operation: str, code: str, status: int, details: dict[str, Any]
) -> tuple[str, tuple[str, ...]]:
    if code in _CREDENTIALS:
        problem, hint = _CREDENTIALS[code]
        return problem, (hint,)
    if code in _DENIED or status == 403:
        permission = _PERMISSIONS.get(operation, _WRITE)
        return f"access denied: {operation} needs the permission {permission}", (
            f"allow {permission} for these credentials",
        )
    if code in _BUSY or status in {429, 503}:
        return f"{operation} failed: the store asked to slow down, also after all retries", (
            "run the same command again later",
        )
    text = " ".join(str(details.get("Message", "")).split())[:200]
    problem = f"{operation} failed: the store answered {code or status}"
    return f"{problem}: {text}" if text else problem, ()


def _unanswered(cache: ObjectCache, error: Exception) -> tuple[str, tuple[str, ...]]:
    endpoint = cache.endpoint_url or f"S3 in {cache.region}"
    for kinds, problem, hint in _LOCAL:
        if isinstance(error, kinds):
            return problem.format(endpoint=endpoint), (hint,)
    return f"the request could not be made: {type(error).__name__}", ()
