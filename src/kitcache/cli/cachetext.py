"""What people read of a build's cache exports: a line a tag, and a line a reset."""

from collections.abc import Iterator, Sequence

from kitcache.buildkit.publish import CacheResult
from kitcache.cli.text import blobs_of, missing_warnings, report_lines, report_notes
from kitcache.errors import printable


def cache_lines(caches: Sequence[CacheResult]) -> Iterator[str]:
    """What was exported where, and what the resets did. Failures are the caller's to tell."""
    for cache in caches:
        if cache.outcome == "published":
            yield printable(
                f"{cache.path}: exported tag '{cache.tag}': wrote {blobs_of(cache.written)};"
                f" {cache.reused.blobs:,} were there"
            )
        elif cache.outcome == "nothing":
            why = f" ({cache.problem})" if cache.problem else ""
            yield printable(f"{cache.path}: nothing to export{why}; tag '{cache.tag}' is unchanged")
        if cache.report is not None:
            yield from report_lines(cache.report)
            yield from report_notes(cache.report)
            yield from missing_warnings(cache.path, cache.report.missing_leaves)
