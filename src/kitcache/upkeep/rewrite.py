"""The blobs and the records of a new root.

The blobs are written before the entry of index.json is moved, so a crash leaves unreachable blobs,
never a missing blob.
"""

from collections.abc import Mapping
from contextlib import suppress

from kitcache.errors import KitcacheError
from kitcache.oci.digest import Digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.state import write_tag_uses
from kitcache.store.write import sync_blobs, write_blob
from kitcache.upkeep.project import RewrittenRoot


def write_root(store: DirectoryStore, root: RewrittenRoot) -> tuple[Digest, int]:
    """Write and sync both blobs, config first. Return the digest and the size of the manifest.

    The caller holds kitcache.lock, and moves the entry of index.json. Raises KitcacheError.
    """
    write_blob(store, root.config)
    digest = write_blob(store, root.manifest)
    sync_blobs(store)
    return digest, len(root.manifest)


def move_recorded_exports(
    store: DirectoryStore, moved: Mapping[str, tuple[Digest, Digest]]
) -> None:
    """Record new roots as the last exports of their tags, if the records can be read.

    Args:
        moved: By tag, the root that was exported and the root that replaces it.
    """
    with suppress(KitcacheError):
        uses = store.read_tag_uses() if moved else {}
        changed = {
            tag: uses[tag]._replace(digest=str(after))
            for tag, (before, after) in moved.items()
            if tag in uses and uses[tag].digest == str(before)
        }
        write_tag_uses(store, changed)
