"""Finds the root of a local cache import before the build starts.

Source: BuildKit, client/solve.go; the sentences are BuildKit's if it has them.
"""

from contextlib import suppress

from kitcache.buildkit.publish import IMPORT_CAP_BYTES, sizes_to_import
from kitcache.errors import Damaged, Unsafe
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.index import find_entry
from kitcache.options.caches import CacheImport
from kitcache.options.units import format_bytes
from kitcache.store.directory import DirectoryStore
from kitcache.upkeep.jobcaches import LockOptions


class SkippedError(Exception):
    """An import is skipped; the message is the end of BuildKit's sentence after "skipped"."""


def resolve(store: DirectoryStore, source: CacheImport, options: LockOptions) -> Digest:
    """Return the digest of a cache root, after verifying its bytes. Raises SkippedError."""
    root = _parse_root(source.digest) if source.digest else _find_tag(store, source.tag, options)
    try:
        data = store.read_blob(root.digest, root.size) or b""
    except (Damaged, Unsafe) as error:
        raise SkippedError(f": digest {root.digest} unavailable: {error.problem}") from None
    with suppress(Damaged):
        for name, size in sizes_to_import(root, data):
            if size > IMPORT_CAP_BYTES:
                options.warn(
                    f"{source.src}: the {name} of {root.digest.short} has {format_bytes(size)}:"
                    f" BuildKit imports at most {IMPORT_CAP_BYTES:,} bytes"
                )
    return root.digest


def _parse_root(digest: str) -> Descriptor:
    try:
        return Descriptor("", parse_digest(digest), None)
    except ValueError as error:
        raise SkippedError(f": digest {digest} unavailable: {error}") from None


def _find_tag(store: DirectoryStore, tag: str, options: LockOptions) -> Descriptor:
    try:
        entries = store.read_roots(options.control(store).pause).entries
    except (Damaged, Unsafe) as error:
        raise SkippedError(f" due to err: {error.problem}") from None
    entry = find_entry(entries, tag)
    if entry is None:
        raise SkippedError(f": no digest found for tag {tag}")
    if entry.descriptor is None:
        raise SkippedError(f" due to err: the entry of tag {tag}: {entry.problem}")
    return entry.descriptor
