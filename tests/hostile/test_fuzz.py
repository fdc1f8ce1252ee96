"""The fuzzers, a few seconds of each. Longer: KITCACHE_EXAMPLES=5000."""

from collections.abc import Callable

import pytest

from tests.hostile import fuzz_attributes, fuzz_http2, fuzz_index, fuzz_links

TARGETS: dict[str, Callable[[], None]] = {
    f"{module.__name__.rpartition('.')[2]}: {name}": getattr(module, name)
    for module in (fuzz_attributes, fuzz_http2, fuzz_index, fuzz_links)
    for name in vars(module)
    if name.startswith("fuzz_") and callable(getattr(module, name))
}


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz(name: str) -> None:
    TARGETS[name]()


def test_every_target_is_found() -> None:
    assert len(TARGETS) == 19
