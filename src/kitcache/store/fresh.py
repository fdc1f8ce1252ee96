"""Directories to which no export was published yet, and the names that they may hold."""

import os
from collections.abc import Iterable

from kitcache.errors import KitcacheError, NotACache
from kitcache.store.layout import Layout, is_bare, open_checked
from kitcache.store.scan import OWN_NAMES

# mkfs creates this directory at the top of each ext4 file system.
_LOST_AND_FOUND = "lost+found"
# Clients test fs-verity in a directory of that name. If they are killed, it remains.
# Source: containerd, internal/fsverity, IsSupported.
_FSVERITY_CHECK = ".fsverity-check-"


def find_foreign(names: Iterable[str]) -> list[str]:
    """Return the names, sorted, that neither an export nor a file system creates there."""
    own = OWN_NAMES | {_LOST_AND_FOUND}
    return sorted(n for n in names if n not in own and not n.startswith(_FSVERITY_CHECK))


def is_fresh(path: str) -> bool:
    """Return True if a directory is not a cache yet and has no foreign names.

    It has no oci-layout, no index.json and no blob. A directory named lost+found counts as fresh,
    whatever it contains.
    """
    is_lost_and_found = os.path.basename(path.rstrip("/")) == _LOST_AND_FOUND
    try:
        with open_checked(Layout, path, lambda _: None) as layout:
            return is_lost_and_found or _has_no_blobs(layout)
    except NotACache:
        return False
    except KitcacheError:
        # Only root may list lost+found.
        return is_lost_and_found
    except OSError:
        return False


def _has_no_blobs(layout: Layout) -> bool:
    if not is_bare(layout) or find_foreign(os.listdir(layout.root_fd)):
        return False
    layout.open_directories()
    if layout.blobs_fd is None:
        return True
    rest = set(os.listdir(layout.blobs_fd)) - layout.blobs.keys()
    return not rest and not any(os.listdir(fd) for fd in layout.blobs.values())
