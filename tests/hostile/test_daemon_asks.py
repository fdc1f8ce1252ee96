"""A daemon that asks for what it was never offered: stores, files, secrets, outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from kitcache.buildkit.proto import control_pb2, files_pb2, session_pb2
from kitcache.errors import BuildFailed
from kitcache.options.secrets import Secret
from tests.hostile.failing import LAYER, success
from tests.hostile.fake_daemon import Answer, Solve
from tests.hostile.fake_session import CONTENT, DIFF_COPY, FILE_SEND, GET_SECRET, STORE_ID
from tests.hostile.sound_cache import Cache


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
    (context.parent / "outside").write_text("not for the daemon")
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


@pytest.mark.parametrize("way", ["include-patterns", "exclude-patterns", "followpaths"])
def test_a_pattern_that_backtracking_would_never_decide(context: Path, way: str) -> None:
    (context / ("a" * 200)).touch()
    found: list[list[str]] = []

    def script(solve: Solve) -> Answer:
        found.append(sync(solve, "context", **{way: "*a" * 20 + "*b"}))
        return {}

    success(script, context)
    assert ("a" * 200 in found[0]) == (way == "exclude-patterns")


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
