"""Calls of one message there and one back, as handlers."""

from collections.abc import Callable

from google.protobuf.message import DecodeError

from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Handler, Stream


def unary_handler(answer: Callable[[bytes], bytes]) -> Handler:
    """A handler that sends what answer makes of the request; what answer raises is the status."""

    def handle(stream: Stream) -> None:
        request = stream.receive()
        if request is None:
            raise RpcError(Code.INVALID_ARGUMENT, "a request was expected")
        try:
            response = answer(request)
        except DecodeError as error:
            raise RpcError(Code.INVALID_ARGUMENT, "the request cannot be read") from error
        stream.send(response)

    return handle
