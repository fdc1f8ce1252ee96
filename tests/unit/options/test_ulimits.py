"""options/ulimits.py: --ulimit and --shm-size, as Docker reads them."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.ulimits import parse_memory, parse_ulimit


def test_a_soft_limit_alone_is_the_hard_one_too() -> None:
    assert parse_ulimit("nofile=1024") == "nofile=1024:1024"
    assert parse_ulimit("nofile=1024:2048") == "nofile=1024:2048"
    assert parse_ulimit("core=1:-1") == "core=1:-1"
    assert parse_ulimit("core=-1") == "core=-1:-1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nofile", "invalid ulimit argument: nofile"),
        ("nofile=", "invalid ulimit argument: nofile="),
        ("nofile=1:2:3", "invalid ulimit argument: nofile=1:2:3"),
        ("nofiles=1", "invalid ulimit type: nofiles"),
        ("nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        ("core=-1:1", "ulimit soft limit must be less than or equal to hard limit: -1 > 1"),
    ],
)
def test_refused_limits(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ulimit(text)
    assert caught.value.problem == problem


def test_memory_is_in_powers_of_1024() -> None:
    sizes = {"0": 0, "64": 64, "64b": 64, "1k": 1024, "1KB": 1024, "1KiB": 1024, "1.5g": 3 << 29}
    for text, size in (*sizes.items(), ("64 m", 64 << 20)):
        assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1ib", "1e3", "inf", "9999999p", "٣"])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(UsageError, match="invalid size: "):
        parse_memory(text)
