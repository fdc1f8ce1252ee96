"""A daemon that sends a tree: an honest one, and as dishonest as its entries."""

from pathlib import Path
from typing import NamedTuple

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.session.outputs import DirectoryTarget, output_handler
from kitcache.buildkit.wire.grpc import Metadata, RpcError
from tests.unit.buildkit.session.streams import Call

Packet = files_pb2.Packet
DIR = 1 << 31
LINK = 1 << 27


class Sent(NamedTuple):
    """An entry, and the bytes for a REQ."""

    stat: files_pb2.Stat
    data: bytes = b""

    @property
    def message(self) -> bytes:
        return Packet(type=Packet.STAT, stat=self.stat).SerializeToString()


def stat(
    path: str,
    mode: int,
    *,
    size: int = 0,
    linkname: str = "",
    mod_time: int = 10**18,
    devmajor: int = 0,
    devminor: int = 0,
) -> Sent:
    # The owner that is sent never counts.
    found = files_pb2.Stat(
        path=path,
        mode=mode,
        uid=4711,
        gid=4711,
        size=size,
        linkname=linkname,
        mod_time=mod_time,
        devmajor=devmajor,
        devminor=devminor,
    )
    return Sent(found)


def file(path: str, data: bytes, mode: int = 0o644, *, mod_time: int = 10**18) -> Sent:
    return stat(path, mode, size=len(data), mod_time=mod_time)._replace(data=data)


def deliver(
    dest: Path, *entries: Sent, is_mirror: bool = False, metadata: Metadata = ()
) -> RpcError | None:
    """Send a tree into a directory: STATs, what is asked for in pieces, FIN after FIN."""
    target = DirectoryTarget(str(dest), is_mirror)
    call = Call(output_handler({0: target}), metadata=metadata, window=1 << 22)
    stream = call.stream
    try:
        stream.send(*(entry.message for entry in entries), b"")
        while (message := stream.receive()) is not None:
            packet = Packet.FromString(message)
            if packet.type == Packet.FIN:
                stream.send(message)
            elif packet.type == Packet.REQ:
                data = entries[packet.id].data
                half = len(data) // 2
                for part in filter(None, (data[:half], data[half:])):
                    packet = Packet(type=Packet.DATA, id=packet.id, data=part)
                    stream.send(packet.SerializeToString())
                stream.send(Packet(type=Packet.DATA, id=packet.id).SerializeToString())
    except RpcError:
        pass
    return call.outcome()
