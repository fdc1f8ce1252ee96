"""The options of prune that say which tags stay."""

import argparse

from kitcache.cli import options
from kitcache.errors import UsageError
from kitcache.options.prunepolicy import (
    DiskSpace,
    PrunePolicy,
    PruneRule,
    check_policy,
    parse_amount,
    parse_span,
)

_WORDS = (
    "max_used_space",
    "min_free_space",
    "keep_tag",
    "drop_tag",
    "keep_last",
    "keep_within",
    "unused_for",
    "allow_empty",
    "trim",
)


def add_words(group: argparse._ArgumentGroup) -> None:
    """The policy itself, as options."""
    group.add_argument(
        "--max-used-space",
        metavar="SIZE",
        type=_amount,
        help="the most that all tags together may hold: 5GB (10^9 bytes each), 5GiB (2^30), or"
        " 10%% of the disk; the least recently used tags go first",
    )
    group.add_argument(
        "--min-free-space",
        metavar="SIZE",
        type=_amount,
        help="what has to be free on the disk: 20GB or 10%%",
    )
    keep = group.add_argument(
        "--keep-tag",
        metavar="GLOB",
        action="append",
        help="keep these tags whatever else would drop them: main, 'release-*'; can be given again",
    )
    drop = group.add_argument(
        "--drop-tag",
        metavar="GLOB",
        action="append",
        help="drop these tags unless another option keeps them: 'pr-*'; can be given again",
    )
    for argument in (keep, drop):
        options.complete_with(argument, options.TAGS)
    group.add_argument(
        "--keep-last", metavar="N", type=_number, help="keep the N tags that were used last"
    )
    group.add_argument(
        "--keep-within",
        metavar="AGE",
        type=_span,
        help="keep tags that were used in the last AGE, such as 14d",
    )
    group.add_argument(
        "--unused-for",
        metavar="AGE",
        type=_span,
        help="drop tags that were not used for AGE, such as 30d",
    )
    group.add_argument("--allow-empty", action="store_true", help="drop the last tag, too")
    group.add_argument(
        "--trim",
        action="store_true",
        help="if that is not enough, cut the coldest steps out of the tags that stay",
    )


def retention_of(args: argparse.Namespace) -> PrunePolicy:
    """The policy of a command line. Raises UsageError, KitcacheError for a file not to be read."""
    values = {name: getattr(args, name) for name in _WORDS}
    given = [name for name, value in values.items() if value is not None and value is not False]
    if args.policy is not None:
        from kitcache.cli.policyfile import read_file  # noqa: PLC0415 - only a file needs TOML

        if given:
            words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(
                f"{words} beside --policy: a policy comes from a file or from options, not both",
                hints=(f"say it in {args.policy}, or leave --policy out",),
            )
        return read_file(args.policy, args.cancel)
    rule = PruneRule(
        keep_last=args.keep_last,
        keep_within_ns=args.keep_within,
        unused_for_ns=args.unused_for,
    )
    policy = PrunePolicy(
        keep_tags=tuple(args.keep_tag or ()),
        drop_tags=tuple(args.drop_tag or ()),
        rules=(rule,) if rule.fields else (),
        max_used=args.max_used_space,
        min_free=args.min_free_space,
        allow_empty=args.allow_empty,
        trim=args.trim,
    )
    check_policy(policy)
    return policy


def _amount(text: str) -> DiskSpace:
    try:
        return parse_amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _span(text: str) -> int:
    try:
        return parse_span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of tags")
