import io
import os

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.session.upload import upload_handler
from kitcache.buildkit.wire.grpc import Code
from tests.unit.buildkit.session.streams import Call


def pull(call: Call) -> bytes:
    parts = iter(call.stream.receive, None)
    return b"".join(control_pb2.BytesMessage.FromString(part).data for part in parts)


def test_a_stream_comes_whole_and_once() -> None:
    data = os.urandom(700_000)
    handler = upload_handler({"abc": io.BytesIO(data)})
    assert pull(Call(handler, metadata=(("urlpath", "/abc"),))) == data
    again = Call(handler, metadata=(("urlpath", "/abc"),)).outcome()
    assert again is not None
    assert again.code == Code.NOT_FOUND


def test_other_names_are_not_found() -> None:
    handler = upload_handler({"abc": io.BytesIO(b"x")})
    for metadata in ((), (("urlpath", "/abcd"),), (("urlpath", "/abc/"),)):
        error = Call(handler, metadata=metadata).outcome()
        assert error is not None
        assert error.code == Code.NOT_FOUND


def test_what_a_pipe_has_goes_on_at_once() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as source, open(writer, "wb", buffering=0) as sink:
        call = Call(upload_handler({"p": source}), metadata=(("urlpath", "/p"),))
        sink.write(b"first")
        # The pipe is still open: nothing may wait for more.
        message = call.stream.receive()
        assert message is not None
        assert control_pb2.BytesMessage.FromString(message).data == b"first"
        sink.close()
        assert call.outcome() is None


def test_a_stream_that_fails_ends_the_call() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "rb", buffering=0, closefd=True, opener=None) as broken:
        error = Call(upload_handler({"p": broken}), metadata=(("urlpath", "p"),)).outcome()
    assert error is not None
    assert "the context cannot be read" in error.message
