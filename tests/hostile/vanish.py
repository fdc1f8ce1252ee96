"""Runs kitcache while names vanish under it. A program: vanish.py WHEN WHAT ARGS...

WHEN: an event that Python reports right before the system call (os.remove, os.scandir, ...),
and a part of its first argument, as EVENT=PART. WHAT: a path that is then removed, whole. The
call itself is the real one, and gets the kernel's own answer about what is gone.
"""

import os
import shutil
import sys
from typing import Any

from kitcache.cli.main import run


def main(when: str, what: str, arguments: list[str]) -> None:
    event, _, part = when.partition("=")
    armed = [True]

    def hook(name: str, details: tuple[Any, ...]) -> None:
        if not armed[0] or name != event or part not in str(details[0]):
            return
        armed[0] = False
        if os.path.isdir(what):
            shutil.rmtree(what)
        else:
            os.unlink(what)
        sys.stderr.write(f"vanished: {what}\n")

    sys.argv = ["kitcache", *arguments]
    sys.addaudithook(hook)
    sys.exit(run())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
