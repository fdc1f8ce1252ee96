"""options/policyfile.py: TOML as a policy, and every mistake with its key path."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.policyfile import read_policy
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule, common_rule

D = 86_400 * 10**9


def problems(text: str) -> list[str]:
    """What is said of that file, each line without the file's name."""
    with pytest.raises(UsageError) as caught:
        read_policy(text, "policy.toml")
    assert caught.value.path == "policy.toml"
    return [caught.value.problem, *caught.value.details]


def test_every_key() -> None:
    text = """
        max-used-space = "5GB"
        min-free-space = "10%"
        keep-tag = ["main", "release-*"]
        keep-last = 5
        keep-within = "7d"
        unused-for = "30d"
        allow-empty = true
        trim = true

        [[rule]]
        tags = "trunk"
        keep = true

        [[rule]]
        tags = ["pr-*", "exp-*"]
        keep-last = 2
        keep-within = "1d"
        unused-for = "1w"
    """
    assert read_policy(text, "policy.toml") == PrunePolicy(
        keep_tags=("main", "release-*"),
        rules=(
            PruneRule("rule[1]", ("trunk",), keep=True),
            PruneRule("rule[2]", ("pr-*", "exp-*"), False, 2, D, 7 * D),
            PruneRule("", ("*",), False, 5, 7 * D, 30 * D),
        ),
        max_used=DiskSpace(bytes=5 * 10**9),
        min_free=DiskSpace(percentage=10),
        allow_empty=True,
        trim=True,
        source="policy.toml",
    )


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "rule = []", "trim = false"])
def test_a_file_that_says_nothing_asks_for_nothing(text: str) -> None:
    assert read_policy(text, "policy.toml").is_empty


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("max-used-space = 5000000", PrunePolicy(max_used=DiskSpace(5_000_000))),
        ("max-used-space = 0", PrunePolicy(max_used=DiskSpace(0))),
        ('keep-tag = "main"', PrunePolicy(("main",))),
        ("keep-last = 0x10", PrunePolicy(rules=(PruneRule(keep_last=16),))),
        ('unused-for = "0"', PrunePolicy(rules=(PruneRule(unused_for_ns=0),))),
    ],
)
def test_other_ways_to_say_it(text: str, policy: PrunePolicy) -> None:
    read = read_policy(text, "p")
    assert read._replace(rules=()) == policy._replace(rules=(), source="p")
    assert common_rule(read) == common_rule(policy)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('keep-lsat = "5"', "keep-lsat: unknown key; did you mean keep-last?"),
        ("keep_last = 5", "keep_last: unknown key; did you mean keep-last?"),
        (
            '"x\\u202e" = 5',
            '"x\u202e": unknown key; known: max-used-space, min-free-space, keep-tag, drop-tag,'
            " keep-last, keep-within, unused-for, allow-empty, trim, rule",
        ),
        ('tags = "a"', "tags: applies to some tags: write it in a [[rule]]"),
        ("keep = true", "keep: applies to some tags: write it in a [[rule]]"),
        (
            'max-used-space = "5 gigs"',
            "max-used-space: '5 gigs' is not a size; known forms: 5GB (10^9 bytes each),"
            " 5GiB (2^30), 512 MB, 1.5TB, 900kB, 5000000000 (bytes), 10% (of the disk)",
        ),
        (
            "min-free-space = 5.5",
            'min-free-space: must be a size such as "5GB", or a part of the disk such as "10%",'
            " not a float",
        ),
        (
            "max-used-space = true",
            'max-used-space: must be a size such as "5GB", or a part of the disk such as "10%",'
            " not a boolean",
        ),
        (
            "keep-within = 30",
            'keep-within: must be an age in quotes, such as "30d", not an integer',
        ),
        (
            "unused-for = 2020-01-01",
            'unused-for: must be an age in quotes, such as "30d", not a date or a time',
        ),
        (
            'unused-for = "a while"',
            "unused-for: 'a while' is not an age; known forms: 90s, 15m, 36h, 7d, 2w, 1h30m",
        ),
        (
            'unused-for = "30"',
            "unused-for: '30' has no unit: write 30d (days) or 30h (hours)",
        ),
        ("keep-last = -1", "keep-last: is not a number of tags"),
        ("max-used-space = 0x" + "f" * 5000, "max-used-space: is more than any disk has"),
        (
            "k" * 5000 + " = 1",
            f'"{"k" * 40}": unknown key; known: max-used-space, min-free-space, keep-tag,'
            " drop-tag, keep-last, keep-within, unused-for, allow-empty, trim, rule",
        ),
        (
            'keep-last = "5"',
            "keep-last: must be a number such as 5, without quotes, not a string",
        ),
        (
            "keep-last = true",
            "keep-last: must be a number such as 5, without quotes, not a boolean",
        ),
        ("trim = 1", "trim: must be true or false, without quotes, not an integer"),
        (
            'keep-tag = ["a", 1]',
            'keep-tag: must be a pattern such as "pr-*", or a list of patterns,'
            " not an array of other values",
        ),
        (
            "keep-tag = {}",
            'keep-tag: must be a pattern such as "pr-*", or a list of patterns, not a table',
        ),
        ("rule = 5", "rule: must be tables, each under [[rule]], not an integer"),
        (
            'rule = ["a"]',
            "rule: must be tables, each under [[rule]], not an array of other values",
        ),
        ("[rule]", "rule: each rule begins with [[rule]], in two brackets"),
        ("keep-last = 0", "keep-last 0 keeps nothing; name 1 or more"),
        ("trim = true", "trim needs a limit to trim to: max-used-space or min-free-space"),
        ('max-used-space = "200%"', "max-used-space 200% is not a part of the disk: 0% to 100%"),
        ('unused-for = "1d"\nkeep-tag = "*"', "unused-for 1d has no tag left after keep-tag *"),
        ('keep-tag = ["a", ""]', "keep-tag: an empty pattern matches no tag"),
    ],
)
def test_a_wrong_key_of_all_tags(line: str, problem: str) -> None:
    assert problems(f"# a policy\n\n{line}\n") == [problem]


RULE = 'keep-last = 3\n[[rule]]\ntags = "main"\nkeep = true\n\n[[rule]]\ntags = ["pr-*"]\n'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("keep-lsat = 5", "rule[2].keep-lsat: unknown key; did you mean keep-last?"),
        (
            "nosuch = 5",
            "rule[2].nosuch: unknown key; known: tags, keep, keep-last, keep-within, unused-for",
        ),
        ("'a.b\\' = 5", 'rule[2]."a.b\\\\": unknown key;'),
        (
            "max-used-space = 5",
            "rule[2].max-used-space: applies to all tags: write it above the first [[rule]]",
        ),
        (
            "keep-within = 7",
            'rule[2].keep-within: must be an age in quotes, such as "30d", not an integer',
        ),
        ("[[rule]]\nkeep = true", 'rule[3] has no tags: add a line such as tags = "pr-*"'),
        (
            "[[rule]]\ntags = 5\nkeep = true",
            'rule[3].tags: must be a pattern such as "pr-*", or a list of patterns, not an integer',
        ),
        (
            'keep-last = 2\n[[rule]]\ntags = "pr-1"\nkeep-last = 1',
            "rule[3] (pr-1) has no tag left after rule[2] (pr-*)",
        ),
        (
            'unused-for = "1d"\n\nkeep-within = "2d"',
            "rule[2].unused-for 1d is shorter than keep-within 2d,"
            " which keeps what would be removed by it",
        ),
        ("keep-last = 0", "rule[2].keep-last 0 keeps nothing; name 1 or more"),
        (
            "keep = false",
            "rule[2] (pr-*) has no setting for its tags;"
            " add one of keep, keep-last, keep-within, unused-for",
        ),
    ],
)
def test_a_wrong_key_of_a_rule(line: str, problem: str) -> None:
    found = problems(f"{RULE}{line}\n")
    assert any(text.startswith(problem) for text in found)
    # Where the key is not of rule 2, that one is left without a word.
    assert len(found) == 1 + line.startswith("[[")


def test_rules_in_one_line_are_counted_as_well() -> None:
    text = '\nrule = [{tags = "a", keep = 1},\n  {tags = "b", keep-last = 0}]\n'
    assert problems(text) == [
        "rule[1].keep: must be true or false, without quotes, not an integer",
        "rule[2].keep-last 0 keeps nothing; name 1 or more",
    ]


def test_all_that_is_wrong_is_said_at_once_rule_by_rule() -> None:
    text = """max-used-space = "5 gigs"
trim = true
[[rule]]
keep-last = 0
tags = "a"
unused-for = "soon"
[[rule]]
keep-last = 0
tags = "b"
[[rule]]
tags = "a"
keep = true
"""
    found = problems(text)
    assert [line.partition(" is not a")[0] for line in found] == [
        # That trim has no limit is not said: one is named.
        "max-used-space: '5 gigs'",
        "rule[1].unused-for: 'soon'",
        "rule[1].keep-last 0 keeps nothing; name 1 or more",
        "rule[2].keep-last 0 keeps nothing; name 1 or more",
        "rule[3] (a) has no tag left after rule[1] (a)",
    ]


def test_the_message_names_the_file() -> None:
    with pytest.raises(UsageError) as caught:
        read_policy("keep-last = 0\ntrim = true", "ci/policy.toml")
    assert str(caught.value).splitlines() == [
        "ci/policy.toml: trim needs a limit to trim to: max-used-space or min-free-space",
        "  keep-last 0 keeps nothing; name 1 or more",
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("max-used-space = 5GB", " (at line 1, column 19)"),
        ("\n\nkeep-last = 1 2\n", " (at line 3, column 15)"),
        ("keep-last = 1\nkeep-last = 2\n", " (at line 2, column 14)"),
        ("[[rule]\n", " (at line 1, column 7)"),
        ('keep-tag = ["a",\n\n', " (at end of document)"),
        ('keep-tag = "a\n', " (at line 1, column 14)"),
        ("\nkeep-tag = " + "[" * 60_000, "brackets are nested too deeply"),
        ("keep-tag = [" + "\n[" * 5000, "brackets are nested too deeply"),
        ("\nrule = " + "{a=" * 20_000, "brackets are nested too deeply"),
    ],
)
def test_what_is_not_toml(text: str, place: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("this is not TOML: ")
    assert problem.endswith(place)


LONG = "a." * 100 + "a"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keep-last = 1\n" + "a." * 32_000 + "a = 1", "a key has more than 100 parts (at line 2)"),
        (f"\n\n[{LONG}]\n" + "a = 1\n" * 9000, "a key has more than 100 parts (at line 3)"),
        (f"[[rule]]\n[[ {LONG} ]]", "a key has more than 100 parts (at line 2)"),
        (f"rule = [{{tags = 1, {LONG} = 2}}]", "a key has more than 100 parts (at line 1)"),
        ("\n" + "'.' \t. " * 100 + "a = 1", "a key has more than 100 parts (at line 2)"),
        ('"\\"=" .' * 100 + "a = 1", "a key has more than 100 parts (at line 1)"),
        ("\nkeep-last = " + "9" * 5000, "a number is too long (at line 2)"),
    ],
)
def test_what_would_take_tomllib_long_is_not_read(
    text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitcache.options.policyfile.tomllib.loads", None)
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a." * 99 + "a = 1", "a: unknown key;"),
        (f"# {LONG}\nx = '{LONG}'", "x: unknown key;"),
        ('x = ["' + '", "'.join(["1.2.3.4"] * 500) + '"]', "x: unknown key;"),
        ("keep-last = " + "9" * 600, "keep-last: is more tags than any cache has"),
    ],
)
def test_what_is_only_long_is_read(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)
