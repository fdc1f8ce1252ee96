"""DIR/.kitcache/, the state directory: records that BuildKit does not keep.

It has the last uses of each tag, the layers that imports read, and the number of sweeps that were
skipped in a row. If a record cannot be written, nothing fails. If it exists and
cannot be read, a decision that needs it raises, and no process replaces it. A file is replaced in
one step; a writer waits half a second for another writer, then gives up.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal

from kitcache.errors import NOTHING_CHANGED, KitcacheError, Unsafe
from kitcache.store.files import (
    INDEX,
    NEW_BLOB,
    PROBE,
    STATE_DIR,
    make_directory,
    reference_stat,
    replace_file,
    temporary_name,
)
from kitcache.store.ioerrors import check_blame, unreadable
from kitcache.store.layout import FILE_FLAGS, Layout, open_directory, read_at_most
from kitcache.store.values import TagUse

SKIPPED_SWEEPS = "skipped-sweeps"
TAGS = "tags.json"
LAYERS = "layers.json"

_TAGS_SCHEMA = "kitcache.tags/1"
_LAYERS_SCHEMA = "kitcache.layers/1"
_LIMIT_BYTES = 4 * 1024 * 1024
_MAX_TAGS = 1000
_MAX_LAYERS = 10_000
_MAX_TRIES = 50
_PAUSE_S = 0.01
_STALE_S = 3600.0
_TEMPORARY = tuple(f"{name}." for name in (INDEX, TAGS, LAYERS, SKIPPED_SWEEPS, NEW_BLOB, PROBE))
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)
"""The name is missing, or it is the name of a directory, a symlink or a socket."""


@contextmanager
def open_state_dir(layout: Layout) -> Iterator[int | None]:
    """Open .kitcache/; create it with the cache's owner and mode. None if that is impossible."""
    fd = None
    with suppress(KitcacheError):
        fd = make_directory(layout, STATE_DIR, layout.root_fd)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def require_state_dir(layout: Layout) -> Iterator[int]:
    """Open .kitcache/ as open_state_dir does; raise KitcacheError if that is impossible."""
    with open_state_dir(layout) as fd:
        if fd is None:
            raise KitcacheError(
                layout.path,
                f"cannot create {STATE_DIR}/ in it, where new blobs are written first",
                effect=NOTHING_CHANGED,
                hints=(f"give write permission to the directory, and to {STATE_DIR}/ in it",),
            )
        yield fd


def read_tag_uses(layout: Layout) -> Mapping[str, TagUse]:
    """Return the recorded use of each tag; empty if the file is missing or has another form.

    Raises:
        Unreadable: The file exists and cannot be read.
        KitcacheError: Another I/O error.
    """
    return {
        tag: TagUse(
            _as_time(use.get("exported_ns")),
            _as_time(use.get("imported_ns")),
            use["digest"] if isinstance(use.get("digest"), str) else None,
        )
        for tag, use in _read_records(layout, TAGS, "tags").items()
        if isinstance(use, dict)
    }


def read_layer_uses(layout: Layout) -> Mapping[str, int]:
    """Return when imports last read a blob, in ns since 1970, by digest.

    Raises as read_tag_uses.
    """
    uses = _read_records(layout, LAYERS, "layers")
    return {digest: used_ns for digest, used_ns in uses.items() if _as_time(used_ns) is not None}


def read_skipped_sweeps(layout: Layout) -> int:
    """Return how many sweeps in a row were skipped; 0 if unknown, as no tag depends on it."""
    data = b""
    with suppress(KitcacheError):
        data = _read(layout, SKIPPED_SWEEPS).strip()
    return int(data) if data.isdigit() and len(data) < 10 else 0


def record_use(
    layout: Layout,
    tags: Iterable[str],
    how: Literal["exported", "imported"],
    now_ns: int,
    *,
    digests: Mapping[str, str] | None = None,
) -> None:
    """Record that these tags were exported, or imported, now. Never fails.

    Args:
        digests: The exported manifest of each tag, as far as it is known.
    """
    with suppress(KitcacheError), _lock_state_dir(layout) as state_fd:
        if state_fd is None:
            return
        uses = dict(read_tag_uses(layout))
        for tag in tags:
            use = uses.get(tag, TagUse())
            if how == "exported":
                uses[tag] = use._replace(exported_ns=now_ns, digest=(digests or {}).get(tag))
            else:
                uses[tag] = use._replace(imported_ns=now_ns)
        _write_tag_uses(layout, state_fd, uses)


def write_tag_uses(layout: Layout, changed: Mapping[str, TagUse]) -> None:
    """Replace the recorded uses of some tags; an empty use removes the record.

    Raises as read_tag_uses; nothing was written then.
    """
    before = read_tag_uses(layout)
    if all(before.get(tag, TagUse()) == use for tag, use in changed.items()):
        return
    with _lock_state_dir(layout) as state_fd:
        if state_fd is not None:
            uses = {**read_tag_uses(layout), **changed}
            known = {tag: use for tag, use in uses.items() if use != TagUse()}
            _write_tag_uses(layout, state_fd, known)


def _write_tag_uses(layout: Layout, state_fd: int, uses: Mapping[str, TagUse]) -> None:
    latest = sorted(uses, key=lambda tag: uses[tag].used_ns)[-_MAX_TAGS:]
    document = {"schema": _TAGS_SCHEMA, "tags": {tag: uses[tag]._asdict() for tag in latest}}
    _replace(layout, state_fd, TAGS, json.dumps(document, indent=1).encode())


def record_layer_uses(layout: Layout, digests: Iterable[str], now_ns: int) -> None:
    """Record that an import read these blobs now. Never fails."""
    with suppress(KitcacheError):
        write_layer_uses(layout, dict.fromkeys(digests, now_ns))


def write_layer_uses(layout: Layout, used: Mapping[str, int]) -> None:
    """Record when blobs were read last, if that is later. Raises as write_tag_uses."""
    before = read_layer_uses(layout) if used else {}
    if all(digest in before and before[digest] >= ns for digest, ns in used.items()):
        return
    with _lock_state_dir(layout) as state_fd:
        if state_fd is None:
            return
        uses = dict(read_layer_uses(layout))
        uses |= {digest: max(uses.get(digest, 0), ns) for digest, ns in used.items()}
        latest = sorted(uses, key=uses.__getitem__)[-_MAX_LAYERS:]
        document = {"schema": _LAYERS_SCHEMA, "layers": {digest: uses[digest] for digest in latest}}
        _replace(layout, state_fd, LAYERS, json.dumps(document).encode())


def count_skipped_sweep(layout: Layout) -> int:
    """Count one more skipped sweep. Return how many in a row there are."""
    with _lock_state_dir(layout) as state_fd:
        skipped = read_skipped_sweeps(layout) + 1
        if state_fd is not None:
            _replace(layout, state_fd, SKIPPED_SWEEPS, b"%d\n" % skipped)
    return skipped


def finish_sweep_state(layout: Layout) -> None:
    """Reset the count of skipped sweeps, and delete files of killed processes. Never raises."""
    from kitcache.store.stages import clear_stages  # noqa: PLC0415 - only after a sweep

    fd = None
    with suppress(KitcacheError):
        fd = open_directory(layout, STATE_DIR, layout.root_fd)
    if fd is not None:
        with suppress(OSError):
            os.unlink(SKIPPED_SWEEPS, dir_fd=fd)
        delete_stale_files(fd)
        clear_stages(layout, fd)
        os.close(fd)


def delete_stale_files(state_fd: int) -> None:
    """Delete temporary files that are older than an hour: their writers were killed."""
    now_s = time.time()
    with suppress(OSError):
        for name in os.listdir(state_fd):
            if name.startswith(_TEMPORARY):
                stat = os.stat(name, dir_fd=state_fd, follow_symlinks=False)
                if stat.st_mtime < now_s - _STALE_S:
                    os.unlink(name, dir_fd=state_fd)


@contextmanager
def _lock_state_dir(layout: Layout) -> Iterator[int | None]:
    """Open and lock .kitcache/, None if that is impossible. Writers hold it for milliseconds."""
    with open_state_dir(layout) as fd:
        yield fd if fd is not None and _try_lock(fd) else None


def _try_lock(fd: int) -> bool:
    for _ in range(_MAX_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError:
            return False
        else:
            return True
    return False


def _read_records(layout: Layout, name: str, field: str) -> dict[str, Any]:
    try:
        records = json.loads(_read(layout, name))[field]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return records if isinstance(records, dict) else {}


def _read(layout: Layout, name: str) -> bytes:
    """Return the bytes of a file in .kitcache/, empty if there is no file."""
    try:
        state_fd = open_directory(layout, STATE_DIR, layout.root_fd)
    except Unsafe:
        return b""
    if state_fd is None:
        return b""
    with ExitStack() as opened:
        opened.callback(os.close, state_fd)
        try:
            fd = os.open(name, FILE_FLAGS, dir_fd=state_fd)
            opened.callback(os.close, fd)
            return read_at_most(fd, _LIMIT_BYTES)
        except OSError as error:
            if error.errno in _NO_FILE:
                return b""
            check_blame(layout.path, error)
            raise unreadable(layout.path, f"{STATE_DIR}/{name}", error) from None


def _replace(layout: Layout, state_fd: int, name: str, data: bytes) -> None:
    target, temporary = (state_fd, name), (state_fd, temporary_name(name))
    with suppress(KitcacheError, OSError):
        replace_file(target, temporary, (data,), reference_stat(layout))


def _as_time(value: Any) -> int | None:
    return value if type(value) is int else None
