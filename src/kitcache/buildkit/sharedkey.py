"""Which directories a session sends: one name for the same ones, another for all others.

The daemon keeps what it was sent, and next time asks only for files whose name, size, time or mode
differ. With one name for two sets of directories it would take a file of the one for the other's.
"""

import hashlib
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def make_shared_key(directories: Mapping[str, str]) -> str:
    """A name for these directories on this machine, by real path, device and inode."""
    words = [_machine_id(), socket.gethostname()]
    for name, path in sorted(directories.items()):
        real = os.path.realpath(path)
        found = os.stat(real)
        words += [name, real, str(found.st_dev), str(found.st_ino)]
    encoded = "\0".join(words).encode("utf-8", "surrogateescape")
    return hashlib.sha256(encoded).hexdigest()


def _machine_id() -> str:
    for path in _MACHINE_IDS:
        with suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    return ""
