"""Lines about the caches of a build: exports, resets, and tags that a policy removed or trimmed."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kitcache.cli.tables import tag_name
from kitcache.cli.text import (
    blobs_of,
    count,
    missing_warnings,
    reset_lines,
    reset_notes,
    some,
)
from kitcache.errors import printable
from kitcache.options.units import format_bytes

if TYPE_CHECKING:  # exec needs neither
    from kitcache.buildkit.publish import CacheResult
    from kitcache.upkeep.results import PruneResult, TrimResult


def cache_lines(caches: "Sequence[CacheResult]") -> Iterator[str]:
    """Yield one line per export and per reset. Failed exports are omitted."""
    for cache in caches:
        if cache.outcome == "published" and cache.digest is None:
            yield printable(f"{cache.path}: exported '{cache.tag}'")
        elif cache.outcome == "published":
            yield printable(
                f"{cache.path}: exported tag '{cache.tag}': wrote {blobs_of(cache.written)};"
                f" reused {cache.reused.blobs:,}"
            )
        elif cache.outcome == "empty":
            problem = f" ({cache.problem})" if cache.problem else ""
            yield printable(
                f"{cache.path}: nothing to export{problem}; tag '{cache.tag}' is unchanged"
            )
        if cache.prune is not None:
            yield from removed_tag_lines(cache.prune)
        if cache.reset is not None:
            yield from reset_lines(cache.reset)
            yield from reset_notes(cache.reset)
            yield from missing_warnings(cache.path, cache.reset.missing_blobs)


def removed_tag_lines(result: "PruneResult") -> Iterator[str]:
    """Yield the tags that a policy removed or trimmed after an export."""
    tags = [decision for decision in result.tags if decision.ref_name is not None]
    if tags:
        names = [f"'{decision.ref_name}'" for decision in tags if not decision.keep]
        listed = f": {some(names)}" if names else ""
        removed = f"removed {len(names):,} of {count(len(tags), 'tag')}"
        yield printable(f"{result.path}: {removed}{listed}")
    yield from map(trim_line, result.trimmed)


def trim_line(result: "TrimResult") -> str:
    """Return the size of a tag before and after it was trimmed."""
    name = f"{result.path}: {tag_name(result.ref_name, result.before)}"
    before, after = (format_bytes(size.bytes) for size in (result.before_size, result.after_size))
    if result.outcome == "unchanged":
        limit = format_bytes(result.limit_bytes)
        return printable(f"{name} holds {before} of at most {limit}: nothing was changed")
    verb = "would shrink" if result.outcome == "dry-run" else "shrank"
    removed = count(len(result.removed_steps), "step")
    total = len(result.removed_steps) + len(result.kept_steps)
    return printable(f"{name} {verb} from {before} to {after}: {removed} of {total:,} removed")


def excess_lines(result: "PruneResult") -> Iterator[str]:
    """Yield the bytes by which the kept tags exceed the limit; nothing if they fit."""
    if result.needed_bytes is not None:
        yield printable(f"{result.path}: {result.reason}")
