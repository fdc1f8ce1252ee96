"""New roots: check that every blob exists, publish the entries, and check again.

Builds, staged exports, image layouts and merges use it. A reset of another client holds none of
kitcache's locks, so it can delete a blob at any moment.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kitcache.errors import Cancelled, Damaged, KitcacheError
from kitcache.gc.control import Control
from kitcache.gc.refusals import describe_damage
from kitcache.gc.survey import check_reachable
from kitcache.gc.values import DamagedPath, MissingBlob, Root
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.index import NewEntry, add_entries
from kitcache.options.units import join_first
from kitcache.store.protocol import CacheStore, EditableStore
from kitcache.store.values import WaitPolicy


class Problem(NamedTuple):
    """The reason why a root was not published, or is incomplete now.

    Attributes:
        clause: The reason; "" if there is no problem.
        code: The exit code of the problem.
    """

    clause: str = ""
    code: int = 0


def find_faults(store: CacheStore, control: Control, *descriptors: Descriptor) -> str:
    """Return a clause about missing and damaged blobs below these manifests, or ""."""
    roots = [Root(0, None, descriptor) for descriptor in descriptors]
    damage, missing = check_reachable(store, control, roots)
    return describe_missing(damage, missing)


def describe_missing(damage: Iterable[DamagedPath], missing: Iterable[MissingBlob]) -> str:
    """Return a clause that names the first faults, "" if there are none."""
    faults = [describe_damage(path) for path in damage]
    faults += [f"blob {blob.digest.short} {blob.problem}" for blob in missing]
    return join_first(faults)


def publish(
    store: EditableStore,
    roots: Sequence[tuple[Descriptor, Sequence[NewEntry]]],
    control: Control,
    wait_policy: WaitPolicy,
    *,
    may_create_index: bool = True,
) -> tuple[Problem, ...]:
    """Publish roots whose blobs were checked: sync the blobs, add all entries, check again.

    The entries are added in one step. The caller holds kitcache.lock, shared or exclusive.

    Args:
        roots: Each manifest or index, and its entries of index.json.
        may_create_index: If index.json is missing, create it. False if it existed: another process
            has deleted it, and it named other tags.

    Returns:
        The problem of each root after it was published.

    Raises:
        KitcacheError: Nothing was published.
    """
    entries = tuple(entry for _, new in roots for entry in new)

    def change(data: bytes | None) -> bytes:
        if data is None and not may_create_index:
            problem = "index.json was removed while the build ran"
            raise Damaged(store.path, problem, kind="missing")
        return add_entries(data, entries)

    store.sync_blobs()
    store.commit_roots(change, wait_policy)
    return tuple(_check_again(store, control, descriptor) for descriptor, _ in roots)


def _check_again(store: CacheStore, control: Control, descriptor: Descriptor) -> Problem:
    try:
        faults = find_faults(store, control, descriptor)
    except Cancelled:
        raise
    except KitcacheError as error:
        return Problem(f"published, but not checked again: {error.problem}", error.exit_code)
    if not faults:
        return Problem()
    clause = f"published, but another client has deleted blobs of it: {faults}"
    return Problem(clause, Damaged.exit_code)
