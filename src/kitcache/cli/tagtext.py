"""What people read of tag, untag and merge."""

from collections.abc import Iterator

from kitcache.cli.text import UNTAGGED, blobs_of, count
from kitcache.errors import printable
from kitcache.upkeep.results import MergedTag, MergeResult, TagResult, UntagResult


def tagged_lines(tagged: TagResult) -> Iterator[str]:
    """What a name stands for now, and what it stood for before."""
    path, new, digest = tagged.path, tagged.target, tagged.digest
    if tagged.outcome == "unchanged":
        yield printable(f"{path}: {new} is {digest} already: nothing to change")
        return
    is_dry = tagged.outcome == "dry-run"
    origin = "" if tagged.source == digest else f", as {tagged.source}"
    yield printable(f"{path}: {new} {'would be' if is_dry else 'is'} {digest}{origin}")
    for before in tagged.previous_digests:
        yield printable(f"{path}: {new} {'is now' if is_dry else 'was'} {before}")
    if tagged.previous_digests and not is_dry:
        yield printable(f"{path}: no blob was removed; kitcache reset does that")


def merged_lines(merged: MergeResult) -> Iterator[str]:
    """A line for each tag that came, or moved; then what that took."""
    is_dry = merged.outcome == "dry-run"
    verb = "would take" if is_dry else "took"
    new = [tag for tag in merged.tags if tag.state != "unchanged"]
    for tag in new:
        yield printable(f"{merged.path}: {verb} {_tag_line(tag)}")
    there = len(merged.tags) - len(new)
    tags = [count(len(new), "tag")] if new or not there else []
    tags += [f"{there:,} there already"] if there else []
    ways = (
        ("to link" if is_dry else "linked", merged.linked),
        ("to copy" if is_dry else "copied", merged.copied),
        ("there", merged.reused),
    )
    blobs = [f"{blobs_of(tally)} {way}" for way, tally in ways if tally.blobs]
    yield printable(
        f"{merged.path}: {', '.join(tags)}; {'; '.join(blobs) or 'no blobs'}"
        f" ({merged.seconds:.1f} s)"
    )
    if any(tag.previous_digests for tag in new) and not is_dry:
        yield printable(f"{merged.path}: no blob was removed; kitcache reset does that")


def _tag_line(tag: MergedTag) -> str:
    old = UNTAGGED if tag.source_name is None else tag.source_name
    new = "" if tag.target_name == tag.source_name else f" as {tag.target_name}"
    before = f", in place of {', '.join(tag.previous_digests)}" if tag.previous_digests else ""
    return f"{old} of {tag.source}{new}, {', '.join(tag.digests)}{before}"


def untagged_lines(untagged: UntagResult) -> Iterator[str]:
    """What was taken out."""
    would = "would take out" if untagged.outcome == "dry-run" else "took out"
    for ref_name, digest in untagged.entries:
        yield printable(f"{untagged.path}: {would} {ref_name or UNTAGGED}, {digest or 'no digest'}")
    if untagged.outcome == "done":
        yield printable(f"{untagged.path}: no blob was removed; kitcache reset does that")
