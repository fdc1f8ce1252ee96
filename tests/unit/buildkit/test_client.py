"""buildkit/client.py: what its arguments mean; what it does is integration's to show."""

import pytest

from kitcache.buildkit.client import _several
from kitcache.options.outputs import Output
from kitcache.options.secrets import Secret


@pytest.mark.parametrize("one", ["type=local,dest=cache", Output("local", "out"), Secret("a", "b")])
def test_one_alone_is_one_and_not_its_parts(one: str) -> None:
    assert _several(one) == (one,)


@pytest.mark.parametrize("several", [[], ["a", "b"], ("a",), iter(["a", "b"])])
def test_several_are_several(several: list[str]) -> None:
    assert set(_several(several)) <= {"a", "b"}
    assert isinstance(_several(several), tuple)
