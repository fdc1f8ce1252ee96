"""A transfer that cannot go on: both sides are told why, in one line."""

from contextlib import suppress
from typing import NoReturn

from kitcache.buildkit.session.packets import Packet, PacketType, encode_error
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Stream
from kitcache.errors import KitcacheError, printable


def one_line(error: KitcacheError) -> str:
    """What happened, and what to do about it."""
    return "; ".join(map(printable, (error.headline, *error.hints)))


def abort(stream: Stream, text: str, code: Code = Code.UNKNOWN) -> NoReturn:
    """Tell the daemon in a packet, then raise the call's RpcError."""
    with suppress(RpcError):
        stream.send(encode_error(text))
    raise RpcError(code, text)


def raise_error_packet(packet: Packet, who: str) -> None:
    """Raises RpcError where the packet says that the other side (who) has failed."""
    if packet.kind == PacketType.ERR:
        text = printable(bytes(packet.data).decode("utf-8", "replace"))
        raise RpcError(Code.UNKNOWN, f"error from {who}: {text}")
