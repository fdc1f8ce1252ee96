"""Every example is what moby/patternmatcher answers."""

import pytest

from kitcache.options.globs import BadPattern
from kitcache.options.ignore import Matcher, parse_ignore_file

TAKEN = (
    ("a", "a"),
    ("a", "a/b"),
    ("a/", "a"),
    ("./a", "a"),
    ("a//b", "a/b"),
    ("a/../b", "b"),
    ("**", "a/b"),
    ("**/", "a"),
    ("**/a", "a"),
    ("**/a", "x/y/a"),
    ("**/a", "x/a/y"),
    ("a/**", "a/b/c"),
    ("a**", "ab/c"),
    ("**/*.go", "x/y.go"),
    ("a/**/b", "a/b"),
    ("a/**/b", "a/x/y/b"),
    ("a**/b", "ax/y/b"),
    ("*", "a/b"),
    ("*/b", "a/b"),
    ("?", "é"),
    ("é*", "éa"),
    ("[ab]c", "bc"),
    ("[a-c]", "b"),
    ("[^a]", "b"),
    ("[^a-c]x", "dx"),
    ("[!a]", "!"),
    ("[a.]", "."),
    ("[[:digit:]]", "7"),
    ("[\\]]", "]"),
    ("\\*", "*"),
    ("a\\.b", "a.b"),
    ("a^b", "a^b"),
    ("$a(b)+{c}|d", "$a(b)+{c}|d"),
    ("a.b", "a.b"),
    ("a]", "a]"),
    (" a ", "a"),
    ("a\\d*", "a7"),
)
FREE = (
    ("a", "b"),
    ("a", "A"),
    ("a", "b/a"),
    ("/a", "a"),
    ("a/b", "a"),
    ("a/**", "a"),
    ("a.b", "axb"),
    ("*.go", "x/y.go"),
    ("?", "ab"),
    ("a?b", "a/b"),
    ("a*b", "a/b"),
    ("[^a]", "a"),
    ("\\*", "a"),
    ("a^*", "a^b"),
    ("**/a", "xa"),
    ("a\\d*", "ad"),
    ("[a-c]", "[a-c]"),
    (".", "a"),
    ("..", "a"),
    ("../a", "a"),
)


def takes(patterns: tuple[str, ...], path: str) -> bool:
    return Matcher(patterns).takes(path)


@pytest.mark.parametrize(("pattern", "path"), TAKEN)
def test_takes(pattern: str, path: str) -> None:
    assert takes((pattern,), path)


@pytest.mark.parametrize(("pattern", "path"), FREE)
def test_leaves(pattern: str, path: str) -> None:
    assert not takes((pattern,), path)


def test_brackets_with_a_star_are_read_as_upstream_reads_them() -> None:
    # Its regular expression becomes [[^/]*] there: some of [, ^ and /, then a bracket.
    assert takes(("[*]",), "]")
    assert takes(("[*]",), "[^]")
    assert not takes(("[*]",), "*")


def test_the_last_match_decides() -> None:
    assert not takes(("*", "!a"), "a")
    assert takes(("*", "!a", "a"), "a")
    assert takes(("!a", "*"), "a")


def test_what_takes_a_directory_back_takes_back_what_is_below() -> None:
    assert not takes(("a", "!a/b"), "a/b/c")
    assert takes(("a", "!a/b", "a/b/c"), "a/b/c")


def test_an_exception_that_was_not_needed_at_the_parent_is_asked_again_below() -> None:
    # At "a" only the first matches; the third would change nothing there and is not asked.
    assert not takes(("a", "!a/b", "?"), "a/b")


def test_blank_patterns_are_none() -> None:
    assert Matcher(("", "  ", "\t")).patterns == ()


@pytest.mark.parametrize("text", ["!", "!/", "[", "[a", "[]a]", "[a-]", "a\\", "[-a]", "[^]", "\\"])
def test_what_upstream_refuses_is_refused(text: str) -> None:
    with pytest.raises(BadPattern):
        Matcher((text,))


@pytest.mark.parametrize("text", ["[b-a]", "\\é", "\\y", "[[:nix:]]", "[a\\b]", "x\\1"])
def test_what_its_regular_expressions_refuse_is_refused(text: str) -> None:
    with pytest.raises(BadPattern):
        Matcher((text,))


def test_an_exception_is_cleaned_with_its_mark() -> None:
    assert takes(("!a/../b",), "b")
    assert takes(("b", "!./a"), "b/c")


def test_an_error_names_the_pattern() -> None:
    with pytest.raises(BadPattern, match=r'pattern "\[\\x1b" cannot be used: syntax error'):
        Matcher(("[\x1b",))


@pytest.mark.parametrize(
    ("line", "patterns"),
    [
        ("a/b", ("a/b",)),
        ("/a/b/", ("a/b",)),
        ("! /a", ("!a",)),
        ("  a  \r", ("a",)),
        ("#a", ()),
        (" #a", ("#a",)),
        ("", ()),
        ("!", ("!",)),
        ("/", ("/",)),
        ("./a/../b", ("b",)),
        ("\ufeffa", ("a",)),
    ],
)
def test_a_line_of_an_ignore_file_is_read_as_docker_reads_it(
    line: str, patterns: tuple[str, ...]
) -> None:
    assert parse_ignore_file(line) == patterns


def test_an_ignore_file_has_a_pattern_on_each_line() -> None:
    assert parse_ignore_file("a\n\n# no\n!b\n") == ("a", "!b")


# A backtracking matcher would try more ways than there are atoms: without an end, no assertion.
ENDLESS = (
    "*a" * 20 + "*b",
    "**/" + "*a" * 20 + "*b",
    "**/a" * 20 + "/b",
    "a**" * 20 + "b",
    "?*" * 20 + "b",
    "[*]" * 20 + "b",
    "*a" * 20 + "*b**",
)


@pytest.mark.parametrize("pattern", ENDLESS)
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    assert not takes((pattern,), "a" * 200)
    assert not takes((pattern,), "/".join("a" * 200))


def test_many_patterns_cost_no_more_than_their_length() -> None:
    patterns = tuple(f"**/*.{number}*x" for number in range(5000))
    matcher = Matcher(("*", *(f"!{pattern}" for pattern in patterns)))
    assert not matcher.takes("a/b.4999-x")
    assert matcher.takes("a/b.5000")


def test_what_is_remembered_is_forgotten_before_it_is_too_much() -> None:
    # Each text asks for another set of places: thousands of states, of which few are kept.
    matcher = Matcher(("*a" + "?" * 2000, "*b" + "?" * 2000))
    names = [f"{number:012b}".replace("0", "a").replace("1", "b") for number in range(3000)]
    assert not any(matcher.takes(name) for name in names)
    assert matcher.takes("xb" + "é" * 2000)
