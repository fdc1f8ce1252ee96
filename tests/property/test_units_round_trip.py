"""Laws of ages and sizes: every form is read to the nanosecond, and nothing printed misleads."""

from contextlib import nullcontext, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitcache.options.units import format_age, format_bytes, parse_age, parse_bytes, spell_age

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
PRINTED = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
counts = st.integers(0, 1000)


@given(counts)
def test_a_number_without_a_unit_is_refused_with_ages_that_are_read(number: int) -> None:
    with pytest.raises(ValueError, match="has no unit: write") if number else nullcontext():
        assert parse_age(str(number)) == 0
    assert parse_age(f"{number}h") == number * 3600 * 10**9


@given(st.lists(st.tuples(counts, st.sampled_from(sorted(SECONDS))), min_size=1, max_size=5))
def test_the_parts_of_an_age_add_up(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert parse_age(text) == sum(count * SECONDS[unit] * 10**9 for count, unit in parts)


@given(st.text(max_size=12))
def test_any_text_is_an_age_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_age(text) >= 0


@pytest.mark.parametrize("text", ["", "-1", "1x", "1h30", "h", "1e3", "٣h", "1,5h", "inf", "nan"])
def test_these_are_no_ages(text: str) -> None:
    with pytest.raises(ValueError, match="known forms"):
        parse_age(text)


@given(st.integers(0, 10**18))
def test_a_printed_size_is_within_a_twentieth_and_short(count: int) -> None:
    number, unit = format_bytes(count).split(" ")
    read = float(number.replace(",", "")) * PRINTED[unit]
    assert abs(read - count) <= count / 20
    assert len(format_bytes(count)) <= 8


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_larger_size_never_prints_smaller(one: int, two: int) -> None:
    def shown(count: int) -> float:
        number, unit = format_bytes(count).split(" ")
        return float(number.replace(",", "")) * PRINTED[unit]

    small, large = sorted((one, two))
    assert shown(small) <= shown(large)


@given(st.integers(0, 10**18))
def test_a_printed_age_is_never_more_than_the_age(age_ns: int) -> None:
    number, unit = format_age(age_ns).split(" ")
    seconds = int(number) * {"s": 1, "min": 60, "h": 3600, "d": 86_400}[unit]
    assert seconds * 10**9 <= age_ns < 2 * seconds * 10**9 + 10**9


@given(st.integers(0, 3 * 10**9))
def test_a_spelled_age_is_read_as_that_age(seconds: int) -> None:
    assert parse_age(spell_age(seconds * 10**9)) == seconds * 10**9


@given(st.integers(0, 2**63 - 1))
def test_a_printed_size_is_read_as_what_it_shows(count: int) -> None:
    shown = format_bytes(count)
    read = parse_bytes(shown)
    assert format_bytes(read) == shown
    assert abs(read - count) <= count / 20


@given(st.integers(0, 2**63 - 1))
def test_bytes_are_read_as_they_are(count: int) -> None:
    assert parse_bytes(f"{count}B") == parse_bytes(f"{count:,} B") == count


@given(
    st.integers(0, 1000), st.integers(0, 999), st.sampled_from(sorted(UNITS)[1:]), st.integers(0, 3)
)
def test_a_size_is_its_number_times_its_unit(whole: int, part: int, unit: str, form: int) -> None:
    text = f"{whole}.{part:03}{' ' * (form % 2)}{unit}{'B' * (form // 2)}"
    assert parse_bytes(text) == (whole * 1000 + part) * UNITS[unit] // 1000
    assert parse_bytes(text.upper()) == parse_bytes(text.lower()) == parse_bytes(text)


@given(st.text(max_size=12) | st.text("0123456789., kMGTPiB", max_size=12))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert 0 <= parse_bytes(text) < 2**63
