"""Bulk messages by hand, with protobuf as the oracle."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.proto.control_pb2 import BytesMessage
from kitcache.buildkit.wire.fields import unwrap_bytes, wrap_bytes
from kitcache.buildkit.wire.grpc import RpcError


@given(st.binary(max_size=300) | st.integers(0, 70_000).map(bytes))
def test_wrap_is_protobufs_and_unwrap_undoes_it(data: bytes) -> None:
    assert unwrap_bytes(BytesMessage(data=data).SerializeToString()) == data
    if data:
        assert wrap_bytes(memoryview(data)) == BytesMessage(data=data).SerializeToString()


@given(st.binary(max_size=12))
def test_any_bytes_are_understood_as_protobuf_understands_them(message: bytes) -> None:
    try:
        expected = BytesMessage.FromString(message).data
    except DecodeError:
        with pytest.raises(RpcError):
            unwrap_bytes(message)
    else:
        assert unwrap_bytes(message) == expected


def test_the_data_is_not_copied() -> None:
    message = wrap_bytes(b"x" * 1000)
    assert unwrap_bytes(message).obj is message
