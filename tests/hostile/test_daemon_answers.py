"""A daemon that lacks methods, or answers with garbage: a clear error, or a build all the same."""

from pathlib import Path
from threading import Event

import grpc
import pytest

import kitcache
from kitcache.buildkit.client import Client
from kitcache.buildkit.proto import control_pb2, rpc_pb2
from kitcache.errors import BuildFailed, NoDaemon
from tests.hostile.failing import LAYER, failure, success
from tests.hostile.fake_daemon import Answer, FakeDaemon, Solve, build_nothing
from tests.hostile.fake_messages import vertex
from tests.hostile.fake_session import WAIT_S
from tests.hostile.sound_cache import Cache


@pytest.mark.parametrize("missing", [("Solve",), ("Solve", "Status")])
def test_a_daemon_that_cannot_solve(context: Path, cache: Cache, missing: tuple[str, ...]) -> None:
    error = failure(build_nothing, context, cache, missing=missing)
    assert isinstance(error, BuildFailed)
    assert "Method not found" in str(error)


def test_a_daemon_without_status_builds_all_the_same(context: Path, cache: Cache) -> None:
    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER)
        return {"a": "b"}

    assert success(script, context, cache, missing=("Status",)).metadata == {"a": "b"}


def test_a_daemon_without_sessions(context: Path, cache: Cache) -> None:
    """A real one says what is the matter with it only after 5 seconds."""

    def script(solve: Solve) -> Answer:
        solve.fail(grpc.StatusCode.UNKNOWN, "no active session for x: context deadline exceeded")

    error = failure(script, context, cache, missing=("Session",))
    assert "the session with the daemon ended: " in str(error)
    assert "Method not found" in str(error)


def test_a_daemon_without_info_is_asked_for_its_workers(context: Path) -> None:
    with FakeDaemon(missing=("Info",)) as daemon, Client(daemon.address) as client:
        assert client.info() == kitcache.DaemonInfo()
        assert [worker.id for worker in client.workers()] == ["fake"]


def test_a_server_that_is_no_buildkit() -> None:
    with (
        FakeDaemon(missing=("Info", "ListWorkers")) as daemon,
        pytest.raises(NoDaemon, match=r"gRPC server without moby\.buildkit\.v1\.Control"),
    ):
        Client(daemon.address)


@pytest.mark.parametrize("answer", [b"\xff" * 9, b"\x0a\x7f", None])
def test_answers_about_the_daemon_that_are_garbage(answer: bytes | None) -> None:
    with (
        FakeDaemon(answers={"ListWorkers": answer, "Info": b"\xff" * 9}) as daemon,
        Client(daemon.address) as client,
    ):
        with pytest.raises(NoDaemon, match="the daemon does not answer"):
            client.workers()
        with pytest.raises(NoDaemon, match="the daemon does not answer"):
            client.info()


def test_workers_that_are_garbage_before_a_build(context: Path, cache: Cache) -> None:
    answers: dict[str, bytes | None] = {"ListWorkers": b"\xff" * 9}
    error = failure(build_nothing, context, cache, is_engine=True, answers=answers)
    assert isinstance(error, NoDaemon)
    assert "its answer cannot be read" in str(error)


def test_an_engine_without_its_image_store(context: Path, cache: Cache) -> None:
    answers: dict[str, bytes | None] = {
        "ListWorkers": control_pb2.ListWorkersResponse().SerializeToString()
    }
    error = failure(build_nothing, context, cache, is_engine=True, answers=answers)
    assert isinstance(error, NoDaemon)
    assert '"features": {"containerd-snapshotter": true}' in str(error)


@pytest.mark.parametrize("answer", [b"\xff" * 9, b"\x0a\x7f", b"\x0a\x04\x0a\x02\xff\xfe"])
def test_a_solve_that_is_answered_with_garbage(context: Path, cache: Cache, answer: bytes) -> None:
    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER)
        return answer

    error = failure(script, context, cache)
    assert isinstance(error, BuildFailed)
    assert "no SolveResponse" in str(error)


def test_a_solve_that_ends_well_without_an_answer(context: Path, cache: Cache) -> None:
    error = failure(build_nothing, context, cache, answers={"Solve": None})
    assert "without an answer" in str(error)


def test_an_answer_larger_than_any_should_be(context: Path, cache: Cache) -> None:
    error = failure(lambda solve: b"\x0a" * 2**25, context, cache)
    assert isinstance(error, BuildFailed)
    assert "more than the limit" in str(error)


UNKNOWN_FIELDS = b"\xfa\x3f\x03abc\xf0\x3f\x05"


def test_fields_that_we_do_not_know(context: Path, cache: Cache) -> None:
    seen: list[str] = []

    def script(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "a step").SerializeToString() + UNKNOWN_FIELDS)
        solve.export_cache(LAYER)
        solve.end_status()
        response = control_pb2.SolveResponse(exporter_response={"a": "b"})
        return bytes(response.SerializeToString()) + UNKNOWN_FIELDS

    result = success(
        script, context, cache, on_update=lambda u: seen.extend(v.name for v in u.vertexes)
    )
    assert result.metadata == {"a": "b"}
    assert seen == ["a step"]


@pytest.mark.parametrize("news", [b"\xff" * 9, b"\x0a\x7f", b"x" * 2**25], ids=["1", "2", "huge"])
def test_news_that_are_garbage_do_not_stop_a_build(
    context: Path, cache: Cache, news: bytes
) -> None:
    def script(solve: Solve) -> Answer:
        solve.tell(news)
        solve.export_cache(LAYER)
        return {}

    assert success(script, context, cache).caches[0].outcome == "published"


def test_news_that_end_early_do_not_stop_a_build(context: Path, cache: Cache) -> None:
    def script(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "a step"))
        solve.end_status()
        solve.export_cache(LAYER)
        return {}

    assert success(script, context, cache).caches[0].outcome == "published"


GARBAGE = [
    b"\xff\xff\xff",
    rpc_pb2.Status(
        code=2,
        details=[
            rpc_pb2.Detail(type_url=f"github.com/moby/buildkit/{name}", value=value)
            for name in (
                "errdefs.Source+json",
                "errdefs.Vertex+json",
                "gatewayapi.ExitMessage+json",
            )
            for value in (b"", b"{", b"[" * 99_999, b"null", b'{"ranges": 1}', b'{"Code": "x"}')
        ],
    ).SerializeToString(),
]


@pytest.mark.parametrize("details", GARBAGE, ids=["no status", "no JSON"])
def test_error_details_that_are_garbage(context: Path, cache: Cache, details: bytes) -> None:
    heard = Event()

    def script(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "a step", error="it broke"))
        assert heard.wait(WAIT_S)
        solve.fail(grpc.StatusCode.UNKNOWN, "boom \x1b[2J", details)

    error = failure(script, context, cache, on_update=lambda _: heard.set())
    assert isinstance(error, BuildFailed)
    assert error.exit_code == 21
    assert error.step == "a step"
    assert "failed to solve: boom \\x1b[2J" in str(error)
    assert error.locations == ()
