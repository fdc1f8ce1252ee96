"""The untag command: remove entries from index.json. The blobs are kept until the next reset."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from threading import Event

from kitcache.errors import NOTHING_CHANGED, Damaged, KitcacheError, UsageError
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.oci.index import RemovedEntry, list_names, remove_entries
from kitcache.options.tagpatterns import find_pattern, is_pattern
from kitcache.store.ioerrors import repair_command
from kitcache.store.open import StoreAddress, address_text, open_store
from kitcache.store.protocol import CacheStore, EditableStore
from kitcache.store.values import TagUse
from kitcache.upkeep.naming.tagnames import unknown_tag_error
from kitcache.upkeep.results import UntagResult


def untag(
    path: StoreAddress,
    names: str | Iterable[str],
    *,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> UntagResult:
    """Remove every entry with one of these ref names or full digests from index.json.

    A name with `*`, `?` or `[` is a pattern, as in a policy, unless an entry has exactly this name.
    A pattern selects all ref names that it matches.

    On success index.json was replaced in one step, under kitcache's and BuildKit's lock. All other
    entries and unknown fields are kept, and no blob was deleted. The recorded use of a removed tag
    is removed too. A damaged tag can be removed too: if reset refuses, it suggests this command.

    Raises:
        NotFound: No entry has a name, or a pattern matches no ref name. Nothing was changed.
        Damaged: index.json is invalid or missing.
        Busy, NotACache, Unsafe, Cancelled: As reset.
        KitcacheError: An I/O error.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if not wanted:
        raise UsageError("name at least one tag or digest to remove")
    name = address_text(path)
    control = Control(name, on_progress, cancel)
    with open_store(path) as store:
        if dry_run:
            _, removed = _remove(store, store.read_roots(control.pause).data, wanted)
        else:
            removed = _commit(store, wanted, control, lock_timeout_s)
    entries = tuple((entry.ref_name, entry.digest) for entry in removed)
    return UntagResult(name, "dry-run" if dry_run else "done", entries)


def _commit(
    store: EditableStore, names: tuple[str, ...], control: Control, lock_timeout_s: float
) -> tuple[RemovedEntry, ...]:
    removed: tuple[RemovedEntry, ...] = ()

    def change(data: bytes | None) -> bytes:
        nonlocal removed
        after, removed = _remove(store, data, names)
        return after

    deadline = time.monotonic() + lock_timeout_s
    with store.lock("exclusive", control.wait_policy(lock_timeout_s)):
        left_s = max(0.0, deadline - time.monotonic())
        roots = store.commit_roots(change, control.wait_policy(left_s))
        kept = {entry.ref_name for entry in roots.entries} if roots else set()
        # Without this, a repair of a lost index.json would restore the tags.
        with suppress(KitcacheError):
            lost_tags = {entry.ref_name for entry in removed} - kept
            store.write_tag_uses({tag: TagUse() for tag in lost_tags if tag is not None})
    return removed


def _remove(
    store: CacheStore, data: bytes | None, names: tuple[str, ...]
) -> tuple[bytes, tuple[RemovedEntry, ...]]:
    """Return index.json without the entries that have these names, and the removed entries."""
    if data is None and store.blobs_are_leaves:
        data = b'{"manifests":[]}'
    if data is None:
        raise Damaged(
            store.path,
            f"{store.roots_name} is missing",
            kind="missing",
            effect=NOTHING_CHANGED,
            hints=(repair_command(store.path), f"restore {store.roots_name} from a copy"),
        )
    entries = list_names(data)
    matches = {name: _matches_of(name, entries) for name in names}
    after, removed = remove_entries(data, tuple(chain.from_iterable(matches.values())))
    unknown = [name for name, matched in matches.items() if not matched]
    if unknown:
        problem = " or ".join(map(_describe, unknown))
        known = [entry.ref_name for entry in entries]
        raise unknown_tag_error(store, problem, unknown[0], known, has_digests=True)
    return after, removed


def _matches_of(name: str, entries: Sequence[RemovedEntry]) -> tuple[str, ...]:
    """Return the name itself if an entry has it as tag or digest, else the tags that it matches."""
    if any(name in entry for entry in entries):
        return (name,)
    if not is_pattern(name):
        return ()
    tags = {entry.ref_name for entry in entries if entry.ref_name is not None}
    return tuple(tag for tag in tags if find_pattern((name,), tag))


def _describe(name: str) -> str:
    return f"a tag that matches {name!r}" if is_pattern(name) else f"the tag or digest {name!r}"
