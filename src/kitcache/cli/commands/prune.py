"""kitcache prune: remove tags by a policy, then reset."""

import argparse
import time
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.cachetext import trim_line
from kitcache.cli.console import Console
from kitcache.cli.options import argument, converter, switch
from kitcache.cli.tables import is_recorded, table, tag_name
from kitcache.cli.text import count, missing_warnings, reset_lines
from kitcache.errors import UsageError, printable
from kitcache.options.prunepolicy import (
    PrunePolicy,
    PruneRule,
    check_policy,
    parse_disk_space,
    parse_span,
)
from kitcache.options.tagpatterns import is_pattern
from kitcache.options.units import format_age, format_bytes
from kitcache.store.open import StoreAddress
from kitcache.upkeep.pruning.prune import limit_error, prune
from kitcache.upkeep.results import PruneResult, TagDecision


def _parse_number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise ValueError(f"{text[:40]!r} is not a number of tags")


_POLICY = options.grouped(
    "policy",
    argument(
        "--max-used-space",
        "SIZE",
        "the most that all tags together may hold: 5GB (10^9 bytes each), 5GiB (2^30), or"
        " 10% of the disk; the least recently used tags are removed first",
        type=converter(parse_disk_space),
    ),
    argument(
        "--min-free-space",
        "SIZE",
        "space to keep free on the disk: 20GB or 10%",
        type=converter(parse_disk_space),
    ),
    argument(
        "--keep-tag",
        "GLOB",
        "always keep these tags: main, 'release-*'; can be given again",
        action="append",
        completes="tags",
    ),
    argument(
        "--drop-tag",
        "GLOB",
        "remove these tags unless another option keeps them: 'pr-*'; can be given again",
        action="append",
        completes="tags",
    ),
    argument(
        "--keep-last", "N", "keep the N most recently used tags", type=converter(_parse_number)
    ),
    argument(
        "--keep-within",
        "AGE",
        "keep tags that were used in the last AGE, such as 14d",
        type=converter(parse_span),
    ),
    argument(
        "--unused-for",
        "AGE",
        "remove tags that were not used for AGE, such as 30d",
        type=converter(parse_span),
    ),
    switch("--allow-empty", "remove the last tag, too"),
    switch(
        "--trim", "if that is not enough, remove the least recently used steps of the kept tags"
    ),
)
COMMAND = options.Command(
    description="""\
Removes tags from index.json by a policy, then deletes the blobs that no tag
reaches, as reset does, in one pass under the lock. A tag was last used when
kitcache build or exec last exported or imported it; without such a record, the
age that ls shows counts.

No option removes a kept tag (--keep-tag, --keep-last, --keep-within). Of the
other tags, --unused-for removes those that were not used for AGE, --drop-tag
those that it names, and a limit the least recently used ones until it is
reached. Without these three, all tags that are not kept are removed. The last
tag is kept unless --allow-empty is given. Without a policy nothing is changed.
If the limit cannot be reached, all tags that may be removed are removed, and
the exit code is 14.""",
    epilog="""\
examples:
  kitcache prune --dry-run ./cache
      when was each tag used, how much does it alone hold?
  kitcache prune --max-used-space 5GB --keep-tag main ./cache
  kitcache prune --unused-for 30d --keep-last 3 ./cache
  kitcache prune --keep-tag main --keep-within 14d --dry-run ./cache
  kitcache prune --drop-tag 'pr-*' --keep-within 14d ./cache
  kitcache prune --min-free-space 20% --trim /var/cache/buildkit/*
  kitcache prune --policy cache.toml --json ./cache""",
    arguments=(
        options.DIRS,
        *_POLICY,
        options.policy_file(
            "--policy",
            "the policy is in this TOML file (- is stdin), with rules for some tags",
        ),
        *options.SWEEP_AGES,
        *options.CHANGES,
    ),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Prune each DIR on its own."""
    policy: PrunePolicy = PrunePolicy()

    def read(_: StoreAddress) -> int:
        nonlocal policy
        policy = read_policy(args)
        return 0

    def prune_one(address: StoreAddress) -> int:
        result = prune(
            address,
            policy,
            options=options.sweep_options(args),
            dry_run=args.dry_run,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=console.on_progress,
            cancel=args.cancel,
        )
        console.print_result(result, prune_lines(result, time.time_ns()))
        console.print_warning(unmatched_warnings(result, policy))
        if result.outcome == "no-policy":
            console.print_warning(_no_policy_warnings(result))
            console.print_warning(missing_warnings(result.path, result.reset.missing_blobs))
        else:
            console.print_reset(result.reset)
        error = limit_error(result, policy)
        if error is not None and not args.json:
            console.print_error(error)
        return result.exit_code

    return console.each([""], read) or console.each(args.dirs, prune_one)


def read_policy(args: argparse.Namespace) -> PrunePolicy:
    """Return the policy of the command line. Raises UsageError, KitcacheError."""
    values = {name: getattr(args, name[2:].replace("-", "_")) for (name,), *_ in _POLICY}
    names = [name for name, value in values.items() if value is not None and value is not False]
    if args.policy is not None and names:
        raise UsageError(
            f"{', '.join(names)} with --policy: a policy comes from a file or from options,"
            " not both",
            hints=(f"write it in {args.policy}, or leave --policy out",),
        )
    policy = options.read_policy_of(args)
    if policy is not None:
        return policy
    rule = PruneRule(
        keep_last=args.keep_last, keep_within_ns=args.keep_within, unused_for_ns=args.unused_for
    )
    policy = PrunePolicy(
        keep_tags=tuple(args.keep_tag or ()),
        drop_tags=tuple(args.drop_tag or ()),
        rules=(rule,) if rule.fields else (),
        max_used=args.max_used_space,
        min_free=args.min_free_space,
        allow_empty=args.allow_empty,
        trim=args.trim,
        key_prefix="--",
    )
    try:
        check_policy(policy)
    except UsageError as error:
        error.hints = error.hints or ("kitcache prune --help",)
        raise
    return policy


def prune_lines(result: PruneResult, now_ns: int) -> Iterator[str]:
    """Yield one line per tag with the reason for its decision, then the result of the sweep."""
    if result.tags:
        yield printable(result.path)
        yield from _tag_table(result, now_ns)
    elif result.outcome == "no-policy":
        yield printable(f"{result.path}: no tags")
    if result.outcome == "no-policy":
        return
    if result.tags or not result.reset.reason:
        tags = [decision for decision in result.tags if decision.ref_name is not None]
        removed = sum(not decision.keep for decision in tags)
        verb = "would remove" if result.outcome == "dry-run" else "removed"
        yield printable(f"{result.path}: {verb} {removed:,} of {count(len(tags), 'tag')}")
    yield from map(trim_line, result.trimmed)
    yield from reset_lines(result.reset)


def _tag_table(result: PruneResult, now_ns: int) -> Iterator[str]:
    rows = [_row(decision, now_ns) for decision in result.tags]
    if result.outcome == "no-policy":
        yield from table(("TAG", "LAST USED", "UNIQUE"), [row[:3] for row in rows], right=(1, 2))
    else:
        yield from table(("TAG", "LAST USED", "UNIQUE", "", "REASON"), rows, right=(1, 2))
    if not all(is_recorded(decision.last_used_from) for decision in result.tags):
        yield "~ not recorded: when its newest result was created, or its manifest written"


def _row(decision: TagDecision, now_ns: int) -> tuple[str, ...]:
    mark = "" if is_recorded(decision.last_used_from) else "~"
    is_known = decision.last_used_from != "unknown"
    return (
        tag_name(decision.ref_name, decision.digest),
        mark + format_age(now_ns - decision.last_used_ns) if is_known else "-",
        format_bytes(decision.unique.bytes),
        "keep" if decision.keep else "remove",
        printable(decision.reason),
    )


def unmatched_warnings(result: PruneResult, policy: PrunePolicy) -> Iterator[str]:
    """Yield a warning for each name in the options that is not a tag."""
    if policy.source or result.reset.reason:
        return
    tags = {decision.ref_name for decision in result.tags if decision.ref_name is not None}
    globs = [("keep-tag", glob) for glob in policy.keep_tags]
    globs += [("drop-tag", glob) for glob in policy.drop_tags]
    for key, glob in globs:
        if not is_pattern(glob) and glob not in tags:
            from kitcache.options.attributes import suggest  # noqa: PLC0415 - seldom needed

            meant = suggest(glob, tags)
            guess = f"; did you mean {meant}?" if meant else ""
            yield printable(f"{result.path}: {policy.spell(key, glob)} matches no tag{guess}")


def _no_policy_warnings(result: PruneResult) -> Iterator[str]:
    yield printable(f"{result.path}: {result.reason}")
    yield (
        "hint: name a limit (--max-used-space, --min-free-space), tags to keep (--keep-tag,"
        " --keep-last, --keep-within) or to remove (--drop-tag, --unused-for), or a file (--policy)"
    )
