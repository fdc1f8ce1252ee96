"""Retention: which tags a policy keeps, which it lets go, and what in it contradicts itself.

The words are docker's (max-used-space, min-free-space) and restic's (keep-tag, keep-last,
keep-within).
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.options.units import AGE_FORMS, SIZE_FORMS, parse_age, parse_bytes, spell_age

RULE_FIELDS = ("keep", "keep_last", "keep_within_ns", "unused_for_ns")
_SHOWN_GLOBS = 2


class DiskSpace(NamedTuple):
    """A size on a disk: bytes, or a percentage of all that the disk has. One of both is set."""

    bytes: int | None = None
    percentage: float | None = None

    def of(self, disk_bytes: int) -> int:
        """Bytes, on a disk that has so many."""
        if self.bytes is not None:
            return self.bytes
        return int(disk_bytes * (self.percentage or 0) / 100)


def parse_amount(text: str) -> DiskSpace:
    """5GB, or 10% of the disk. Raises ValueError, which says what forms are known."""
    share = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?%", text.strip(), re.ASCII)
    if share is not None:
        return DiskSpace(percentage=float(share[1]))
    try:
        return DiskSpace(bytes=parse_bytes(text))
    except ValueError as error:
        forms = f"{SIZE_FORMS}, 10% (of the disk)"
        raise ValueError(str(error).replace(SIZE_FORMS, forms)) from None


def parse_span(text: str) -> int:
    """Nanoseconds in 30d or 1h30m. Raises ValueError, which says what forms are known.

    Also for a number alone: who writes 30 may mean days, and tags would go for it.
    """
    try:
        age_ns = parse_age(text)
    except ValueError as error:
        raise ValueError(str(error).replace("90 (seconds), ", "")) from None
    if age_ns and text.strip()[-1].isdigit():
        raise ValueError(f"{text[:40]!r} has no unit; known forms: {AGE_FORMS}")
    return age_ns


class PruneRule(NamedTuple):
    """What is said of the tags that one of these globs matches; `*` is any text, with slashes too.

    name: for messages. Without a name and for all tags it is the common rule, which counts where
    the others say nothing. keep: nothing drops them. keep_last: nor so many of them, the last used.
    keep_within_ns: nor one used less than that long ago. unused_for_ns: one last used at least that
    long ago goes.
    """

    name: str = ""
    tags: tuple[str, ...] = ("*",)
    keep: bool = False
    keep_last: int | None = None
    keep_within_ns: int | None = None
    unused_for_ns: int | None = None

    @property
    def is_common(self) -> bool:
        """Whether it is what is said of all tags at once."""
        return not self.name and self.tags == ("*",)

    @property
    def label(self) -> str:
        """What it is called in messages: rule 2 (pr-*)."""
        return self.name or f"rule{_listed(self.tags)}"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it sets, of RULE_FIELDS."""
        values = ((field, getattr(self, field)) for field in RULE_FIELDS)
        return tuple(field for field, value in values if value is not None and value is not False)

    def matches(self, ref_name: str) -> bool:
        """Whether it speaks of that tag."""
        return find_glob(self.tags, ref_name) is not None


def find_glob(globs: tuple[str, ...], ref_name: str) -> str | None:
    """The first of them that matches the tag."""
    return next((glob for glob in globs if _matches(glob, ref_name)), None)


def _matches(glob: str, ref_name: str) -> bool:
    # Whoever names the tag v[1] means that one too. And most of hundreds are plain: fnmatch makes a
    # regular expression of each, and remembers few.
    return ref_name == glob or (not is_plain(glob) and fnmatchcase(ref_name, glob))


def is_plain(glob: str) -> bool:
    """Whether it can match one name only: its own."""
    return not ("*" in glob or "?" in glob or "[" in glob)


def name_rule(number: int, tags: tuple[str, ...]) -> str:
    """A name for a rule by its place in a file, from 1: rule 2 (pr-*)."""
    return f"rule {number}{_listed(tags)}"


def _listed(tags: tuple[str, ...]) -> str:
    more = ", …" if len(tags) > _SHOWN_GLOBS else ""
    return f" ({', '.join(tags[:_SHOWN_GLOBS])}{more})" if any(tags) else ""


class PrunePolicy(NamedTuple):
    """A policy. What a rule does not say of its tags, the common one does.

    keep_tags: globs of tags that nothing drops. drop_tags: globs of tags that go, whatever their
    use, where nothing keeps them. rules: the first that matches a tag counts.
    max_used: for all that the tags reach. min_free: on the cache's disk. allow_empty: the last tag
    may go too. trim: tags may be made smaller, where to drop some is not enough. source: the policy
    file's name, "" for the command line.
    """

    keep_tags: tuple[str, ...] = ()
    rules: tuple[PruneRule, ...] = ()
    max_used: DiskSpace | None = None
    min_free: DiskSpace | None = None
    allow_empty: bool = False
    trim: bool = False
    source: str = ""
    drop_tags: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True where nothing is asked for: no limit, no rule, no tag to keep or to drop."""
        has_tags = bool(self.keep_tags or self.drop_tags)
        return not (self.has_limit or has_tags or any(rule.fields for rule in self.rules))

    @property
    def has_limit(self) -> bool:
        """True where a size is to be kept to."""
        return self.max_used is not None or self.min_free is not None

    @property
    def has_age(self) -> bool:
        """True where some tags, or all, go by their age."""
        return any(rule.unused_for_ns is not None for rule in self.rules)

    def spell(self, key: str, value: object = None) -> str:
        """The key and its value as they are written: --keep-last 5; in a file without dashes."""
        word = key if self.source else f"--{key}"
        return word if value is None else f"{word} {value}"


def common_rule(policy: PrunePolicy) -> PruneRule:
    """What is said of all tags at once."""
    # A file has it at the end, after hundreds of others.
    return next((rule for rule in reversed(policy.rules) if rule.is_common), PruneRule())


def find_rule(policy: PrunePolicy, ref_name: str) -> PruneRule | None:
    """The first rule that speaks of that tag, the common one aside."""
    others = (rule for rule in policy.rules if not rule.is_common)
    return next((rule for rule in others if rule.matches(ref_name)), None)


def counting_rules(policy: PrunePolicy, rule: PruneRule | None) -> dict[str, PruneRule]:
    """For each field that counts for the rule's tags, the rule that sets it: it, or the common one.

    None stands for tags of which no other rule speaks. Where it says keep, nothing else counts.
    """
    own = dict.fromkeys(rule.fields, rule) if rule is not None else {}
    if "keep" in own:
        return own
    common = common_rule(policy)
    return {**dict.fromkeys(common.fields, common), **own}


def quote(policy: PrunePolicy, rule: PruneRule, field: str) -> str:
    """What the rule says there: rule 2 (pr-*): keep-last 5."""
    key, value = key_of(field), getattr(rule, field)
    if field.endswith("_ns"):
        value = spell_age(value)
    if rule.is_common:
        return policy.spell(key, value)
    return f"{rule.label}: {key}" if value is True else f"{rule.label}: {key} {value}"


def key_of(field: str) -> str:
    """A field's name as users write it: keep-within for keep_within_ns."""
    return field.removesuffix("_ns").replace("_", "-")


class Contradiction(NamedTuple):
    """What cannot be meant. rule: its position in `rules`, None where it is not a rule's.

    key: as users write it, "tags" where a whole rule is meant.
    """

    rule: int | None
    key: str
    problem: str


def check_policy(policy: object) -> None:
    """Raise UsageError for what is not a policy, or contradicts itself; the message names all."""
    if not isinstance(policy, PrunePolicy):
        raise UsageError(
            f"the policy is of type {type(policy).__name__}, not Retention",
            hints=("kitcache.read_policy(TEXT, NAME)",),
        )
    problems = [found.problem for found in find_contradictions(policy)]
    if problems:
        raise UsageError(problems[0], path=policy.source, details=tuple(problems[1:]))


def find_contradictions(policy: PrunePolicy) -> Iterator[Contradiction]:
    """All that contradicts itself in the policy, or can have no effect."""
    named = (("keep-tag", policy.keep_tags), ("drop-tag", policy.drop_tags))
    globs: list[tuple[str, object]] = [*named, *(("keep-tag", rule.tags) for rule in policy.rules)]
    key = next((key for key, each in globs if isinstance(each, str)), None)
    if key is not None:
        problem = "patterns are a tuple of strings: of one string each letter would be a pattern"
        yield Contradiction(None, key, problem)
        return
    for key, tags in named:
        if "" in tags:
            problem = f"{policy.spell(key)}: an empty pattern matches no tag"
            yield Contradiction(None, key, problem)
    yield from _kept_all_the_same(policy)
    if sum(rule.is_common for rule in policy.rules) > 1:
        problem = "two rules without a name speak of all tags, and only one can count"
        yield Contradiction(None, "rule", problem)
    yield from _amounts(policy)
    if policy.trim and not policy.has_limit:
        yield Contradiction(
            None,
            "trim",
            f"{policy.spell('trim')} needs a limit to trim to:"
            f" {policy.spell('max-used-space')} or {policy.spell('min-free-space')}",
        )
    for position, rule in enumerate(policy.rules):
        for key, problem in _in_rule(policy, rule):
            yield Contradiction(position, key, problem)
        if problem := _never_reached(policy, position):
            key = key_of(rule.fields[0]) if rule.is_common else "tags"
            yield Contradiction(position, key, problem)


def _kept_all_the_same(policy: PrunePolicy) -> Iterator[Contradiction]:
    """Patterns of tags to drop that match only tags that are kept."""
    named = (rule for rule in policy.rules if not rule.is_common)
    # An earlier rule that keeps nothing may have taken some of the tags away.
    first = takewhile(lambda rule: rule.keep, named)
    keeps = [(policy.spell("keep-tag", glob), glob) for glob in policy.keep_tags]
    keeps += [(f"{rule.label}: keep", glob) for rule in first for glob in rule.tags]
    for glob in filter(None, policy.drop_tags):
        by = next((name for name, wide in keeps if _covers(wide, glob)), None)
        if by is not None:
            said = policy.spell("drop-tag", glob)
            yield Contradiction(None, "drop-tag", f"{said} drops no tag: {by} keeps them all")


def _amounts(policy: PrunePolicy) -> Iterator[Contradiction]:
    for key, amount in (("max-used-space", policy.max_used), ("min-free-space", policy.min_free)):
        if amount is None:
            continue
        if (amount.bytes is None) == (amount.percentage is None) or (amount.bytes or 0) < 0:
            problem = f"{policy.spell(key)} is bytes, 0 or more, or else a percentage"
            yield Contradiction(None, key, problem)
        elif amount.percentage is not None and not 0 <= amount.percentage <= 100:
            said = policy.spell(key, f"{amount.percentage:g}%")
            yield Contradiction(None, key, f"{said} is not a part of the disk: 0% to 100%")


def _in_rule(policy: PrunePolicy, rule: PruneRule) -> Iterator[tuple[str, str]]:
    """What the rule says that cannot be meant: the key, and the problem."""
    if not rule.tags or "" in rule.tags:
        yield "tags", f"{rule.label}: an empty pattern matches no tag"
    if not rule.is_common and not rule.fields:
        keys = ", ".join(map(key_of, RULE_FIELDS))
        yield "tags", f"{rule.label} says nothing of its tags; it can have {keys}"
    if rule.keep_last is not None and rule.keep_last < 1:
        yield "keep-last", f"{quote(policy, rule, 'keep_last')} keeps nothing; name 1 or more"
    for field in ("keep_within_ns", "unused_for_ns"):
        if (getattr(rule, field) or 0) < 0:
            yield key_of(field), f"{quote(policy, rule, field)} is below zero"
    if rule.keep_within_ns == 0:
        yield "keep-within", f"{quote(policy, rule, 'keep_within_ns')} keeps nothing"
    if rule.keep and len(rule.fields) > 1:
        useless = " and ".join(map(key_of, rule.fields[1:]))
        said = quote(policy, rule, "keep")
        yield "keep", f"{said} keeps all of its tags; take out {useless}"
    elif problem := _ages_at_odds(policy, rule):
        yield "unused-for" if "unused_for_ns" in rule.fields else "keep-within", problem


def _ages_at_odds(policy: PrunePolicy, rule: PruneRule) -> str:
    """Why an age after which tags go has no effect, where this rule has a part in it; or ""."""
    counts = counting_rules(policy, None if rule.is_common else rule)
    within, unused = counts.get("keep_within_ns"), counts.get("unused_for_ns")
    if within is None or unused is None or not (within is rule or unused is rule):
        return ""
    # 0s says: all that is not kept goes. To keep something is the point of that.
    if not 0 < (unused.unused_for_ns or 0) < (within.keep_within_ns or 0):
        return ""
    said, longer = quote(policy, unused, "unused_for_ns"), quote(policy, within, "keep_within_ns")
    if within is unused:
        longer = longer.removeprefix(f"{rule.label}: ")
    return f"{said} is shorter than {longer}, which keeps what would go by it"


def _never_reached(policy: PrunePolicy, position: int) -> str:
    """Why the rule at this position never decides anything, or ""."""
    rule = policy.rules[position]
    if not rule.tags or not rule.fields:
        return ""
    earlier = [(policy.spell("keep-tag", glob), glob) for glob in policy.keep_tags]
    if rule.fields == ("unused_for_ns",):  # which only drops, as the patterns have done already
        earlier += [(policy.spell("drop-tag", glob), glob) for glob in policy.drop_tags]
    if not rule.is_common:
        others = (other for other in policy.rules[:position] if not other.is_common)
        earlier += [(other.label, glob) for other in others for glob in other.tags]
    by = []
    for glob in rule.tags:
        name = next((name for name, wide in earlier if _covers(wide, glob)), "")
        if not name:
            return ""
        by.append(name)
    said = quote(policy, rule, rule.fields[0]) if rule.is_common else rule.label
    return f"{said} has no tag left after {' and '.join(dict.fromkeys(by))}"


def _covers(wide: str, narrow: str) -> bool:
    """Whether all that one glob matches is matched by the other; False where that is not plain."""
    if wide == narrow or (wide and not wide.strip("*")):
        return True
    if "[" in narrow or (("[" in wide or "?" in wide) and not is_plain(narrow)):
        return False
    # The wildcards of the narrow one can be matched by a star alone: it is text like any other.
    return _matches(wide, narrow)
