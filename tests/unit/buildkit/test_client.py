"""buildkit/client.py: its annotations, and a build in a thread of its own."""

import io
import threading
import time
import typing
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

import kitcache
from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.client import Client
from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.status import BuildUpdate
from kitcache.errors import BuildFailed, Cancelled, UsageError
from kitcache.options.build import BuildRequest
from kitcache.options.outputs import Output
from tests.hostile.fake_daemon import Answer, FakeDaemon, Solve
from tests.hostile.fake_messages import vertex
from tests.hostile.fake_session import FILE_SEND

LIMIT_S = 60


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return BuildRequest(str(tmp_path))


def build(solve: Solve) -> Answer:
    solve.tell(vertex("sha256:1", "one"), vertex("sha256:2", "two"))
    return {}


def fail(solve: Solve) -> Answer:
    solve.tell(vertex("sha256:1", "one"))
    solve.fail(grpc.StatusCode.UNKNOWN, "boom")


def names(updates: typing.Iterable[BuildUpdate]) -> list[str]:
    return [vertex.name for update in updates for vertex in update.vertexes]


@pytest.mark.parametrize("name", kitcache.__all__)
def test_annotations_can_be_resolved(name: str) -> None:
    value = getattr(kitcache, name)
    if isinstance(value, type):
        for member in vars(value).values():
            if callable(member) and hasattr(member, "__annotations__"):
                typing.get_type_hints(member)
    if callable(value):
        typing.get_type_hints(value)


def test_the_updates_of_a_build_and_its_result(request_: BuildRequest) -> None:
    heard: list[BuildUpdate] = []
    with FakeDaemon(build) as daemon, Client(daemon.address) as client:
        running = client.start(request_, BuildOptions(on_update=heard.append))
        updates = list(running)
        assert running.result(timeout_s=LIMIT_S).digest is None
    assert names(updates) == names(heard) == ["one", "two"]
    assert running.done()
    assert running.is_over


def test_iterating_over_a_build_that_fails_raises_at_its_end(request_: BuildRequest) -> None:
    seen: list[BuildUpdate] = []
    with FakeDaemon(fail) as daemon, Client(daemon.address) as client:
        running = client.start(request_, BuildOptions())
        with pytest.raises(BuildFailed, match="boom"):
            seen.extend(running)
        with pytest.raises(BuildFailed, match="boom"):
            running.result()


def test_a_second_iterator_is_an_error(request_: BuildRequest) -> None:
    with FakeDaemon(build) as daemon, Client(daemon.address) as client:
        running = client.start(request_, BuildOptions())
        first = iter(running)
        with pytest.raises(UsageError, match="iterated over already"):
            iter(running)
        assert names(first) == ["one", "two"]
        with pytest.raises(UsageError, match="iterated over already"):
            list(running)


def test_a_result_is_waited_for_as_long_as_is_said(request_: BuildRequest) -> None:
    goes_on = threading.Event()

    def script(solve: Solve) -> Answer:
        assert goes_on.wait(LIMIT_S)
        return {}

    with FakeDaemon(script) as daemon, Client(daemon.address) as client:
        running = client.start(request_, BuildOptions())
        with pytest.raises(TimeoutError, match="it continues"):
            running.result(timeout_s=0.01)
        assert not running.done()
        goes_on.set()
        assert running.result(timeout_s=LIMIT_S).caches == ()
        assert running.done()


def test_a_build_that_is_cancelled_ends_its_iteration_so(request_: BuildRequest) -> None:
    def script(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "one"))
        solve.wait()

    with FakeDaemon(script) as daemon, Client(daemon.address) as client:
        running = client.start(request_, BuildOptions(on_update=lambda _: running.cancel()))
        with pytest.raises(Cancelled):
            list(running)


def test_what_on_update_raises_ends_the_build(request_: BuildRequest) -> None:
    def refuse(_: BuildUpdate) -> None:
        raise KeyError("mine")

    with FakeDaemon(build) as daemon, Client(daemon.address) as client:
        running = client.start(request_, BuildOptions(on_update=refuse))
        with pytest.raises(KeyError, match="mine"):
            list(running)


class SlowDisk(io.BytesIO):
    """A write on it takes a while. began: one has begun. is_busy: one has not ended."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.is_busy = threading.Event(), False

    def write(self, data: typing.Any, /) -> int:
        self.is_busy = True
        self.began.set()
        time.sleep(0.5)
        self.is_busy = False
        return super().write(data)


def test_a_cancelled_build_has_let_go_of_its_outputs(request_: BuildRequest) -> None:
    """Else the process could end before what is not whole was removed."""
    piece = control_pb2.BytesMessage(data=b"x").SerializeToString()

    def script(solve: Solve) -> Answer:
        def pieces() -> Iterator[bytes]:
            yield piece
            solve.wait()

        with suppress(grpc.RpcError):
            list(solve.session.stream(FILE_SEND, pieces()))
        solve.wait()

    disk = SlowDisk()
    request = request_._replace(outputs=(Output("tar", "-"),))
    with FakeDaemon(script) as daemon, Client(daemon.address) as client:
        running = client.start(request, BuildOptions(stdout=disk))
        assert disk.began.wait(LIMIT_S)
        running.cancel()
        with pytest.raises(Cancelled):
            running.result(LIMIT_S)
        assert not disk.is_busy
