"""Decisions: the tags that a policy keeps, by their sizes, their last uses and the time. No I/O.

A policy protects some tags; a protected tag is never removed. Another tag is removed because of a
pattern, an age or a limit. If a policy has only rules that keep tags, all other tags are removed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from kitcache.gc.values import Tally, UsedFrom
from kitcache.oci.digest import Digest
from kitcache.options.prunepolicy import (
    PrunePolicy,
    PruneRule,
    applying_rules,
    find_rule,
    quote,
)
from kitcache.options.tagpatterns import find_pattern
from kitcache.options.units import format_age
from kitcache.upkeep.results import TagDecision

Blobs = frozenset[Digest]

LAST_TAG = "the last tag"
ALIAS = "frees nothing: the kept tags have all its blobs"
NEW = "just exported"
_WITHIN = "within the limit"
_UNNAMED = "no rule of the policy removes it"


class TagFacts(NamedTuple):
    """The facts about a tag (all entries with one ref name), or about an entry without a name.

    Attributes:
        positions: Of the entries in index.json, -1 for the subject of index.json.
        used_ns: The last use; ignored if used_from is "unknown".
        blobs: All existing blobs that the entries reach.
        digest: Of the first entry, if it can be read.
    """

    ref_name: str | None
    positions: tuple[int, ...]
    used_ns: int
    used_from: UsedFrom
    blobs: Blobs
    digest: Digest | None = None


class _KeepDecision(NamedTuple):
    """Whether a tag is kept, and why."""

    keep: bool
    reason: str


class _Tag(NamedTuple):
    """A named tag. rules: By field, the rule whose value applies to this tag."""

    name: str
    positions: tuple[int, ...]
    used_ns: int
    blobs: Blobs
    rules: Mapping[str, PruneRule]


_UNTAGGED = _KeepDecision(True, "it has no tag: such an entry is kept until it is untagged")
_SUBJECT = _KeepDecision(True, "it is the subject of index.json itself and never removed")


def decide(
    facts: Sequence[TagFacts],
    sizes: Mapping[Digest, int],
    policy: PrunePolicy,
    *,
    now_ns: int,
    limit_bytes: int | None,
    limit_name: str,
    held: Blobs = frozenset(),
    protected: Collection[str] = (),
) -> tuple[TagDecision, ...]:
    """Return a decision for each tag and each entry without a tag, in the order of `facts`.

    Tags are removed in one order for every limit, least recently used first. So a smaller limit
    never keeps a tag that a larger limit removes. If the limit cannot be reached, all unprotected
    tags that free space are removed. A last use that is unknown or in the future counts as now.

    Args:
        sizes: Of all existing blobs. A missing blob counts as 0 bytes.
        limit_bytes: For all blobs that the remaining entries reach; None without a limit.
        held: Blobs that take space even if every tag is removed.
        protected: Ref names that are never removed, because they are new.
    """
    tags = _by_last_use(facts, policy, now_ns)
    has_limit = policy.has_limit or limit_bytes is not None
    decisions = _protected(tags, policy, now_ns, protected)
    decisions |= _due(tags, decisions, policy, now_ns, has_limit=has_limit)
    if limit_bytes is not None:
        others = [held, *(fact.blobs for fact in facts if fact.ref_name is None)]
        decisions |= _limited(
            tags,
            decisions,
            others,
            sizes,
            limit_bytes=limit_bytes,
            limit_name=limit_name,
            allow_empty=policy.allow_empty,
        )
    for tag in tags:
        if tag.name not in decisions:
            reason = _WITHIN if has_limit else _UNNAMED
            if not has_limit and "unused_for_ns" in tag.rules:
                reason = _quote_age(tag, "unused_for_ns", policy, now_ns)
            decisions[tag.name] = _KeepDecision(True, reason)
    shared = _shared(facts)
    nameless = {True: _SUBJECT, False: _UNTAGGED}
    return tuple(
        TagDecision(
            fact.ref_name,
            fact.digest,
            fact.positions,
            *(
                nameless[-1 in fact.positions]
                if fact.ref_name is None
                else decisions[fact.ref_name]
            ),
            _used_ns(fact, now_ns),
            fact.used_from,
            _tally(fact.blobs, sizes),
            _tally(fact.blobs - shared, sizes),
        )
        for fact in facts
    )


def _by_last_use(facts: Sequence[TagFacts], policy: PrunePolicy, now_ns: int) -> list[_Tag]:
    """Return the tags, least recently used first, then by their positions in the index."""
    rules = {rule: applying_rules(policy, rule) for rule in (None, *policy.rules)}
    tags = [
        _Tag(
            fact.ref_name,
            fact.positions,
            _used_ns(fact, now_ns),
            fact.blobs,
            rules[find_rule(policy, fact.ref_name)],
        )
        for fact in facts
        if fact.ref_name is not None
    ]
    return sorted(tags, key=lambda tag: (tag.used_ns, tag.positions))


def _used_ns(fact: TagFacts, now_ns: int) -> int:
    """Return the last use, at most now. If it is unknown, return now: the tag may be in use."""
    return now_ns if fact.used_from == "unknown" else min(fact.used_ns, now_ns)


def _protected(
    tags: Sequence[_Tag], policy: PrunePolicy, now_ns: int, protected: Collection[str]
) -> dict[str, _KeepDecision]:
    """Return the tags that are never removed, each with the rule that keeps it."""
    decisions: dict[str, _KeepDecision] = {}
    last_used = _last_used(tags)
    for tag in tags:
        within = tag.rules.get("keep_within_ns")
        if tag.name in protected:
            reason = NEW
        elif pattern := find_pattern(policy.keep_tags, tag.name):
            reason = policy.spell("keep-tag", pattern)
        elif "keep" in tag.rules:
            reason = quote(policy, tag.rules["keep"], "keep")
        elif tag.name in last_used:
            reason = quote(policy, tag.rules["keep_last"], "keep_last")
        elif within is not None and now_ns - tag.used_ns < (within.keep_within_ns or 0):
            reason = _quote_age(tag, "keep_within_ns", policy, now_ns)
        else:
            continue
        decisions[tag.name] = _KeepDecision(True, reason)
    return decisions


def _last_used(tags: Sequence[_Tag]) -> frozenset[str]:
    """Return the most recently used tags of each keep-last rule."""
    names: dict[PruneRule, list[str]] = {}
    for tag in tags:
        if rule := tag.rules.get("keep_last"):
            names.setdefault(rule, []).append(tag.name)
    return frozenset(
        name
        for rule, own in names.items()
        for name in own[max(0, len(own) - (rule.keep_last or 0)) :]
    )


def _due(
    tags: Sequence[_Tag],
    decided: Mapping[str, _KeepDecision],
    policy: PrunePolicy,
    now_ns: int,
    *,
    has_limit: bool,
) -> dict[str, _KeepDecision]:
    """Return the tags to remove whatever their size. Keep the last used tag if no other is kept."""
    due = {}
    for tag in tags:
        if tag.name not in decided:
            reason = _due_reason(tag, policy, now_ns, has_limit=has_limit)
            if reason:
                due[tag.name] = _KeepDecision(False, reason)
    if tags and len(due) == len(tags) and not policy.allow_empty:
        due[tags[-1].name] = _KeepDecision(True, LAST_TAG)
    return due


def _due_reason(tag: _Tag, policy: PrunePolicy, now_ns: int, *, has_limit: bool) -> str:
    """Return why an unprotected tag is removed whatever its size; "" if it is not."""
    if pattern := find_pattern(policy.drop_tags, tag.name):
        return policy.spell("drop-tag", pattern)
    if unused := tag.rules.get("unused_for_ns"):
        is_due = now_ns - tag.used_ns >= (unused.unused_for_ns or 0)
        return _quote_age(tag, "unused_for_ns", policy, now_ns) if is_due else ""
    if has_limit:
        return ""
    # A policy with only rules that keep tags removes all other tags. Next to an age (also of other
    # tags) or a drop-tag, a keep-tag only protects. Next to a drop-tag, so do rules for all tags.
    removes_others = policy.has_age or policy.drop_tags
    kept_by = [policy.spell("keep-tag")] if policy.keep_tags and not removes_others else []
    applying = ((f, tag.rules[f]) for f in ("keep_last", "keep_within_ns") if f in tag.rules)
    kept_by += [
        quote(policy, rule, field)
        for field, rule in applying
        if not (policy.drop_tags and rule.is_common)
    ]
    return f"not kept by {' or '.join(kept_by)}" if kept_by else ""


def _limited(
    tags: Sequence[_Tag],
    decided: Mapping[str, _KeepDecision],
    others: Sequence[Blobs],
    sizes: Mapping[Digest, int],
    *,
    limit_bytes: int,
    limit_name: str,
    allow_empty: bool,
) -> dict[str, _KeepDecision]:
    """Return the decisions of the limit about undecided tags. A tag within the limit has none.

    Args:
        others: The blobs of each entry without a tag, and the blobs that always take space.
    """
    removable = [tag for tag in tags if tag.name not in decided]
    kept = [tag.blobs for tag in tags if tag.name in decided and decided[tag.name].keep]
    last = removable.pop() if removable and not kept and not allow_empty else None
    if last is not None:
        kept.append(last.blobs)
    kept_blobs = [*others, *kept]
    count, fits = _count_removals([tag.blobs for tag in removable], kept_blobs, sizes, limit_bytes)
    held = frozenset().union(*kept_blobs, *(tag.blobs for tag in removable[count:]))
    decisions = {}
    for tag in removable[:count]:
        frees_space = any(sizes.get(digest) for digest in tag.blobs - held)
        decisions[tag.name] = _KeepDecision(not frees_space, limit_name if frees_space else ALIAS)
    if last is not None and not fits:
        decisions[last.name] = _KeepDecision(True, LAST_TAG)
    return decisions


def _count_removals(
    removable: Sequence[Blobs],
    kept: Sequence[Blobs],
    sizes: Mapping[Digest, int],
    limit_bytes: int,
) -> tuple[int, bool]:
    """Return how many tags to remove, from the first on, and whether the rest fits the limit."""
    # A blob is freed when the last tag that has it is removed, so record the rank of that tag.
    freed_by: dict[Digest, int] = {}
    for rank, blobs in enumerate((*removable, *kept)):
        freed_by.update(dict.fromkeys(blobs, rank))
    freed = [0] * (len(removable) + len(kept))
    for digest, rank in freed_by.items():
        freed[rank] += sizes.get(digest, 0)
    needed = sum(freed)
    count = 0
    while needed > limit_bytes and count < len(removable):
        needed -= freed[count]
        count += 1
    return count, needed <= limit_bytes


def _quote_age(tag: _Tag, field: str, policy: PrunePolicy, now_ns: int) -> str:
    age = format_age(now_ns - tag.used_ns)
    return f"{quote(policy, tag.rules[field], field)}: last used {age} ago"


def _shared(facts: Sequence[TagFacts]) -> Blobs:
    """Return the blobs that more than one tag or entry reaches."""
    once: set[Digest] = set()
    shared: set[Digest] = set()
    for fact in facts:
        shared |= once & fact.blobs
        once |= fact.blobs
    return frozenset(shared)


def _tally(blobs: Blobs, sizes: Mapping[Digest, int]) -> Tally:
    existing = [size for size in map(sizes.get, blobs) if size is not None]
    return Tally(len(existing), sum(existing))
