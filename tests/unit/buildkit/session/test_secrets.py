"""A daemon gets the secrets that the build named, and learns nothing of others."""

from pathlib import Path

import pytest

from kitcache.buildkit.proto.session_pb2 import GetSecretRequest, GetSecretResponse
from kitcache.buildkit.session.secrets import GET_SECRET, MAX_SECRET_BYTES, secret_handlers
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.options.secrets import Secret
from tests.unit.buildkit.calls import served


def ask(name: str, *secrets: Secret) -> bytes:
    with served(secret_handlers(secrets)) as channel:
        request = GetSecretRequest(id=name).SerializeToString()
        return GetSecretResponse.FromString(channel.unary(GET_SECRET, request, timeout_s=20)).data


def test_a_named_secret_is_given_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"from\0file\n")
    secrets = (Secret("file", path=str(tmp_path / "key")), Secret("env", data=b"given"))
    assert ask("file", *secrets) == b"from\0file\n"
    assert ask("env", *secrets) == b"given"
    assert ask("empty", Secret("empty", data=b"")) == b""


@pytest.mark.parametrize("name", ["other", "", "../key", "KEY"])
def test_a_secret_that_was_not_named_is_not_found(name: str) -> None:
    with pytest.raises(RpcError, match="not found") as caught:
        ask(name, Secret("key", data=b"x"))
    assert caught.value.code == Code.NOT_FOUND


def test_a_file_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "late"
    with served(secret_handlers((Secret("a", path=str(path)),))) as channel:
        path.write_bytes(b"now")
        request = GetSecretRequest(id="a").SerializeToString()
        answer = channel.unary(GET_SECRET, request, timeout_s=20)
        assert GetSecretResponse.FromString(answer).data == b"now"


def test_the_limit_is_buildkits(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * MAX_SECRET_BYTES)
    assert len(ask("a", Secret("a", path=str(path)))) == MAX_SECRET_BYTES == 512_000
    path.write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    for secret in (Secret("a", path=str(path)), Secret("a", data=path.read_bytes())):
        with pytest.raises(RpcError, match="larger than 512,000") as caught:
            ask("a", secret)
        assert "xx" not in str(caught.value)


def test_a_named_secret_that_cannot_be_read_fails_the_step(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "no", "No such file")):
        with pytest.raises(RpcError, match=reason) as caught:
            ask("a", Secret("a", path=str(path)))
        assert caught.value.code == Code.FAILED_PRECONDITION
        assert str(tmp_path) not in str(caught.value)


def test_a_request_that_is_none_is_refused() -> None:
    with served(secret_handlers(())) as channel:
        with pytest.raises(RpcError) as caught:
            channel.unary(GET_SECRET, b"\x0a\x09x", timeout_s=20)
        assert caught.value.code == Code.INVALID_ARGUMENT
