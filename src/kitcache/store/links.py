"""Symbolic links in the places of blobs: looked at, and never read."""

import errno
import os

from kitcache.oci.digest import Digest, is_blob_name
from kitcache.store.ioerrors import unreadable
from kitcache.store.layout import BlobStat, Layout, blob_stat


def follow_link(layout: Layout, digest: Digest) -> BlobStat | None:
    """What a blob's name leads to, by way of a link too; None where that is nothing.

    The link itself where nobody may look. Reads no content; nobody removes anything for it.
    """
    try:
        return blob_stat(os.stat(digest.hex, dir_fd=layout.blobs[digest.algorithm]))
    except OSError as error:
        is_nothing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        return None if is_nothing else layout.stat_blob(digest)


def named_by_link(layout: Layout, digest: Digest) -> Digest | None:
    """The blob that the last part of a link's target is a name of, if any. Raises Unreadable."""
    try:
        target = os.readlink(digest.hex, dir_fd=layout.blobs[digest.algorithm])
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None  # it has gone, or is no link any more
        raise unreadable(layout.path, f"link {digest.short}", error) from None
    name = os.path.basename(target)
    return next((Digest(a, name) for a in layout.blobs if is_blob_name(a, name)), None)
