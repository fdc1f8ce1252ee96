"""kitcache reset: delete every blob that no entry of index.json reaches."""

import argparse

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.text import reset_lines
from kitcache.gc.reset import reset
from kitcache.store.open import StoreAddress

COMMAND = options.Command(
    description="""\
Deletes every blob that no entry of index.json reaches, and unfinished uploads.
Blobs that a tag reaches are never deleted. Waits for exporters that hold
kitcache.lock. Changes nothing while another export runs (exit code 11), or if a
tag cannot be read (exit code 12).

A cache in an object store has no lock: there the age of a blob protects running
exports (--export-time), and the first run only shows what it would delete.""",
    epilog="""\
examples:
  kitcache reset ./cache                 after a build, in CI
  kitcache reset --min-age 1h ./cache    from cron, for builds without a lock
  kitcache reset --dry-run --json a b    what would be deleted, for programs
  kitcache reset type=s3,region=eu-west-1,bucket=ci,prefix=app/
                                         a cache on S3, as --cache-to names it""",
    arguments=(options.DIRS, *options.SWEEP_AGES, *options.CHANGES),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Reset each DIR on its own."""

    def reset_one(address: StoreAddress) -> int:
        result = reset(
            address,
            options=options.sweep_options(args),
            dry_run=args.dry_run,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=console.on_progress,
            cancel=args.cancel,
        )
        console.print_result(result, reset_lines(result))
        console.print_reset(result)
        return result.exit_code

    return console.each(args.dirs, reset_one)
