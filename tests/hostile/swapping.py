"""`kitcache ARGS`, beside somebody who swaps our new files for links to a file of another.

A program: swapping.py DIR PATTERN VICTIM LOG ARGS. What matches the pattern in DIR/.kitcache is
swapped right before each call that changes a mode, an owner, a time or a name, so that luck has no
part in it. LOG gets the names that were swapped.
"""

import sys
from fnmatch import fnmatch
from pathlib import Path

from kitcache.cli.main import main

EVENTS = frozenset(("os.chmod", "os.chown", "os.utime", "os.link", "os.rename", "os.setxattr"))


def swap_for_links(directory: Path, pattern: str, victim: Path, log: Path) -> None:
    """Have every such file there swapped from now on, once each."""
    at_work = False

    def swap(event: str, _: object) -> None:
        nonlocal at_work
        if at_work or event not in EVENTS:
            return
        at_work = True
        for path in directory.glob("*") if directory.is_dir() else ():
            if fnmatch(path.name, pattern) and path.is_file() and not path.is_symlink():
                path.unlink()
                path.symlink_to(victim)
                with log.open("a") as file:
                    file.write(f"{path.name}\n")
        at_work = False

    sys.addaudithook(swap)


if __name__ == "__main__":
    top, wanted, target, log_path, *words = sys.argv[1:]
    swap_for_links(Path(top, ".kitcache"), wanted, Path(target), Path(log_path))
    sys.argv = ["kitcache", *words]
    sys.exit(main(words))
