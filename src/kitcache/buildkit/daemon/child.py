"""A connection over the stdin and stdout of a child process."""

import os
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import IO

from kitcache.buildkit.daemon.transport import SocketTransport

_GRACE_S = 1.0
_MAX_LINE_BYTES = 4096


class ChildTransport(SocketTransport):
    """A program whose stdin and stdout are the connection to a daemon."""

    def __init__(self, command: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        try:
            # Its own session, so that Ctrl-C does not end it: cancelling needs the connection.
            self._child = subprocess.Popen(  # noqa: S603 - the user named it
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._stderr,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            self._stderr.close()
            raise
        finally:
            theirs.close()
        self._ending = threading.Lock()
        self._last_line = ""
        super().__init__(ours)

    def last_stderr_line(self) -> str:
        """End the program and return the last line that it wrote to stderr, "" for none."""
        self.close()
        return self._last_line

    def leave_to_parent(self) -> None:
        """Close the child's copies. The program belongs to the parent, so it is not ended."""
        super().leave_to_parent()
        self._ending = threading.Lock()
        self._stderr.close()

    def close(self) -> None:
        """Close the socket and end the program: SIGTERM after a second, SIGKILL after another."""
        super().close()
        with self._ending:
            if self._stderr.closed:
                return
            for signal in (None, self._child.terminate, self._child.kill):
                if signal:
                    signal()
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(_GRACE_S)
                    break
            self._last_line = _last_line(self._stderr)
            self._stderr.close()


def _last_line(file: IO[bytes]) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _MAX_LINE_BYTES))
    lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
