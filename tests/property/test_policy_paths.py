"""Laws of policy files: a wrong key is named by its path; any text is a policy or refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitcache.errors import UsageError
from kitcache.options.policyfile import read_policy

VALUES = (
    "1",
    "-1.5e3",
    "true",
    "2020-01-01T00:00:00Z",
    '"a"',
    "'a = \"b'",
    '"""\nwrong = 1\n[[rule]]\n"""',
    "'''\nwrong = 1\n[[rule]]\n'''",
    '"""x""""',
    "'''x'''''",
    '"\\"\\\\"  # wrong = 1',
    '["a", # wrong = 1\n  ["]"],\n]',
    "{ wrong = 1, a = [ { b = '}' } ] }",
    "[\n\n  { wrong = 1 }\n]",
)
GAPS = ("", "\n", "# wrong = 1\n", '  # "\n\n', "\t")
HEADERS = ("[[rule]]", "[[ rule ]]  # [", "[['rule']]", '[more{0}."a.b"]', "[rule.more{0}]")
RULES = HEADERS[:3]
WRONG = ("wrong", '"wrong"', "'wrong'", '"wr\\u006Fng"', "wrong . sub")


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, str]:
    """A TOML document in which one key of a rule, or above them, is `wrong`; and its key path."""
    tables = draw(st.integers(0, 3))
    place = draw(st.integers(0, tables))
    lines, rules, path = [], 0, "wrong"
    for number in range(tables + 1):
        if number:
            header = "[[rule]]" if number in (1, place) else draw(st.sampled_from(HEADERS))
            rules += header in RULES
            lines.append(header.format(number) + "\n")
        keys = [f"k{key} = {value}\n" for key, value in enumerate(draw(values))]
        if number == place:
            path = f"rule[{rules}].wrong" if number else "wrong"
            at = draw(st.integers(0, len(keys)))
            keys.insert(at, f"{draw(st.sampled_from(WRONG))} = {draw(st.sampled_from(VALUES))}\n")
        for key in keys:
            lines += [draw(st.sampled_from(GAPS)), key]
    return "".join(lines), path


values = st.lists(st.sampled_from(VALUES), max_size=3)


@given(documents())
def test_a_wrong_key_is_named_by_its_path(drawn: tuple[str, str]) -> None:
    text, path = drawn
    with pytest.raises(UsageError) as caught:
        read_policy(text, "policy.toml")
    messages = [caught.value.problem, *caught.value.details]
    assert [message for message in messages if message.startswith(f"{path}: unknown key; known")]


@given(st.text(max_size=40) | st.text("abk-=\"'[]{}#.\n\\ru1%", max_size=40))
def test_any_text_is_a_policy_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        read_policy(text, "policy.toml")
