"""The repair of a cache in an object store: a root that names unusable blobs becomes smaller.

On S3 such a root fails every build that needs one of the blobs. Only roots are written, each only
if no other client has changed it since it was read. The document of a root that is removed is kept
in the quarantine. A blob counts as missing only if a request for it does not find it either,
because a listing can be late.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from kitcache.errors import Damaged, Unsafe, UsageError
from kitcache.gc.collect import IndexChangedError, retry_if_changed
from kitcache.gc.control import Control
from kitcache.gc.survey import survey_roots
from kitcache.gc.values import Root, Survey
from kitcache.oci.cacheconfig import read_cacheconfig
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from kitcache.oci.index import read_entries
from kitcache.store.ioerrors import command_line
from kitcache.store.open import StoreAddress, address_text
from kitcache.store.protocol import EditableStore, RootObjectStore
from kitcache.store.values import Roots
from kitcache.upkeep.health.judge import Judge
from kitcache.upkeep.health.listed import read_some
from kitcache.upkeep.health.repairplan import RepairInput, RepairPlan, make_repair_plan
from kitcache.upkeep.health.verify import verify_locked
from kitcache.upkeep.project import CacheDocuments
from kitcache.upkeep.results import BadBlob, RepairAction, RepairResult


def repair_roots(
    store: RootObjectStore,
    control: Control,
    *,
    read: bool = False,
    dry_run: bool = False,
    lock_timeout_s: float = 0.0,
) -> RepairResult:
    """Make every root importable or remove it; see repair. Raises as repair does.

    Args:
        read: Read every blob first, so that blobs with wrong bytes are found.
    """
    path, wait_policy = store.path, control.wait_policy(lock_timeout_s)
    verified, _ = verify_locked(store, control, read=read)
    suspects = [blob.digest for blob in verified.bad_blobs]
    # One transfer that fails is not enough to remove steps.
    bad_blobs = read_some(store, suspects, control).bad_blobs if suspects else ()

    def attempt() -> tuple[RepairAction, ...]:
        roots, source = _read_input(store, bad_blobs, control)
        plan = make_repair_plan(source, now_ns=store.now_ns(), is_dry=dry_run)
        removed = _removed_roots(roots, plan)
        if not dry_run and plan.new_index is not None:
            for name, digest in removed:
                store.quarantine_root(name, _read(store, digest))
            for data in plan.new_blobs.values():
                store.write_blob(data)
            control.check()
            after = plan.new_index
            if store.commit_roots(lambda _: after, wait_policy, before=roots) is None:
                raise IndexChangedError
        return (*_quarantine_actions(store, removed, is_dry=dry_run), *plan.actions)

    if not verified.exit_code:
        return RepairResult(path, "dry-run" if dry_run else "done", (), verified)
    actions = retry_if_changed(store, attempt)
    if dry_run:
        return RepairResult(path, "dry-run", actions, verified)
    after, _ = verify_locked(store, control)
    # All other blobs were intact. A bad blob still exists, although no root names it any more.
    after = after._replace(bad_blobs=bad_blobs, hashed=verified.hashed)
    return RepairResult(path, "done", actions, after)


def no_sources_error(path: str, sources: Sequence[StoreAddress]) -> UsageError:
    """Return the error for a repair of an object store from other caches."""
    names = [address_text(source) for source in sources]
    return UsageError(
        "a repair of an object store copies no blobs from other caches",
        path=path,
        hints=tuple(f"first run {command_line('copy', name, path)}" for name in names[:1]),
    )


def _read_input(
    store: EditableStore, bad_blobs: Sequence[BadBlob], control: Control
) -> tuple[Roots, RepairInput]:
    """Return the roots, and the input of a plan for those that may be changed.

    Raises:
        IndexChangedError: A blob that was not listed exists.
        Unreadable: A root cannot be read, so it may be intact.
    """
    store.refresh()
    roots = store.read_roots(control.pause)
    survey = survey_roots(store, control, roots, began_ns=0, needs_all=True)
    _check_missing(store, survey)
    survey = survey._replace(roots=tuple(_changeable(store, roots, survey)))
    judge = Judge(store, survey, {blob.digest: blob.problem for blob in bad_blobs})
    known = [root.descriptor for root in survey.roots if root.descriptor is not None]
    statuses = {root: judge.judge(root) for root in (r._replace(ref_name=None) for r in known)}
    faulty = [root for root, status in statuses.items() if not status.is_intact]
    return roots, RepairInput(
        old_index=roots.data,
        index_data=roots.data,
        survey=survey,
        last_exports={},
        statuses=statuses,
        caches=dict(_read_caches(store, faulty)),
        last_used_ns={},
        bad={},
        problems=judge.problems,
        offers={},
        corrected=frozenset(),
        symlinks=frozenset(),
        lost="",
        candidates=(),
    )


def _check_missing(store: EditableStore, survey: Survey) -> None:
    """Raise IndexChangedError if a blob exists that the survey did not find."""
    for blob in survey.missing_blobs:
        if blob.digest not in survey.live and store.stat_blob(blob.digest) is not None:
            raise IndexChangedError


def _changeable(store: EditableStore, roots: Roots, survey: Survey) -> Iterator[Root]:
    """Yield the roots without those that cannot be judged.

    A root that is not a cacheconfig is removed only if all its bytes were read, and BuildKit would
    not accept them. Another document below the prefix may be the object of another program.
    """
    entries = read_entries(roots.data or b'{"manifests":[]}')
    for root in survey.roots:
        if root.descriptor is not None:
            yield root
            continue
        descriptor = entries[root.position].descriptor
        with suppress(Damaged, Unsafe):
            data = store.read_blob(descriptor.digest, None) if descriptor else None
            if data is not None and not _is_accepted(data):
                yield root


def _is_accepted(data: bytes) -> bool:
    try:
        read_cacheconfig(data)
    except DocumentError:
        return False
    return True


def _read_caches(
    store: EditableStore, roots: Sequence[Descriptor]
) -> Iterator[tuple[Digest, CacheDocuments]]:
    for root in roots:
        with suppress(Damaged, Unsafe):
            yield root.digest, CacheDocuments(None, store.read_blob(root.digest, root.size) or b"")


def _removed_roots(roots: Roots, plan: RepairPlan) -> list[tuple[str, Digest]]:
    """Return the names that the plan removes, each with the digest of its document."""
    if plan.new_index is None or roots.data is None:
        return []
    kept = {entry.ref_name for entry in read_entries(plan.new_index)}
    return [
        (entry.ref_name, entry.descriptor.digest)
        for entry in read_entries(roots.data)
        if entry.ref_name is not None and entry.descriptor and entry.ref_name not in kept
    ]


def _read(store: EditableStore, digest: Digest) -> bytes:
    try:
        return store.read_blob(digest, None) or b""
    except Damaged:
        raise IndexChangedError from None


def _quarantine_actions(
    store: RootObjectStore, removed: Sequence[tuple[str, Digest]], *, is_dry: bool
) -> Iterator[RepairAction]:
    was = "would be" if is_dry else "was"
    for name, digest in removed:
        copy = f"{store.quarantine_name}{name}"
        sentence = f"the document of tag '{name}' {was} copied to {copy}"
        yield RepairAction("quarantine-root", name, digest, sentence)
