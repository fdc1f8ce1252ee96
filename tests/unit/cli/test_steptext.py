"""cli/steptext.py: what a terminal would act on does not get through."""

import pytest

from kitcache.cli.steptext import amount_text, bytes_text, clean, clean_log, log_time, wants_colour


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("a\x1b[31mb\x1b[0m", "ab"),
        ("a\x1b[2J\x1b[1;1Hb", "ab"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("\x1b]52;c;never ended", ""),
        ("\x1bc\x1b(Bx", "x"),
        ("a\x1b", r"a\x1b"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\x08\x00\n", r"a\rb\x08\x00\n"),
        ("\u202e\ufeff", r"\u202e\ufeff"),
        ("a\u00a0b\u3000c\td", "a\u00a0b\u3000c\td"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert clean_log(text, colour=False) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m x", "\x1b[1;31mred\x1b[0m x"),
        ("\x1b[31mleft on", "\x1b[31mleft on\x1b[0m"),
        ("\x1b[38:2:1:2:3mx\x1b[m", "\x1b[38:2:1:2:3mx\x1b[m"),
        ("\x1b[31m\x1b[2Jx\x1b[m\x07", "\x1b[31mx\x1b[m\\x07"),
        ("\x1b[?25l\x1b[>4;2mx", "x"),
    ],
)
def test_a_log_keeps_its_colours(text: str, shown: str) -> None:
    assert clean_log(text, colour=True) == shown


def test_no_color_counts_when_it_is_not_empty() -> None:
    assert [wants_colour(value) for value in (None, "", "1", "0")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.00kB"),
        (3_000_585, "3.00MB"),
        (-2_500, "-2.50kB"),
        (1 << 62, "4.61EB"),
    ],
)
def test_bytes(number: int, text: str) -> None:
    assert bytes_text(number) == text


def test_amounts() -> None:
    assert amount_text(0, 0) == ""
    assert amount_text(2, 0) == "2B"
    assert amount_text(0, 2000) == "0B / 2.00kB"


def test_log_times_have_four_figures() -> None:
    assert [log_time(seconds) for seconds in (0.1234, 12.345, 123.45)] == [
        "0.123",
        "12.35",
        "123.5",
    ]
