"""oci/document.py: JSON as Go reads it, with nothing forgotten."""

import json

import pytest

from kitcache.oci.document import (
    DocumentError,
    JsonObject,
    count_values,
    describe,
    drop_field,
    expect_list,
    expect_object,
    read_document,
    read_plain,
)

KELVIN, LONG_S = "\u212a", "\u017f"


def read(text: str) -> JsonObject:
    document = read_document(text.encode())
    assert isinstance(document, JsonObject)
    return document


@pytest.mark.parametrize(
    "spelling", ["layers", "LAYERS", "Layers", "layer" + LONG_S, "LAYER" + LONG_S]
)
def test_a_field_is_found_in_any_case(spelling: str) -> None:
    assert read(f'{{"{spelling}": 7}}').all_values("layers") == [7]


def test_the_kelvin_sign_is_a_k() -> None:
    assert read(f'{{"to{KELVIN}en": 7}}').all_values("token") == [7]


def test_a_name_spelled_by_escapes_is_the_same_name() -> None:
    assert read(r'{"\u006cayer\u017f": 7}').all_values("layers") == [7]


def test_every_duplicate_is_remembered_in_order() -> None:
    document = read('{"size": 1, "Size": 2, "size": 3}')
    assert document.all_values("size") == [1, 2, 3]
    with pytest.raises(DocumentError, match="occurs 3 times") as caught:
        document.get_only("size")
    assert caught.value.kind == "ambiguous"


def test_null_beside_a_value_is_ambiguous_too() -> None:
    with pytest.raises(DocumentError, match="occurs 2 times"):
        read('{"size": null, "size": 3}').get_only("size")


def test_absent_and_null_are_none() -> None:
    assert read("{}").get_only("size") is None
    assert read('{"size": null}').get_only("size") is None


def test_a_map_has_exact_keys_and_the_last_one_counts() -> None:
    annotations = read('{"name": "a", "NAME": "b", "name": "c"}')
    assert annotations.get_exact("name") == "c"
    assert annotations.get_exact("NAME") == "b"
    assert annotations.get_exact("Name") is None
    assert annotations.get_exact("other") is None


def test_exact_spelling_can_be_demanded() -> None:
    read('{"size": 1, "else": 2, "Else": 3}').check_spelling(("size", "digest"))
    with pytest.raises(DocumentError, match="only some readers read 'Size' as 'size'"):
        read('{"Size": 1}').check_spelling(("size",))
    with pytest.raises(DocumentError, match="occurs 2 times"):
        read('{"size": 1, "size": 1}').check_spelling(("size",))


def test_nested_objects_are_members_too() -> None:
    assert read('{"a": [{"B": {"c": 1}}]}').get_only("a")[0].get_only("b").all_values("C") == [1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b'{"a": 1} x',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "line\nbreak"}',
        b'{"a": 01}',
    ],
)
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(DocumentError, match="not JSON") as caught:
        read_document(data)
    assert caught.value.kind == "not-json"


def test_a_number_that_python_finds_too_long_hides_nothing() -> None:
    data = b'{"a": ' + b"9" * 5000 + b', "b": 7}'
    assert read_document(data).get_only("b") == 7
    with pytest.raises(DocumentError, match=r"the number 9{40}… cannot be written back"):
        read_plain(data)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_without_end_is_no_crash(opening: str) -> None:
    with pytest.raises(DocumentError, match="nested too deeply") as caught:
        read_document(opening.encode() * 200_000)
    assert caught.value.kind == "too-nested"


def test_bytes_that_are_no_utf_8_are_replaced_as_go_does_or_refused() -> None:
    data = b'{"tag": "\xff"}'
    assert read_document(data).get_only("tag") == "\ufffd"
    with pytest.raises(DocumentError, match="not JSON") as caught:
        read_document(data, strict_utf8=True)
    assert caught.value.kind == "not-json"


def test_what_has_to_be_an_object() -> None:
    assert expect_object(read("{}"), "it") == {}
    with pytest.raises(DocumentError, match="it is a list, not an object") as caught:
        expect_object([], "it")
    assert caught.value.kind == "malformed"


def test_what_has_to_be_a_list() -> None:
    assert expect_list([1], "it") == [1]
    assert expect_list(None, "it") == []
    with pytest.raises(DocumentError, match="it is an object, not a list") as caught:
        expect_list(read("{}"), "it")
    assert caught.value.kind == "malformed"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("null", "null"),
        ("{}", "an object"),
        ("[]", "a list"),
        ('"x"', "text"),
        ("true", "a boolean"),
        ("1", "a number"),
        ("1.5", "a number"),
    ],
)
def test_kinds_of_values_in_words(text: str, words: str) -> None:
    assert describe(read_document(text.encode())) == words


def test_values_are_counted_before_one_is_made() -> None:
    assert count_values(b'{"a":[0,{"b":1}],"c":2}') == 5


TWICE = b'{"a":1,"b":{"x":1,"X":2,"x":3},"a":[{"c":1,"c":2}]}'


def test_keys_that_are_given_twice_are_written_back() -> None:
    document = read_plain(TWICE)
    assert json.dumps(document, separators=(",", ":")).encode() == TWICE
    assert json.dumps({**document}, separators=(",", ":")).encode() == TWICE


def test_of_a_key_that_is_given_twice_the_last_value_counts() -> None:
    document = read_plain(TWICE)
    assert (document["a"][0]["c"], document["b"]["x"], document["b"]["X"]) == (2, 3, 2)


def test_a_field_is_dropped_however_often_it_is_given() -> None:
    assert drop_field(read_plain(b'{"data":1,"a":2,"DATA":3,"data":4}'), "data") == {"a": 2}
