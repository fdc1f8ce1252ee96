"""Handlers of calls with one request and one response."""

from collections.abc import Callable

from google.protobuf.message import DecodeError

from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Handler, Stream


def unary_handler(answer: Callable[[bytes], bytes]) -> Handler:
    """Return a handler that sends `answer(request)`; an RpcError of `answer` is the status."""

    def handle(stream: Stream) -> None:
        request = stream.receive()
        if request is None:
            raise RpcError(Code.INVALID_ARGUMENT, "a request was expected")
        try:
            response = answer(request)
        except DecodeError as error:
            raise RpcError(Code.INVALID_ARGUMENT, "the request cannot be parsed") from error
        stream.send(response)

    return handle
