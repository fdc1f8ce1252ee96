"""What a directory tree looks like, as a value that can be compared.

Reads with lstat and never follows a link, never opens what is no regular file.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

# A sparse file of a test is told apart by its ends; nobody waits for gigabytes of zeros.
WHOLE_BYTES = 80 << 20
END_BYTES = 1 << 20

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class Entry(NamedTuple):
    """One name in a tree. `content` is a file's hash or a link's target."""

    kind: str
    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    content: str


Tree = dict[str, Entry]


def take_snapshot(top: Path) -> Tree:
    """Every name below top (relative, `/` between) and what it is; top itself is ".".

    Directories carry no time and no size: both change when a name in them goes.
    """
    tree: Tree = {}
    todo = [(".", os.fsencode(top))]
    while todo:
        name, path = todo.pop()
        entry = read_entry(path)
        tree[name] = entry
        if entry.kind == "directory" and os.access(path, os.R_OK | os.X_OK):
            for child in os.listdir(path):
                below = os.fsdecode(child)
                todo.append(
                    (below if name == "." else f"{name}/{below}", os.path.join(path, child))
                )
    return tree


def read_entry(path: bytes) -> Entry:
    """The entry of one path, without following it."""
    status = os.lstat(path)
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    is_directory = kind == "directory"
    content = ""
    if kind == "file":
        content = hash_of(path, status.st_size)
    elif kind == "symlink":
        content = os.fsdecode(os.readlink(path))
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        size=0 if is_directory else status.st_size,
        mtime_ns=0 if is_directory else status.st_mtime_ns,
        content=content,
    )


def hash_of(path: bytes, size: int) -> str:
    """The hash of a file's bytes, or "unreadable"; of both ends if it is huge."""
    hasher = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            if size <= WHOLE_BYTES:
                hasher.update(file.read())
            else:
                hasher.update(file.read(END_BYTES))
                file.seek(size - END_BYTES)
                hasher.update(file.read())
    except PermissionError:
        return "unreadable"
    return hasher.hexdigest()


def differences(before: Tree, after: Tree) -> list[str]:
    """A line for each name that is new, gone or changed."""
    lines = [f"new: {name}" for name in sorted(after.keys() - before.keys())]
    lines += [f"gone: {name}" for name in sorted(before.keys() - after.keys())]
    lines += [
        f"changed: {name}: {before[name]} -> {after[name]}"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    ]
    return lines
