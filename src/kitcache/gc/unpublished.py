"""Blobs that an export has uploaded and not published yet: new blobs without a manifest.

If several clients publish, the times of ingest/ and index.json do not show if an export is running.
A manifest references the blobs of an older export. No manifest references those of a running one.
"""

from contextlib import suppress

from kitcache.errors import Damaged, Unreadable, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.plan import ACTIVE_UPLOAD_NS
from kitcache.gc.values import Survey
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link, read_links
from kitcache.store.protocol import CacheStore

_ROLES_OF_MANIFESTS = ("config", "manifest")


def newest_unpublished_ns(
    store: CacheStore, control: Control, survey: Survey, since_ns: int
) -> int:
    """Return the time of the newest blob that neither a tag nor a new manifest references.

    Args:
        since_ns: Only blobs that were written since then are inspected.

    Returns:
        0 if there is no such blob.

    """
    new = {}
    # A blob that is dated further in the future is not a sign of an export, and would hide one.
    until_ns = store.now_ns() + ACTIVE_UPLOAD_NS
    for batch in store.scan_blobs():
        control.check()
        digests = [Digest(batch.algorithm, name) for name in batch.names]
        for digest, stat in store.stat_blobs([d for d in digests if d not in survey.live]):
            if since_ns <= stat.mtime_ns <= until_ns:
                new[digest] = stat.mtime_ns
    named = set[Digest]()
    for digest in tuple(new):
        control.check()
        links = _read_links(store, digest)
        if any(link.role in _ROLES_OF_MANIFESTS for link in links):
            named.add(digest)
            named.update(link.descriptor.digest for link in links)
    return max((ns for digest, ns in new.items() if digest not in named), default=0)


def _read_links(store: CacheStore, digest: Digest) -> tuple[Link, ...]:
    # A blob that cannot be read counts as a blob without references, so reset may wait in vain.
    with suppress(Damaged, Unreadable, Unsafe):
        data = store.read_blob(digest, None, unless_binary=True)
        return read_links(None, data) if data else ()
    return ()
