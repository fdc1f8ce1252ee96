"""What people read of exported caches: a line a tag, a line a reset, and what a policy retired."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kitcache.cli.text import (
    blobs_of,
    count,
    missing_warnings,
    report_lines,
    report_notes,
    some,
)
from kitcache.errors import printable

if TYPE_CHECKING:  # exec needs neither
    from kitcache.buildkit.publish import CacheResult
    from kitcache.upkeep.results import PruneResult


def cache_lines(caches: "Sequence[CacheResult]") -> Iterator[str]:
    """What was exported where, and what the resets did. Failures are the caller's to tell."""
    for cache in caches:
        if cache.outcome == "published":
            yield printable(
                f"{cache.path}: exported tag '{cache.tag}': wrote {blobs_of(cache.written)};"
                f" {cache.reused.blobs:,} were there"
            )
        elif cache.outcome == "empty":
            why = f" ({cache.problem})" if cache.problem else ""
            yield printable(f"{cache.path}: nothing to export{why}; tag '{cache.tag}' is unchanged")
        if cache.prune is not None:
            yield from retired_lines(cache.prune)
        if cache.reset is not None:
            yield from report_lines(cache.reset)
            yield from report_notes(cache.reset)
            yield from missing_warnings(cache.path, cache.reset.missing_blobs)


def retired_lines(pruned: "PruneResult") -> Iterator[str]:
    """Which tags a policy dropped after an export, and which it made smaller."""
    from kitcache.cli.trimtext import headline  # noqa: PLC0415 - most builds name no policy

    tags = [decision for decision in pruned.tags if decision.ref_name is not None]
    if tags:
        names = [f"'{decision.ref_name}'" for decision in tags if not decision.keep]
        told = f": {some(names)}" if names else ""
        yield printable(f"{pruned.path}: dropped {len(names):,} of {count(len(tags), 'tag')}{told}")
    yield from map(headline, pruned.trimmed)


def excess_lines(pruned: "PruneResult") -> Iterator[str]:
    """By how much what stays is above the limit; nothing where it is not."""
    if pruned.needed_bytes is not None:
        yield printable(f"{pruned.path}: {pruned.reason}")
