"""DIR/.kitcache/: what BuildKit does not record.

When a tag was last exported and imported, which layers imports really read, and how many sweeps in
a row were left out because others were at work. Where notes cannot be written nothing fails. Where
notes are there and cannot be read, a decision that needs them stops, and no writer replaces them.
Each file is replaced in one step; a writer that finds another at it waits a little.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal, NamedTuple

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

SKIPPED_SWEEPS = "skipped-sweeps"
TAGS = "tags.json"
LAYERS = "layers.json"

_TAGS_SCHEMA = "kitcache.tags/1"
_LAYERS_SCHEMA = "kitcache.layers/1"
_LIMIT_BYTES = 4 * 1024 * 1024
_TAGS_KEPT = 1000
_LAYERS_KEPT = 10_000
_TRIES = 50
_PAUSE_S = 0.01
_LEFT_BEHIND_S = 3600.0
_TEMPS = tuple(f"{name}." for name in (INDEX, TAGS, LAYERS, SKIPPED_SWEEPS, NEW_BLOB, PROBE))
_NO_NOTES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)
"""No file of ours is there: nothing, a directory, a link, a socket."""


class TagUse(NamedTuple):
    """When a tag was last exported, and last imported, here: ns since 1970, None if never.

    digest: of the manifest that was exported last; None where that is not known.
    """

    exported_ns: int | None = None
    imported_ns: int | None = None
    digest: str | None = None

    @property
    def used_ns(self) -> int:
        """The later one of both; 0 if never."""
        return max(self.exported_ns or 0, self.imported_ns or 0)


@contextmanager
def open_state_dir(layout: Layout) -> Iterator[int | None]:
    """An fd of .kitcache/, made for the users of the cache; None where there can be none."""
    fd = _open_state_dir(layout, create=True)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def require_state_dir(layout: Layout) -> Iterator[int]:
    """room_of for those who cannot do without. Raises KitcacheError where there can be none."""
    with open_state_dir(layout) as fd:
        if fd is None:
            raise KitcacheError(
                layout.path,
                f"there can be no {STATE_DIR}/ in it, where new blobs are written first",
                effect=NOTHING_CHANGED,
                hints=(f"give write permission to the directory, and to {STATE_DIR}/ in it",),
            )
        yield fd


def _open_state_dir(layout: Layout, *, create: bool) -> int | None:
    try:
        if create:
            return make_directory(layout, STATE_DIR, layout.root_fd)
        return open_directory(layout, STATE_DIR, layout.root_fd)
    except KitcacheError:
        return None


def read_tag_uses(layout: Layout) -> Mapping[str, TagUse]:
    """What is noted of each tag; empty where nothing is, or nothing that is a note.

    Raises Unreadable, and KitcacheError for other I/O errors: notes may be there.
    """
    return _decode_notes(_read(layout, TAGS))


def read_layer_uses(layout: Layout) -> Mapping[str, int]:
    """When imports last read a blob, by its digest: ns since 1970. Otherwise as read_notes."""
    return _decode_layers(_read(layout, LAYERS))


def read_skipped_sweeps(layout: Layout) -> int:
    """How many sweeps in a row were left out; 0 where that cannot be read: no tag goes by it."""
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
    """Note that these tags were exported, or imported, now. Of a thousand tags the oldest go.

    digests: what was exported under each, as far as it is known. Never fails.
    """
    with suppress(KitcacheError), _writing(layout) as state_fd:
        if state_fd is None:
            return
        notes = dict(read_tag_uses(layout))
        for tag in tags:
            note = notes.get(tag, TagUse())
            if how == "exported":
                notes[tag] = note._replace(exported_ns=now_ns, digest=(digests or {}).get(tag))
            else:
                notes[tag] = note._replace(imported_ns=now_ns)
        _write_notes(layout, state_fd, notes)


def write_tag_uses(layout: Layout, changed: Mapping[str, TagUse]) -> None:
    """Have these notes in place of what there was of their tags; an empty one is none at all.

    Raises as read_notes: then nothing was written.
    """
    before = read_tag_uses(layout)
    if all(before.get(tag, TagUse()) == note for tag, note in changed.items()):
        return
    with _writing(layout) as state_fd:
        if state_fd is not None:
            notes = {**read_tag_uses(layout), **changed}
            _write_notes(
                layout, state_fd, {t: note for t, note in notes.items() if note != TagUse()}
            )


def _write_notes(layout: Layout, state_fd: int, notes: Mapping[str, TagUse]) -> None:
    latest = sorted(notes, key=lambda tag: notes[tag].used_ns)
    kept = {tag: notes[tag]._asdict() for tag in latest[-_TAGS_KEPT:]}
    document = {"schema": _TAGS_SCHEMA, "tags": kept}
    _replace(layout, state_fd, TAGS, json.dumps(document, indent=1).encode())


def note_layers(layout: Layout, digests: Iterable[str], now_ns: int) -> None:
    """Note that an import read these blobs now. Of ten thousand the oldest go. Never fails."""
    with suppress(KitcacheError):
        put_layer_uses(layout, dict.fromkeys(digests, now_ns))


def put_layer_uses(layout: Layout, used: Mapping[str, int]) -> None:
    """Note when blobs were read last, where that is later. Raises as put_notes."""
    before = read_layer_uses(layout) if used else {}
    if all(digest in before and before[digest] >= ns for digest, ns in used.items()):
        return
    with _writing(layout) as state_fd:
        if state_fd is None:
            return
        uses = dict(read_layer_uses(layout))
        uses |= {digest: max(uses.get(digest, 0), ns) for digest, ns in used.items()}
        latest = sorted(uses, key=uses.__getitem__)[-_LAYERS_KEPT:]
        document = {"schema": _LAYERS_SCHEMA, "layers": {digest: uses[digest] for digest in latest}}
        _replace(layout, state_fd, LAYERS, json.dumps(document).encode())


def count_skipped_sweep(layout: Layout) -> int:
    """Count a sweep that was left out: how many in a row it is."""
    with _writing(layout) as state_fd:
        skips = read_skipped_sweeps(layout) + 1
        if state_fd is not None:
            _replace(layout, state_fd, SKIPPED_SWEEPS, b"%d\n" % skips)
    return skips


def tidy(layout: Layout) -> None:
    """A sweep has been done: none was left out in a row, and what killed writers left goes too."""
    from kitcache.store.stages import clear_stages  # noqa: PLC0415 - only after a sweep

    fd = _open_state_dir(layout, create=False)
    if fd is not None:
        with suppress(OSError):
            os.unlink(SKIPPED_SWEEPS, dir_fd=fd)
        delete_stale_files(fd)
        clear_stages(layout, fd)
        os.close(fd)


def delete_stale_files(state_fd: int) -> None:
    """Remove what killed writers have left: new files of an hour ago that got no name."""
    now_s = time.time()
    with suppress(OSError):
        for name in os.listdir(state_fd):
            if name.startswith(_TEMPS):
                found = os.stat(name, dir_fd=state_fd, follow_symlinks=False)
                if found.st_mtime < now_s - _LEFT_BEHIND_S:
                    os.unlink(name, dir_fd=state_fd)


@contextmanager
def _writing(layout: Layout) -> Iterator[int | None]:
    """.kitcache/ with the right to write, or None: others may be at it for milliseconds."""
    with open_state_dir(layout) as fd:
        yield fd if fd is not None and _is_locked(fd) else None


def _is_locked(fd: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError:
            return False
        else:
            return True
    return False


def _read(layout: Layout, name: str) -> bytes:
    """The bytes of a file in .kitcache/; empty where there is none. Raises as read_notes."""
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
            if error.errno in _NO_NOTES:
                return b""
            check_blame(layout.path, error)
            raise unreadable(layout.path, f"{STATE_DIR}/{name}", error) from None


def _replace(layout: Layout, state_fd: int, name: str, data: bytes) -> None:
    target, temporary = (state_fd, name), (state_fd, temporary_name(name))
    with suppress(KitcacheError, OSError):
        replace_file(target, temporary, (data,), reference_stat(layout))


def _decode_notes(data: bytes) -> dict[str, TagUse]:
    return {
        tag: TagUse(
            _time(note.get("exported_ns")),
            _time(note.get("imported_ns")),
            _text(note.get("digest")),
        )
        for tag, note in _members(data, "tags").items()
        if isinstance(note, dict)
    }


def _decode_layers(data: bytes) -> dict[str, int]:
    uses = _members(data, "layers")
    return {digest: used_ns for digest, used_ns in uses.items() if _time(used_ns) is not None}


def _members(data: bytes, field: str) -> dict[str, Any]:
    try:
        found = json.loads(data)[field]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _time(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
