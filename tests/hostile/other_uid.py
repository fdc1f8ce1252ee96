"""Runs kitcache as a user that is not root. A program: other_uid.py UID ARGS...

The interpreter and the package may lie where that user cannot look (a home of root), so all of
kitcache is loaded first, and the user changed then: what follows opens nothing but the cache.
"""

import importlib
import os
import pkgutil
import sys

# Loaded on some path of the command, never before the user has changed.
LATE = ("json", "shlex", "shutil", "textwrap", "locale", "signal", "traceback", "gettext",
        "ctypes", "encodings.ascii", "encodings.utf_32_be", "encodings.utf_16_be")  # fmt: skip


def main(uid: int, arguments: list[str]) -> None:
    kitcache = importlib.import_module("kitcache")
    for module in pkgutil.walk_packages(kitcache.__path__, "kitcache."):
        if module.name != "kitcache.__main__":
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    for name in kitcache.__all__:
        getattr(kitcache, name)
    run = importlib.import_module("kitcache.cli.main").run
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    sys.argv = ["kitcache", *arguments]
    sys.exit(run())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
