"""What an export has uploaded and not yet published, told by what it lacks: a manifest.

Others may publish meanwhile, so that the times of ingest/ and index.json say nothing. What an older
export has left is named by its manifest; what one under way has sent is named by nothing yet.
"""

import time
from contextlib import suppress

from kitcache.errors import Damaged, Unreadable, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.plan import ACTIVE_UPLOAD_NS
from kitcache.gc.values import Survey
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link, read_links
from kitcache.store.layout import Layout
from kitcache.store.scan import scan_blobs

_ROOTS_NAME = ("config", "manifest")


def newest_unpublished_ns(layout: Layout, control: Control, survey: Survey, since_ns: int) -> int:
    """When the newest blob was written that no tag reaches and no manifest as new names.

    Only what was written since then is looked at; 0 where there is none.
    """
    new = {}
    # What is dated further ahead is no sign of life, and would hide what is.
    until_ns = time.time_ns() + ACTIVE_UPLOAD_NS
    for algorithm in layout.blobs:
        for batch in scan_blobs(layout, algorithm):
            control.check()
            for digest in (Digest(algorithm, name) for name in batch.names):
                found = None if digest in survey.live else layout.stat_blob(digest)
                if found is not None and since_ns <= found.mtime_ns <= until_ns:
                    new[digest] = found.mtime_ns
    named = set[Digest]()
    for digest in tuple(new):
        control.check()
        links = _links_of(layout, digest)
        if any(link.role in _ROOTS_NAME for link in links):
            named.add(digest)
            named.update(link.descriptor.digest for link in links)
    return max((ns for digest, ns in new.items() if digest not in named), default=0)


def _links_of(layout: Layout, digest: Digest) -> tuple[Link, ...]:
    # One that cannot be read counts as named by nothing, too: then an export is waited for.
    with suppress(Damaged, Unreadable, Unsafe):
        data = layout.read_blob(digest, None, unless_binary=True)
        return read_links(None, data) if data else ()
    return ()
