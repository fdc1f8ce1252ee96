"""The shared key of a session: a name for the set of directories that it sends.

The daemon keeps the files of a key, and next time requests only files whose name, size, time or
mode differ. If two sets of directories had one key, it could use a file of the wrong set.
"""

import hashlib
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def make_shared_key(directories: Mapping[str, str]) -> str:
    """Return the key of these directories: a hash of machine, real paths, devices and inodes."""
    words = [_machine_id(), socket.gethostname()]
    for name, path in sorted(directories.items()):
        real = os.path.realpath(path)
        stat = os.stat(real)
        words += [name, real, str(stat.st_dev), str(stat.st_ino)]
    encoded = "\0".join(words).encode("utf-8", "surrogateescape")
    return hashlib.sha256(encoded).hexdigest()


def _machine_id() -> str:
    for path in _MACHINE_IDS:
        with suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    return ""
