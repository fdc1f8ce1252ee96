"""Receives a tree as another user. A program: output_as.py UID DIR [device]; prints the error.

All of the package is loaded before the user changes: it may lie where that user cannot look.
"""

import os
import sys
from pathlib import Path

from tests.unit.buildkit.session.sender import DIR, deliver, file, stat

# So many that no directory is still open when its turn comes.
MANY = tuple(stat(f"shut/in{n:03}", DIR | 0o700) for n in range(100))
TREE = (stat("shut", DIR), stat("shut/in", DIR | 0o555), file("shut/in/f", b"x", 0o400), *MANY)
DEVICE = (stat("null", 1 << 26 | 1 << 21 | 0o666, devmajor=1, devminor=3),)


def main(uid: int, path: str, what: tuple[str, ...]) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    error = deliver(Path(path), *(DEVICE if what else TREE))
    sys.stdout.write(error.message if error else "")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], tuple(sys.argv[3:]))
