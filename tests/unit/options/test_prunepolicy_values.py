"""options/prunepolicy.py: ages in a policy, and values that only a Python caller can make."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.prunepolicy import (
    DiskSpace,
    PrunePolicy,
    PruneRule,
    check_policy,
    find_contradictions,
    parse_span,
)

D = 86_400 * 10**9
ONE_STRING = "patterns are a tuple of strings: of one string each letter would be a pattern"
NO_AMOUNT = "is bytes, 0 or more, or else a percentage"


@pytest.mark.parametrize(
    ("text", "age_ns"), [("30d", 30 * D), ("1d12h", D + D // 2), ("0s", 0), ("0", 0), ("0.0", 0)]
)
def test_spans(text: str, age_ns: int) -> None:
    assert parse_span(text) == age_ns


@pytest.mark.parametrize("text", ["30", " 90 ", "0.5", "3600"])
def test_a_number_alone_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no unit: write [\d.]+d .days. or [\d.]+h"):
        parse_span(text)


@pytest.mark.parametrize("text", ["", "soon", "-1d", "1y", "x" * 60_000])
def test_no_span(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not an age; known forms: 90s, 15m, .*1h30m$"
    ) as caught:
        parse_span(text)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("policy", "rule", "key", "problem"),
    [
        (PrunePolicy("main"), None, "keep-tag", ONE_STRING),  # type: ignore[arg-type]
        (
            PrunePolicy(rules=(PruneRule("x", "pr-*", keep_last=1),)),  # type: ignore[arg-type]
            None,
            "keep-tag",
            ONE_STRING,
        ),
        (
            PrunePolicy(max_used=DiskSpace()),
            None,
            "max-used-space",
            f"max-used-space {NO_AMOUNT}",
        ),
        (
            PrunePolicy(min_free=DiskSpace(5, 5.0), source="p"),
            None,
            "min-free-space",
            f"min-free-space {NO_AMOUNT}",
        ),
        (
            PrunePolicy(max_used=DiskSpace(-5)),
            None,
            "max-used-space",
            f"max-used-space {NO_AMOUNT}",
        ),
        (
            PrunePolicy(rules=(PruneRule(unused_for_ns=-D),)),
            0,
            "unused-for",
            "unused-for -1d is below zero",
        ),
        (
            PrunePolicy(rules=(PruneRule("rule[1]", ("x",), keep_within_ns=-90 * 10**9),)),
            0,
            "keep-within",
            "rule[1].keep-within -1m30s is below zero",
        ),
    ],
)
def test_what_only_a_caller_can_say(
    policy: PrunePolicy, rule: int | None, key: str, problem: str
) -> None:
    """Each of these would let tags go."""
    assert list(find_contradictions(policy)) == [(rule, key, problem)]


@pytest.mark.parametrize("policy", [None, "keep-tag = []", {"keep-last": 3}])
def test_what_is_not_a_policy_is_refused(policy: object) -> None:
    with pytest.raises(UsageError, match=r"the policy is of type \w+, not PrunePolicy"):
        check_policy(policy)
