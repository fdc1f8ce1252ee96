"""KitcacheErrors made from other errors, and the commands in hints."""

import errno
import os

from kitcache.errors import (
    NOTHING_CHANGED,
    NOTHING_DELETED,
    Damaged,
    KitcacheError,
    Unreadable,
    printable,
)
from kitcache.oci.document import DocumentError, read_plain

PERMISSION_DENIED = os.strerror(errno.EACCES)

_HINTS = {
    errno.EACCES: "run it as the user who owns the cache, or give this user the permissions",
    errno.EPERM: "run it as the user who owns the cache, or give this user the permissions",
    errno.EROFS: "mount it writable; du, ls, why and dry runs need no write permission",
    errno.ENOSPC: "free a little space, or an inode, on that disk, then run it again",
    errno.ENOLCK: "mount the file system with locks: kitcache needs flock",
    errno.EOPNOTSUPP: "mount the file system with locks: kitcache needs flock",
    errno.EXDEV: "put blobs/, ingest/ and .kitcache/ on one file system",
    errno.EDQUOT: "free a little of the quota, then run it again",
    errno.EMFILE: "allow more open files (ulimit -n), or name fewer directories",
    errno.ENFILE: "wait until other processes have closed files, then run it again",
}

_RESOURCE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that are not about a file: the process or the machine lacks a resource."""


def io_error(
    path: str, doing: str, error: OSError, *, effect: str = NOTHING_CHANGED
) -> KitcacheError:
    """Return the error for an OSError.

    Args:
        doing: A clause about the operation, such as "cannot read index.json".
    """
    hint = _HINTS.get(error.errno or 0, "look at the disk and its permissions, then try again")
    return KitcacheError(
        path,
        f"{doing}: {error.strerror or error}",
        effect=effect,
        hints=(hint,),
    )


def unreadable(path: str, file: str, error: OSError) -> Unreadable:
    """Return the error for a file that exists and cannot be read. It may be intact."""
    hint = _HINTS.get(error.errno or 0, "look at the disk: it failed to read a file")
    return Unreadable(
        path,
        file,
        error.strerror or str(error),
        hints=(hint, "run the same command again"),
    )


def check_blame(path: str, error: OSError) -> None:
    """Raise KitcacheError if a read failed for lack of a resource, not because of the blob."""
    if error.errno in _RESOURCE_ERRORS:
        raise io_error(path, "cannot read a blob", error) from None


def describe_unlocked(path: str, error: KitcacheError) -> str:
    """Return the warning of a command that runs without the lock."""
    return f"{path}: the cache is not protected from a concurrent reset: {error.problem}"


def check_rewritable(path: str, data: bytes) -> None:
    """Raise Damaged if an index.json has a value that cannot be written back, such as 1e400."""
    try:
        read_plain(data)
    except DocumentError as error:
        raise index_error(path, error, NOTHING_CHANGED) from None


def index_error(path: str, error: DocumentError, effect: str = NOTHING_DELETED) -> Damaged:
    """Return the error for an index.json that is not an index, or cannot be written back."""
    hints: tuple[str, ...] = (
        repair_command(path),
        "restore index.json from a copy",
        "rename it and export again: then only the blobs of that export are kept",
    )
    if error.kind == "unwritable":
        hints = ("edit index.json by hand",)
    problem = f"index.json is invalid or ambiguous: {error.reason}"
    return Damaged(path, problem, kind=error.kind, effect=effect, hints=hints)


def size_problem(actual: int, expected: int) -> str:
    """Return the clause about a blob whose length is not the expected one."""
    state = "truncated" if actual < expected else "too long"
    return f"is {state} ({actual:,} of {expected:,} bytes)"


def repair_command(path: str) -> str:
    """Return the command that repairs a cache and removes tags that it cannot repair."""
    return command_line("verify", path, "--repair")


def command_line(command: str, path: str, *words: str) -> str:
    """Return a kitcache command on a directory."""
    directory = f"./{path}" if path.startswith("-") else path
    return f"kitcache {command} {shell_words(directory, *words)}"


def shell_words(*words: str) -> str:
    """Return the words as a shell reads them."""
    from shlex import quote  # noqa: PLC0415 - only a message needs it

    return " ".join(quote(printable(word)) for word in words)
