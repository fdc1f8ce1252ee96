"""Give what a tag or a digest names a further name, in one step of index.json."""

import os
import time
from threading import Event
from typing import NamedTuple

from kitcache.errors import NOTHING_CHANGED, KitcacheError, NotFound, UsageError
from kitcache.gc.collect import MAX_RETRIES
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.refusals import hole_error
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.gc.values import Root, Survey
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.index import CopiedEntry, copy_entries, read_entries
from kitcache.options.attributes import suggest
from kitcache.store.directory import DirectoryStore
from kitcache.store.index import INDEX, replace_index_if_unchanged
from kitcache.store.ioerrors import command_line
from kitcache.store.locks import lock_index, lock_store
from kitcache.store.open import open_store
from kitcache.store.protocol import HeldLock
from kitcache.store.state import TagUse, open_state_dir, read_tag_uses, write_tag_uses
from kitcache.upkeep.naming.missing import find_missing
from kitcache.upkeep.naming.stableindex import index_unstable_error, read_settled
from kitcache.upkeep.naming.tagnames import check_tag_name
from kitcache.upkeep.results import TagResult


class _Found(NamedTuple):
    """What OLD names: the first entry, and the digests that NEW stands for now."""

    root: Root
    descriptor: Descriptor
    before: tuple[str, ...]

    @property
    def is_named(self) -> bool:
        """Whether NEW stands for it already, and for nothing else."""
        return set(self.before) == {str(self.descriptor.digest)}


def tag(
    path: str | os.PathLike[str],
    source: str,
    target: str,
    *,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> TagResult:
    """Let the tag `new` stand for what `old`, a tag or a whole digest, stands for.

    Success guarantees: index.json was replaced in one step, under kitcache's and BuildKit's lock;
    `new` stands for that digest alone, and its entry has all that the entry of `old` has; all other
    entries and all unknown fields are in it; no blob was removed. What is noted of the last use of
    `old` counts for `new` too.

    Raises NotFound (no such tag or digest), UsageError (`old` stands for several things, or `new`
    is no name), Damaged (what `old` stands for is not whole; no readable index.json), Busy,
    NotACache, Unsafe, Cancelled, KitcacheError for I/O errors: then nothing was changed.
    """
    check_tag_name(target)
    name = os.fspath(path)
    control = Control(name, on_progress, cancel)
    with open_store(name) as layout:
        if dry_run:
            _, found = _find(layout, control, source, target)
            return _answer(name, source, target, found, is_dry=True)
        deadline = time.monotonic() + lock_timeout_s
        with lock_store(layout, "exclusive", control.wait_policy(lock_timeout_s)) as held:
            left_s = max(0.0, deadline - time.monotonic())
            found = _tag_held(held, control, source, target, left_s)
    return _answer(name, source, target, found, is_dry=False)


def _answer(path: str, old: str, new: str, found: _Found, *, is_dry: bool) -> TagResult:
    digest = str(found.descriptor.digest)
    if found.is_named:
        return TagResult(path, "unchanged", old, new, digest, ())
    moved_from = tuple(one for one in found.before if one not in ("", digest))
    return TagResult(path, "dry-run" if is_dry else "done", old, new, digest, moved_from)


def _tag_held(
    held: HeldLock[DirectoryStore], control: Control, old: str, new: str, lock_timeout_s: float
) -> _Found:
    layout = held.store
    for _ in range(MAX_RETRIES):
        data, found = _find(layout, control, old, new)
        if found.is_named:
            return found
        note = _note_of(layout, found)
        after = copy_entries(data, (data,), (CopiedEntry(0, found.root.position, new),))
        lock = lock_index(layout, control.wait_policy(lock_timeout_s))
        with open_state_dir(layout) as room_fd:
            if replace_index_if_unchanged(layout, room_fd, lock, data, after):
                _put_note(layout, new, note)
                return found
    raise index_unstable_error(layout.path)


def _find(layout: DirectoryStore, control: Control, old: str, new: str) -> tuple[bytes, _Found]:
    """What is to get the name, and the index.json that says so. It is whole."""
    data, survey = read_settled(layout, control)
    root = _root_of(layout, survey, old)
    holes = find_missing(survey, root)
    if holes or root.descriptor is None:
        raise hole_error(layout.path, root, holes)
    found = _Found(root, root.descriptor, _digests(survey, new))
    if not found.is_named:
        _check_images(layout, data, new)
    return data, found


def _root_of(layout: DirectoryStore, survey: Survey, old: str) -> Root:
    real = [root for root in survey.roots if root.position >= 0]
    named = [root for root in real if root.ref_name == old or _digest_of(root) == old]
    if not named:
        meant = suggest(old, [root.ref_name for root in real if root.ref_name])
        raise NotFound(
            layout.path,
            f"no entry of {INDEX} has the tag or digest {old!r}",
            effect=NOTHING_CHANGED,
            hints=(
                *((f"did you mean {meant!r}?",) if meant else ()),
                f"see what there is, with whole digests: {command_line('ls', layout.path)} --json",
            ),
        )
    digests = dict.fromkeys(_digest_of(root) for root in named)
    if len(digests) > 1:
        raise UsageError(
            f"{old!r} stands for {len(digests)} things in {INDEX}",
            path=layout.path,
            details=tuple(digest or "an entry that cannot be read" for digest in digests),
            hints=("name the one that you mean by its digest",),
        )
    return named[0]


def _digest_of(root: Root) -> str | None:
    return str(root.descriptor.digest) if root.descriptor else None


def _digests(survey: Survey, name: str) -> tuple[str, ...]:
    found = (_digest_of(r) or "" for r in survey.roots if r.position >= 0 and r.ref_name == name)
    return tuple(dict.fromkeys(found))


def _check_images(layout: DirectoryStore, data: bytes, new: str) -> None:
    """Refuse a name that clients would look up as an image's, or that an image would lose."""
    for entry in read_entries(data):
        if entry.image_name is not None and new in (entry.image_name, entry.ref_name):
            raise KitcacheError(
                layout.path,
                f"{new!r} is the name of an image in there, {entry.image_name}",
                effect=NOTHING_CHANGED,
                hints=("choose another name",),
            )


def _note_of(layout: DirectoryStore, found: _Found) -> TagUse:
    """What is noted of OLD, for NEW. Raises Unreadable: then nothing was changed."""
    old = found.root.ref_name
    note = read_tag_uses(layout).get(old, TagUse()) if old is not None else TagUse()
    return note._replace(digest=str(found.descriptor.digest))


def _put_note(layout: DirectoryStore, new: str, note: TagUse) -> None:
    try:
        write_tag_uses(layout, {new: note})
    except KitcacheError as error:
        error.effect = f"the tag {new!r} stands; its last use is not noted"
        raise
