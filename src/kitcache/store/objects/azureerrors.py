"""Failures of Azure Blob Storage as KitcacheErrors.

The texts of the SDK are not repeated: they can contain URLs with signatures.
"""

from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from kitcache.errors import NOTHING_CHANGED, KitcacheError, NotACache
from kitcache.options.objectcaches import ObjectCache

CHANGED = "it has changed since it was listed"

_NO_CONTAINER = ("ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled")
_REASONS = {
    "ConditionNotMet": CHANGED,
    "LeaseIdMissing": "a lease protects it",
    "SnapshotsPresent": "it has snapshots",
    "BlobImmutableDueToPolicy": "an immutability policy protects it",
    "BlobImmutableDueToLegalHold": "a legal hold protects it",
}


def is_container_missing(error: Any) -> bool:
    """Return True if the container of a request, not only a blob, does not exist."""
    return code_of(error) in _NO_CONTAINER


def code_of(error: Any) -> str:
    """Return the service's code of a failure, such as AuthenticationFailed, "" without one."""
    code = getattr(error, "error_code", None)
    response = getattr(error, "response", None)
    if not code and response is not None:
        code = response.headers.get("x-ms-error-code")
    return str(getattr(code, "value", code) or "")


def reason_of(answer: Any) -> str:
    """Return why a blob of a batch was not deleted, "" if it is deleted or missing."""
    code = answer.headers.get("x-ms-error-code") or ""
    if 200 <= answer.status_code < 300 or (answer.status_code == 404 and code not in _NO_CONTAINER):
        return ""
    if answer.status_code == 412:
        return CHANGED
    return _REASONS.get(code, f"the service answered {answer.status_code} {code}".rstrip())


def explain(cache: ObjectCache, error: Exception) -> KitcacheError:
    """Return the failure that a request, or its credential, led to."""
    code = code_of(error)
    status = getattr(error, "status_code", None)
    if is_container_missing(error):
        return NotACache(cache.address, f"there is no container {cache.bucket}")
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return KitcacheError(
            cache.address,
            f"{_host(cache)} does not answer",
            effect=NOTHING_CHANGED,
            hints=("check account_url, the name of the account, and the network",),
        )
    if isinstance(error, ClientAuthenticationError) and status is None:
        return KitcacheError(
            cache.address,
            "no credential of the environment is accepted for this storage account",
            effect=NOTHING_CHANGED,
            hints=("add secret_access_key to the cache, or log in with `az login`",),
        )
    if status in (401, 403):
        return _explain_denied(cache, f"{status} {code}".rstrip(), code)
    if isinstance(error, HttpResponseError) and status is not None:
        answer = f"{status} {code}".rstrip()
        return KitcacheError(
            cache.address, f"the service answered {answer}", effect=NOTHING_CHANGED
        )
    return KitcacheError(
        cache.address,
        f"the answer of {_host(cache)} is not one of Azure Blob Storage",
        effect=NOTHING_CHANGED,
        hints=("check account_url",),
    )


def _explain_denied(cache: ObjectCache, answer: str, code: str) -> KitcacheError:
    if code in ("AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"):
        problem = f"the credential is wrong or has expired ({answer})"
        hints = (
            "check the key, or the SAS token and its times, and that the clock of this machine"
            " is right",
        )
    else:
        problem = f"the credential does not permit this request ({answer})"
        hints = ("to collect a cache, a credential must be able to list, read, write and delete",)
    return KitcacheError(cache.address, problem, effect=NOTHING_CHANGED, hints=hints)


def _host(cache: ObjectCache) -> str:
    return urlsplit(cache.endpoint_url).netloc.rpartition("@")[2] or "the service"
