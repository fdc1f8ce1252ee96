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
_WRONG_CREDENTIAL = (
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "NoAuthenticationInformation",
)
_Description = tuple[str, tuple[str, ...]]
_BUSY: _Description = (
    "the service is busy, also after all retries",
    ("run the same command again later",),
)
_ANSWERS: dict[str, _Description] = {
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
    if is_container_missing(error):
        return no_bucket(cache)
    problem, hints = _describe(urlsplit(cache.endpoint_url).netloc.rpartition("@")[2], error)
    return KitcacheError(cache.address, problem, effect=NOTHING_CHANGED, hints=hints)


def _describe(host: str, error: Exception) -> _Description:
    status = getattr(error, "status_code", None)
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return _describe_connection(host, type(error.inner_exception).__name__)
    if isinstance(error, ClientAuthenticationError) and status is None:
        return (
            "no credential of the environment is accepted for this storage account",
            ("add secret_access_key to the cache, or log in with `az login`",),
        )
    if status in (401, 403):
        return _describe_denial(error)
    if isinstance(error, HttpResponseError) and status is not None:
        answer = f"the service answered {describe_answer(error)}"
        return _ANSWERS.get(error_code(error), (answer, ()))
    return f"the answer of {host} is not one of Azure Blob Storage", ("check account_url",)


def _describe_connection(host: str, cause: str) -> _Description:
    if cause == "SSLError":
        return (
            f"the TLS connection to {host} failed: its certificate is not trusted",
            ("set REQUESTS_CA_BUNDLE to the certificate of its authority",),
        )
    if cause == "ProxyError":
        return "the proxy of HTTPS_PROXY does not answer", ()
    return (
        f"{host} does not answer, also after all retries",
        ("check account_url, the name of the account, and the network",),
    )


def _describe_denial(error: Exception) -> _Description:
    answer = describe_answer(error)
    if error_code(error) in _WRONG_CREDENTIAL:
        return (
            f"the credential is wrong or has expired ({answer})",
            (
                "check the key, or the SAS token and its times, and that the clock of this machine"
                " is right",
            ),
        )
    return (
        f"the credential does not permit this request ({answer})",
        (
            "check account_name and the key or SAS; it must permit to list, read, write and delete"
            " blobs",
        ),
    )
