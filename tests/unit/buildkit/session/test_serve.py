"""session/serve.py: a session serves what its build named, and says so."""

import io
from typing import Any

import pytest

from kitcache.buildkit.session.memory import MemoryFiles
from kitcache.buildkit.session.outputs import StreamTarget
from kitcache.buildkit.session.serve import make_handlers, make_metadata
from kitcache.buildkit.session.stores import ContentStore
from kitcache.buildkit.session.walk import NOTHING_EXCLUDED
from kitcache.buildkit.wire.grpc import all_values, first
from kitcache.buildkit.wire.rpc import Handler
from kitcache.store.layout import Layout

ALWAYS = {"Health/Check", "Auth/Credentials", "Secrets/GetSecret", "FileSync/DiffCopy"}


def handlers(**offered: Any) -> dict[str, Handler]:
    nothing: dict[str, Any] = {
        "sources": {"context": MemoryFiles({})},
        "excluded": NOTHING_EXCLUDED,
        "uploads": {},
        "files": {},
        "stores": {},
        "secrets": (),
        "credentials": lambda _: None,
        "on_notice": lambda _: None,
        "on_failure": lambda _: None,
    }
    return make_handlers(**{**nothing, **offered})


def names(served: dict[str, Handler]) -> set[str]:
    """Service and method, without the packages."""
    return {path.rpartition(".")[2] for path in served}


def test_a_build_that_named_nothing_serves_little() -> None:
    assert names(handlers()) == ALWAYS


def test_no_ssh_and_no_keys_of_ours_ever(layout: Layout) -> None:
    everything = names(
        handlers(
            uploads={"x": io.BytesIO()},
            files={0: StreamTarget("x")},
            stores={"local:x": ContentStore(layout)},
        )
    )
    assert not [name for name in everything if "SSH" in name or "Token" in name]


@pytest.mark.parametrize(
    ("offered", "more"),
    [
        ({"uploads": {"x": io.BytesIO()}}, {"Upload/Pull"}),
        ({"files": {0: StreamTarget("x")}}, {"FileSend/DiffCopy"}),
    ],
)
def test_what_a_build_named_is_served_too(offered: dict[str, Any], more: set[str]) -> None:
    assert names(handlers(**offered)) == ALWAYS | more


def test_stores_are_served_as_containerd_does(layout: Layout) -> None:
    found = names(handlers(stores={"local:x": ContentStore(layout)})) - ALWAYS
    assert {"Content/Info", "Content/Read", "Content/Write"} <= found
    assert {name.partition("/")[0] for name in found} == {"Content"}


def test_a_session_introduces_itself_with_all_that_it_serves() -> None:
    served = handlers()
    metadata = make_metadata("id", "key", served)
    assert first(metadata, "x-docker-expose-session-uuid") == "id"
    assert first(metadata, "x-docker-expose-session-sharedkey") == "key"
    assert first(metadata, "x-docker-expose-session-name") == "kitcache"
    assert set(all_values(metadata, "x-docker-expose-session-grpc-method")) == set(served)
    assert len(metadata) == 3 + len(served)
