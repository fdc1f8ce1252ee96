"""pruning/retain.py: where a keep-tag lets the rest go, and where it only protects."""

import pytest

from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule
from tests.unit.upkeep.pruning.test_decisions import PRS, D, choose, kept, rule

AGED = rule("rule[1]", "pr-*", unused_for_ns=14 * D)
COUNTED = rule("rule[1]", "pr-*", keep_last=1)


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        (PrunePolicy(("main",)), "main"),
        (PrunePolicy(("main",), (rule("rule[1]", "x", keep=True),)), "mainx"),
        # Nothing says how tags go, here neither: to keep is all that is asked for.
        (PrunePolicy(("main",), (COUNTED,)), "mainpr-1"),
        # Whoever says which tags go by their age has not asked for the others.
        (PrunePolicy(("main",), (AGED,)), "mainpr-1pr-2x"),
        (PrunePolicy(("main",), (AGED._replace(unused_for_ns=0),)), "mainx"),
        (PrunePolicy(("main",), (AGED, PruneRule(unused_for_ns=35 * D))), "mainpr-1pr-2"),
        # What speaks of those others itself counts, whatever is said of some.
        (PrunePolicy(("main",), (AGED, PruneRule(keep_last=1))), "mainpr-1pr-2"),
        (PrunePolicy(("main",), (AGED, PruneRule(keep_within_ns=41 * D))), "mainpr-1pr-2pr-3x"),
    ],
)
def test_what_a_policy_without_a_limit_keeps(policy: PrunePolicy, names: str) -> None:
    assert kept(PRS, policy) == names


def test_to_take_the_limit_out_of_a_policy_with_ages_drops_no_more() -> None:
    limited = PrunePolicy(("main",), (AGED,), max_used=DiskSpace(1000))
    assert kept(PRS, limited, 1000) == kept(PRS, limited._replace(max_used=None))
    assert choose(PRS, limited._replace(max_used=None))["x"] == (
        True,
        "no rule of the policy removes it",
    )


def test_what_is_not_kept_goes_by_the_rule_that_speaks_of_it() -> None:
    assert choose(PRS, PrunePolicy(("main",), (AGED, PruneRule(keep_last=1))))["x"] == (
        False,
        "not kept by keep-last 1",
    )


PR = ("pr-*",)


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        # Nothing else goes: to name what goes is not to name what is kept.
        (PrunePolicy(drop_tags=PR), "mainx"),
        (PrunePolicy(("main",), drop_tags=PR), "mainx"),
        # What is kept nothing drops.
        (PrunePolicy(("pr-1",), drop_tags=PR), "mainpr-1x"),
        (PrunePolicy(("main",), drop_tags=("*",)), "main"),
        # What is said of all tags only protects, beside tags to drop.
        (PrunePolicy(rules=(PruneRule(keep_last=1),), drop_tags=PR), "mainpr-1x"),
        (PrunePolicy(rules=(PruneRule(keep_within_ns=25 * D),), drop_tags=PR), "mainpr-1pr-2x"),
        # A rule that names its tags lets the rest of them go, as without a drop-tag.
        (PrunePolicy(rules=(COUNTED,), drop_tags=("x",)), "mainpr-1"),
        (PrunePolicy(rules=(AGED,), drop_tags=("x",)), "mainpr-1pr-2"),
        # The last tag stays: the one that was used last.
        (PrunePolicy(drop_tags=("*",)), "pr-1"),
        (PrunePolicy(drop_tags=("*",), allow_empty=True), ""),
    ],
)
def test_tags_to_drop(policy: PrunePolicy, names: str) -> None:
    assert kept(PRS, policy) == names


def test_a_limit_drops_more_than_the_tags_to_drop() -> None:
    policy = PrunePolicy(drop_tags=("pr-1",), max_used=DiskSpace(1000))
    assert kept(PRS, policy, 1000) == "mainpr-2pr-3x"
    assert choose(PRS, policy, 1000)["pr-1"] == (False, "drop-tag pr-1")
    assert "pr-1" not in kept(PRS, policy, 10)


def test_what_was_just_exported_stays() -> None:
    assert choose(PRS, PrunePolicy(drop_tags=PR), None, "pr-1")["pr-1"] == (True, "just exported")
