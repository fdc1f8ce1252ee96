"""What people read of ls DIR TAG: how large the tag is, and a table of its blobs."""

from collections.abc import Iterator

from kitcache.cli.tables import table, tag_name
from kitcache.cli.text import count
from kitcache.errors import printable
from kitcache.oci.links import kind_of
from kitcache.options.units import format_age, format_bytes
from kitcache.upkeep.results import HeldBlob, TagContents

_SHOWN = 20
_SHORT = len("sha256:") + 12
_KINDS = {"cache": "a build cache", "image": "an image", "artifact": "an artifact"}


def contents_lines(contents: TagContents, now_ns: int) -> Iterator[str]:
    """One line about the tag, then one line per blob."""
    digest = contents.digests[0] if contents.digests else None
    kind = _KINDS.get(contents.kind, "of a kind that kitcache does not know")
    blobs = count(contents.size.blobs, "blob")
    yield printable(
        f"{contents.path}: {tag_name(contents.ref_name, digest)} is {kind}: {blobs},"
        f" {format_bytes(contents.size.bytes)}; without the tag"
        f" {format_bytes(contents.unique.bytes)} would be free"
    )
    if not contents.blobs:
        return
    platforms = {blob.platform for blob in contents.blobs if blob.platform}
    rows = [_row(blob, now_ns, len(platforms) > 1) for blob in contents.blobs[:_SHOWN]]
    yield from table(("BLOB", "SIZE", "UNIQUE", "WHAT"), rows, right=(1, 2))
    more = contents.blobs[_SHOWN:]
    if more:
        size = format_bytes(sum(blob.bytes or 0 for blob in more))
        yield f"and {len(more):,} more, {size}; --json has all"


def _row(blob: HeldBlob, now_ns: int, has_platforms: bool) -> tuple[str, ...]:
    text = _what(blob, now_ns)
    if has_platforms and blob.platform:
        text = f"{blob.platform}: {text}"
    return (
        printable(str(blob.digest)[:_SHORT]),
        "missing" if blob.bytes is None else format_bytes(blob.bytes),
        format_bytes(blob.unique_bytes),
        printable(" ".join(text.split())),
    )


def _what(blob: HeldBlob, now_ns: int) -> str:
    if blob.step is not None:
        created_ns, read_ns = blob.step.created_ns, blob.step.last_read_ns
        made = "" if created_ns is None else f", made {format_age(now_ns - created_ns)} ago"
        read = "" if read_ns is None else f", last read {format_age(now_ns - read_ns)} ago"
        return f"step {blob.step.cache_key[:_SHORT]}{made}{read}"
    if blob.created_by or blob.role == "layer":
        return blob.created_by or "layer"
    kind = kind_of(blob.media_type)
    return kind if kind in ("index", "manifest", "cacheconfig") else blob.role
