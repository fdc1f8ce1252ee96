"""Ends a file transfer that failed, with the reason in one line for both sides."""

from contextlib import suppress
from typing import NoReturn

from kitcache.buildkit.session.packets import Packet, PacketType, encode_error
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Stream
from kitcache.errors import KitcacheError, printable


def one_line(error: KitcacheError) -> str:
    """Return the headline and the hints of an error."""
    return "; ".join(map(printable, (error.headline, *error.hints)))


def abort(stream: Stream, text: str, code: Code = Code.UNKNOWN) -> NoReturn:
    """Send an error packet to the daemon, then raise RpcError for the call."""
    with suppress(RpcError):
        stream.send(encode_error(text))
    raise RpcError(code, text)


def raise_error_packet(packet: Packet, sender: str) -> None:
    """Raise RpcError if the packet is an error of the daemon, in the role of `sender`."""
    if packet.kind == PacketType.ERR:
        text = printable(bytes(packet.data).decode("utf-8", "replace"))
        raise RpcError(Code.UNKNOWN, f"error from {sender}: {text}")
