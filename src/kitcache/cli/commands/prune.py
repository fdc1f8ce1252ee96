"""kitcache prune: retire tags by a policy, then collect."""

import argparse
import time

from kitcache.cli import options, policyoptions
from kitcache.cli.console import Console
from kitcache.cli.prunetext import no_policy_lines, pruned_lines, unmatched_lines
from kitcache.cli.text import missing_warnings, report_notes
from kitcache.errors import Incomplete, UsageError
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.options.sweep import SweepOptions
from kitcache.upkeep.pruning.prune import not_reached, prune

_DESCRIPTION = """\
Drops tags from index.json by a policy, then deletes what no tag reaches, as
reset does, in one pass under the lock. A tag was last used when kitcache build
or exec last exported or imported it; without such a note, by the age in ls.

Nothing drops a kept tag (--keep-tag, --keep-last, --keep-within). Of the other
tags, --unused-for drops those that were not used for AGE, --drop-tag those that
it names, and a limit the least recently used ones until it is reached. Without
these three, all tags that are not kept are dropped. The last tag stays unless
--allow-empty. Without a policy nothing is changed. If the limit cannot be
reached, all that may be dropped is dropped, and the exit code is 14."""

_EPILOG = """\
examples:
  kitcache prune --dry-run ./cache
      when was each tag used, how much does it alone hold?
  kitcache prune --max-used-space 5GB --keep-tag main ./cache
  kitcache prune --unused-for 30d --keep-last 3 ./cache
  kitcache prune --keep-tag main --keep-within 14d --dry-run ./cache
  kitcache prune --drop-tag 'pr-*' --keep-within 14d ./cache
  kitcache prune --min-free-space 20% --trim /var/cache/buildkit/*
  kitcache prune --policy cache.toml --json ./cache"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dirs(parser)
    policy = parser.add_argument_group("policy")
    policyoptions.add_words(policy)
    options.add_policy(
        policy, "the policy is in this TOML file (- is stdin), with rules for some tags"
    )
    options.add_ages(parser)
    options.add_dry_run(parser)
    options.add_lock_timeout(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Prune each DIR on its own; the worst exit code counts."""
    session = Console(wants_json=args.json, is_quiet=args.quiet)
    found: list[PrunePolicy] = []
    (code,) = session.each([""], lambda _: _read_policy(args, found))
    if not found:
        return code
    return max(session.each(args.dirs, lambda path: _prune(session, args, path, found[0])))


def _read_policy(args: argparse.Namespace, found: list[PrunePolicy]) -> int:
    try:
        found.append(policyoptions.retention_of(args))
    except UsageError as error:
        usual = "kitcache prune --help" if args.policy is None else options.MEND_POLICY
        error.hints = error.hints or (usual,)
        raise
    return 0


def _prune(session: Console, args: argparse.Namespace, path: str, policy: PrunePolicy) -> int:
    pruned = prune(
        path,
        policy,
        options=SweepOptions(args.min_age, args.ingest_age),
        dry_run=args.dry_run,
        lock_timeout_s=args.lock_timeout / 10**9,
        on_progress=session.on_progress,
        cancel=args.cancel,
    )
    report, missed = pruned.reset, not_reached(pruned, policy)
    session.print_result(pruned, pruned_lines(pruned, time.time_ns()))
    session.warn(no_policy_lines(pruned))
    session.warn(unmatched_lines(pruned, policy))
    session.print_note(report_notes(report) if pruned.outcome != "no-policy" else ())
    session.warn(missing_warnings(path, report.missing_blobs))
    if report.not_deleted_count and not args.json:
        session.print_error(
            Incomplete(
                path, not_deleted=report.not_deleted, not_deleted_count=report.not_deleted_count
            )
        )
    if missed is not None and not args.json:
        session.print_error(missed)
    return pruned.exit_code
