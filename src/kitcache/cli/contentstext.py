"""Lines of `kitcache ls DIR TAG`: the size of the tag, and a table of its blobs."""

from collections.abc import Iterator

from kitcache.cli.tables import SHORT_DIGEST, table, tag_name
from kitcache.cli.text import count
from kitcache.errors import printable
from kitcache.oci.links import kind_of
from kitcache.options.units import format_age, format_bytes
from kitcache.upkeep.results import HeldBlob, TagContents

_MAX_SHOWN = 20
_KINDS = {"cache": "a build cache", "image": "an image", "artifact": "an artifact"}


def contents_lines(contents: TagContents, now_ns: int) -> Iterator[str]:
    """Yield one line about the tag, then one line per blob."""
    digest = contents.digests[0] if contents.digests else None
    kind = _KINDS.get(contents.kind, "of a kind that kitcache does not support")
    blobs = count(contents.size.blobs, "blob")
    yield printable(
        f"{contents.path}: {tag_name(contents.ref_name, digest)} is {kind}: {blobs},"
        f" {format_bytes(contents.size.bytes)}; without the tag"
        f" {format_bytes(contents.unique.bytes)} would be free"
    )
    if not contents.blobs:
        return
    shows_platform = len({blob.platform for blob in contents.blobs if blob.platform}) > 1
    rows = []
    for blob in contents.blobs[:_MAX_SHOWN]:
        text = _describe(blob, now_ns)
        if shows_platform and blob.platform:
            text = f"{blob.platform}: {text}"
        size = "missing" if blob.bytes is None else format_bytes(blob.bytes)
        unique, text = format_bytes(blob.unique_bytes), printable(" ".join(text.split()))
        rows.append((printable(str(blob.digest)[:SHORT_DIGEST]), size, unique, text))
    yield from table(("BLOB", "SIZE", "UNIQUE", "WHAT"), rows, right=(1, 2))
    rest = contents.blobs[_MAX_SHOWN:]
    if rest:
        size = format_bytes(sum(blob.bytes or 0 for blob in rest))
        yield f"and {len(rest):,} more, {size}; --json has all"


def _describe(blob: HeldBlob, now_ns: int) -> str:
    step = blob.step
    if step is not None:
        text = f"step {step.cache_key[:SHORT_DIGEST]}"
        if step.created_ns is not None:
            text += f", created {format_age(now_ns - step.created_ns)} ago"
        if step.last_read_ns is not None:
            text += f", last read {format_age(now_ns - step.last_read_ns)} ago"
        return text
    if blob.created_by or blob.role == "layer":
        return blob.created_by or "layer"
    kind = kind_of(blob.media_type)
    return kind if kind in ("index", "manifest", "cacheconfig") else blob.role
