"""What people read of a prune: a table of the tags, then what went."""

from collections.abc import Iterator

from kitcache.cli.tables import NOTED_USES, table, tag_name
from kitcache.cli.text import count, report_lines
from kitcache.cli.trimtext import headline
from kitcache.errors import printable
from kitcache.options.prunepolicy import PrunePolicy, is_plain
from kitcache.options.units import format_age, format_bytes
from kitcache.upkeep.results import PruneResult, TagDecision


def pruned_lines(pruned: PruneResult, now_ns: int) -> Iterator[str]:
    """A line a tag, with the rule that decided; then how many go, and what the sweep did."""
    if pruned.tags:
        yield printable(pruned.path)
        yield from _tag_lines(pruned, now_ns)
    elif pruned.outcome == "no-policy":
        yield printable(f"{pruned.path}: no tags")
    if pruned.outcome != "no-policy":
        if pruned.tags or not pruned.reset.reason:
            yield printable(_tags_line(pruned))
        yield from map(headline, pruned.trimmed)
        yield from report_lines(pruned.reset)


def _tag_lines(pruned: PruneResult, now_ns: int) -> Iterator[str]:
    rows = [_row(decision, now_ns) for decision in pruned.tags]
    if pruned.outcome == "no-policy":
        yield from table(("TAG", "LAST USED", "UNIQUE"), [row[:3] for row in rows], right=(1, 2))
    else:
        yield from table(("TAG", "LAST USED", "UNIQUE", "", "WHY"), rows, right=(1, 2))
    if any(decision.last_used_from not in NOTED_USES for decision in pruned.tags):
        yield "~ no use is noted: when its newest result was made, or its manifest written"


def _row(decision: TagDecision, now_ns: int) -> tuple[str, ...]:
    mark = "" if decision.last_used_from in NOTED_USES else "~"
    is_known = decision.last_used_from != "unknown"
    return (
        tag_name(decision.ref_name, decision.digest),
        mark + format_age(now_ns - decision.last_used_ns) if is_known else "-",
        format_bytes(decision.unique.bytes),
        "keep" if decision.keep else "drop",
        printable(decision.reason),
    )


def _tags_line(pruned: PruneResult) -> str:
    tags = [decision for decision in pruned.tags if decision.ref_name is not None]
    dropped = sum(not decision.keep for decision in tags)
    would = "would drop" if pruned.outcome == "dry-run" else "dropped"
    return f"{pruned.path}: {would} {dropped:,} of {count(len(tags), 'tag')}"


def unmatched_lines(pruned: PruneResult, policy: PrunePolicy) -> Iterator[str]:
    """Names of the command line that no tag has: mistyped, maybe."""
    if policy.source or pruned.reset.reason:
        return
    names = {d.ref_name for d in pruned.tags if d.ref_name is not None}
    given = [("keep-tag", glob) for glob in policy.keep_tags]
    given += [("drop-tag", glob) for glob in policy.drop_tags]
    for key, glob in given:
        if is_plain(glob) and glob not in names:
            from kitcache.options.attributes import suggest  # noqa: PLC0415 - seldom needed

            meant = suggest(glob, names)
            hint = f"; did you mean {meant}?" if meant else ""
            yield printable(f"{pruned.path}: {policy.spell(key, glob)} matches no tag{hint}")


def no_policy_lines(pruned: PruneResult) -> Iterator[str]:
    """What to do where no policy was named."""
    if pruned.outcome == "no-policy":
        yield printable(f"{pruned.path}: {pruned.reason}")
        yield (
            "name a limit (--max-used-space, --min-free-space), tags to keep (--keep-tag,"
            " --keep-last, --keep-within) or to drop (--drop-tag, --unused-for), or a file"
            " (--policy)"
        )
