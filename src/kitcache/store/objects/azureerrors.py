"""Failures of Azure Blob Storage as KitcacheErrors.

The texts of the SDK are not repeated: they can contain URLs with signatures.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import NoBucket

CHANGED = "it has changed since it was listed"

_NO_CONTAINER = ("ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled")
_REASONS = {
    "ConditionNotMet": CHANGED,
    "AuthorizationFailure": "the credential does not permit it",
    "AuthorizationPermissionMismatch": "the credential does not permit it",
    "LeaseIdMissing": "a lease protects it",
    "SnapshotsPresent": "it has snapshots",
    "BlobImmutableDueToPolicy": "an immutability policy protects it",
    "BlobImmutableDueToLegalHold": "a legal hold protects it",
}
_BUSY = ("the service is busy, also after all retries", ("run the same command again later",))
_ANSWERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ConditionNotMet": ("a blob was changed while it was read", ("run the same command again",)),
    "ServerBusy": _BUSY,
    "OperationTimedOut": _BUSY,
}


def is_container_missing(error: Any) -> bool:
    """Return True if the container of a request, not only a blob, does not exist."""
    return code_of(error) in _NO_CONTAINER


def code_of(error: Any) -> str:
    """Return the code of a failure or an answer, such as AuthenticationFailed, "" without one."""
    code = getattr(error, "error_code", None)
    answer = getattr(error, "response", None) or error
    if not code and hasattr(answer, "headers"):
        code = answer.headers.get("x-ms-error-code")
    return str(getattr(code, "value", code) or "")


def check_batch(cache: ObjectCache, size: int, answers: Sequence[Any]) -> None:
    """Raise the failure of a whole batch of deletions."""
    if any(is_container_missing(answer) for answer in answers):
        raise _no_bucket(cache)
    if len(answers) != size:
        answer = _answer_of(answers[0]) if len(answers) == 1 else f"{len(answers):,} results"
        raise KitcacheError(
            cache.address, f"the service answered a batch of {size:,} deletions with {answer}"
        )


def reason_of(answer: Any) -> str:
    """Return why a blob of a batch was not deleted, "" if it is deleted or missing."""
    if 200 <= answer.status_code < 300 or answer.status_code == 404:
        return ""
    return _REASONS.get(code_of(answer), f"the service answered {_answer_of(answer)}")


def _answer_of(answer: Any) -> str:
    return f"{answer.status_code} {code_of(answer)}".rstrip()


def _no_bucket(cache: ObjectCache) -> NoBucket:
    return NoBucket(cache.address, f"the container {cache.bucket} does not exist")


def explain(cache: ObjectCache, error: Exception) -> KitcacheError:
    """Return the failure that a request, or its credential, led to."""
    code = code_of(error)
    status = getattr(error, "status_code", None)
    if is_container_missing(error):
        return _no_bucket(cache)
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
        return _explain_denied(cache, _answer_of(error), code)
    if isinstance(error, HttpResponseError) and status is not None:
        problem, hints = _ANSWERS.get(code, (f"the service answered {_answer_of(error)}", ()))
        return KitcacheError(cache.address, problem, effect=NOTHING_CHANGED, hints=hints)
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
