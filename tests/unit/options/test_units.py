"""options/units.py: ages and sizes, read and written."""

import pytest

from kitcache.options.units import (
    format_age,
    format_bytes,
    format_distinct,
    parse_age,
    parse_bytes,
    spell_age,
)

S = 10**9
M, H, D, W = 60 * S, 3600 * S, 86_400 * S, 7 * 86_400 * S


@pytest.mark.parametrize(
    ("text", "age_ns"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0.5s", S // 2),
        ("90s", 90 * S),
        ("15m", 15 * M),
        ("36h", 36 * H),
        ("7d", 7 * D),
        ("2w", 2 * W),
        ("1h30m", H + 30 * M),
        ("1.5h", H + 30 * M),
        ("1w2d3h4m5s", W + 2 * D + 3 * H + 4 * M + 5 * S),
        (" 90s ", 90 * S),
        ("365000d", 365_000 * D),
    ],
)
def test_ages(text: str, age_ns: int) -> None:
    assert parse_age(text) == age_ns


@pytest.mark.parametrize("number", ["24", " 24 ", "0.5", "9" * 400])
def test_a_number_without_a_unit_shows_its_two_likely_meanings(number: str) -> None:
    word = number.strip()[:40]
    with pytest.raises(ValueError, match="has no unit: write") as caught:
        parse_age(number)
    told = f"{word!r} has no unit: write {word}h (hours) or {word}s (seconds)"
    assert str(caught.value) == told


NO_AGES = ["", " ", "h", "s", "-1", "-1s", "+1", "1 h", "1y", "1H", "1h30", "1e3", ".5h", "5.h"]
NO_AGES += ["1hm", "1ms", "1h 30m", "nan", "inf", "0x10", "1_000", "1,5h", "90s\nx"]
NO_AGES += ["\u0663s", "\u0663"]


@pytest.mark.parametrize("text", NO_AGES)
def test_no_age(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an age; known forms: 90s, 15m"):
        parse_age(text)


@pytest.mark.parametrize("text", ["365001d", "99999999999999s", "9" * 400 + "w"])
def test_an_age_has_an_end(text: str) -> None:
    with pytest.raises(ValueError, match="is more than a thousand years"):
        parse_age(text)


@pytest.mark.parametrize(
    ("age_ns", "words"),
    [
        (0, "0 s"),
        (S - 1, "0 s"),
        (59 * S, "59 s"),
        (M, "1 min"),
        (H - 1, "59 min"),
        (H, "1 h"),
        (D - 1, "23 h"),
        (D, "1 d"),
        (400 * D, "400 d"),
        (-90 * S, "1 min ahead"),
    ],
)
def test_ages_in_words(age_ns: int, words: str) -> None:
    assert format_age(age_ns) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1234, "1.2 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (343_400_000, "343 MB"),
        (5_100_000_000, "5.1 GB"),
        (2 * 10**12, "2.0 TB"),
        (5 * 10**18, "5,000 PB"),
    ],
)
def test_sizes_in_words(count: int, words: str) -> None:
    assert format_bytes(count) == words


@pytest.mark.parametrize(
    ("age_ns", "words"),
    [
        (0, "0s"),
        (S - 1, "0s"),
        (59 * S, "59s"),
        (90 * S, "1m30s"),
        (90 * M, "1h30m"),
        (36 * H, "1d12h"),
        (2 * W, "14d"),
        (D + S, "1d1s"),
    ],
)
def test_ages_as_they_are_read(age_ns: int, words: str) -> None:
    assert spell_age(age_ns) == words


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("0 B", 0),
        ("5000000000", 5 * 10**9),
        ("007B", 7),
        ("5GB", 5 * 10**9),
        ("5 GB", 5 * 10**9),
        (" 5gb ", 5 * 10**9),
        ("5g", 5 * 10**9),
        ("5GiB", 5 * 2**30),
        ("5gib", 5 * 2**30),
        ("5Gi", 5 * 2**30),
        ("512MB", 512 * 10**6),
        ("1.5TB", 1_500_000_000_000),
        ("1.5TiB", 3 * 2**39),
        ("900kB", 900_000),
        ("900KiB", 900 * 1024),
        ("1P", 10**15),
        ("0.0005kB", 0),
        ("1.9999999kB", 1999),
        ("5,000 PB", 5 * 10**18),
        ("1,234,567", 1_234_567),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


NO_SIZES = ["", " ", "GB", "5 gigs", "five GB", "-5GB", "+5GB", "-1", "nan", "inf", "infGB", "1e9"]
NO_SIZES += ["5  GB", "5GBB", "5iB", "5EB", "1,5GB", "1,0000", "1,00", "5.GB", ".5GB", "5GB\nx"]
NO_SIZES += ["0x10", "1_000", "\u0665GB", "5\u212aB", "1.5", "0.5B", "10%", "1.0000000001GB"]


@pytest.mark.parametrize("text", NO_SIZES)
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size; known forms: 5GB .10\^9 .*, 5GiB .2\^30"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["5", "999999", "007"])
def test_a_small_number_needs_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no unit; known forms: .*; for bytes write 5B"):
        parse_bytes(text)


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "9224 PB", "8192PiB", "9" * 30, "9" * 9000, "9" * 9000 + "GB"]
)
def test_a_size_has_an_end(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.{1,40}' is more than any disk has$"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (1000, 2000, ("1.0 kB", "2.0 kB")),
        (139_900, 140_094, ("139,900 B", "140,094 B")),
        (140_000, 140_000, ("140 kB", "140 kB")),
        (999, 1000, ("999 B", "1.0 kB")),
    ],
)
def test_sizes_are_told_apart(one: int, other: int, said: tuple[str, str]) -> None:
    assert format_distinct(one, other) == said
