"""options/policyfile.py: TOML as a policy, and every mistake with its line."""

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
            PruneRule("rule 1 (trunk)", ("trunk",), keep=True),
            PruneRule("rule 2 (pr-*, exp-*)", ("pr-*", "exp-*"), False, 2, D, 7 * D),
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
        ('keep-lsat = "5"', 'unknown key "keep-lsat"; did you mean keep-last?'),
        ("keep_last = 5", 'unknown key "keep_last"; did you mean keep-last?'),
        (
            '"x\\u202e" = 5',
            'unknown key "x\u202e"; known: max-used-space, min-free-space, keep-tag, drop-tag,'
            " keep-last, keep-within, unused-for, allow-empty, trim, rule",
        ),
        ('tags = "a"', "tags is for some tags: it belongs in a [[rule]]"),
        ("keep = true", "keep is for some tags: it belongs in a [[rule]]"),
        (
            'max-used-space = "5 gigs"',
            "max-used-space: '5 gigs' is not a size; known forms: 5GB (10^9 bytes each),"
            " 5GiB (2^30), 512 MB, 1.5TB, 900kB, 5000000000 (bytes), 10% (of the disk)",
        ),
        (
            "min-free-space = 5.5",
            'min-free-space: has to be a size such as "5GB", or a part of the disk such as "10%";'
            " this is a float",
        ),
        (
            "max-used-space = true",
            'max-used-space: has to be a size such as "5GB", or a part of the disk such as "10%";'
            " this is a boolean",
        ),
        (
            "keep-within = 30",
            'keep-within: has to be an age in quotes, such as "30d"; this is an integer',
        ),
        (
            "unused-for = 2020-01-01",
            'unused-for: has to be an age in quotes, such as "30d"; this is a date or a time',
        ),
        (
            'unused-for = "a while"',
            "unused-for: 'a while' is not an age; known forms: 90s, 15m, 36h, 7d, 2w, 1h30m",
        ),
        (
            'unused-for = "30"',
            "unused-for: '30' has no unit; known forms: 90s, 15m, 36h, 7d, 2w, 1h30m",
        ),
        ("keep-last = -1", "keep-last: is no number of tags"),
        ("max-used-space = 0x" + "f" * 5000, "max-used-space: is more than any disk has"),
        (
            "k" * 5000 + " = 1",
            f'unknown key "{"k" * 40}"; known: max-used-space, min-free-space, keep-tag,'
            " drop-tag, keep-last, keep-within, unused-for, allow-empty, trim, rule",
        ),
        (
            'keep-last = "5"',
            "keep-last: has to be a number such as 5, without quotes; this is a string",
        ),
        (
            "keep-last = true",
            "keep-last: has to be a number such as 5, without quotes; this is a boolean",
        ),
        ("trim = 1", "trim: has to be true or false, without quotes; this is an integer"),
        (
            'keep-tag = ["a", 1]',
            'keep-tag: has to be a pattern such as "pr-*", or a list of patterns;'
            " this is an array of other things",
        ),
        (
            "keep-tag = {}",
            'keep-tag: has to be a pattern such as "pr-*", or a list of patterns; this is a table',
        ),
        ("rule = 5", "rule: has to be tables, each under [[rule]]; this is an integer"),
        (
            'rule = ["a"]',
            "rule: has to be tables, each under [[rule]]; this is an array of other things",
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
    assert problems(f"# a policy\n\n{line}\n") == [f"line 3: {problem}"]


RULE = 'keep-last = 3\n[[rule]]\ntags = "main"\nkeep = true\n\n[[rule]]\ntags = ["pr-*"]\n'


@pytest.mark.parametrize(
    ("line", "number", "problem"),
    [
        ("keep-lsat = 5", 8, 'rule 2 (pr-*): unknown key "keep-lsat"; did you mean keep-last?'),
        (
            "nosuch = 5",
            8,
            'rule 2 (pr-*): unknown key "nosuch";'
            " known: tags, keep, keep-last, keep-within, unused-for",
        ),
        (
            "max-used-space = 5",
            8,
            "rule 2 (pr-*): max-used-space is for the whole policy:"
            " it belongs above the first [[rule]]",
        ),
        (
            "keep-within = 7",
            8,
            'rule 2 (pr-*): keep-within: has to be an age in quotes, such as "30d";'
            " this is an integer",
        ),
        (
            "[[rule]]\nkeep = true",
            8,
            'rule 3 has no tags: add a line such as tags = "pr-*"',
        ),
        (
            "[[rule]]\ntags = 5\nkeep = true",
            9,
            'rule 3: tags: has to be a pattern such as "pr-*", or a list of patterns;'
            " this is an integer",
        ),
        (
            'keep-last = 2\n[[rule]]\ntags = "pr-1"\nkeep-last = 1',
            10,
            "rule 3 (pr-1) has no tag left after rule 2 (pr-*)",
        ),
        (
            'unused-for = "1d"\n\nkeep-within = "2d"',
            8,
            "rule 2 (pr-*): unused-for 1d is shorter than keep-within 2d,"
            " which keeps what would go by it",
        ),
        ("keep-last = 0", 8, "rule 2 (pr-*): keep-last 0 keeps nothing; name 1 or more"),
        (
            "keep = false",
            7,
            "rule 2 (pr-*) says nothing of its tags;"
            " it can have keep, keep-last, keep-within, unused-for",
        ),
    ],
)
def test_a_wrong_key_of_a_rule(line: str, number: int, problem: str) -> None:
    found = problems(f"{RULE}{line}\n")
    assert f"line {number}: {problem}" in found
    # Where the line is not of rule 2, that one is left without a word.
    assert len(found) == 1 + line.startswith("[[")


def test_a_rule_in_one_line_has_the_line_of_its_statement() -> None:
    text = '\nrule = [{tags = "a", keep = 1},\n  {tags = "b", keep-last = 0}]\n'
    assert problems(text) == [
        "line 2: rule 1 (a): keep: has to be true or false, without quotes; this is an integer",
        "line 2: rule 2 (b): keep-last 0 keeps nothing; name 1 or more",
    ]


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_lines() -> None:
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
        "line 1: max-used-space: '5 gigs'",
        "line 4: rule 1 (a): keep-last 0 keeps nothing; name 1 or more",
        "line 6: rule 1 (a): unused-for: 'soon'",
        "line 8: rule 2 (b): keep-last 0 keeps nothing; name 1 or more",
        "line 11: rule 3 (a) has no tag left after rule 1 (a)",
    ]


def test_the_message_names_the_file() -> None:
    with pytest.raises(UsageError) as caught:
        read_policy("keep-last = 0\ntrim = true", "ci/policy.toml")
    assert str(caught.value).splitlines() == [
        "ci/policy.toml: line 1: keep-last 0 keeps nothing; name 1 or more",
        "  line 2: trim needs a limit to trim to: max-used-space or min-free-space",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("max-used-space = 5GB", "line 1: "),
        ("\n\nkeep-last = 1 2\n", "line 3: "),
        ("keep-last = 1\nkeep-last = 2\n", "line 2: "),
        ("[[rule]\n", "line 1: "),
        ('keep-tag = ["a",\n\n', "line 1: "),
        ('keep-tag = "a\n', "line 1: "),
        ("\nkeep-tag = " + "[" * 60_000, "line 2: too many brackets, each within another"),
        ("keep-tag = [" + "\n[" * 5000, "line 5001: too many brackets, each within another"),
        ("\nrule = " + "{a=" * 20_000, "line 2: too many brackets, each within another"),
    ],
)
def test_what_is_not_toml(text: str, line: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(line)
    assert problem.endswith(" (this is not TOML)")
    assert "(at " not in problem


LONG = "a." * 100 + "a"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keep-last = 1\n" + "a." * 32_000 + "a = 1", "line 2: a key has more than 100 parts"),
        (f"\n\n[{LONG}]\n" + "a = 1\n" * 9000, "line 3: a key has more than 100 parts"),
        (f"[[rule]]\n[[ {LONG} ]]", "line 2: a key has more than 100 parts"),
        (f"rule = [{{tags = 1, {LONG} = 2}}]", "line 1: a key has more than 100 parts"),
        ("\n" + "'.' \t. " * 100 + "a = 1", "line 2: a key has more than 100 parts"),
        ('"\\"=" .' * 100 + "a = 1", "line 1: a key has more than 100 parts"),
        ("\nkeep-last = " + "9" * 5000, "line 2: a number is too long"),
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
        ("a." * 99 + "a = 1", 'line 1: unknown key "a";'),
        (f"# {LONG}\nx = '{LONG}'", 'line 2: unknown key "x";'),
        ('x = ["' + '", "'.join(["1.2.3.4"] * 500) + '"]', 'line 1: unknown key "x";'),
        ("keep-last = " + "9" * 600, "line 1: keep-last: is more tags than any cache has"),
    ],
)
def test_what_is_only_long_is_read(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)
