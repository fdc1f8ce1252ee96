"""kitcache du: the disk usage of a cache."""

import argparse
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tables import damage_warnings, table, tag_name
from kitcache.cli.text import count, missing_warnings
from kitcache.errors import printable
from kitcache.gc.du import du
from kitcache.gc.results import DiskUsage
from kitcache.options.units import AGE_FORMS, format_bytes
from kitcache.store.ioerrors import shell_words
from kitcache.store.open import StoreAddress
from kitcache.store.scan import QUARANTINE
from kitcache.store.values import StoreReport

_EXPORT_TIME = options.EXPORT_TIME._replace(help=f"{options.EXPORT_TIME.help}; an AGE: {AGE_FORMS}")
COMMAND = options.Command(
    description="""\
Shows the sizes of live blobs (a tag reaches them), reclaimable blobs (a reset
would delete them), unfinished uploads (ingest), foreign files (not blobs), and
the quarantine of a repair. For each tag it shows the blobs that only this tag
reaches, and the blobs that other tags reach too. Sizes are file sizes. Acquires
no lock and changes nothing.

In an object store, ingest counts unfinished multipart uploads, and superseded
versions of objects are reclaimable blobs. A reset would keep the blobs that are
too young (--export-time).""",
    epilog="""\
examples:
  kitcache du ./cache                        how much of it is reclaimable?
  kitcache du --json /var/cache/buildkit/*   one object per cache, for programs""",
    arguments=(options.DIRS, _EXPORT_TIME, options.JSON, options.QUIET),
    effect="",
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Show the usage of each DIR."""

    def show(address: StoreAddress) -> int:
        usage = du(
            address,
            options=options.sweep_options(args),
            on_progress=console.on_progress,
            cancel=args.cancel,
        )
        console.print_result(usage, usage_lines(usage))
        console.print_warning(missing_warnings(usage.path, usage.missing_blobs))
        console.print_warning(damage_warnings(usage.path, usage.damage))
        console.print_report(usage.path, StoreReport(usage.requests, usage.warnings))
        return usage.exit_code

    return console.each(args.dirs, show)


def usage_lines(usage: DiskUsage) -> Iterator[str]:
    """Yield the sizes, one line per kind, then a table of the tags."""
    yield printable(usage.path)
    rows = [
        ("live", usage.live, "blob"),
        ("not reached" if usage.damage else "reclaimable", usage.reclaimable, "blob"),
        *([("too young", usage.too_young, "blob")] if usage.too_young.blobs else []),
        ("ingest", usage.ingest, "upload"),
        ("foreign", usage.foreign, "file"),
    ]
    total = sum(tally.bytes for _, tally, _ in rows)
    for name, tally, item in rows:
        share = f"{100 * tally.bytes / total:5.1f} %" if total else ""
        size = format_bytes(tally.bytes)
        yield f"  {name:<12} {size:>9}  {share:>7}  {count(tally.blobs, item)}"
    if usage.quarantine.blobs:
        size, number = format_bytes(usage.quarantine.bytes), count(usage.quarantine.blobs, "file")
        yield f"  {'quarantine':<12} {size:>9}  {'':>7}  {number} quarantined by a repair"
        here = "./" if usage.path.startswith("-") else ""
        directory = shell_words(f"{here}{usage.path}/.kitcache/{QUARANTINE}")
        yield f"  to delete them: rm -r {directory}"
    if usage.skipped_sweeps:
        sweeps = count(usage.skipped_sweeps, "reset")
        yield f"  {sweeps} in a row skipped: other processes were exporting"
    if usage.tags:
        yield ""
        rows_of_tags = [
            (
                tag_name(tag.ref_name, tag.digest),
                format_bytes(tag.unique.bytes),
                format_bytes(tag.shared.bytes),
                f"{tag.unique.plus(tag.shared).blobs:,}",
            )
            for tag in usage.tags
        ]
        yield from table(("TAG", "UNIQUE", "SHARED", "BLOBS"), rows_of_tags, right=(1, 2, 3))
