"""Files outside of caches: docker's configuration, certificates, secrets.

A pipe or a device can be in their place. The open of a pipe waits for its other end, and a device
may have no end. So no open here waits, and each read has a limit.
"""

import errno
import os
import select
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

_GLANCE_MS = 100
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_regular(path: str, limit_bytes: int) -> bytes:
    """Return the bytes of a regular file; symlinks are followed.

    Raises:
        OSError: Also if it is not a regular file, or larger than the limit.
        ValueError: The path has a NUL.
    """
    fd = _open_regular(path)
    try:
        return _read(fd, limit_bytes, lambda: None)
    finally:
        os.close(fd)


def check_regular(path: str, limit_bytes: int) -> None:
    """Raise OSError where read_regular would, without reading the file."""
    fd = _open_regular(path)
    try:
        if os.fstat(fd).st_size > limit_bytes:
            raise _too_large(limit_bytes)
    finally:
        os.close(fd)


def read_to_end(path: str, limit_bytes: int, pause: Callable[[], None]) -> bytes:
    """Read a pipe or a device, such as bash's <(COMMAND), to its end. Raises OSError.

    Args:
        pause: Called repeatedly while there is nothing to read. It may raise.
    """
    fd = os.open(path, _FLAGS)
    try:
        return _read(fd, limit_bytes, pause)
    finally:
        os.close(fd)


@contextmanager
def replace_user_file(path: str, temporary: str, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Write a file under a temporary name; if the block succeeds, rename it to `path`.

    Otherwise the temporary file is deleted. Raises OSError.

    Args:
        mode: As for open; the umask applies.
    """
    fd = os.open(temporary, _NEW_FLAGS, mode)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _open_regular(path: str) -> int:
    fd = os.open(path, _FLAGS)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is not a regular file")


def _read(fd: int, limit_bytes: int, pause: Callable[[], None]) -> bytes:
    parts: list[bytes] = []
    left = limit_bytes + 1
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while left:
        if not poll.poll(_GLANCE_MS):
            pause()
            continue
        data = os.read(fd, min(left, 1024 * 1024))
        if not data:
            return b"".join(parts)
        parts.append(data)
        left -= len(data)
    raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than {limit_bytes:,} bytes")
