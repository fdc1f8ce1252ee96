"""Batches of deletions in a container, with and without versions.

The service refuses to delete the current version by its ID. If a blob is deleted without one, its
current version becomes an older one, which is then deleted by its ID.
Source: the REST API of Azure Blob Storage, Delete Blob and Blob Batch.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from azure.storage.blob import ContainerClient

from kitcache.errors import KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.azureerrors import (
    describe_answer,
    error_code,
    is_container_missing,
    no_bucket,
)
from kitcache.store.objects.client import CHANGED, Target

_IS_PERMANENT = "x-ms-delete-type-permanent"
_SOFT_DELETE = (
    "the storage account has soft delete: deleted blobs use space until the end of its retention"
)
_DENIED = "the credential does not permit it"
_IS_CURRENT = "it is the current version"
_REASONS = {
    "ConditionNotMet": CHANGED,
    "OperationNotAllowedOnRootBlob": _IS_CURRENT,
    "AuthorizationFailure": _DENIED,
    "AuthorizationPermissionMismatch": _DENIED,
    "LeaseIdMissing": "a lease protects it",
    "SnapshotsPresent": "it has snapshots",
    "BlobImmutableDueToPolicy": "an immutability policy protects it",
    "BlobImmutableDueToLegalHold": "a legal hold protects it",
}


class AzureDeletions:
    """Deletes the blobs of one container.

    Args:
        find_etag: Returns the ETag of a blob, or of a version of it; "" if it is missing.
        warnings: A sentence is added if the account has soft delete.
    """

    def __init__(
        self,
        cache: ObjectCache,
        container: ContainerClient,
        find_etag: Callable[[str, str], str],
        warnings: list[str],
    ) -> None:
        self._cache = cache
        self._container = container
        self._find_etag = find_etag
        self._warnings = warnings

    def delete(self, targets: Sequence[Target]) -> dict[Target, str]:
        """Return the reason for each target that was not deleted."""
        reasons = self._send(targets)
        current = [target for target, reason in reasons.items() if reason == _IS_CURRENT]
        if current:
            reasons |= self._delete_current(current)
        for target in [target for target, reason in reasons.items() if reason == CHANGED]:
            # The condition does not hold for a missing blob either.
            if not self._find_etag(target.key, target.version):
                reasons[target] = ""
        return {target: reason for target, reason in reasons.items() if reason}

    def _delete_current(self, targets: Iterable[Target]) -> dict[Target, str]:
        """Delete current versions. If a blob has a newer version by then, that version is kept."""
        blobs = {}
        for target in targets:
            etag = target.etag or self._find_etag(target.key, target.version)
            if etag:
                blobs[Target(target.key, "", etag)] = target
        reasons = {
            blobs[blob]: "" if reason == CHANGED else reason
            for blob, reason in (self._send(list(blobs)) if blobs else {}).items()
        }
        older = [target for target, reason in reasons.items() if not reason]
        return reasons | (self._send(older) if older else {})

    def _send(self, targets: Sequence[Target]) -> dict[Target, str]:
        """Send one batch. Return the reason for each target, "" if it is deleted or missing."""
        answers = list(
            self._container.delete_blobs(*map(_options, targets), raise_on_any_failure=False)
        )
        if any(is_container_missing(answer) for answer in answers):
            raise no_bucket(self._cache)
        if len(answers) != len(targets):
            answer = describe_answer(answers[0]) if len(answers) == 1 else f"{len(answers)} results"
            raise KitcacheError(
                self._cache.address,
                f"the service answered a batch of {len(targets):,} deletions with {answer}",
            )
        is_soft = any(answer.headers.get(_IS_PERMANENT) == "false" for answer in answers)
        if is_soft and _SOFT_DELETE not in self._warnings:
            self._warnings.append(_SOFT_DELETE)
        return {t: _reason(answer) for t, answer in zip(targets, answers, strict=True)}


def _options(target: Target) -> dict[str, Any]:
    # The SDK sends an empty version ID too.
    return {"name": target.key, "version_id": target.version or None, "etag": target.etag or None}


def _reason(answer: Any) -> str:
    if 200 <= answer.status_code < 300 or answer.status_code == 404:
        return ""
    return _REASONS.get(error_code(answer), f"the service answered {describe_answer(answer)}")
