"""A daemon that fails in the middle: a clear error, soon, and the cache is as importable as before.

A thread that ends with an exception fails the test by itself: pytest makes an error of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest

import kitcache
from kitcache.buildkit import solve as solving
from kitcache.buildkit.client import Client
from kitcache.buildkit.proto import control_pb2, files_pb2, rpc_pb2, session_pb2
from kitcache.buildkit.result import BuildResult
from kitcache.errors import BuildFailed, Cancelled, KitcacheError, NoDaemon
from kitcache.options.secrets import Secret
from tests.hostile.fake_daemon import (
    CONTENT,
    DIFF_COPY,
    FILE_SEND,
    GET_SECRET,
    STORE_ID,
    WAIT_S,
    Answer,
    FakeDaemon,
    Script,
    Solve,
    build_nothing,
    vertex,
)
from tests.hostile.sound_cache import Cache
from tests.property import witness
from tests.property.disk import ingests

LAYER = b"a new layer " * 30_000
OTHER = b"another layer " * 100
GOAWAY_FOR_ALL = bytes.fromhex("0000080700000000000000000000000002")
FLAVOURS = pytest.mark.parametrize("is_engine", [False, True], ids=["buildkitd", "engine"])


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (tmp_path / "outside").write_text("not for the daemon")
    return directory


@contextmanager
def building(
    daemon: FakeDaemon, context: Path, cache: Cache | None = None, **more: Any
) -> Iterator["Future[BuildResult]"]:
    """A build under way, in a thread: what waits for it does so for a bounded time."""
    more.setdefault("outputs", ["type=cacheonly"])
    if cache is not None:
        more["cache_to"] = [f"type=local,dest={cache.root},tag=new,reset=true"]
    with ThreadPoolExecutor(1) as pool, Client(daemon.address) as client:
        yield pool.submit(client.build, str(context), **more)


def failure(
    script: Script, context: Path, cache: Cache | None = None, *, is_engine: bool = False,
    missing: tuple[str, ...] = (), answers: Mapping[str, bytes | None] | None = None, **more: Any,
) -> KitcacheError:  # fmt: skip
    """What a build comes to that fails."""
    with (
        FakeDaemon(script, is_engine=is_engine, missing=missing, answers=answers) as daemon,
        building(daemon, context, cache, **more) as build,
    ):
        error = build.exception(WAIT_S)
    assert isinstance(error, KitcacheError), error
    if cache is not None:
        cache.expect_unchanged()
    return error


def success(
    script: Script, context: Path, cache: Cache | None = None, *, is_engine: bool = False,
    missing: tuple[str, ...] = (), answers: Mapping[str, bytes | None] | None = None, **more: Any,
) -> BuildResult:  # fmt: skip
    with (
        FakeDaemon(script, is_engine=is_engine, missing=missing, answers=answers) as daemon,
        building(daemon, context, cache, **more) as build,
    ):
        return build.result(WAIT_S)


def expect_lost(error: KitcacheError) -> None:
    assert isinstance(error, NoDaemon)
    assert error.exit_code == 20
    assert "the daemon was lost while it built" in str(error)
    assert "no tag was changed" in str(error)


# The connection ends.


@FLAVOURS
def test_a_connection_that_is_lost_in_mid_build(
    context: Path, cache: Cache, is_engine: bool
) -> None:
    def script(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "a step"))
        assert solve.session.methods
        solve.daemon.cut()
        solve.wait()

    expect_lost(failure(script, context, cache, is_engine=is_engine))


@FLAVOURS
def test_a_connection_that_is_lost_in_the_middle_of_an_upload(
    context: Path, cache: Cache, is_engine: bool
) -> None:
    began = Event()

    def script(solve: Solve) -> Answer:
        solve.session.begin_upload(solve.store, LAYER)
        assert ingests(cache.root) != frozenset()
        began.set()
        solve.daemon.cut()
        solve.wait()

    expect_lost(failure(script, context, cache, is_engine=is_engine))
    assert began.is_set()


@FLAVOURS
def test_a_connection_that_is_lost_once_all_was_uploaded(
    context: Path, cache: Cache, is_engine: bool
) -> None:
    """All blobs are there, but the daemon has not said that the build is good."""

    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER, OTHER)
        solve.daemon.cut()
        solve.wait()

    expect_lost(failure(script, context, cache, is_engine=is_engine))


@FLAVOURS
def test_bytes_that_are_no_http2(context: Path, cache: Cache, is_engine: bool) -> None:
    def script(solve: Solve) -> Answer:
        solve.session.begin_upload(solve.store, LAYER)
        solve.daemon.spoil()
        solve.wait()

    error = failure(script, context, cache, is_engine=is_engine)
    expect_lost(error)
    assert "the peer broke HTTP/2" in str(error)


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


# Calls that are not known, not answered, or answered with something else.


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
        assert client.info() == kitcache.Info()
        assert [worker.id for worker in client.workers()] == ["fake"]


def test_a_server_that_is_no_buildkit() -> None:
    with (
        FakeDaemon(missing=("Info", "ListWorkers")) as daemon,
        pytest.raises(NoDaemon, match=r"knows no moby\.buildkit\.v1\.Control"),
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
    expect_lost(failure(build_nothing, context, cache, is_engine=True, answers=answers))


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
    assert "over the limit" in str(error)


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


# How a Solve fails.

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
    assert error.sources == ()


def test_a_solve_that_never_ends_is_cancelled(
    context: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solving, "_LAST_NEWS_S", 3 * WAIT_S)  # giving up is no cancelling
    began, cancel = Event(), Event()

    def script(solve: Solve) -> Answer:
        solve.session.begin_upload(solve.store, LAYER)
        began.set()
        solve.wait()

    with (
        FakeDaemon(script) as daemon,
        building(daemon, context, cache, cancel=cancel) as build,
    ):
        assert began.wait(WAIT_S)
        cancel.set()
        error = build.exception(WAIT_S)
    assert isinstance(error, Cancelled)
    assert error.exit_code == 130
    cache.expect_unchanged()


def test_a_cancel_that_comes_too_late_is_none(context: Path, cache: Cache) -> None:
    """The Solve is good: its tags are published, or else the caller is told."""
    cancel = Event()

    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER)
        cancel.set()
        return {}

    with FakeDaemon(script) as daemon, building(daemon, context, cache, cancel=cancel) as build:
        assert isinstance(build.exception(WAIT_S), Cancelled)
    cache.expect_unchanged()


# A cache export that is not what it seems.


@FLAVOURS
def test_a_cache_with_a_hole_is_not_published(context: Path, cache: Cache, is_engine: bool) -> None:
    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER, OTHER, without=OTHER)
        return {}

    result = success(script, context, cache, is_engine=is_engine)
    assert [(one.outcome, one.exit_code) for one in result.caches] == [("failed", 12)]
    assert "not published" in result.caches[0].problem
    assert result.exit_code == 12
    cache.expect_unchanged()


def test_a_good_build_with_uploads_under_way_publishes_what_is_whole(
    context: Path, cache: Cache
) -> None:
    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER)
        solve.session.begin_upload(solve.store, OTHER)
        return {}

    result = success(script, context, cache)
    assert [one.outcome for one in result.caches] == ["published"]
    assert ingests(cache.root) == frozenset()
    assert witness.holes(cache.root) == ()
    named = json.loads((cache.root / "index.json").read_bytes())["manifests"]
    assert len(named) == 2


def test_a_good_build_that_never_exported_its_cache(context: Path, cache: Cache) -> None:
    result = success(build_nothing, context, cache)
    assert [one.outcome for one in result.caches] == ["nothing"]
    cache.expect_unchanged()


# What was never offered.


def refusal(ask: Callable[[Solve], object], context: Path, **more: Any) -> grpc.StatusCode:
    """How we answer what a daemon asks for in the middle of a build, which goes on."""
    codes = []

    def script(solve: Solve) -> Answer:
        try:
            ask(solve)
        except grpc.RpcError as error:
            codes.append(error.code())
        return {}

    success(script, context, **more)
    return codes[0] if codes else grpc.StatusCode.OK


def info_of(store: str) -> Callable[[Solve], object]:
    return lambda solve: solve.session.unary(f"{CONTENT}Info", b"", ((STORE_ID, store),))


@pytest.mark.parametrize("store", ["local:other", "local:", "oci:x", "export", "/etc", "local:/"])
def test_a_store_that_was_never_offered(context: Path, cache: Cache, store: str) -> None:
    assert refusal(info_of(store), context, cache=cache) == grpc.StatusCode.NOT_FOUND


def test_no_store_at_all(context: Path) -> None:
    assert refusal(info_of("local:x"), context) == grpc.StatusCode.UNIMPLEMENTED


def test_a_store_cannot_be_written_to_that_is_only_imported_from(
    context: Path, cache: Cache
) -> None:
    def ask(solve: Solve) -> None:
        solve.session.upload(f"local:{solve.request.cache.imports[0].attrs['src']}", LAYER)

    code = refusal(ask, context, cache_from=[f"type=local,src={cache.root},tag=old"])
    assert code == grpc.StatusCode.PERMISSION_DENIED
    cache.expect_unchanged()


def sync(solve: Solve, name: str, **patterns: str) -> list[str]:
    """The paths that a directory's transfer offers."""
    metadata = (("dir-name", name), *((key.replace("_", "-"), v) for key, v in patterns.items()))
    fin = files_pb2.Packet(type=files_pb2.Packet.FIN).SerializeToString()
    packets = map(files_pb2.Packet.FromString, solve.session.stream(DIFF_COPY, [fin], metadata))
    return [p.stat.path for p in packets if p.type == p.STAT and p.HasField("stat")]


@pytest.mark.parametrize("name", ["other", "", "../context", "/etc", "context/.."])
def test_a_directory_that_was_never_offered(context: Path, name: str) -> None:
    assert refusal(lambda solve: sync(solve, name), context) == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("way", ["include-patterns", "followpaths"])
@pytest.mark.parametrize("path", ["../outside", "..", "/etc/passwd", "a/../../outside", "../*"])
def test_a_path_outside_of_a_directory(context: Path, way: str, path: str) -> None:
    (context / "link").symlink_to("../outside")
    found: list[list[str]] = []

    def script(solve: Solve) -> Answer:
        found.append(sync(solve, "context", **{way: path}))
        return {}

    try:
        success(script, context)
    except BuildFailed:
        return
    assert [p for paths in found for p in paths if "outside" in p or "passwd" in p] == []


def test_a_secret_that_was_never_named(context: Path) -> None:
    def ask(solve: Solve, name: str) -> bytes:
        request = session_pb2.GetSecretRequest(id=name).SerializeToString()
        return solve.session.unary(GET_SECRET, request)

    secrets = [Secret("mine", data=b"sesame")]
    for name in ("other", "", "../mine", "/etc/passwd", "MINE"):
        code = refusal(lambda solve, name=name: ask(solve, name), context, secrets=secrets)
        assert code == grpc.StatusCode.NOT_FOUND, name
    assert refusal(lambda solve: ask(solve, "mine"), context, secrets=secrets) == (
        grpc.StatusCode.OK
    )


@pytest.mark.parametrize("number", ["1", "7", "-1", "x", "00000000000001"])
def test_an_output_that_was_never_wanted(context: Path, tmp_path: Path, number: str) -> None:
    def ask(solve: Solve) -> None:
        message = control_pb2.BytesMessage(data=b"data").SerializeToString()
        metadata = (("buildkit-attachable-exporter-id", number),)
        list(solve.session.stream(FILE_SEND, [message], metadata))

    outputs = [f"type=tar,dest={tmp_path}/out.tar"]
    assert refusal(ask, context, outputs=outputs) == grpc.StatusCode.NOT_FOUND
    assert not (tmp_path / "out.tar").exists()


def test_no_output_at_all(context: Path) -> None:
    code = refusal(lambda solve: list(solve.session.stream(FILE_SEND, [b""])), context)
    assert code == grpc.StatusCode.UNIMPLEMENTED


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["context", "out.tar", "outside"]
