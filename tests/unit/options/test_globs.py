import pytest

from kitcache.options.globs import compile_glob, escape, has_wildcard, unescape


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*", "abc"),
        ("a*c", "abbc"),
        ("[b-a]x*", "no"),
        ("[^b-a]", "z"),
        ("?", "\n"),
        ("[a-c\\]]", "]"),
        ("\\a", "a"),
    ],
)
def test_names_are_matched_as_go_matches_them(pattern: str, name: str) -> None:
    assert compile_glob(pattern)(name) is (name != "no")


def test_the_whole_name_counts() -> None:
    assert not compile_glob("a")("ab")
    assert not compile_glob("a")("a\n")


@pytest.mark.parametrize("name", ["*", "[a]", "a\\b", "?", "plain", "\\", "é]"])
def test_an_escaped_name_matches_itself_alone(name: str) -> None:
    pattern = escape(name)
    assert compile_glob(pattern)(name)
    assert not has_wildcard(pattern)
    assert unescape(pattern) == name


@pytest.mark.parametrize(
    ("text", "is_wild"),
    [("a", False), ("*", True), ("\\*", False), ("\\\\*", True), ("a\\[b", False), ("]", False)],
)
def test_an_escaped_wildcard_is_none(text: str, is_wild: bool) -> None:
    assert has_wildcard(text) is is_wild
