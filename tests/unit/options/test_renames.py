"""options/renames.py: [GLOB=]TEMPLATE, and what comes of it."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.renames import Rename, read_rename, rename


@pytest.mark.parametrize(
    ("text", "glob", "template"),
    [
        ("{dir}-{tag}", "*", "{dir}-{tag}"),
        ("release", "*", "release"),
        ("pr-*=old/{tag}", "pr-*", "old/{tag}"),
        ("a=b={tag}", "a=b", "{tag}"),
        ("[ab]?=x", "[ab]?", "x"),
    ],
)
def test_what_a_text_spells(text: str, glob: str, template: str) -> None:
    assert read_rename(text) == Rename(glob, template)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has an empty name or glob"),
        ("pr-*=", "has an empty name or glob"),
        ("={tag}", "has an empty name or glob"),
        ("{name}", "{name} is neither {tag} nor {dir}"),
        ("{}", "{} is neither {tag} nor {dir}"),
        ("{tag!r}", "{tag!r} is neither {tag} nor {dir}"),
        ("{tag.__class__}", "{tag.__class__} is neither {tag} nor {dir}"),
        ("{tag", "an unmatched brace"),
        ("tag}", "an unmatched brace"),
        ("{{tag}}", "an unmatched brace"),
    ],
)
def test_what_is_none_is_told_with_the_forms_that_are(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_rename(text)
    assert why in caught.value.problem
    assert "'{dir}-{tag}'" in caught.value.hints[0]


def test_the_first_that_matches_counts_and_others_keep_their_names() -> None:
    renames = [read_rename("pr-*={dir}-{tag}"), read_rename("pr-1=never"), read_rename("m*=main")]
    assert [rename(renames, tag, "a") for tag in ("pr-1", "master", "PR-1", "dev", "")] == [
        "a-pr-1",
        "main",
        "PR-1",
        "dev",
        "",
    ]


def test_braces_in_names_are_only_text() -> None:
    assert rename([read_rename("{dir}-{tag}")], "{dir}", "{tag}") == "{tag}-{dir}"
    assert rename([read_rename("*=x/{tag}")], "a/b", "c") == "x/a/b"
