"""DIR/.kitcache/: what BuildKit does not record.

When a tag was last exported and imported, and how many sweeps in a row were left out because
others were at work. Notes are best effort: where they cannot be written nothing fails, and where
they cannot be read there are none. Each file is replaced in one step; a writer that finds another
at it waits a little.
"""

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

from kitcache.errors import KitcacheError
from kitcache.store.index import INDEX, give_to, users_of, write_new
from kitcache.store.layout import Layout, open_directory

ROOM = ".kitcache"
SKIPS = "skips"
TAGS = "tags.json"

_SCHEMA = "kitcache.tags/1"
_LIMIT_BYTES = 4 * 1024 * 1024
_TAGS_KEPT = 1000
_TRIES = 20
_PAUSE_S = 0.01
_LEFT_BEHIND_S = 3600.0
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Note(NamedTuple):
    """When a tag was last exported, and last imported, here: ns since 1970, None if never."""

    exported_ns: int | None = None
    imported_ns: int | None = None

    @property
    def used_ns(self) -> int:
        """The later one of both; 0 if never."""
        return max(self.exported_ns or 0, self.imported_ns or 0)


@contextmanager
def room_of(layout: Layout) -> Iterator[int | None]:
    """An fd of .kitcache/, made for the users of the cache; None where there can be none."""
    fd = _open_room(layout, is_made=True)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _open_room(layout: Layout, *, is_made: bool) -> int | None:
    try:
        fd = open_directory(layout, ROOM, layout.root_fd)
        if fd is not None or not is_made:
            return fd
        with suppress(FileExistsError):
            os.mkdir(ROOM, 0o755, dir_fd=layout.root_fd)
        fd = open_directory(layout, ROOM, layout.root_fd)
    except (KitcacheError, OSError):
        return None
    if fd is not None:
        with suppress(OSError):
            give_to(fd, users_of(layout))
            os.fchmod(fd, stat.S_IMODE(os.fstat(layout.root_fd).st_mode))
    return fd


def read_notes(layout: Layout) -> Mapping[str, Note]:
    """What is noted of each tag; empty where nothing is, or nothing that can be read."""
    return _decode(_read(layout, TAGS))


def read_skips(layout: Layout) -> int:
    """How many sweeps in a row were left out."""
    data = _read(layout, SKIPS).strip()
    return int(data) if data.isdigit() and len(data) < 10 else 0


def note_use(
    layout: Layout, tags: Iterable[str], how: Literal["exported", "imported"], now_ns: int
) -> None:
    """Note that these tags were exported, or imported, now. Of a thousand tags the oldest go."""
    with _writing(layout) as room_fd:
        if room_fd is None:
            return
        notes = dict(_decode(_read(layout, TAGS)))
        for tag in tags:
            note = notes.get(tag, Note())
            if how == "exported":
                notes[tag] = note._replace(exported_ns=now_ns)
            else:
                notes[tag] = note._replace(imported_ns=now_ns)
        latest = sorted(notes, key=lambda tag: notes[tag].used_ns)
        kept = {tag: notes[tag]._asdict() for tag in latest[-_TAGS_KEPT:]}
        document = {"schema": _SCHEMA, "tags": kept}
        _replace(layout, room_fd, TAGS, json.dumps(document, indent=1).encode())


def count_skip(layout: Layout) -> int:
    """Count a sweep that was left out: how many in a row it is."""
    with _writing(layout) as room_fd:
        skips = read_skips(layout) + 1
        if room_fd is not None:
            _replace(layout, room_fd, SKIPS, b"%d\n" % skips)
    return skips


def forget_skips(layout: Layout) -> None:
    """A sweep has been done."""
    fd = _open_room(layout, is_made=False)
    if fd is not None:
        with suppress(OSError):
            os.unlink(SKIPS, dir_fd=fd)
        os.close(fd)


def clear_room(room_fd: int) -> None:
    """Remove what killed writers have left: new files of an hour ago that got no name."""
    now_s = time.time()
    with suppress(OSError):
        for name in os.listdir(room_fd):
            if name.startswith((f"{INDEX}.", f"{TAGS}.", f"{SKIPS}.", "probe.")):
                found = os.stat(name, dir_fd=room_fd, follow_symlinks=False)
                if found.st_mtime < now_s - _LEFT_BEHIND_S:
                    os.unlink(name, dir_fd=room_fd)


@contextmanager
def _writing(layout: Layout) -> Iterator[int | None]:
    """.kitcache/ with the right to write, or None: others may be at it for milliseconds."""
    with room_of(layout) as fd:
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
    room_fd = _open_room(layout, is_made=False)
    if room_fd is None:
        return b""
    try:
        with open(os.open(name, _READ_FLAGS, dir_fd=room_fd), "rb") as file:
            return file.read(_LIMIT_BYTES)
    except OSError:
        return b""
    finally:
        os.close(room_fd)


def _replace(layout: Layout, room_fd: int, name: str, data: bytes) -> None:
    new = f"{name}.{os.urandom(8).hex()}"
    try:
        write_new(room_fd, new, data, users_of(layout))
        os.rename(new, name, src_dir_fd=room_fd, dst_dir_fd=room_fd)
    except OSError:
        with suppress(OSError):
            os.unlink(new, dir_fd=room_fd)


def _decode(data: bytes) -> dict[str, Note]:
    try:
        tags = json.loads(data)["tags"]
        return {
            tag: Note(_time(note.get("exported_ns")), _time(note.get("imported_ns")))
            for tag, note in tags.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _time(value: Any) -> int | None:
    return value if type(value) is int else None
