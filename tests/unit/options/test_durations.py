"""options/durations.py: durations as Go reads and writes them."""

import pytest

from kitcache.options.durations import format_duration, parse_duration

READ = {
    "0": 0,
    "-0": 0,
    "24h": 24 * 3600 * 10**9,
    "1h30m": 5400 * 10**9,
    "1.5s": 1_500_000_000,
    ".5s": 500_000_000,
    "1.s": 10**9,
    "+1ms": 10**6,
    "-1µs": -1000,
    "3μs2ns": 3002,
    "4us": 4000,
}


@pytest.mark.parametrize("text", READ)
def test_what_go_reads(text: str) -> None:
    assert parse_duration(text) == READ[text]


@pytest.mark.parametrize(
    "text", ["", "1", "h", "7d", "1h 2m", "1 h", "--1h", ".h", "1e3s", "³s", "300000000h", "1,5h"]
)
def test_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|unknown unit|more than"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0s"), (48 * 3600 * 10**9, "48h"), (5400 * 10**9, "5400s"), (7, "7ns")],
)
def test_what_is_written_is_read_back(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text
    assert parse_duration(text) == nanoseconds
