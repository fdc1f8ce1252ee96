"""WriteContentRequest by hand and by protobuf: one reading, whatever the bytes."""

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from kitcache.buildkit.proto import content_pb2 as pb
from kitcache.buildkit.session.bulk import WriteRequest, encode_read_head, read_request

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def requests(draw: st.DrawFn) -> pb.WriteContentRequest:
    return pb.WriteContentRequest(
        action=draw(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 2)),
        ref=draw(TEXT),
        total=draw(INT64 | st.integers(0, 2**40)),
        expected=draw(TEXT),
        offset=draw(INT64 | st.integers(0, 2**40)),
        data=draw(st.binary(max_size=300)),
        labels=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
    )


# Fields twice, out of order, of the wrong kind, unknown ones, groups.
PIECES = st.one_of(
    requests().map(lambda request: request.SerializeToString()),
    st.binary(max_size=12),
    st.tuples(st.integers(0, 20), st.integers(0, 7), st.binary(max_size=9)).map(
        lambda t: bytes([t[0] << 3 & 0x7F | t[1]]) + t[2]
    ),
)


def same(one: WriteRequest, other: pb.WriteContentRequest) -> bool:
    return (
        one.action,
        one.ref,
        one.total,
        one.expected,
        one.offset,
        bytes(one.data),
    ) == (other.action, other.ref, other.total, other.expected, other.offset, other.data)


@given(requests())
def test_what_protobuf_writes_is_read(request: pb.WriteContentRequest) -> None:
    assert same(read_request(request.SerializeToString()), request)


@given(st.lists(PIECES, max_size=4).map(b"".join))
@example(b"\x05" + bytes(4))  # a field with the number 0
def test_any_bytes_mean_the_same_to_both_or_nothing_to_both(message: bytes) -> None:
    try:
        theirs = pb.WriteContentRequest.FromString(message)
    except DecodeError:
        try:
            read_request(message)
        except ValueError:
            return
        raise AssertionError("protobuf refuses these bytes") from None
    assert same(read_request(message), theirs)


@given(requests(), st.data())
def test_a_cut_message_is_read_as_protobuf_reads_it(
    request: pb.WriteContentRequest, data: st.DataObject
) -> None:
    whole = request.SerializeToString()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        theirs = pb.WriteContentRequest.FromString(cut)
    except DecodeError:
        return
    assert same(read_request(cut), theirs)


def test_the_data_is_no_copy() -> None:
    message = pb.WriteContentRequest(action=pb.WRITE, data=b"x" * 1000).SerializeToString()
    assert read_request(message).data.obj is message


@given(st.integers(0, 2**62), st.binary(max_size=300))
def test_a_read_response_is_read_by_protobuf(offset: int, data: bytes) -> None:
    found = pb.ReadContentResponse.FromString(encode_read_head(offset, len(data)) + data)
    assert (found.offset, found.data) == (offset, data)
