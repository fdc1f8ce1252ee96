"""A daemon that is lost while it builds: a clear error, soon, and nothing half written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import grpc
import pytest

from kitcache.buildkit.proto import control_pb2
from tests.hostile.failing import FLAVOURS, LAYER, OTHER, expect_lost, failure, success
from tests.hostile.fake_daemon import Answer, Solve
from tests.hostile.fake_messages import vertex
from tests.hostile.fake_session import FILE_SEND
from tests.hostile.sound_cache import Cache
from tests.property import witness
from tests.property.disk import ingests

GOAWAY_FOR_ALL = bytes.fromhex("0000080700000000000000000000000002")


MOMENTS: dict[str, Callable[[Solve], object]] = {
    "after the first news": lambda solve: solve.tell(vertex("sha256:1", "a step")),
    "in the middle of an upload": lambda solve: solve.session.begin_upload(solve.store, LAYER),
    "once all was uploaded": lambda solve: solve.export_cache(LAYER, OTHER),
}


@FLAVOURS
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_connection_that_is_lost(
    context: Path, cache: Cache, moment: str, is_engine: bool
) -> None:
    """Also where all blobs are there: the daemon has not said that the build is good."""
    was_cut = Event()

    def script(solve: Solve) -> Answer:
        assert solve.session.methods
        MOMENTS[moment](solve)
        assert bool(ingests(cache.root)) == (moment == "in the middle of an upload")
        was_cut.set()
        solve.daemon.cut()
        solve.wait()

    expect_lost(failure(script, context, cache, is_engine=is_engine))
    assert was_cut.is_set()


@FLAVOURS
def test_bytes_that_are_no_http2(context: Path, cache: Cache, is_engine: bool) -> None:
    def script(solve: Solve) -> Answer:
        solve.session.begin_upload(solve.store, LAYER)
        solve.daemon.spoil()
        solve.wait()

    error = failure(script, context, cache, is_engine=is_engine)
    expect_lost(error)
    assert "the peer violated HTTP/2" in str(error)


def test_a_daemon_that_goes_away_lets_the_build_end(context: Path, cache: Cache) -> None:
    def script(solve: Solve) -> Answer:
        solve.session.unary("/grpc.health.v1.Health/Check")
        solve.daemon.go_away()
        solve.export_cache(LAYER)
        return {}

    result = success(script, context, cache)
    assert [one.outcome for one in result.caches] == ["published"]
    assert witness.holes(cache.root) == ()


def test_a_daemon_that_goes_away_and_drops_the_build(context: Path, cache: Cache) -> None:
    def script(solve: Solve) -> Answer:
        assert solve.session.methods
        solve.daemon.spoil(GOAWAY_FOR_ALL)
        solve.wait()

    expect_lost(failure(script, context, cache, is_engine=True))


def test_an_output_that_is_cut_short_leaves_the_file_that_was_there(
    context: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tar"
    out.write_bytes(b"before")

    def script(solve: Solve) -> Answer:
        def some() -> Iterator[bytes]:
            yield control_pb2.BytesMessage(data=b"half").SerializeToString()
            solve.daemon.cut()

        with pytest.raises(grpc.RpcError):
            list(solve.session.stream(FILE_SEND, some()))
        solve.wait()

    expect_lost(failure(script, context, outputs=[f"type=tar,dest={out}"]))
    assert out.read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["context", "out.tar"]
