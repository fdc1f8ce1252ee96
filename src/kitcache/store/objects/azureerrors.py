"""Failures of Azure Blob Storage as KitcacheErrors.

The texts of the SDK are not repeated: they can contain URLs with signatures.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import NoBucket

_NO_CONTAINER = ("ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled")
_BUSY = ("the service is busy, also after all retries", ("run the same command again later",))
_ANSWERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ConditionNotMet": ("a blob was changed while it was read", ("run the same command again",)),
    "ServerBusy": _BUSY,
    "OperationTimedOut": _BUSY,
}


def is_container_missing(error: Any) -> bool:
    """Return True if the container of a request, not only a blob, does not exist."""
    return error_code(error) in _NO_CONTAINER


def error_code(error: Any) -> str:
    """Return the code of a failure or an answer, such as AuthenticationFailed, "" without one."""
    code = getattr(error, "error_code", None)
    answer = getattr(error, "response", None) or error
    if not code and hasattr(answer, "headers"):
        code = answer.headers.get("x-ms-error-code")
    return str(getattr(code, "value", code) or "")


def describe_answer(answer: Any) -> str:
    """Return the status and the code of an answer, such as "409 LeaseIdMissing"."""
    return f"{answer.status_code} {error_code(answer)}".rstrip()


def no_bucket(cache: ObjectCache) -> NoBucket:
    """Return the failure of every request to a container that does not exist."""
    return NoBucket(cache.address, f"the container {cache.bucket} does not exist")


@contextmanager
def explained(cache: ObjectCache) -> Iterator[None]:
    """Replace the failures of the SDK and of the parser by KitcacheErrors."""
    try:
        yield
    except (AzureError, ValueError) as error:
        raise _explain(cache, error) from None


def _explain(cache: ObjectCache, error: Exception) -> KitcacheError:
    """Return the failure that a request, or its credential, led to."""
    code = error_code(error)
    status = getattr(error, "status_code", None)
    if is_container_missing(error):
        return no_bucket(cache)
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
        return _explain_denied(cache, describe_answer(error), code)
    if isinstance(error, HttpResponseError) and status is not None:
        problem, hints = _ANSWERS.get(code, (f"the service answered {describe_answer(error)}", ()))
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
        hints = (
            "check account_name and the key or SAS; it must permit to list, read, write and delete"
            " blobs",
        )
    return KitcacheError(cache.address, problem, effect=NOTHING_CHANGED, hints=hints)


def _host(cache: ObjectCache) -> str:
    return urlsplit(cache.endpoint_url).netloc.rpartition("@")[2] or "the service"
