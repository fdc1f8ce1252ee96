"""The blobs and the records of a new root.

The blobs are written before the entry of index.json is moved, so a crash leaves unreachable blobs,
never a missing blob.
"""

from collections.abc import Mapping
from contextlib import suppress

from kitcache.errors import KitcacheError
from kitcache.oci.digest import Digest
from kitcache.store.protocol import EditableStore
from kitcache.upkeep.project import RewrittenRoot


def write_root(store: EditableStore, root: RewrittenRoot) -> tuple[Digest, int]:
    """Write and sync its documents, the root last. Return the digest and the size of the root.

    The caller holds kitcache.lock, and moves the entry of index.json. Raises KitcacheError.
    """
    for data in root.documents.in_order:
        store.write_blob(data)
    store.sync_blobs()
    return root.digest, root.size


def move_recorded_exports(store: EditableStore, moved: Mapping[str, tuple[Digest, Digest]]) -> None:
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
        store.write_tag_uses(changed)
