"""Every example is what moby/patternmatcher and fsutil's filter answer."""

import pytest

from kitcache.buildkit.session.globs import BadPattern
from kitcache.buildkit.session.patterns import ALL, TOP, Matcher, Selection, Verdict

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
    matcher = Matcher(patterns)
    is_taken, state = False, ()
    names = path.split("/")
    for n in range(1, len(names) + 1):
        is_taken, state = matcher.match("/".join(names[:n]), state)
    return is_taken


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


def verdict(selection: Selection, path: str) -> Verdict:
    found = TOP
    names = path.split("/")
    for n in range(1, len(names) + 1):
        found = selection.judge("/".join(names[:n]), found)
    return found


def test_without_patterns_all_is_sent() -> None:
    assert Selection().judge("a", TOP) == ALL


def test_no_include_is_not_the_same_as_none_that_counts() -> None:
    assert not verdict(Selection(("  ",)), "a").is_sent


@pytest.mark.parametrize(
    ("excludes", "directory", "is_entered"),
    [
        (("a",), "a", False),
        (("a", "!a/b"), "a", True),
        (("a", "!a/b/c"), "a/b", True),
        (("a", "!a/b"), "a/x", False),
        (("a", "!ab"), "a", False),
        (("*", "!a/b/**"), "a", True),
        (("*", "!a/b/*"), "b", False),
        (("*", "!**/x"), "b", True),
        (("a", "!b*"), "a", True),
        (("b",), "a", True),
    ],
)
def test_an_excluded_directory_is_entered_where_an_exception_can_lie(
    excludes: tuple[str, ...], directory: str, is_entered: bool
) -> None:
    assert verdict(Selection(None, excludes), directory).is_entered is is_entered


@pytest.mark.parametrize(
    ("includes", "directory", "is_entered"),
    [
        (("a",), "a", True),
        (("a",), "b", False),
        (("a/b",), "a", True),
        (("a/b",), "ab", False),
        (("*.c",), "a", True),
        (("a/*",), "a", True),
        (("a/*", "b"), "c", False),
    ],
)
def test_only_directories_where_something_included_can_lie_are_entered(
    includes: tuple[str, ...], directory: str, is_entered: bool
) -> None:
    found = verdict(Selection(includes), directory)
    assert found.is_entered is is_entered


def test_an_error_names_the_pattern() -> None:
    with pytest.raises(BadPattern, match=r'pattern "\[\\x1b" cannot be used: syntax error'):
        Matcher(("[\x1b",))
