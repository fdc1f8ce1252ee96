"""(tags, sizes, policy, now) → which tags stay. Pure.

A policy protects tags, and gives causes for which others go: named as such; unused for too long;
not kept, where to keep is all that is asked for; a limit. What is protected nothing drops.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from kitcache.gc.values import Tally, UsedFrom
from kitcache.oci.digest import Digest
from kitcache.options.prunepolicy import (
    PrunePolicy,
    PruneRule,
    counting_rules,
    find_glob,
    find_rule,
    quote,
)
from kitcache.options.units import format_age
from kitcache.upkeep.results import TagDecision

Blobs = frozenset[Digest]

LAST_TAG = "the last tag"
ALIAS = "costs nothing: what stays holds all of it"
NEW = "just exported"
_WITHIN = "within the limit"
_UNNAMED = "nothing in the policy drops it"


class TagFacts(NamedTuple):
    """What is decided on: all entries of one ref name together, or one entry that has none.

    positions: of the entries in index.json, -1 for its own subject. used_ns: the last use, by
    used_from; by "unknown" it does not count. blobs: all that they reach. digest: of the first
    entry, if it can be read.
    """

    ref_name: str | None
    positions: tuple[int, ...]
    used_ns: int
    used_from: UsedFrom
    blobs: Blobs
    digest: Digest | None = None


class _KeepDecision(NamedTuple):
    """keep, or not; why: the rule that decided, in words."""

    keep: bool
    why: str


class _Tag(NamedTuple):
    """A tag while it is judged. used_ns: as it counts. rules: a rule for each field that counts."""

    name: str
    positions: tuple[int, ...]
    used_ns: int
    blobs: Blobs
    rules: Mapping[str, PruneRule]


_UNTAGGED = _KeepDecision(True, "no tag: such an entry stays until it is untagged by its digest")
_SUBJECT = _KeepDecision(True, "no entry, but the subject of index.json itself: nothing drops it")


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
    """A decision for each of the facts, in their order.

    sizes: of all blobs that are there; any other counts nothing. limit_bytes: for all that the
    entries reach afterwards, by the limit of that name; None where none is in force. held: what
    keeps its room whatever goes. The least recently used go first, in one order for every limit, so
    that a tighter one never keeps more. Where a limit cannot be reached, all that may go goes, but
    for what would free nothing. protected: ref names that nothing drops, since they are new. A last
    use that is ahead, or unknown, counts as now.
    """
    tags = _coldest_first(facts, policy, now_ns)
    has_limit = policy.has_limit or limit_bytes is not None
    verdicts = _protected(tags, policy, now_ns, protected)
    verdicts |= _due(tags, verdicts, policy, now_ns, has_limit=has_limit)
    if limit_bytes is not None:
        others = [held, *(fact.blobs for fact in facts if fact.ref_name is None)]
        verdicts |= _limited(
            tags,
            verdicts,
            others,
            sizes,
            limit_bytes=limit_bytes,
            limit_name=limit_name,
            allow_empty=policy.allow_empty,
        )
    for tag in tags:
        if tag.name not in verdicts:
            verdicts[tag.name] = _KeepDecision(True, _why(tag, policy, now_ns, has_limit=has_limit))
    shared = _shared(facts)
    return tuple(
        TagDecision(
            fact.ref_name,
            fact.digest,
            fact.positions,
            *(_nameless(fact) if fact.ref_name is None else verdicts[fact.ref_name]),
            _used_ns(fact, now_ns),
            fact.used_from,
            _tally(fact.blobs, sizes),
            _tally(fact.blobs - shared, sizes),
        )
        for fact in facts
    )


def _nameless(fact: TagFacts) -> _KeepDecision:
    return _SUBJECT if -1 in fact.positions else _UNTAGGED


def _coldest_first(facts: Sequence[TagFacts], policy: PrunePolicy, now_ns: int) -> list[_Tag]:
    """The tags by last use, then by their places in the index."""
    rules = {rule: counting_rules(policy, rule) for rule in (None, *policy.rules)}
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
    """The last use as it counts. What is not known may be in use: it counts as now."""
    return now_ns if fact.used_from == "unknown" else min(fact.used_ns, now_ns)


def _protected(
    tags: Sequence[_Tag], policy: PrunePolicy, now_ns: int, protected: Collection[str]
) -> dict[str, _KeepDecision]:
    """The tags that nothing drops, each with the rule that keeps it."""
    verdicts: dict[str, _KeepDecision] = {}
    last_used = _last_used(tags)
    for tag in tags:
        if tag.name in protected:
            why = NEW
        elif glob := find_glob(policy.keep_tags, tag.name):
            why = policy.spell("keep-tag", glob)
        elif "keep" in tag.rules:
            why = quote(policy, tag.rules["keep"], "keep")
        elif tag.name in last_used:
            why = quote(policy, tag.rules["keep_last"], "keep_last")
        elif now_ns - tag.used_ns < _within_ns(tag):
            why = _aged(tag, "keep_within_ns", policy, now_ns)
        else:
            continue
        verdicts[tag.name] = _KeepDecision(True, why)
    return verdicts


def _within_ns(tag: _Tag) -> int:
    """The age below which it is kept; 0 where none is named."""
    return (tag.rules["keep_within_ns"].keep_within_ns or 0) if "keep_within_ns" in tag.rules else 0


def _last_used(tags: Sequence[_Tag]) -> frozenset[str]:
    """What is kept by a keep-last: the N last used of the tags for which that rule counts."""
    counted: dict[PruneRule, list[str]] = {}
    for tag in tags:
        if rule := tag.rules.get("keep_last"):
            counted.setdefault(rule, []).append(tag.name)
    return frozenset(
        name
        for rule, names in counted.items()
        for name in names[max(0, len(names) - (rule.keep_last or 0)) :]
    )


def _due(
    tags: Sequence[_Tag],
    verdicts: Mapping[str, _KeepDecision],
    policy: PrunePolicy,
    now_ns: int,
    *,
    has_limit: bool,
) -> dict[str, _KeepDecision]:
    """The tags that go whatever their size; where none would be left, the last used one stays."""
    due = {}
    for tag in tags:
        if tag.name not in verdicts and (why := _why_due(tag, policy, now_ns, has_limit=has_limit)):
            due[tag.name] = _KeepDecision(False, why)
    if tags and len(due) == len(tags) and not policy.allow_empty:
        due[tags[-1].name] = _KeepDecision(True, LAST_TAG)
    return due


def _why_due(tag: _Tag, policy: PrunePolicy, now_ns: int, *, has_limit: bool) -> str:
    """The cause for which a tag goes that nothing protects, whatever its size; or ""."""
    if glob := find_glob(policy.drop_tags, tag.name):
        return policy.spell("drop-tag", glob)
    if "unused_for_ns" in tag.rules:
        is_due = now_ns - tag.used_ns >= (tag.rules["unused_for_ns"].unused_for_ns or 0)
        return _aged(tag, "unused_for_ns", policy, now_ns) if is_due else ""
    if has_limit:
        return ""
    # To name what is kept is to let the rest go, where nothing else is said of it. A keep-tag says
    # nothing of the rest: beside an age, be it of other tags, it only protects. So does all that is
    # said of all tags at once, beside tags to drop.
    names_what_goes = policy.has_age or policy.drop_tags
    asked = [policy.spell("keep-tag")] if policy.keep_tags and not names_what_goes else []
    counting = ((f, tag.rules[f]) for f in ("keep_last", "keep_within_ns") if f in tag.rules)
    asked += [
        quote(policy, rule, field)
        for field, rule in counting
        if not (policy.drop_tags and rule.is_common)
    ]
    return f"not kept by {' or '.join(asked)}" if asked else ""


def _limited(
    tags: Sequence[_Tag],
    verdicts: Mapping[str, _KeepDecision],
    others: Sequence[Blobs],
    sizes: Mapping[Digest, int],
    *,
    limit_bytes: int,
    limit_name: str,
    allow_empty: bool,
) -> dict[str, _KeepDecision]:
    """What the limit says of the tags that have no verdict: those that go, and some that stay.

    others: what each entry without a tag holds, and what else keeps its room.
    """
    may_go = [tag for tag in tags if tag.name not in verdicts]
    kept = [tag.blobs for tag in tags if tag.name in verdicts and verdicts[tag.name].keep]
    last = may_go.pop() if may_go and not kept and not allow_empty else None
    if last is not None:
        kept.append(last.blobs)
    staying = [*others, *kept]
    count, fits = _count_to_drop([tag.blobs for tag in may_go], staying, sizes, limit_bytes)
    held = frozenset().union(*staying, *(tag.blobs for tag in may_go[count:]))
    found = {}
    for tag in may_go[:count]:
        is_alias = not any(sizes.get(digest) for digest in tag.blobs - held)
        found[tag.name] = (
            _KeepDecision(True, ALIAS) if is_alias else _KeepDecision(False, limit_name)
        )
    if last is not None and not fits:
        found[last.name] = _KeepDecision(True, LAST_TAG)
    return found


def _count_to_drop(
    may_go: Sequence[Blobs],
    staying: Sequence[Blobs],
    sizes: Mapping[Digest, int],
    limit_bytes: int,
) -> tuple[int, bool]:
    """How many of those that may go have to, from the first on; and whether that is enough."""
    # A blob is free once the last of its holders has gone: that one's rank is all that matters.
    freed_by: dict[Digest, int] = {}
    for rank, blobs in enumerate((*may_go, *staying)):
        freed_by.update(dict.fromkeys(blobs, rank))
    freed = [0] * (len(may_go) + len(staying))
    for digest, rank in freed_by.items():
        freed[rank] += sizes.get(digest, 0)
    needed = sum(freed)
    count = 0
    while needed > limit_bytes and count < len(may_go):
        needed -= freed[count]
        count += 1
    return count, needed <= limit_bytes


def _why(tag: _Tag, policy: PrunePolicy, now_ns: int, *, has_limit: bool) -> str:
    """Why a tag stays that nothing protects."""
    if has_limit:
        return _WITHIN
    is_aged = "unused_for_ns" in tag.rules
    return _aged(tag, "unused_for_ns", policy, now_ns) if is_aged else _UNNAMED


def _aged(tag: _Tag, field: str, policy: PrunePolicy, now_ns: int) -> str:
    said = quote(policy, tag.rules[field], field)
    return f"{said}: last used {format_age(now_ns - tag.used_ns)} ago"


def _shared(facts: Sequence[TagFacts]) -> Blobs:
    """The blobs that more than one of them reaches."""
    once: set[Digest] = set()
    shared: set[Digest] = set()
    for fact in facts:
        shared |= once & fact.blobs
        once |= fact.blobs
    return frozenset(shared)


def _tally(blobs: Blobs, sizes: Mapping[Digest, int]) -> Tally:
    found = [size for size in map(sizes.get, blobs) if size is not None]
    return Tally(len(found), sum(found))
