"""The tag command: add a tag for the root that another tag or a digest names."""

import time
from threading import Event
from typing import NamedTuple

from kitcache.errors import NOTHING_CHANGED, KitcacheError, UsageError
from kitcache.gc.collect import IndexChangedError, retry_if_changed
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.refusals import incomplete_error
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.gc.values import Root, Survey
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.index import CopiedEntry, copy_entries
from kitcache.store.open import StoreAddress, address_text, open_store
from kitcache.store.protocol import CacheStore, EditableStore
from kitcache.store.values import Roots, TagUse
from kitcache.upkeep.naming.missing import find_missing
from kitcache.upkeep.naming.stableindex import read_surveyed_roots
from kitcache.upkeep.naming.tagnames import check_tag_name, unknown_tag_error
from kitcache.upkeep.results import TagResult


class _Source(NamedTuple):
    """The entry that SOURCE names. previous: The digests that TARGET names now."""

    root: Root
    descriptor: Descriptor
    previous: tuple[str, ...]

    @property
    def has_target(self) -> bool:
        """Return True if TARGET already names this digest and no other digest."""
        return set(self.previous) == {str(self.descriptor.digest)}


def tag(
    path: StoreAddress,
    source: str,
    target: str,
    *,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> TagResult:
    """Let the tag `target` name the manifest of `source`, a tag or a full digest.

    On success index.json was replaced in one step, under kitcache's and BuildKit's lock. `target`
    names that digest alone, and its entry has all fields of the entry of `source`. All other
    entries and unknown fields are kept, and no blob was deleted. The recorded last use of `source`
    also counts for `target`.

    Raises:
        NotFound: There is no such tag or digest.
        UsageError: `source` names several digests, or `target` is not a valid tag.
        Damaged: A blob of `source` is missing or damaged, or index.json is invalid.
        Busy, NotACache, Unsafe, Cancelled: As reset.
        KitcacheError: An I/O error. After any of these errors nothing was changed.
    """
    check_tag_name(target)
    name = address_text(path)
    control = Control(name, on_progress, cancel)
    with open_store(path) as store:
        if dry_run:
            _, entry = _find_source(store, control, source, target)
        else:
            deadline = time.monotonic() + lock_timeout_s
            with store.lock("exclusive", control.wait_policy(lock_timeout_s)):
                left_s = max(0.0, deadline - time.monotonic())
                entry = _commit(store, control, source, target, left_s)
    digest = str(entry.descriptor.digest)
    if entry.has_target:
        return TagResult(name, "unchanged", source, target, digest, ())
    previous = tuple(other for other in entry.previous if other not in ("", digest))
    return TagResult(name, "dry-run" if dry_run else "done", source, target, digest, previous)


def _commit(
    store: EditableStore, control: Control, source: str, target: str, lock_timeout_s: float
) -> _Source:
    def attempt() -> _Source:
        roots, entry = _find_source(store, control, source, target)
        if not entry.has_target:
            use = _read_use(store, entry)
            document = roots.data or b""
            copied = (CopiedEntry(0, entry.root.position, target),)
            after = copy_entries(document, (document,), copied)
            wait_policy = control.wait_policy(lock_timeout_s)
            if store.commit_roots(lambda _: after, wait_policy, before=roots) is None:
                raise IndexChangedError
            _write_use(store, target, use)
        return entry

    return retry_if_changed(store, attempt)


def _find_source(
    store: EditableStore, control: Control, source: str, target: str
) -> tuple[Roots, _Source]:
    """Return the roots of the store, and the entry of SOURCE, which is complete."""
    roots, survey = read_surveyed_roots(store, control)
    root = _root_of(store, survey, source)
    problems = find_missing(survey, root)
    if problems or root.descriptor is None:
        raise incomplete_error(store.path, root, problems)
    named = (r for r in survey.roots if r.position >= 0 and r.ref_name == target)
    previous = tuple(dict.fromkeys(_digest_of(r) or "" for r in named))
    entry = _Source(root, root.descriptor, previous)
    if not entry.has_target:
        _check_images(store.path, roots, target)
    return roots, entry


def _root_of(store: CacheStore, survey: Survey, source: str) -> Root:
    entries = [root for root in survey.roots if root.position >= 0]
    named = [root for root in entries if source in (root.ref_name, _digest_of(root))]
    if not named:
        names = [root.ref_name for root in entries]
        problem = f"the tag or digest {source!r}"
        raise unknown_tag_error(store, problem, source, names, has_digests=True)
    digests = dict.fromkeys(_digest_of(root) for root in named)
    if len(digests) > 1:
        raise UsageError(
            f"{source!r} names {len(digests)} digests in {store.roots_name}",
            path=store.path,
            details=tuple(digest or "an entry that cannot be read" for digest in digests),
            hints=("name the entry by its digest",),
        )
    return named[0]


def _digest_of(root: Root) -> str | None:
    return str(root.descriptor.digest) if root.descriptor else None


def _check_images(path: str, roots: Roots, target: str) -> None:
    """Refuse the image name or the ref name of an image: clients would no longer find the image."""
    for entry in roots.entries:
        if entry.image_name is not None and target in (entry.image_name, entry.ref_name):
            raise KitcacheError(
                path,
                f"{target!r} is the name of an image in index.json, {entry.image_name}",
                effect=NOTHING_CHANGED,
                hints=("choose another name",),
            )


def _read_use(store: EditableStore, entry: _Source) -> TagUse:
    """Return the recorded use of SOURCE, for TARGET. Raises Unreadable."""
    name = entry.root.ref_name
    use = store.read_tag_uses().get(name, TagUse()) if name is not None else TagUse()
    return use._replace(digest=str(entry.descriptor.digest))


def _write_use(store: EditableStore, target: str, use: TagUse) -> None:
    try:
        store.write_tag_uses({target: use})
    except KitcacheError as error:
        error.effect = f"the tag {target!r} was published; its last use is not recorded"
        raise
