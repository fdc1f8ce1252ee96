"""The prune policy: selects the tags to keep and to remove; and its contradictions.

The terms are docker's (max-used-space, min-free-space) and restic's (keep-tag, keep-last,
keep-within).
"""

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.options.tagpatterns import covers, find_pattern
from kitcache.options.units import SIZE_FORMS, parse_age, parse_bytes, spell_age

RULE_FIELDS = ("keep", "keep_last", "keep_within_ns", "unused_for_ns")
_MAX_SHOWN_PATTERNS = 2


class DiskSpace(NamedTuple):
    """A size on a disk: either bytes, or a percentage of the disk."""

    bytes: int | None = None
    percentage: float | None = None

    def of(self, disk_bytes: int) -> int:
        """Return the size in bytes on a disk of `disk_bytes`."""
        if self.bytes is not None:
            return self.bytes
        return int(disk_bytes * (self.percentage or 0) / 100)


def parse_disk_space(text: str) -> DiskSpace:
    """Parse 5GB, or 10% (of the disk). Raises ValueError with the known forms."""
    share = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?%", text.strip(), re.ASCII)
    if share is not None:
        return DiskSpace(percentage=float(share[1]))
    try:
        return DiskSpace(bytes=parse_bytes(text))
    except ValueError as error:
        forms = f"{SIZE_FORMS}, 10% (of the disk)"
        raise ValueError(str(error).replace(SIZE_FORMS, forms)) from None


def parse_span(text: str) -> int:
    """Parse 30d or 1h30m as nanoseconds. Raises ValueError as parse_age."""
    return parse_age(text, ("d", "h"))


class PruneRule(NamedTuple):
    """The rule of a policy for the tags that one of its patterns matches.

    A rule without a name for all tags is the common rule: it fills settings that others omit.

    Attributes:
        name: For messages, such as rule[2].
        tags: Patterns; `*` matches any text, slashes too.
        keep: The tags are never removed.
        keep_last: The number of most recently used tags that are kept.
        keep_within_ns: A tag that was used within this time is not removed.
        unused_for_ns: A tag that was not used for at least this time is removed.
    """

    name: str = ""
    tags: tuple[str, ...] = ("*",)
    keep: bool = False
    keep_last: int | None = None
    keep_within_ns: int | None = None
    unused_for_ns: int | None = None

    @property
    def is_common(self) -> bool:
        """True if it applies to all tags."""
        return not self.name and self.tags == ("*",)

    @property
    def label(self) -> str:
        """The name and the first patterns, for messages: rule[2] (pr-*)."""
        more = ", …" if len(self.tags) > _MAX_SHOWN_PATTERNS else ""
        shown = ", ".join(self.tags[:_MAX_SHOWN_PATTERNS])
        return (self.name or "rule") + (f" ({shown}{more})" if any(self.tags) else "")

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of RULE_FIELDS that it sets."""
        values = ((field, getattr(self, field)) for field in RULE_FIELDS)
        return tuple(field for field, value in values if value is not None and value is not False)

    def matches(self, ref_name: str) -> bool:
        """Return True if it applies to the tag."""
        return find_pattern(self.tags, ref_name) is not None


class PrunePolicy(NamedTuple):
    """A policy. The common rule fills the settings that the rule of a tag omits.

    Attributes:
        keep_tags: Patterns of tags that are never removed.
        rules: The first rule that matches a tag applies.
        max_used: For all blobs that the tags reach.
        min_free: For the disk of the cache.
        allow_empty: The last tag can be removed too.
        trim: Tags can be made smaller if removing some is not enough.
        source: The name of the policy file; "" without a file.
        drop_tags: Patterns of tags that are removed, whatever their last use, unless they are kept.
        key_prefix: A text before each key that a message names.
    """

    keep_tags: tuple[str, ...] = ()
    rules: tuple[PruneRule, ...] = ()
    max_used: DiskSpace | None = None
    min_free: DiskSpace | None = None
    allow_empty: bool = False
    trim: bool = False
    source: str = ""
    drop_tags: tuple[str, ...] = ()
    key_prefix: str = ""

    @property
    def is_empty(self) -> bool:
        """True if it has no limit, no rule, and no tag to keep or remove."""
        has_tags = bool(self.keep_tags or self.drop_tags)
        return not (self.has_limit or has_tags or any(rule.fields for rule in self.rules))

    @property
    def has_limit(self) -> bool:
        """True if it limits the size."""
        return self.max_used is not None or self.min_free is not None

    @property
    def has_age(self) -> bool:
        """True if it removes some tags, or all, by their age."""
        return any(rule.unused_for_ns is not None for rule in self.rules)

    def spell(self, key: str, value: object = None) -> str:
        """Return a key and its value as messages quote them: keep-last 5."""
        word = self.key_prefix + key
        return word if value is None else f"{word} {value}"


def common_rule(policy: PrunePolicy) -> PruneRule:
    """Return the common rule of the policy; an empty rule if it has none."""
    # In a file it is the last of up to hundreds of rules.
    return next((rule for rule in reversed(policy.rules) if rule.is_common), PruneRule())


def find_rule(policy: PrunePolicy, ref_name: str) -> PruneRule | None:
    """Return the first rule that matches the tag, except the common rule."""
    others = (rule for rule in policy.rules if not rule.is_common)
    return next((rule for rule in others if rule.matches(ref_name)), None)


def applying_rules(policy: PrunePolicy, rule: PruneRule | None) -> dict[str, PruneRule]:
    """Return for each field the rule that sets it for the tags of a rule: it or the common rule.

    With `keep` no other field applies.

    Args:
        rule: None for the tags that only the common rule matches.
    """
    own = dict.fromkeys(rule.fields, rule) if rule is not None else {}
    if "keep" in own:
        return own
    common = common_rule(policy)
    return {**dict.fromkeys(common.fields, common), **own}


def quote(policy: PrunePolicy, rule: PruneRule, field: str) -> str:
    """Return the setting of a rule in a field, as users write it: rule[2].keep-last 5."""
    key, value = _key_of(field), getattr(rule, field)
    if field.endswith("_ns"):
        value = spell_age(value)
    if rule.is_common:
        return policy.spell(key, value)
    path = f"{rule.name}.{key}" if rule.name else f"{rule.label}: {key}"
    return path if value is True else f"{path} {value}"


def _key_of(field: str) -> str:
    """Return a field's name as users write it: keep-within for keep_within_ns."""
    return field.removesuffix("_ns").replace("_", "-")


class Contradiction(NamedTuple):
    """A part of a policy that contradicts another part or has no effect.

    Attributes:
        rule: The position in PrunePolicy.rules; None if it is not in a rule.
        key: The key as users write it; "tags" for a complete rule.
    """

    rule: int | None
    key: str
    problem: str


def check_policy(policy: object) -> None:
    """Raise UsageError with all problems if the argument is not a policy or contradicts itself."""
    if not isinstance(policy, PrunePolicy):
        raise UsageError(
            f"the policy is of type {type(policy).__name__}, not PrunePolicy",
            hints=("kitcache.read_policy(TEXT, NAME)",),
        )
    problems = [contradiction.problem for contradiction in find_contradictions(policy)]
    if problems:
        raise UsageError(problems[0], path=policy.source, details=tuple(problems[1:]))


def find_contradictions(policy: PrunePolicy) -> Iterator[Contradiction]:
    """Yield everything in the policy that contradicts itself or can have no effect."""
    named = (("keep-tag", policy.keep_tags), ("drop-tag", policy.drop_tags))
    lists: list[tuple[str, object]] = [*named, *(("keep-tag", rule.tags) for rule in policy.rules)]
    key = next((key for key, patterns in lists if isinstance(patterns, str)), None)
    if key is not None:
        problem = "patterns are a tuple of strings: of one string each letter would be a pattern"
        yield Contradiction(None, key, problem)
        return
    for key, patterns in named:
        if "" in patterns:
            problem = f"{policy.spell(key)}: an empty pattern matches no tag"
            yield Contradiction(None, key, problem)
    yield from _useless_drop_tags(policy)
    if sum(rule.is_common for rule in policy.rules) > 1:
        problem = "two rules without a name apply to all tags, and only one can count"
        yield Contradiction(None, "rule", problem)
    yield from _invalid_sizes(policy)
    if policy.trim and not policy.has_limit:
        yield Contradiction(
            None,
            "trim",
            f"{policy.spell('trim')} needs a limit to trim to:"
            f" {policy.spell('max-used-space')} or {policy.spell('min-free-space')}",
        )
    for position, rule in enumerate(policy.rules):
        for key, problem in _problems_of_rule(policy, rule):
            yield Contradiction(position, key, problem)
        if problem := _unreachable(policy, position):
            key = _key_of(rule.fields[0]) if rule.is_common else "tags"
            yield Contradiction(position, key, problem)


def _useless_drop_tags(policy: PrunePolicy) -> Iterator[Contradiction]:
    """Yield the drop-tag patterns that match only kept tags."""
    named = (rule for rule in policy.rules if not rule.is_common)
    # A rule that does not keep its tags can match some of them first.
    first = takewhile(lambda rule: rule.keep, named)
    keeps = [(policy.spell("keep-tag", pattern), pattern) for pattern in policy.keep_tags]
    keeps += [(quote(policy, rule, "keep"), pattern) for rule in first for pattern in rule.tags]
    for pattern in filter(None, policy.drop_tags):
        by = next((name for name, wide in keeps if covers(wide, pattern)), None)
        if by is not None:
            option = policy.spell("drop-tag", pattern)
            yield Contradiction(None, "drop-tag", f"{option} removes no tag: {by} keeps them all")


def _invalid_sizes(policy: PrunePolicy) -> Iterator[Contradiction]:
    for key, size in (("max-used-space", policy.max_used), ("min-free-space", policy.min_free)):
        if size is None:
            continue
        if (size.bytes is None) == (size.percentage is None) or (size.bytes or 0) < 0:
            problem = f"{policy.spell(key)} is bytes, 0 or more, or else a percentage"
            yield Contradiction(None, key, problem)
        elif size.percentage is not None and not 0 <= size.percentage <= 100:
            option = policy.spell(key, f"{size.percentage:g}%")
            yield Contradiction(None, key, f"{option} is not a part of the disk: 0% to 100%")


def _problems_of_rule(policy: PrunePolicy, rule: PruneRule) -> Iterator[tuple[str, str]]:
    """Yield the contradictory or useless keys of a rule, each with the problem."""
    if not rule.tags or "" in rule.tags:
        yield "tags", f"{rule.label}: an empty pattern matches no tag"
    if not rule.is_common and not rule.fields:
        keys = ", ".join(map(_key_of, RULE_FIELDS))
        yield "tags", f"{rule.label} has no setting for its tags; add one of {keys}"
    if rule.keep_last is not None and rule.keep_last < 1:
        yield "keep-last", f"{quote(policy, rule, 'keep_last')} keeps nothing; name 1 or more"
    for field in ("keep_within_ns", "unused_for_ns"):
        if (getattr(rule, field) or 0) < 0:
            yield _key_of(field), f"{quote(policy, rule, field)} is below zero"
    if rule.keep_within_ns == 0:
        yield "keep-within", f"{quote(policy, rule, 'keep_within_ns')} keeps nothing"
    if rule.keep and len(rule.fields) > 1:
        useless = " and ".join(map(_key_of, rule.fields[1:]))
        yield "keep", f"{quote(policy, rule, 'keep')} keeps all of its tags; remove {useless}"
    elif problem := _contradicting_ages(policy, rule):
        yield "unused-for" if "unused_for_ns" in rule.fields else "keep-within", problem


def _contradicting_ages(policy: PrunePolicy, rule: PruneRule) -> str:
    """Return why an age of removal has no effect if this rule sets one of the ages, else ""."""
    applying = applying_rules(policy, None if rule.is_common else rule)
    within, unused = applying.get("keep_within_ns"), applying.get("unused_for_ns")
    if within is None or unused is None or not (within is rule or unused is rule):
        return ""
    # 0s removes everything that is not kept, so keeping something is its purpose.
    if not 0 < (unused.unused_for_ns or 0) < (within.keep_within_ns or 0):
        return ""
    shorter = quote(policy, unused, "unused_for_ns")
    longer = quote(policy, within, "keep_within_ns")
    if within is unused:
        longer = longer.removeprefix(f"{rule.name}." if rule.name else f"{rule.label}: ")
    return f"{shorter} is shorter than {longer}, which keeps what would be removed by it"


def _unreachable(policy: PrunePolicy, position: int) -> str:
    """Return why the rule at this position never decides anything, or ""."""
    rule = policy.rules[position]
    if not rule.tags or not rule.fields:
        return ""
    earlier = [(policy.spell("keep-tag", pattern), pattern) for pattern in policy.keep_tags]
    if rule.fields == (
        "unused_for_ns",
    ):  # It only removes tags, and drop-tag removes them before it.
        earlier += [(policy.spell("drop-tag", pattern), pattern) for pattern in policy.drop_tags]
    if not rule.is_common:
        others = (other for other in policy.rules[:position] if not other.is_common)
        earlier += [(other.label, pattern) for other in others for pattern in other.tags]
    by = []
    for pattern in rule.tags:
        name = next((name for name, wide in earlier if covers(wide, pattern)), "")
        if not name:
            return ""
        by.append(name)
    subject = quote(policy, rule, rule.fields[0]) if rule.is_common else rule.label
    return f"{subject} has no tag left after {' and '.join(dict.fromkeys(by))}"
