"""buildkit/daemoninfo.py: what a daemon says of itself."""

import pytest

from kitcache.buildkit.daemoninfo import DaemonInfo, Worker, read_info, read_workers
from kitcache.buildkit.proto import control_pb2 as pb
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Handler, Stream
from tests.unit.buildkit.calls import served

CONTROL = "/moby.buildkit.v1.Control/"


def sending(answer: bytes) -> Handler:
    return lambda stream: stream.send(answer)


def failing(stream: Stream) -> None:
    raise RpcError(Code.PERMISSION_DENIED, "no")


def info_of(handler: Handler | None) -> DaemonInfo:
    with served({f"{CONTROL}Info": handler} if handler else {}) as channel:
        return read_info(channel)


def workers_of(handler: Handler) -> tuple[Worker, ...]:
    with served({f"{CONTROL}ListWorkers": handler}) as channel:
        return read_workers(channel)


def test_a_version() -> None:
    version = pb.BuildkitVersion(
        package="p", version="v0.12", revision="r", dockerfile_version="1.7"
    )
    answer = pb.InfoResponse(buildkit_version=version).SerializeToString()
    assert info_of(sending(answer)) == DaemonInfo("v0.12", "r", "p", "1.7")


def test_a_daemon_that_does_not_know_the_question_has_no_version() -> None:
    assert info_of(None) == DaemonInfo()
    assert info_of(sending(b"")) == DaemonInfo()


@pytest.mark.parametrize("answer", [b"\xff", b"\x0a\x7f"])
def test_an_answer_that_cannot_be_read(answer: bytes) -> None:
    for ask in (info_of, workers_of):
        with pytest.raises(RpcError, match="its answer cannot be read"):
            ask(sending(answer))


def test_any_other_failure_is_told() -> None:
    for ask in (info_of, workers_of):
        with pytest.raises(RpcError) as caught:
            ask(failing)
        assert caught.value.code == Code.PERMISSION_DENIED


def test_workers_and_their_platforms_each_once() -> None:
    platforms = [
        pb.Platform(os="linux", architecture="amd64"),
        pb.Platform(os="linux", architecture="arm", variant="v7"),
        pb.Platform(os="linux", architecture="amd64"),
    ]
    records = [
        pb.WorkerRecord(id="a", platforms=platforms, labels={"k": "v"}),
        pb.WorkerRecord(id="b", labels={"org.mobyproject.buildkit.worker.executor": "oci"}),
    ]
    answer = pb.ListWorkersResponse(record=records).SerializeToString()
    first, second = workers_of(sending(answer))
    assert first == Worker("a", {"k": "v"}, ("linux/amd64", "linux/arm/v7"))
    assert (second.id, second.platforms) == ("b", ())
    assert [first.exports_local_caches, second.exports_local_caches] == [False, True]
    assert workers_of(sending(b"")) == ()
