"""Frames, however the bytes that hold them are cut."""

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.wire.frames import (
    END_STREAM,
    PADDED,
    PREFACE,
    ErrorCode,
    Frame,
    FrameReader,
    Http2FrameType,
    ProtocolError,
    error_name,
    make_frame,
    strip_padding,
)

FRAMES = st.lists(
    st.tuples(
        st.integers(0, 12), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=40)
    ),
    max_size=8,
)


def whole(frames: list[Frame]) -> list[tuple[int, int, int, bytes]]:
    """Pieces of DATA put together again; the flags are the last piece's."""
    result: list[tuple[int, int, int, bytes]] = []
    owed = 0
    for kind, flags, stream_id, payload, length in frames:
        if owed:
            assert (kind, length) == (Http2FrameType.DATA, 0)
            last = result.pop()
            assert last[1] == flags & ~END_STREAM
            result.append((kind, flags, stream_id, last[3] + payload))
            owed -= len(payload)
        else:
            result.append((kind, flags, stream_id, bytes(payload)))
            owed = length - len(payload)
    assert not owed
    return result


@given(FRAMES, st.lists(st.integers(0, 400)), st.booleans())
def test_frames_come_out_as_they_went_in_however_cut(
    frames: list[tuple[int, int, int, bytes]], cuts: list[int], has_preface: bool
) -> None:
    data = (PREFACE if has_preface else b"") + b"".join(make_frame(*frame) for frame in frames)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = FrameReader(40, PREFACE if has_preface else b"")
    came: list[Frame] = []
    for start, end in pairwise(places):
        came += reader.feed(data[start:end])
    assert whole(came) == frames


def test_a_frame_over_the_limit_is_refused_before_it_came() -> None:
    header = make_frame(Http2FrameType.HEADERS, 0, 1, b"x" * 11)[:9]
    for pieces in ([header], [header[:4], header[4:]]):
        reader = FrameReader(10)
        with pytest.raises(ProtocolError) as caught:
            deque(frame for piece in pieces for frame in reader.feed(piece))
        assert caught.value.code == ErrorCode.FRAME_SIZE_ERROR


def test_an_answer_in_http1_is_named() -> None:
    with pytest.raises(ProtocolError, match="answered in HTTP/1"):
        list(FrameReader(2**20).feed(b"HTTP/1.1 400 Bad Request\r\n\r\n"))


def test_a_wrong_preface_is_refused_at_its_first_wrong_byte() -> None:
    reader = FrameReader(10, PREFACE)
    assert list(reader.feed(PREFACE[:10])) == []
    with pytest.raises(ProtocolError, match="does not use HTTP/2"):
        list(reader.feed(b"G"))


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x05abcd"])
def test_padding_longer_than_its_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="padding"):
        strip_padding(Frame(Http2FrameType.DATA, PADDED, 1, memoryview(payload), len(payload)))


def test_padding_is_taken_off() -> None:
    padded = Frame(Http2FrameType.DATA, PADDED, 1, memoryview(b"\x02abc\0\0"), 6)
    assert strip_padding(padded) == b"abc"
    assert strip_padding(padded._replace(payload=memoryview(b"\x00"), length=1)) == b""


def test_an_unknown_error_code_is_a_number() -> None:
    assert (error_name(8), error_name(99)) == ("CANCEL", "99")
