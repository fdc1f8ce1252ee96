"""Every example is what fsutil's filter answers."""

import pytest

from kitcache.buildkit.session.patterns import ALL, TOP, PathMatch, Selection


def verdict(selection: Selection, path: str) -> PathMatch:
    found = TOP
    names = path.split("/")
    for n in range(1, len(names) + 1):
        found = selection.match("/".join(names[:n]), found)
    return found


def test_without_patterns_all_is_sent() -> None:
    assert Selection().match("a", TOP) == ALL


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
    assert verdict(Selection(None, excludes), directory).is_descended is is_entered


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
    assert found.is_descended is is_entered
