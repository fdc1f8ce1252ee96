"""The files that a command writes its results to: --iidfile and --metadata-file."""

import errno
import os

from kitcache.store.ioerrors import io_error

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC


def write_result(path: str, text: str, done: str) -> None:
    """Write the text to a file, a device, or a pipe with a reader.

    Args:
        done: The effect of an error: the work that is done.

    Raises:
        KitcacheError: The file cannot be written.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that has no reader would block.
        fd = os.open(path, _FLAGS, 0o666)
        os.set_blocking(fd, True)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if error.errno == errno.ENXIO:
            error = OSError(errno.ENXIO, "no process reads it")
        raise io_error(path, "cannot be written", error, effect=done) from None
