"""Statuses as trailers and back, and what is no gRPC."""

from base64 import b64encode

import pytest

from kitcache.buildkit.proto import rpc_pb2
from kitcache.buildkit.wire.frames import ErrorCode
from kitcache.buildkit.wire.grpc import (
    Code,
    Detail,
    Metadata,
    RpcError,
    all_values,
    check_reply,
    decode_status,
    encode_status,
    first,
    frame_messages,
    frame_parts,
    reset_error,
)


def test_keys_may_repeat_and_keep_their_order() -> None:
    metadata = (("a", "1"), ("b", "2"), ("a", "3"))
    assert (first(metadata, "a"), all_values(metadata, "a")) == ("1", ("1", "3"))
    assert (first(metadata, "c"), all_values(metadata, "c")) == (None, ())


@pytest.mark.parametrize("padding", ["", "="])
def test_details_are_read_with_and_without_padding(padding: str) -> None:
    status = rpc_pb2.Status(code=5, details=[rpc_pb2.Detail(type_url="ty", value=b"v")])
    data = status.SerializeToString()
    assert len(data) % 3 == 2, "or there is no padding"
    text = b64encode(data).decode().rstrip("=") + padding
    error = decode_status((("grpc-status", "5"), ("grpc-status-details-bin", text)))
    assert error is not None
    assert error.details == (Detail("ty", b"v"),)


@pytest.mark.parametrize("text", ["!", "a", "////", "ä", "AAAA,AAAA"])
def test_damaged_details_do_not_hide_the_message(text: str) -> None:
    trailers = (("grpc-status", "5"), ("grpc-message", "m"), ("grpc-status-details-bin", text))
    error = decode_status(trailers)
    assert error is not None
    assert (error.code, error.message, error.details) == (5, "m", ())


@pytest.mark.parametrize("status", ["", "x", "-1", "٣", "1" * 100, " 0", "00x"])
def test_a_status_that_is_no_number_is_unknown(status: str) -> None:
    error = decode_status((("grpc-status", status),))
    assert error is not None
    assert error.code == Code.UNKNOWN


def test_a_code_that_we_do_not_know_is_kept() -> None:
    error = decode_status((("grpc-status", "99"),))
    assert error is not None
    assert error.code == 99


def test_no_status_is_no_success() -> None:
    assert decode_status(()) is not None
    assert decode_status((("grpc-status", "0"),)) is None
    assert encode_status(None) == (("grpc-status", "0"),)


def test_a_message_has_no_line_breaks_on_the_wire() -> None:
    (_, (_, message)) = encode_status(RpcError(2, "a b\nc%\x7fä\ud800"))
    assert message == "a b%0Ac%25%7F%C3%A4?"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ((), Code.UNKNOWN),
        (((":status", "401"),), Code.UNAUTHENTICATED),
        (((":status", "403"), ("content-type", "application/grpc")), Code.PERMISSION_DENIED),
        (((":status", "200"), ("content-type", "application/json")), Code.UNKNOWN),
    ],
)
def test_what_is_not_grpc_says_what_it_is(headers: Metadata, code: Code) -> None:
    error = check_reply(headers)
    assert error is not None
    assert error.code == code
    assert (first(headers, "content-type") or "") in error.message


def test_a_reply_with_any_grpc_content_type_is_one() -> None:
    assert check_reply(((":status", "200"), ("content-type", "application/grpc+proto"))) is None


def test_a_reset_says_who_was_wrong() -> None:
    assert reset_error(ErrorCode.CANCEL, "").code == Code.CANCELLED
    assert reset_error(ErrorCode.REFUSED_STREAM, "").code == Code.UNAVAILABLE
    assert "REFUSED_STREAM" in reset_error(ErrorCode.REFUSED_STREAM, "").message
    assert reset_error(ErrorCode.PROTOCOL_ERROR, "an upper-case header").message == (
        "an upper-case header"
    )
    assert "4711" in reset_error(4711, "").message


def test_small_messages_share_a_buffer_and_large_ones_are_not_copied() -> None:
    large = b"x" * 100_000
    buffers = frame_messages([b"a", b"", large, b"b"])
    assert len(buffers) == 3
    assert buffers[1] is large
    assert frame_parts(b"head", large)[1] is large
