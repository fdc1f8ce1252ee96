"""options/prunepolicy.py: amounts, which rule counts for a tag, and what contradicts itself."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.prunepolicy import (
    DiskSpace,
    PrunePolicy,
    PruneRule,
    applying_rules,
    check_policy,
    common_rule,
    find_contradictions,
    find_rule,
    parse_disk_space,
    quote,
)
from kitcache.options.tagpatterns import find_pattern

D = 86_400 * 10**9


def named(number: int, *tags: str, **fields: int | bool) -> PruneRule:
    return PruneRule(f"rule[{number}]", tags, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5GB", DiskSpace(bytes=5 * 10**9)),
        ("0", DiskSpace(bytes=0)),
        ("10%", DiskSpace(percentage=10)),
        (" 12.5 % ", DiskSpace(percentage=12.5)),
        ("0%", DiskSpace(percentage=0)),
        ("150%", DiskSpace(percentage=150)),
    ],
)
def test_amounts(text: str, amount: DiskSpace) -> None:
    assert parse_disk_space(text) == amount


@pytest.mark.parametrize("text", ["", "%", "-1%", "nan%", "10%%", "%10", "ten%", "\u0661%", "1,5%"])
def test_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size; known forms: .*, 10% .of the disk"):
        parse_disk_space(text)


def test_a_share_is_one_of_the_disk() -> None:
    assert DiskSpace(bytes=7).of(1000) == 7
    assert DiskSpace(bytes=0).of(1000) == 0
    assert DiskSpace(percentage=12.5).of(1000) == 125
    assert DiskSpace(percentage=0).of(1000) == 0
    assert DiskSpace(percentage=33.3).of(100) == 33


@pytest.mark.parametrize(
    ("glob", "matched", "other"),
    [
        ("main", ["main"], ["Main", "main2", "", "a/main"]),
        ("pr-*", ["pr-", "pr-1", "pr-a/b"], ["PR-1", "xpr-1"]),
        ("*", ["", "main", "a/b:c@d", "ünïcode"], []),
        ("v?", ["v1"], ["v", "v10"]),
        ("v[0-9]", ["v1"], ["va"]),
        ("v[!0-9]", ["va"], ["v1"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_globs(glob: str, matched: list[str], other: list[str]) -> None:
    rule = named(1, "nothing like it", glob)
    assert [name for name in matched + other if rule.matches(name)] == matched


def test_what_a_rule_is_called() -> None:
    assert named(2, "pr-*").label == "rule[2] (pr-*)"
    assert named(3, "a", "b").label == "rule[3] (a, b)"
    assert named(3, "a", "b", "c").label == "rule[3] (a, b, …)"
    assert named(4).label == named(4, "").label == "rule[4]"
    assert PruneRule(tags=("pr-*", "x")).label == "rule (pr-*, x)"


def test_only_a_rule_for_all_tags_without_a_name_is_the_common_one() -> None:
    rules = (PruneRule("rule[1]"), PruneRule(tags=("pr-*",)), PruneRule(keep_last=3))
    assert [rule.is_common for rule in rules] == [False, False, True]
    policy = PrunePolicy(rules=rules[1:])
    assert find_rule(policy, "pr-1") is rules[1]
    assert find_rule(policy, "main") is None
    assert quote(policy, rules[1]._replace(keep_last=2), "keep_last") == "rule (pr-*): keep-last 2"


def test_the_first_rule_that_matches_counts() -> None:
    first, second = named(1, "pr-*", keep_last=1), named(2, "pr-*", "x", keep_last=2)
    policy = PrunePolicy(rules=(PruneRule(keep_last=9), first, second))
    assert find_rule(policy, "pr-1") is first
    assert find_rule(policy, "x") is second
    assert find_rule(policy, "main") is None


def test_a_rule_replaces_what_is_said_of_all_and_leaves_the_rest() -> None:
    common = PruneRule(keep_last=9, unused_for_ns=D)
    own = named(1, "pr-*", keep_last=1, keep_within_ns=5)
    policy = PrunePolicy(rules=(own, common))
    assert common_rule(policy) is common
    assert applying_rules(policy, None) == {"keep_last": common, "unused_for_ns": common}
    assert applying_rules(policy, own) == {
        "keep_last": own,
        "keep_within_ns": own,
        "unused_for_ns": common,
    }


def test_of_what_is_kept_nothing_else_is_said() -> None:
    own = named(1, "main", keep=True)
    policy = PrunePolicy(rules=(own, PruneRule(keep_last=9, unused_for_ns=D)))
    assert applying_rules(policy, own) == {"keep": own}


@pytest.mark.parametrize(
    ("policy", "is_empty"),
    [
        (PrunePolicy(), True),
        (PrunePolicy(rules=(PruneRule(),), allow_empty=True, trim=True), True),
        (PrunePolicy(keep_tags=("main",)), False),
        (PrunePolicy(drop_tags=("main",)), False),
        (PrunePolicy(rules=(PruneRule(unused_for_ns=0),)), False),
        (PrunePolicy(rules=(named(1, "x", keep=True),)), False),
        (PrunePolicy(max_used=DiskSpace(0)), False),
        (PrunePolicy(min_free=DiskSpace(percentage=0)), False),
    ],
)
def test_a_policy_that_asks_for_nothing(policy: PrunePolicy, is_empty: bool) -> None:
    assert policy.is_empty is is_empty


def test_words_are_those_that_the_user_wrote() -> None:
    common, own = PruneRule(keep_last=5, unused_for_ns=D // 2), named(1, "main", keep=True)
    line, file = PrunePolicy(key_prefix="--"), PrunePolicy(source="policy.toml")
    assert line.spell("keep-tag", "main") == "--keep-tag main"
    assert file.spell("keep-tag", "main") == "keep-tag main"
    assert quote(line, common, "keep_last") == "--keep-last 5"
    assert quote(file, common, "unused_for_ns") == "unused-for 12h"
    assert quote(file, own, "keep") == "rule[1].keep"
    assert quote(file, own._replace(keep_last=3), "keep_last") == "rule[1].keep-last 3"


FINE = [
    PrunePolicy(),
    PrunePolicy(
        ("main", "release-*"), (PruneRule("", ("*",), False, 5, 7 * D, 30 * D),), DiskSpace(5)
    ),
    PrunePolicy(rules=(PruneRule(keep_within_ns=7 * D, unused_for_ns=7 * D),)),
    # 0s lets all go that is not kept: to keep something is the point.
    PrunePolicy(rules=(PruneRule(keep_within_ns=7 * D, unused_for_ns=0),)),
    PrunePolicy(max_used=DiskSpace(percentage=100), min_free=DiskSpace(percentage=0), trim=True),
    # A limit that is exceeded all the same says so.
    PrunePolicy(("*",), max_used=DiskSpace(5), trim=True),
    PrunePolicy(allow_empty=True),
    PrunePolicy(
        ("main",),
        (
            named(1, "pr-1", keep=True),
            named(2, "pr-*", unused_for_ns=D),
            named(3, "*", keep_last=3),
            PruneRule(keep_last=9),
        ),
    ),
    # What is kept stays, and of what is to go some may be kept.
    PrunePolicy(("main",), drop_tags=("*",)),
    PrunePolicy(rules=(named(1, "pr-*", keep_last=1),), drop_tags=("pr-*",)),
    PrunePolicy(
        rules=(named(1, "pr-1", keep_last=1), named(2, "pr-*", keep=True)), drop_tags=("pr-*",)
    ),
    # Narrow rules before wide ones, and overlaps.
    PrunePolicy(rules=(named(1, "a*", keep_last=1), named(2, "*a", keep_last=1))),
    PrunePolicy(rules=(named(1, "a?", keep_last=1), named(2, "a*", keep_last=1))),
    PrunePolicy(rules=(named(1, "[ab]", keep_last=1), named(2, "?", keep_last=1))),
    PrunePolicy(rules=(named(1, "*a*", keep_last=1), named(2, "[ab]", keep_last=1))),
    PrunePolicy(rules=(named(1, "a", keep_last=1), named(2, "a", "b", keep_last=1))),
]


@pytest.mark.parametrize("policy", FINE)
def test_what_does_not_contradict_itself(policy: PrunePolicy) -> None:
    check_policy(policy)


CONTRADICTIONS = [
    (PrunePolicy(("",)), None, "keep-tag", "keep-tag: an empty pattern matches no tag"),
    (PrunePolicy(drop_tags=("",)), None, "drop-tag", "drop-tag: an empty pattern matches no tag"),
    (
        PrunePolicy(("main", "v*"), drop_tags=("x", "v1"), source="p.toml"),
        None,
        "drop-tag",
        "drop-tag v1 removes no tag: keep-tag v* keeps them all",
    ),
    (
        PrunePolicy(rules=(named(1, "pr-*", keep=True),), drop_tags=("pr-1*",)),
        None,
        "drop-tag",
        "drop-tag pr-1* removes no tag: rule[1].keep keeps them all",
    ),
    (
        PrunePolicy(rules=(named(1, "pr-*", unused_for_ns=D),), drop_tags=("p*",)),
        0,
        "tags",
        "rule[1] (pr-*) has no tag left after drop-tag p*",
    ),
    (
        PrunePolicy(rules=(PruneRule(keep_last=3), PruneRule(unused_for_ns=5))),
        None,
        "rule",
        "two rules without a name apply to all tags, and only one can count",
    ),
    (
        PrunePolicy(max_used=DiskSpace(percentage=101)),
        None,
        "max-used-space",
        "max-used-space 101% is not a part of the disk: 0% to 100%",
    ),
    (
        PrunePolicy(min_free=DiskSpace(percentage=100.5), source="p.toml"),
        None,
        "min-free-space",
        "min-free-space 100.5% is not a part of the disk: 0% to 100%",
    ),
    (
        PrunePolicy(trim=True, rules=(PruneRule(keep_last=1),)),
        None,
        "trim",
        "trim needs a limit to trim to: max-used-space or min-free-space",
    ),
    (
        PrunePolicy(rules=(PruneRule(keep_last=0),)),
        0,
        "keep-last",
        "keep-last 0 keeps nothing; name 1 or more",
    ),
    (
        PrunePolicy(rules=(named(1, "x", keep_last=-1), PruneRule())),
        0,
        "keep-last",
        "rule[1].keep-last -1 keeps nothing; name 1 or more",
    ),
    (
        PrunePolicy(rules=(PruneRule(keep_within_ns=0),)),
        0,
        "keep-within",
        "keep-within 0s keeps nothing",
    ),
    (
        PrunePolicy(rules=(PruneRule(keep_within_ns=30 * D, unused_for_ns=7 * D),)),
        0,
        "unused-for",
        "unused-for 7d is shorter than keep-within 30d, which keeps what would be removed by it",
    ),
    (
        PrunePolicy(rules=(named(1, "x", keep_within_ns=30 * D, unused_for_ns=7 * D),)),
        0,
        "unused-for",
        "rule[1].unused-for 7d is shorter than keep-within 30d,"
        " which keeps what would be removed by it",
    ),
    (
        PrunePolicy(
            rules=(named(1, "x", unused_for_ns=7 * D), PruneRule(keep_within_ns=30 * D)), source="p"
        ),
        0,
        "unused-for",
        "rule[1].unused-for 7d is shorter than keep-within 30d,"
        " which keeps what would be removed by it",
    ),
    (
        PrunePolicy(rules=(named(1, "x", keep_within_ns=30 * D), PruneRule(unused_for_ns=7 * D))),
        0,
        "keep-within",
        "unused-for 7d is shorter than rule[1].keep-within 30d,"
        " which keeps what would be removed by it",
    ),
    (
        PrunePolicy(rules=(named(1, "x", keep=True, keep_last=3, unused_for_ns=D),)),
        0,
        "keep",
        "rule[1].keep keeps all of its tags; remove keep-last and unused-for",
    ),
    (
        PrunePolicy(rules=(named(1, "x"),)),
        0,
        "tags",
        "rule[1] (x) has no setting for its tags;"
        " add one of keep, keep-last, keep-within, unused-for",
    ),
    (
        PrunePolicy(rules=(named(1, "x", "", keep=True),)),
        0,
        "tags",
        "rule[1] (x, ): an empty pattern matches no tag",
    ),
    (
        PrunePolicy(rules=(named(1, keep=True),)),
        0,
        "tags",
        "rule[1]: an empty pattern matches no tag",
    ),
    (
        PrunePolicy(("*",), (PruneRule(unused_for_ns=D),)),
        0,
        "unused-for",
        "unused-for 1d has no tag left after keep-tag *",
    ),
    (
        PrunePolicy(("pr-*",), (named(1, "pr-*", unused_for_ns=D),), source="p"),
        0,
        "tags",
        "rule[1] (pr-*) has no tag left after keep-tag pr-*",
    ),
]
UNREACHED = [
    (("*",), ("x", "y*"), "rule[1] (*)"),
    (("**",), ("[ab]",), "rule[1] (**)"),
    (("pr-*",), ("pr-*",), "rule[1] (pr-*)"),
    (("pr-*",), ("pr-1*", "pr-?"), "rule[1] (pr-*)"),
    (("v[0-9]", "w?"), ("v1", "wx"), "rule[1] (v[0-9], w?)"),
    (("v[0-9]",), ("v[0-9]",), "rule[1] (v[0-9])"),
]


@pytest.mark.parametrize(("policy", "rule", "key", "problem"), CONTRADICTIONS)
def test_what_contradicts_itself(
    policy: PrunePolicy, rule: int | None, key: str, problem: str
) -> None:
    assert list(find_contradictions(policy)) == [(rule, key, problem)]
    with pytest.raises(UsageError) as caught:
        check_policy(policy)
    assert (caught.value.problem, caught.value.details) == (problem, ())
    assert caught.value.path == policy.source


@pytest.mark.parametrize(("wide", "narrow", "by"), UNREACHED)
def test_a_rule_that_is_never_reached(
    wide: tuple[str, ...], narrow: tuple[str, ...], by: str
) -> None:
    rules = (named(1, *wide, keep_last=1), named(2, *narrow, keep_last=1))
    said = f"{named(2, *narrow).label} has no tag left after {by}"
    assert list(find_contradictions(PrunePolicy(rules=rules))) == [(1, "tags", said)]
    assert list(find_contradictions(PrunePolicy(rules=rules[:1]))) == []


def test_several_that_come_first_are_all_named() -> None:
    policy = PrunePolicy(("a",), (named(1, "b*", keep_last=1), named(2, "a", "b1", keep_last=1)))
    (found,) = find_contradictions(policy)
    assert found.problem == ("rule[2] (a, b1) has no tag left after keep-tag a and rule[1] (b*)")


def test_all_that_contradicts_itself_is_said_at_once() -> None:
    policy = PrunePolicy(
        ("",), (PruneRule(keep_last=0),), DiskSpace(percentage=200), source="policy.toml"
    )
    with pytest.raises(UsageError) as caught:
        check_policy(policy)
    assert str(caught.value).splitlines() == [
        "policy.toml: keep-tag: an empty pattern matches no tag",
        "  max-used-space 200% is not a part of the disk: 0% to 100%",
        "  keep-last 0 keeps nothing; name 1 or more",
    ]


def test_a_tag_is_matched_by_its_own_name() -> None:
    assert find_pattern(("v[1]",), "v[1]") == "v[1]"
    assert find_pattern(("v[1]",), "v1") == "v[1]"
    assert find_pattern(("v[1]",), "v2") is None
