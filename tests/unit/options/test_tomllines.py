"""options/tomllines.py: on which line a key of a TOML document stands."""

import tomllib

import pytest

from kitcache.options.tomllines import find_lines, line_of

DOCUMENT = '''# a comment with = and [[rule]]
max = "5GB"   # another
"min free" = '10%'
'quo"ted' = 1
many = [
  "main",   # ] = [
  "a = b",
]
inline = { a = 1, b = [2, 3] }
text = """
max = 1
[[rule]]
"""
ends = """x""""
raw = \'\'\'
key = \\\'\'\'
escaped = "a \\" = b"
dotted.one.two = 1.5
dotted."one".three = 2020-01-01 00:00:00
after = 1

[[rule]]
tags = "a"
[ rule . sub ]
deep = 1

[[ "rule" ]] # second
  tags = ["b"]
[[rule.list]]
x = 1
[[rule.list]]
x = 2
[other]
tags = "c"'''
LINES = {
    ("max",): 2,
    ("min free",): 3,
    ('quo"ted',): 4,
    ("many",): 5,
    ("inline",): 9,
    ("text",): 10,
    ("ends",): 14,
    ("raw",): 15,
    ("escaped",): 17,
    ("dotted",): 18,
    ("dotted", "one"): 18,
    ("dotted", "one", "two"): 18,
    ("dotted", "one", "three"): 19,
    ("after",): 20,
    ("rule",): 22,
    ("rule", 0): 22,
    ("rule", 0, "tags"): 23,
    ("rule", 0, "sub"): 24,
    ("rule", 0, "sub", "deep"): 25,
    ("rule", 1): 27,
    ("rule", 1, "tags"): 28,
    ("rule", 1, "list"): 29,
    ("rule", 1, "list", 0): 29,
    ("rule", 1, "list", 0, "x"): 30,
    ("rule", 1, "list", 1): 31,
    ("rule", 1, "list", 1, "x"): 32,
    ("other",): 33,
    ("other", "tags"): 34,
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_key_has_its_line(newline: str) -> None:
    text = DOCUMENT.replace("\n", newline)
    tomllib.loads(text)
    assert find_lines(text) == LINES


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing", "   # nothing\n"])
def test_nothing_has_no_lines(text: str) -> None:
    assert find_lines(text) == {}


def test_what_is_not_known_has_the_line_of_what_is_around_it() -> None:
    lines = find_lines(DOCUMENT)
    assert line_of(("rule", 1, "tags"), lines) == 28
    assert line_of(("rule", 1, "nosuch"), lines) == 27
    assert line_of(("inline", "b"), lines) == 9
    assert line_of(("nosuch", 1, "a"), lines) is None
