"""Laws of gRPC's messages and statuses: nothing is lost, whatever the cuts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.wire.grpc import (
    Code,
    Detail,
    MessageReader,
    RpcError,
    decode_status,
    encode_status,
    frame_messages,
    frame_parts,
)

MESSAGES = st.lists(st.one_of(st.binary(max_size=30), st.integers(0, 40_000).map(bytes)))


def feed_cut(reader: MessageReader, data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    came = []
    for start, end in pairwise(places):
        reader.feed(data[start:end])
        while (message := reader.take()) is not None:
            came.append(message)
    return came


@given(MESSAGES, st.lists(st.integers(0, 100_000)))
def test_messages_come_out_as_they_went_in_however_cut(
    messages: list[bytes], cuts: list[int]
) -> None:
    reader = MessageReader()
    assert feed_cut(reader, b"".join(frame_messages(messages)), cuts) == messages
    assert not reader.is_partial


@given(st.binary(max_size=20), st.binary(max_size=20), st.sampled_from([0, 20_000]))
def test_a_message_in_two_parts_is_the_message(head: bytes, data: bytes, more: int) -> None:
    data += bytes(more)
    assert b"".join(frame_parts(head, data)) == b"".join(frame_messages([head + data]))


@given(MESSAGES, st.binary(min_size=1, max_size=50), st.lists(st.integers(0, 200)), st.data())
def test_a_message_that_was_cut_off_is_noticed(
    messages: list[bytes], last: bytes, cuts: list[int], data: st.DataObject
) -> None:
    whole = b"".join(frame_messages([*messages, last]))
    missing = data.draw(st.integers(1, len(last) + 4))
    reader = MessageReader()
    assert feed_cut(reader, whole[:-missing], cuts) == messages
    assert reader.is_partial


@given(st.integers(1, 255), st.binary(max_size=9), st.lists(st.integers(0, 12)))
def test_a_compressed_message_is_refused(flag: int, body: bytes, cuts: list[int]) -> None:
    data = bytes([flag, 0, 0, 0, len(body)]) + body
    with pytest.raises(RpcError) as caught:
        feed_cut(MessageReader(), data, cuts)
    assert caught.value.code == Code.INTERNAL


@given(st.integers(0, 40), st.integers(1, 100), st.lists(st.integers(0, 12)))
def test_a_message_over_the_limit_is_refused_by_its_prefix(
    limit: int, more: int, cuts: list[int]
) -> None:
    data = b"".join(frame_messages([bytes(limit + more)]))
    with pytest.raises(RpcError) as caught:
        feed_cut(MessageReader(limit), data[:5], cuts)
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    assert feed_cut(MessageReader(limit), b"\0\0\0\0" + bytes([limit]) + bytes(limit), cuts) == [
        bytes(limit)
    ]


TEXT = st.text(st.characters(codec="utf-8"))


@given(
    st.integers(1, 10**6),
    TEXT,
    st.lists(st.builds(Detail, TEXT, st.binary()), max_size=4).map(tuple),
)
def test_a_status_comes_out_as_it_went_in(
    code: int, message: str, details: tuple[Detail, ...]
) -> None:
    trailers = encode_status(RpcError(code, message, details))
    assert all(value.isascii() and value.isprintable() for _, value in trailers)
    error = decode_status(trailers)
    assert error is not None
    assert (error.code, error.message, error.details) == (code, message, details)
