"""A smaller root for a tag: the cacheconfig and the manifest that name only what is kept.

The blobs come first and the entry of index.json after them, so a crash leaves garbage, no hole.
"""

from collections.abc import Mapping
from contextlib import suppress

from kitcache.errors import KitcacheError
from kitcache.oci.digest import Digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.state import read_tag_uses, write_tag_uses
from kitcache.store.write import sync_blobs, write_blob
from kitcache.upkeep.project import RewrittenRoot


def write_root(layout: DirectoryStore, new: RewrittenRoot) -> tuple[Digest, int]:
    """Write both blobs, config first: the manifest's digest and size. Both are on the disk then.

    The caller holds kitcache.lock and moves the entry of index.json. Raises KitcacheError.
    """
    write_blob(layout, new.config)
    digest = write_blob(layout, new.manifest)
    sync_blobs(layout)
    return digest, len(new.manifest)


def move_recorded_exports(
    layout: DirectoryStore, moved: Mapping[str, tuple[Digest, Digest]]
) -> None:
    """Record new roots as the last exports of their tags, if the records can be read.

    Args:
        moved: By tag, the root that was exported and the root that replaces it.
    """
    with suppress(KitcacheError):
        uses = read_tag_uses(layout) if moved else {}
        changed = {
            tag: uses[tag]._replace(digest=str(after))
            for tag, (before, after) in moved.items()
            if tag in uses and uses[tag].digest == str(before)
        }
        write_tag_uses(layout, changed)
