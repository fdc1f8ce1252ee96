"""Take entries out of index.json. The blobs stay until the next reset."""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from threading import Event

from kitcache.errors import NOTHING_CHANGED, Damaged, KitcacheError, NotFound, UsageError
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.oci.index import RemovedEntry, list_names, read_entries, remove_entries
from kitcache.store.directory import DirectoryStore
from kitcache.store.index import INDEX, parse_index, publish_index, read_index
from kitcache.store.ioerrors import command_line, repair_command
from kitcache.store.locks import lock_index, lock_store
from kitcache.store.open import open_store
from kitcache.store.state import TagUse, open_state_dir, write_tag_uses
from kitcache.upkeep.results import UntagResult


def untag(
    path: str | os.PathLike[str],
    names: Iterable[str],
    *,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> UntagResult:
    """Take every entry with one of these ref names, or whole digests, out of index.json.

    A name with `*`, `?` or `[` that no entry has is a pattern, as in a policy: it stands for all
    ref names that it matches.

    Success guarantees: index.json was replaced in one step, under kitcache's and BuildKit's lock;
    all other entries and all unknown fields are in it; no blob was removed. What was noted of a
    tag that is gone is forgotten. Works where a tag is damaged: it is the way out that a refusal
    names.

    Raises NotFound if one of the names is not there, or one of the patterns matches no ref name
    (then nothing was changed), Busy, Damaged (no readable index.json), NotACache, Unsafe,
    Cancelled, KitcacheError for I/O errors.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if not wanted:
        raise UsageError("name at least one tag or digest to take out")
    name = os.fspath(path)
    control = Control(name, on_progress, cancel)
    with open_store(name) as layout:
        if dry_run:
            data = read_index(layout).data
            parse_index(layout.path, data, NOTHING_CHANGED)
            _, dropped = _drop(layout, data, wanted)
        else:
            dropped = _untag_locked(layout, wanted, control, lock_timeout_s)
    entries = tuple((entry.ref_name, entry.digest) for entry in dropped)
    return UntagResult(name, "dry-run" if dry_run else "done", entries)


def _untag_locked(
    layout: DirectoryStore, names: tuple[str, ...], control: Control, lock_timeout_s: float
) -> tuple[RemovedEntry, ...]:
    def edit(data: bytes | None) -> tuple[bytes, tuple[bytes, tuple[RemovedEntry, ...]]]:
        after, dropped = _drop(layout, data, names)
        return after, (after, dropped)

    deadline = time.monotonic() + lock_timeout_s
    with lock_store(layout, "exclusive", control.wait_policy(lock_timeout_s)):
        left_s = max(0.0, deadline - time.monotonic())
        lock = lock_index(layout, control.wait_policy(left_s))
        with open_state_dir(layout) as room_fd:
            after, dropped = publish_index(layout, room_fd, lock, edit)
        # Or a repair that finds no index.json would bring the tags back.
        left = {entry.ref_name for entry in read_entries(after)}
        gone = {entry.ref_name for entry in dropped} - left
        with suppress(KitcacheError):
            write_tag_uses(layout, {name: TagUse() for name in gone if name is not None})
    return dropped


def _drop(
    layout: DirectoryStore, data: bytes | None, names: tuple[str, ...]
) -> tuple[bytes, tuple[RemovedEntry, ...]]:
    if data is None:
        raise Damaged(
            layout.path,
            f"{INDEX} is missing",
            kind="missing",
            effect=NOTHING_CHANGED,
            hints=(repair_command(layout.path), f"restore {INDEX} from a copy"),
        )
    entries = list_names(data)
    found = tuple(_names_of(name, entries) for name in names)
    after, dropped = remove_entries(data, tuple(chain.from_iterable(found)))
    unknown = [name for name, those in zip(names, found, strict=True) if not those]
    if unknown:
        from kitcache.options.attributes import suggest  # noqa: PLC0415 - only a message needs it

        meant = suggest(unknown[0], [entry.ref_name for entry in entries if entry.ref_name])
        raise NotFound(
            layout.path,
            f"no entry of {INDEX} has {' or '.join(map(_describe, unknown))}",
            effect=NOTHING_CHANGED,
            hints=(
                *((f"did you mean {meant!r}?",) if meant else ()),
                f"see what there is, with whole digests: {command_line('ls', layout.path)} --json",
            ),
        )
    return after, dropped


def _names_of(name: str, entries: Sequence[RemovedEntry]) -> tuple[str, ...]:
    """The name itself, if an entry has it as its tag or digest, else the tags that it matches."""
    if any(name in entry for entry in entries):
        return (name,)
    if not _is_pattern(name):
        return ()
    from kitcache.options.prunepolicy import find_glob  # noqa: PLC0415 - only a pattern needs it

    tags = {entry.ref_name for entry in entries if entry.ref_name is not None}
    return tuple(tag for tag in tags if find_glob((name,), tag))


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _describe(name: str) -> str:
    return f"a tag that matches {name!r}" if _is_pattern(name) else f"the tag or digest {name!r}"
