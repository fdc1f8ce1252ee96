"""pruning/retain.py: every decision, and the rule that made it; no disk, no clock."""

import pytest

from kitcache.gc.values import Tally, UsedFrom
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule
from kitcache.upkeep.pruning.decisions import TagFacts, decide
from kitcache.upkeep.results import TagDecision
from tests.unit.gc.surveys import digest

S = 10**9
D = 86_400 * S
NOW = 20_000 * D


def tag(
    name: str | None,
    days: float,
    blobs: str = "",
    *,
    position: int = 0,
    used_from: UsedFrom = "manifest",
) -> TagFacts:
    """A tag that was last used so many days ago; each letter of blobs is a blob."""
    return TagFacts(
        name,
        (position,),
        NOW - round(days * D),
        used_from,
        frozenset(map(digest, blobs or f"{name}")),
        digest(f"manifest of {name}"),
    )


def rule(name: str, *tags: str, **fields: int | bool) -> PruneRule:
    return PruneRule(name, tags or ("*",), **fields)  # type: ignore[arg-type]


SIZES = {digest(letter): 10 for letter in "abcdefghijklmnopqrstuvwxyz"}


def choose(
    facts: list[TagFacts], policy: PrunePolicy, limit: int | None = None, *protected: str
) -> dict[str | None, tuple[bool, str]]:
    """What becomes of each tag, and why."""
    made = decide(
        facts,
        SIZES,
        policy,
        now_ns=NOW,
        limit_bytes=limit,
        limit_name="max-used-space 50 B",
        protected=protected,
    )
    assert [d.ref_name for d in made] == [fact.ref_name for fact in facts]
    return {d.ref_name: (d.keep, d.reason) for d in made}


def kept(facts: list[TagFacts], policy: PrunePolicy, limit: int | None = None) -> str:
    """The names of those that stay, in the order of the facts."""
    return "".join(str(name) for name, (keep, _) in choose(facts, policy, limit).items() if keep)


THREE = [tag("a", 1), tag("b", 10), tag("c", 100)]


def test_without_a_policy_everything_stays() -> None:
    why = (True, "no rule of the policy removes it")
    assert choose(THREE, PrunePolicy()) == {"a": why, "b": why, "c": why}
    assert choose([], PrunePolicy()) == {}


def test_a_decision_says_all_that_it_was_made_of() -> None:
    facts = [
        TagFacts("a", (3, 5), NOW - D, "export", frozenset(map(digest, "xyz")), digest("first")),
        TagFacts(None, (1,), NOW + D, "unknown", frozenset(map(digest, ["z", "not there"]))),
    ]
    assert decide(facts, SIZES, PrunePolicy(), now_ns=NOW, limit_bytes=None, limit_name="") == (
        TagDecision(
            ref_name="a",
            digest=digest("first"),
            positions=(3, 5),
            keep=True,
            reason="no rule of the policy removes it",
            last_used_ns=NOW - D,
            last_used_from="export",
            size=Tally(3, 30),
            unique=Tally(2, 20),
        ),
        TagDecision(
            ref_name=None,
            digest=None,
            positions=(1,),
            keep=True,
            reason="it has no tag: such an entry is kept until it is untagged",
            last_used_ns=NOW,
            last_used_from="unknown",
            size=Tally(1, 10),
            unique=Tally(0, 0),
        ),
    )


# Ages.


def test_what_was_not_used_for_that_long_goes() -> None:
    assert choose(THREE, PrunePolicy(rules=(PruneRule(unused_for_ns=10 * D),))) == {
        "a": (True, "unused-for 10d: last used 1 d ago"),
        "b": (False, "unused-for 10d: last used 10 d ago"),
        "c": (False, "unused-for 10d: last used 100 d ago"),
    }
    assert kept(THREE, PrunePolicy(rules=(PruneRule(unused_for_ns=10 * D + 1),))) == "ab"


def test_in_a_file_the_words_are_the_files() -> None:
    policy = PrunePolicy(("c",), (PruneRule(unused_for_ns=10 * D),), source="policy.toml")
    assert choose(THREE, policy) == {
        "a": (True, "unused-for 10d: last used 1 d ago"),
        "b": (False, "unused-for 10d: last used 10 d ago"),
        "c": (True, "keep-tag c"),
    }


def test_a_time_that_is_ahead_counts_as_now() -> None:
    ahead = [tag("a", -1000), tag("b", 10)]
    policy = PrunePolicy(rules=(PruneRule(unused_for_ns=D),))
    assert choose(ahead, policy)["a"] == (True, "unused-for 1d: last used 0 s ago")
    assert kept(ahead, PrunePolicy(rules=(PruneRule(unused_for_ns=0),), allow_empty=True)) == ""


def test_a_time_that_is_not_known_counts_as_now() -> None:
    facts = [tag("a", 20_000, used_from="unknown"), tag("b", 10)]
    assert kept(facts, PrunePolicy(rules=(PruneRule(keep_last=1),))) == "a"
    assert kept(facts, PrunePolicy(), 10) == "a"


# What is kept.


def test_what_is_kept_in_any_case() -> None:
    policy = PrunePolicy(
        ("nothing", "a*"),
        (rule("rule[1]", "b", keep=True), PruneRule(keep_last=1, keep_within_ns=11 * D)),
    )
    facts = [tag("a1", 100), tag("b", 100), tag("d", 0), tag("e", 10), tag("f", 11), tag("g", 90)]
    assert choose(facts, policy, 0, "g") == {
        "a1": (True, "keep-tag a*"),
        "b": (True, "rule[1].keep"),
        "d": (True, "keep-last 1"),
        "e": (True, "keep-within 11d: last used 10 d ago"),
        "f": (False, "max-used-space 50 B"),
        "g": (True, "just exported"),
    }


def test_without_another_cause_what_is_not_kept_goes() -> None:
    policy = PrunePolicy(("c",), (PruneRule(keep_last=1, keep_within_ns=5 * D),))
    assert choose(THREE, policy) == {
        "a": (True, "keep-last 1"),
        "b": (False, "not kept by keep-tag or keep-last 1 or keep-within 5d"),
        "c": (True, "keep-tag c"),
    }
    assert kept(THREE, PrunePolicy(("b",))) == "b"
    assert kept(THREE, PrunePolicy(rules=(PruneRule(keep_last=2),))) == "ab"
    assert kept(THREE, PrunePolicy(rules=(PruneRule(keep_within_ns=D + 1),))) == "a"


@pytest.mark.parametrize(
    ("policy", "limit", "names"),
    [
        (PrunePolicy(rules=(PruneRule(keep_last=2),)), None, "ab"),
        (PrunePolicy(rules=(PruneRule(keep_last=2, unused_for_ns=30 * D),)), None, "abc"),
        (PrunePolicy(rules=(PruneRule(keep_last=4, unused_for_ns=30 * D),)), None, "abcd"),
        (PrunePolicy(rules=(PruneRule(keep_last=2),)), 50, "abcde"),
        (PrunePolicy(rules=(PruneRule(keep_last=2),)), 0, "ab"),
        (PrunePolicy(rules=(PruneRule(keep_last=2, unused_for_ns=0),)), 50, "ab"),
    ],
)
def test_the_five_tags_of_the_page_about_policies(
    policy: PrunePolicy, limit: int | None, names: str
) -> None:
    five = [tag("a", 1), tag("b", 2), tag("c", 3), tag("d", 40), tag("e", 50)]
    assert kept(five, policy, limit) == names


def test_with_another_cause_they_only_protect() -> None:
    aged = PrunePolicy(("c",), (PruneRule(keep_last=1, unused_for_ns=50 * D),))
    assert kept([*THREE, tag("d", 60)], aged) == "abc"
    limited = PrunePolicy(("c",), (PruneRule(keep_last=1),), max_used=DiskSpace(1000))
    assert kept(THREE, limited, 1000) == "abc"
    assert kept(THREE, limited, 20) == "ac"


def test_a_limit_that_asks_for_nothing_now_is_a_limit() -> None:
    policy = PrunePolicy(rules=(PruneRule(keep_last=1),), min_free=DiskSpace(5))
    assert choose(THREE, policy, None)["c"] == (True, "within the limit")


def test_unused_for_no_time_lets_all_go_that_is_not_kept() -> None:
    policy = PrunePolicy(
        ("c",), (PruneRule(keep_last=1, unused_for_ns=0),), max_used=DiskSpace(1000)
    )
    assert kept(THREE, policy, 1000) == "ac"


def test_of_a_keep_last_the_later_entry_wins_a_tie() -> None:
    facts = [tag("b", 1, position=1), tag("c", 1, position=2), tag("a", 1, position=0)]
    assert kept(facts, PrunePolicy(rules=(PruneRule(keep_last=2),))) == "bc"


# Rules for some tags.

PRS = [tag("main", 3), tag("pr-1", 1), tag("pr-2", 2), tag("pr-3", 30), tag("x", 40)]


def test_a_rule_counts_its_own_tags() -> None:
    policy = PrunePolicy(rules=(rule("rule[1]", "pr-*", keep_last=1), PruneRule(keep_last=1)))
    assert choose(PRS, policy) == {
        "main": (True, "keep-last 1"),
        "pr-1": (True, "rule[1].keep-last 1"),
        "pr-2": (False, "not kept by rule[1].keep-last 1"),
        "pr-3": (False, "not kept by rule[1].keep-last 1"),
        "x": (False, "not kept by keep-last 1"),
    }


def test_a_rule_that_says_nothing_of_it_leaves_its_tags_in_the_count_of_all() -> None:
    policy = PrunePolicy(
        rules=(rule("rule[1]", "pr-*", keep_within_ns=D // 2), PruneRule(keep_last=2))
    )
    assert choose(PRS, policy)["pr-2"] == (True, "keep-last 2")
    assert kept(PRS, policy) == "pr-1pr-2"


def test_a_tag_that_is_kept_by_a_rule_takes_no_place_in_the_count_of_all() -> None:
    one = PrunePolicy(rules=(rule("rule[1]", "pr-1", keep=True), PruneRule(keep_last=1)))
    assert kept(PRS, one) == "pr-1pr-2"
    # But keep-tag leaves it where it is.
    assert kept(PRS, PrunePolicy(("pr-1",), (PruneRule(keep_last=1),))) == "pr-1"


def test_of_a_tag_that_no_rule_speaks_of_nothing_is_said() -> None:
    policy = PrunePolicy(rules=(rule("rule[1]", "pr-*", keep_last=1),))
    assert choose(PRS, policy)["x"] == (True, "no rule of the policy removes it")
    assert kept(PRS, policy) == "mainpr-1x"
    assert kept(PRS, PrunePolicy(rules=(rule("rule[1]", "main", keep=True),))) == (
        "mainpr-1pr-2pr-3x"
    )


def test_the_first_rule_that_matches_counts() -> None:
    policy = PrunePolicy(
        rules=(
            rule("rule[1]", "pr-3", unused_for_ns=100 * D),
            rule("rule[2]", unused_for_ns=2 * D),
            PruneRule(unused_for_ns=0),
        )
    )
    assert choose(PRS, policy) == {
        "main": (False, "rule[2].unused-for 2d: last used 3 d ago"),
        "pr-1": (True, "rule[2].unused-for 2d: last used 1 d ago"),
        "pr-2": (False, "rule[2].unused-for 2d: last used 2 d ago"),
        "pr-3": (True, "rule[1].unused-for 100d: last used 30 d ago"),
        "x": (False, "rule[2].unused-for 2d: last used 40 d ago"),
    }


def test_a_keep_last_protects_from_an_age_that_is_said_of_all() -> None:
    policy = PrunePolicy(
        rules=(rule("rule[1]", "pr-*", keep_last=3), PruneRule(unused_for_ns=5 * D))
    )
    assert kept(PRS, policy) == "mainpr-1pr-2pr-3"


# Limits.


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    facts = [tag("a", 3, "ab"), tag("b", 1, "cd"), tag("c", 2, "ef")]
    assert kept(facts, PrunePolicy(), 60) == "abc"
    assert choose(facts, PrunePolicy(), 59) == {
        "a": (False, "max-used-space 50 B"),
        "b": (True, "within the limit"),
        "c": (True, "within the limit"),
    }
    assert kept(facts, PrunePolicy(), 40) == "bc"
    assert kept(facts, PrunePolicy(), 39) == "b"


def test_what_is_shared_costs_once() -> None:
    facts = [tag("a", 3, "xyz"), tag("b", 2, "yz"), tag("c", 1, "z")]
    assert kept(facts, PrunePolicy(), 30) == "abc"
    assert kept(facts, PrunePolicy(), 20) == "bc"
    assert kept(facts, PrunePolicy(), 10) == "c"


def test_of_two_that_were_used_at_once_the_earlier_entry_goes() -> None:
    facts = [tag("b", 1, "b", position=1), tag("a", 1, "a", position=0)]
    assert kept(facts, PrunePolicy(), 10) == "b"


def test_a_blob_that_is_not_there_costs_nothing() -> None:
    facts = [tag("b", 2, "b!?"), tag("a", 1)]
    assert kept(facts, PrunePolicy(), 20) == "ba"


def test_a_keep_last_of_none_keeps_none() -> None:
    assert kept(THREE, PrunePolicy(rules=(PruneRule(keep_last=0),), allow_empty=True)) == ""


def test_what_three_tags_hold_is_unique_to_none() -> None:
    facts = [tag("a", 1, "xa"), tag("b", 2, "xb"), tag("c", 3, "x"), tag("d", 4, "d")]
    made = decide(facts, SIZES, PrunePolicy(), now_ns=NOW, limit_bytes=None, limit_name="")
    assert [d.unique for d in made] == [Tally(1, 10), Tally(1, 10), Tally(), Tally(1, 10)]


def test_another_name_for_what_stays_costs_nothing_and_stays() -> None:
    facts = [tag("old", 9, "x"), tag("b", 8, "bcd"), tag("a", 1, "xy")]
    assert choose(facts, PrunePolicy(), 20) == {
        "old": (True, "frees nothing: the kept tags have all its blobs"),
        "b": (False, "max-used-space 50 B"),
        "a": (True, "within the limit"),
    }
    # What costs nothing costs nothing, if by an empty blob of its own.
    sizes = SIZES | {digest("0"): 0}
    facts[0] = tag("old", 9, "x0")
    made = decide(facts, sizes, PrunePolicy(), now_ns=NOW, limit_bytes=20, limit_name="")
    assert [decision.keep for decision in made] == [True, False, True]
    # Not for an age: that is no question of space.
    assert kept(facts, PrunePolicy(rules=(PruneRule(unused_for_ns=9 * D),)), 50) == "ba"


def test_two_names_of_the_same_go_together() -> None:
    facts = [tag("one", 9, "xy"), tag("b", 8, "bcd"), tag("two", 7, "xy"), tag("a", 1)]
    assert kept(facts, PrunePolicy(), 10) == "a"
    assert kept(facts, PrunePolicy(), 30) == "onetwoa"


def test_where_the_limit_cannot_be_reached_what_may_go_goes() -> None:
    facts = [tag("a", 3, "ab"), tag("b", 2, "cd"), tag("c", 1, "ef")]
    policy = PrunePolicy(("b",), rules=(PruneRule(keep_within_ns=D // 2),), max_used=DiskSpace(5))
    assert kept(facts, policy, 5) == "b"
    assert kept(facts, policy, -5) == "b"


def test_after_an_age_the_limit_counts_only_what_is_left() -> None:
    facts = [tag("a", 30, "abcd"), tag("b", 2, "ef"), tag("c", 1, "gh")]
    policy = PrunePolicy(rules=(PruneRule(unused_for_ns=10 * D),))
    assert kept(facts, policy, 40) == "bc"
    assert kept(facts, policy, 39) == "c"


# The last tag, and entries that have none.


@pytest.mark.parametrize(
    "policy",
    [PrunePolicy(rules=(PruneRule(unused_for_ns=0),)), PrunePolicy(("nosuch",))],
)
def test_of_those_that_would_all_go_the_last_used_stays(policy: PrunePolicy) -> None:
    facts = [tag("b", 10), tag("a", 1), tag("c", 100)]
    assert kept(facts, policy) == "a"
    assert choose(facts, policy)["a"] == (True, "the last tag")
    assert kept(facts, policy._replace(allow_empty=True)) == ""


def test_a_limit_leaves_the_last_tag() -> None:
    assert choose(THREE, PrunePolicy(), 0)["a"] == (True, "the last tag")
    assert kept(THREE, PrunePolicy(), 0) == "a"
    assert kept(THREE, PrunePolicy(allow_empty=True), 0) == ""
    assert kept(THREE, PrunePolicy(("c",)), 0) == "c"
    assert choose(THREE, PrunePolicy(), 10)["a"] == (True, "within the limit")


def test_a_limit_leaves_the_last_tag_that_an_age_left() -> None:
    policy = PrunePolicy(
        rules=(rule("rule[1]", "a", unused_for_ns=0), PruneRule(unused_for_ns=50 * D))
    )
    assert kept(THREE, policy, 100) == "b"
    assert kept(THREE, policy, 0) == "b"


def test_an_entry_without_a_tag_stays_and_counts() -> None:
    facts = [tag(None, 1000, "xyz"), tag("a", 3, "xa"), tag("b", 2)]
    why = (True, "it has no tag: such an entry is kept until it is untagged")
    assert choose(facts, PrunePolicy(allow_empty=True, rules=(PruneRule(unused_for_ns=0),)), 0) == {
        None: why,
        "a": (False, "unused-for 0s: last used 3 d ago"),
        "b": (False, "unused-for 0s: last used 2 d ago"),
    }
    assert kept(facts, PrunePolicy(), 40) == "Noneb"
    assert kept(facts, PrunePolicy(), 0) == "Noneb"
    # It is no tag: it takes no place, and is not the last one.
    assert kept(facts[:1], PrunePolicy(), 0) == "None"
    assert kept(facts, PrunePolicy(rules=(PruneRule(keep_last=1),))) == "Noneb"


def test_a_tag_with_an_empty_name_is_a_tag() -> None:
    facts = [tag("", 3), tag("b", 2)]
    assert choose(facts, PrunePolicy(rules=(PruneRule(keep_last=1),)))[""] == (
        False,
        "not kept by keep-last 1",
    )
