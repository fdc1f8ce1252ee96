"""An OSError as an error of ours: what it says about a file, and what to do next."""

import errno
import os

from kitcache.errors import NOTHING_CHANGED, KitcacheError, Unreadable, printable

PERMISSION_DENIED = os.strerror(errno.EACCES)

_REMEDIES = {
    errno.EACCES: "run it as the user who owns the cache, or give this one the permissions",
    errno.EPERM: "run it as the user who owns the cache, or give this one the permissions",
    errno.EROFS: "mount it writable; du, ls, why and --dry-run need no right to write",
    errno.ENOSPC: "free a little space, or an inode, on that disk, then run it again",
    errno.ENOLCK: "mount the file system with locks: kitcache needs flock",
    errno.EOPNOTSUPP: "mount the file system with locks: kitcache needs flock",
    errno.EXDEV: "blobs/ and .kitcache/ lie on two file systems: move it aside by hand",
    errno.EDQUOT: "free a little of the quota, then run it again",
    errno.EMFILE: "allow more open files (ulimit -n), or name fewer directories",
    errno.ENFILE: "wait until others have closed some of their files, then run it again",
}

_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Failures that say nothing about a file: the process, or the machine, has run out of something."""


def io_error(
    path: str, doing: str, error: OSError, *, effect: str = NOTHING_CHANGED
) -> KitcacheError:
    """An OSError as ours, while it is still known what was being done."""
    remedy = _REMEDIES.get(error.errno or 0, "look at the disk and its permissions, then try again")
    return KitcacheError(
        path,
        f"{doing}: {error.strerror or error}",
        effect=effect,
        hints=(remedy,),
    )


def unreadable(path: str, file: str, error: OSError) -> Unreadable:
    """The error for a file that is there and cannot be read: one failed read proves nothing."""
    remedy = _REMEDIES.get(error.errno or 0, "look at the disk: it failed to read a file")
    return Unreadable(
        path,
        file,
        error.strerror or str(error),
        hints=(remedy, "run the same command again"),
    )


def check_blame(path: str, error: OSError) -> None:
    """Raises KitcacheError for a failure that is no fault of the blob which was to be read."""
    if error.errno in _OURS:
        raise io_error(path, "cannot read a blob", error) from None


def repair_command(path: str) -> str:
    """Return the command that repairs a cache, or removes what cannot be repaired."""
    return command_line("verify", path, "--repair")


def command_line(command: str, path: str, *words: str) -> str:
    """Return a kitcache command on a directory."""
    directory = f"./{path}" if path.startswith("-") else path
    return f"kitcache {command} {shell_words(directory, *words)}"


def shell_words(*words: str) -> str:
    """Return the words as a shell reads them."""
    from shlex import quote  # noqa: PLC0415 - only a message needs it

    return " ".join(quote(printable(word)) for word in words)
