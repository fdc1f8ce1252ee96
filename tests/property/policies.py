"""Policies, and tags to judge by them: drawn, and judged slowly, straight from what is promised.

Few blobs and few times, so that sharing and ties come often.
"""

from fnmatch import fnmatchcase
from typing import NamedTuple

from hypothesis import strategies as st

from kitcache.oci.digest import Digest
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule
from kitcache.upkeep.pruning.decisions import TagFacts, decide
from kitcache.upkeep.results import TagDecision

NOW = 1000
BLOBS = [Digest("sha256", f"{number:064x}") for number in range(8)]
NAMES = ("main", "dev", "pr-1", "pr-2", "pr-3", "v1", "v2", "")
GLOBS = ("main", "pr-*", "pr-1", "*", "v?", "[dv]*", "nosuch")
FIELDS = ("keep_last", "keep_within_ns", "unused_for_ns")


class Case(NamedTuple):
    """All that is decided on. limit: in bytes, None without one."""

    facts: tuple[TagFacts, ...]
    sizes: dict[Digest, int]
    policy: PrunePolicy
    limit: int | None
    protected: frozenset[str]

    def decide(self) -> dict[tuple[int, ...], TagDecision]:
        """The decisions, each under the positions of its entries."""
        made = decide(
            self.facts,
            self.sizes,
            self.policy,
            now_ns=NOW,
            limit_bytes=self.limit,
            limit_name="the limit",
            protected=self.protected,
        )
        return {decision.positions: decision for decision in made}

    def kept(self) -> set[tuple[int, ...]]:
        """What stays, by the positions of its entries."""
        return {positions for positions, decision in self.decide().items() if decision.keep}

    def bytes_of(self, which: set[tuple[int, ...]]) -> int:
        """All that those reach."""
        held = {b for fact in self.facts if fact.positions in which for b in fact.blobs}
        return sum(self.sizes.get(blob, 0) for blob in held)


globs = st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2, unique=True).map(tuple)
numbers = st.none() | st.integers(0, 3)
youths = st.none() | st.sampled_from([0, 1, 2, 50])
ages = st.none() | st.sampled_from([0, 50, 100, 500])
times = st.sampled_from([0, 400, 500, 900, 950, 999]) | st.sampled_from([NOW, NOW + 1, 10**18])
origins = st.sampled_from(["export", "import", "cacheconfig", "manifest"]) | st.just("unknown")


@st.composite
def rules(draw: st.DrawFn, name: str) -> PruneRule:
    if name and draw(st.integers(0, 3)) == 0:
        return PruneRule(name, draw(globs), keep=True)
    tags = draw(globs) if name else ("*",)
    return PruneRule(name, tags, False, draw(numbers), draw(youths), draw(ages))


@st.composite
def retentions(draw: st.DrawFn) -> PrunePolicy:
    named = [draw(rules(f"rule {number}")) for number in range(draw(st.integers(0, 3)))]
    # One for some tags needs no name.
    named[:1] = [rule._replace(name="") if rule.tags != ("*",) else rule for rule in named[:1]]
    common = [draw(rules(""))] if draw(st.booleans()) else []
    return PrunePolicy(
        keep_tags=draw(st.just(()) | globs.filter(lambda globs: "*" not in globs)),
        rules=(*named, *common),
        max_used=draw(st.none() | st.just(DiskSpace(bytes=0))),
        allow_empty=draw(st.booleans()),
        drop_tags=draw(st.just(()) | globs),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8]))
    places = draw(st.permutations(range(2 * count)))
    names = draw(st.permutations(NAMES))
    facts = tuple(
        TagFacts(
            names[number] if draw(st.integers(0, 6)) else None,
            tuple(sorted(places[2 * number : 2 * number + draw(st.integers(1, 2))])),
            draw(times),
            draw(origins),
            frozenset(draw(st.sets(st.sampled_from(BLOBS), max_size=4))),
        )
        for number in range(count)
    )
    sizes = {blob: draw(st.integers(0, 20)) for blob in BLOBS if draw(st.integers(0, 9))}
    protected = draw(st.just(frozenset()) | st.sampled_from(NAMES).map(lambda name: {name}))
    limit = draw(st.none() | st.integers(-1, 100))
    return Case(facts, sizes, draw(retentions()), limit, frozenset(protected))


def used_ns(fact: TagFacts) -> int:
    """The last use as it counts."""
    return NOW if fact.used_from == "unknown" or fact.used_ns > NOW else fact.used_ns


def said_of(case: Case, fact: TagFacts) -> dict[str, tuple[PruneRule, int]]:
    """What counts for a tag: a field, the rule that sets it, its value."""
    commons = [rule for rule in case.policy.rules if not rule.name and rule.tags == ("*",)]
    common = commons[0] if commons else PruneRule()
    for own in case.policy.rules:
        if own is not common and any(fnmatchcase(fact.ref_name or "", glob) for glob in own.tags):
            break
    else:
        own = PruneRule()
    if own.keep:
        return {"keep": (own, 1)}
    said = {}
    for field in FIELDS:
        for rule in (common, own):
            if getattr(rule, field) is not None:
                said[field] = (rule, getattr(rule, field))
    return said


def protected_in(case: Case) -> set[tuple[int, ...]]:
    """What nothing may drop: entries without a tag, and what a keep rule names."""
    found = {fact.positions for fact in case.facts if fact.ref_name is None}
    tags = [fact for fact in case.facts if fact.ref_name is not None]
    for fact in tags:
        said = said_of(case, fact)
        rule, count = said.get("keep_last", (None, 0))
        later = [
            other
            for other in tags
            if said_of(case, other).get("keep_last", (None, 0))[0] == rule
            and (used_ns(other), other.positions) > (used_ns(fact), fact.positions)
        ]
        if (
            fact.ref_name in case.protected
            or any(fnmatchcase(fact.ref_name or "", glob) for glob in case.policy.keep_tags)
            or "keep" in said
            or ("keep_last" in said and len(later) < count)
            or ("keep_within_ns" in said and NOW - used_ns(fact) < said["keep_within_ns"][1])
        ):
            found.add(fact.positions)
    return found


def is_due(case: Case, fact: TagFacts) -> bool:
    """Whether a tag that nothing protects goes, whatever its size."""
    said = said_of(case, fact)
    drops = case.policy.drop_tags
    if any(fnmatchcase(fact.ref_name or "", glob) for glob in drops):
        return True
    if "unused_for_ns" in said:
        return NOW - used_ns(fact) >= said["unused_for_ns"][1]
    has_limit = case.limit is not None or case.policy.max_used is not None
    has_age = any(rule.unused_for_ns is not None for rule in case.policy.rules)
    names = case.policy.keep_tags and not has_age and not drops
    rules = [said[field][0] for field in ("keep_last", "keep_within_ns") if field in said]
    # Beside tags to drop, what is said of all tags only protects.
    asks = names or any(rule.tags != ("*",) or rule.name or not drops for rule in rules)
    return bool(asks) and "keep" not in said and not has_limit


def judge_slowly(case: Case) -> set[tuple[int, ...]]:
    """What stays, one tag after the other, everything counted anew at each step."""
    tags = [fact for fact in case.facts if fact.ref_name is not None]
    tags.sort(key=lambda fact: (used_ns(fact), fact.positions))
    safe = protected_in(case)
    left = [fact for fact in tags if fact.positions in safe or not is_due(case, fact)]
    if not left and not case.policy.allow_empty:
        left = tags[-1:]
    stays = {fact.positions for fact in case.facts if fact.ref_name is None or fact in left}
    dropped = []
    for fact in left:
        is_last = len(left) - len(dropped) == 1 and not case.policy.allow_empty
        fits = case.limit is None or case.bytes_of(stays) <= case.limit
        if not fits and not is_last and fact.positions not in safe:
            dropped.append(fact)
            stays.remove(fact.positions)
    needed = case.bytes_of(stays)
    return stays | {f.positions for f in dropped if case.bytes_of(stays | {f.positions}) == needed}
