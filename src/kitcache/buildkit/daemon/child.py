"""Bytes both ways over a program's stdin and stdout."""

import os
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import IO

from kitcache.buildkit.daemon.transport import SocketTransport

_GRACE_S = 1.0
_MOST_WORDS_BYTES = 4096


class ChildTransport(SocketTransport):
    """A program that is a daemon's connection on its stdin and stdout."""

    def __init__(self, command: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives on
        try:
            # A session of its own: Ctrl-C is ours to handle, and cancelling needs the connection.
            self._child = subprocess.Popen(  # noqa: S603 - the user's own choice
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            self._errors.close()
            raise
        finally:
            theirs.close()
        self._ending = threading.Lock()
        self._words = ""
        super().__init__(ours)

    def last_words(self) -> str:
        """The last line that the program wrote to stderr, "" where it wrote none. Ends it."""
        self.close()
        return self._words

    def leave_to_parent(self) -> None:
        """Also the program is the parent's: the child does not end it."""
        super().leave_to_parent()
        self._ending = threading.Lock()
        self._errors.close()

    def close(self) -> None:
        """Ends the program as well, kindly for a second, then at once."""
        super().close()
        with self._ending:
            if self._errors.closed:
                return
            for end in (None, self._child.terminate, self._child.kill):
                if end:
                    end()
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(_GRACE_S)
                    break
            self._words = _last_line(self._errors)
            self._errors.close()


def _last_line(file: IO[bytes]) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _MOST_WORDS_BYTES))
    lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
