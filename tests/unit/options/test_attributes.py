"""options/attributes.py: BuildKit's comma separated k=v language, in Go's words."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.attributes import (
    is_false,
    is_true,
    join_attributes,
    parse_attributes,
    parse_bool,
    quote_go,
    split_fields,
    suggest,
    warn_unknown,
)

# What Go's encoding/csv reads and says, seen through `docker buildx build --cache-to`.
READ = {
    "a": ["a"],
    " a ": [" a "],
    "a,b": ["a", "b"],
    ",": ["", ""],
    "a,": ["a", ""],
    "a,,b": ["a", "", "b"],
    '"a,b"': ["a,b"],
    '"a""b"': ['a"b'],
    '""': [""],
    '"",a': ["", "a"],
    '""""': ['"'],
    '"a",b,"c,d"': ["a", "b", "c,d"],
    "é,ü": ["é", "ü"],
    "a\n": ["a"],
    "a\r\n": ["a"],
    '"a\nb"': ["a\nb"],
    "a\\,b": ["a\\", "b"],
    "'a,b'": ["'a", "b'"],
}
BARE = 'a " inside of a field that does not begin with one'
MISSING = 'the " that ends the field is missing'
FOLLOWED = 'text follows the " that ends the field'
REFUSED = {
    'a"b': (2, BARE),
    'type=registry,ref=a"b': (20, BARE),
    'é"x': (3, BARE),
    ' "a"': (2, BARE),
    'a,"b': (5, MISSING),
    '"a': (3, MISSING),
    '"': (2, MISSING),
    '"a"b': (3, FOLLOWED),
    '"a" ,b': (3, FOLLOWED),
    'a"b,"c': (2, BARE),
}


@pytest.mark.parametrize("text", READ)
def test_fields_are_read_as_go_reads_them(text: str) -> None:
    assert list(split_fields(text)) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_a_quote_in_the_wrong_place_is_named_by_its_byte(text: str) -> None:
    column, problem = REFUSED[text]
    with pytest.raises(UsageError) as caught:
        split_fields(text)
    assert caught.value.problem == f"cannot be read at column {column}: {problem}"


@pytest.mark.parametrize("text", ["", "\n", "\r\n"])
def test_nothing_is_an_error_with_a_reason(text: str) -> None:
    with pytest.raises(UsageError, match=r"^the value is empty"):
        parse_attributes(text)


def test_keys_are_lower_case_and_values_are_left_alone() -> None:
    assert parse_attributes("Type=LOCAL,DEST=A=B") == (("type", "LOCAL"), ("dest", "A=B"))


def test_a_key_may_come_twice() -> None:
    assert parse_attributes("a=1,a=2") == (("a", "1"), ("a", "2"))


def test_a_field_without_a_value_is_named() -> None:
    with pytest.raises(UsageError, match=r"^invalid value reset$"):
        parse_attributes("type=local,reset")


@pytest.mark.parametrize("key", ["secret_access_key", "session_token", "token", "ghtoken"])
def test_the_second_half_of_a_secret_is_not_repeated(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_attributes(f"type=s3,{key}=abc,hidden")
    assert caught.value.problem == "invalid value …"
    assert "hidden" not in str(caught.value)


def test_a_comma_or_a_quote_is_quoted_when_joined() -> None:
    pairs = (("dest", "a,b"), ("tag", 'say "hi"'), ("mode", "max"))
    assert join_attributes(pairs) == '"dest=a,b","tag=say ""hi""",mode=max'


def test_truth_is_gos() -> None:
    for text in ("1", "t", "T", "TRUE", "true", "True"):
        assert parse_bool(text, "x")
        assert is_true(text)
    for text in ("0", "f", "F", "FALSE", "false", "False"):
        assert not parse_bool(text, "x")
        assert is_false(text)
    for text in ("", "yes", "on", "tRUE", " true", "2"):
        assert not is_true(text)
        assert not is_false(text)
        with pytest.raises(UsageError) as caught:
            parse_bool(text, "failed to parse reset attribute")
        assert caught.value.problem == (
            f'failed to parse reset attribute: "{text}" is neither true nor false'
        )


def test_quoting_is_gos() -> None:
    assert quote_go('a"b\\c') == '"a\\"b\\\\c"'


def test_a_slip_is_understood_and_a_strange_word_is_not() -> None:
    known = ("dest", "reset", "mode", "min", "max", "compression-level")
    slips = {"rest": "reset", "dst": "dest", "mx": "max", "compresion_level": "compression-level"}
    for slip, meant in slips.items():
        assert suggest(slip, known) == meant
    assert suggest("quux", known) is None
    assert suggest("", known) is None


def test_an_unknown_key_warns_with_a_guess_or_with_what_is_known() -> None:
    pairs = (("rest", "1"), ("quux", "2"), ("dest", "3"))
    guess, known = warn_unknown(pairs, ("dest", "reset"), "here")
    assert guess == 'here: unknown attribute "rest"; did you mean reset?'
    assert known == 'here: unknown attribute "quux"; known: dest, reset'


def test_a_key_that_comes_twice_warns() -> None:
    pairs = (("tag", "1"), ("tag", "2"))
    (warning,) = warn_unknown(pairs, ("tag",), "here")
    assert warning == "here: attribute tag is given twice, the last one counts"
