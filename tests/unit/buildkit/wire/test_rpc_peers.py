"""wire/rpc.py: a peer that says something odd, or wants us to wait."""

import pytest

from kitcache.buildkit.wire.grpc import Code, RpcError, frame_messages
from kitcache.buildkit.wire.rpc import Channel, Server, Stream
from tests.unit.buildkit.wire.peers import REPLY, REQUEST, Theirs
from tests.unit.buildkit.wire.rpckit import Raw, code_of, echo, in_thread
from tests.unit.buildkit.wire.sockets import WAIT_S, transport_pair


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1"),
        (b"\0" * 40, "not SETTINGS"),
        (b"\xff" * 40, "more than the limit"),
    ],
    ids=["another protocol", "zeros", "ones"],
)
def test_a_peer_that_breaks_http2_gets_a_reason_and_so_do_we(data: bytes, problem: str) -> None:
    one, other = transport_pair()
    channel = Channel(one)
    stream = channel.open("/s/M")
    other.write(data)
    with pytest.raises(RpcError, match=problem) as caught:
        stream.receive(WAIT_S)
    assert caught.value.code == Code.UNAVAILABLE
    assert problem in str(channel.failure)
    came = b""
    while piece := other.read():
        came += piece
    assert problem.encode() in came
    other.close()


def test_what_is_no_grpc_is_answered_or_refused() -> None:
    one, other = transport_pair()
    server = Server(one, {"/t.T/M": echo})
    theirs = Theirs(is_client=True)
    stream_id = theirs.open(REQUEST)
    theirs.connection.end_stream(stream_id)
    other.write(theirs.output())
    while not theirs.arrived[stream_id].is_ended:
        theirs.receive(other.read())
    assert theirs.arrived[stream_id].headers == [((":status", "415"),)]
    server.close()
    other.close()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (((":status", "404"), ("content-type", "text/html")), Code.UNIMPLEMENTED),
        (((":status", "503"),), Code.UNAVAILABLE),
        (((":status", "200"), ("content-type", "text/html")), Code.UNKNOWN),
        (((":status", "200"), ("content-type", "application/grpc")), Code.UNKNOWN),
        (((":status", "200"), ("grpc-status", "5")), Code.NOT_FOUND),
    ],
)
def test_a_reply_that_is_not_grpc_is_named(
    raw: Raw, reply: tuple[tuple[str, str], ...], code: Code
) -> None:
    stream = raw.channel.open("/t.T/M")
    raw.await_request(1)
    raw.theirs.connection.send_headers(1, ((":status", "103"), ("link", "x")))
    raw.theirs.send_headers(1, reply, True)
    raw.write()
    assert code_of(lambda: stream.receive(WAIT_S)) == code


def test_a_channel_waits_while_the_server_has_too_many_calls(raw: Raw) -> None:
    first = raw.channel.open("/t.T/First")
    raw.theirs.change_settings({3: 1})
    raw.await_request(1)
    raw.write()
    while raw.theirs.connection.local_settings.max_concurrent_streams != 1:
        raw.theirs.receive(raw.transport.read())
    opening = in_thread(lambda: raw.channel.open("/t.T/Second"))
    assert code_of(lambda: raw.channel.unary("/t.T/Third", b"", timeout_s=0.05)) == (
        Code.DEADLINE_EXCEEDED
    )
    assert not opening.done()
    raw.theirs.send_headers(1, (*REPLY, ("grpc-status", "0")), True)
    raw.write()
    assert first.receive(WAIT_S) is None
    assert isinstance(opening.result(WAIT_S), Stream)


def test_a_message_that_was_cut_off_is_no_success(raw: Raw) -> None:
    stream = raw.channel.open("/t.T/M")
    raw.await_request(1)
    raw.theirs.send_headers(1, REPLY, False)
    raw.theirs.send_data(1, frame_messages([b"message"])[0][:-1], None, False)
    raw.theirs.send_headers(1, (("grpc-status", "0"),), True)
    raw.write()
    assert code_of(lambda: stream.receive(WAIT_S)) == Code.INTERNAL
