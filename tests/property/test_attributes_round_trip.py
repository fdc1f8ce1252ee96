"""Laws of BuildKit's k=v language: what is joined is read back, and reading never surprises."""

import csv
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from kitcache.errors import UsageError
from kitcache.options.attributes import Pairs, join_attributes, parse_attributes, split_fields
from kitcache.options.caches import CacheExport, parse_cache_export

KEYS = st.text(max_size=12).map(str.lower).filter(lambda key: "=" not in key)
STABLE_KEYS = KEYS.filter(lambda key: key.lower() == key)
VALUES = st.one_of(st.text(max_size=20), st.text(alphabet='",=\n\r a', max_size=8))
PATHS = VALUES.filter(lambda text: text and "\0" not in text)
PAIRS = st.lists(st.tuples(STABLE_KEYS, VALUES), min_size=1, max_size=5).map(tuple)
LINES = st.text(alphabet='",=ab é\\', min_size=1, max_size=16)


@given(PAIRS)
@example((("dest", "a,b"), ("tag", '"'), ("", ""), ("x", "\n")))
def test_what_is_joined_is_read_back(pairs: Pairs) -> None:
    assert parse_attributes(join_attributes(pairs)) == pairs


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_quoting_a_field_that_needs_none_changes_nothing(values: list[str]) -> None:
    quoted = ",".join('"' + value.replace('"', '""') + '"' for value in values)
    assert list(split_fields(quoted)) == values


@given(LINES)
def test_what_is_read_is_what_a_strict_csv_reader_reads(line: str) -> None:
    """Python's reader takes more than Go's; where ours takes it, both mean the same."""
    with suppress(UsageError):
        fields = list(split_fields(line))
        assert fields == next(csv.reader([line], strict=True))


@given(LINES)
def test_a_line_without_a_quote_is_always_read(line: str) -> None:
    plain = line.replace('"', "") or "x"
    assert list(split_fields(plain)) == plain.split(",")


@given(st.text(max_size=30))
def test_any_text_is_read_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert join_attributes(parse_attributes(text))


@given(PATHS, VALUES.filter(bool), st.booleans(), st.sampled_from(["min", "max"]))
def test_an_export_is_what_it_was_written_as(dest: str, tag: str, reset: bool, mode: str) -> None:
    text = join_attributes(
        (("type", "local"), ("dest", dest), ("tag", tag), ("reset", str(reset)), ("mode", mode))
    )
    export = parse_cache_export(text)
    expected = CacheExport("local", (("mode", mode),), dest, tag, reset)
    assert export._replace(warnings=()) == expected
