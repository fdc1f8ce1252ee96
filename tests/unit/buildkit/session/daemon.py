"""The daemon's side of a file transfer, straight from protocol's words: what it would have then."""

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote_plus

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.session.memory import MemoryFiles
from kitcache.buildkit.session.sync import OnWarning, sync_handler
from kitcache.buildkit.wire.grpc import Metadata
from kitcache.buildkit.wire.rpc import Stream
from tests.unit.buildkit.session.streams import Call

Packet = files_pb2.Packet
NO_TYPE = 0o777 | 1 << 23 | 1 << 22 | 1 << 20


class Copy(NamedTuple):
    """What came. stats: in the order in which they came. data: of the files asked for."""

    stats: tuple[files_pb2.Stat, ...]
    data: dict[str, bytes]

    @property
    def paths(self) -> list[str]:
        return [stat.path for stat in self.stats]


def order_key(path: str) -> list[bytes]:
    """Depth first, names of a directory by their bytes."""
    return [name.encode() for name in path.split("/")]


def fetch(
    stream: Stream,
    *,
    wants: Callable[[files_pb2.Stat], bool] = lambda stat: True,
    before_asking: Callable[[], None] = lambda: None,
) -> Copy:
    """Ask for all regular files that are wanted, at the end of the list; check the rules."""
    stats: list[files_pb2.Stat] = []
    while (packet := take(stream)).HasField("stat"):
        assert packet.type == Packet.STAT
        stats.append(packet.stat)
    assert packet == Packet(), "the list ends with a STAT without a stat"
    check_order([(stat.path, bool(stat.mode & 1 << 31)) for stat in stats])
    before_asking()
    asked = {
        number: stat.path
        for number, stat in enumerate(stats)
        if not stat.mode & ~NO_TYPE
        and wants(stat)
        and (not stat.linkname or stat.path == stat.linkname)
    }
    for number in asked:
        stream.send(Packet(type=Packet.REQ, id=number).SerializeToString())
    data: dict[str, bytes] = {}
    growing = {number: bytearray() for number in asked}
    while growing:
        packet = take(stream)
        assert packet.type == Packet.DATA
        if packet.data:
            growing[packet.id] += packet.data
        else:
            data[asked[packet.id]] = bytes(growing.pop(packet.id))
    stream.send(Packet(type=Packet.FIN).SerializeToString())
    assert take(stream).type == Packet.FIN
    assert stream.receive() is None, "the call ends at once"
    return Copy(tuple(stats), data)


def take(stream: Stream) -> files_pb2.Packet:
    message = stream.receive()
    assert message is not None, "the call ended in mid-transfer"
    packet = Packet.FromString(message)
    if packet.type == Packet.ERR:
        raise ToldError(packet.data.decode())
    return packet


class ToldError(Exception):
    """The client said ERR."""


def check_order(entries: list[tuple[str, bool]]) -> None:
    """Sorted, nothing twice, each parent before its children."""
    paths = [path for path, _ in entries]
    keys = [order_key(path) for path in paths]
    assert keys == sorted(keys)
    assert len(set(paths)) == len(paths)
    directories = {""} | {path for path, is_dir in entries if is_dir}
    assert all(path.rpartition("/")[0] in directories for path in paths)


def ask_for(
    name: str = "context",
    *,
    includes: tuple[str, ...] = (),
    excludes: tuple[str, ...] = (),
    followed: tuple[str, ...] = (),
) -> Metadata:
    """The metadata of a call, encoded as BuildKit does it."""
    metadata: list[tuple[str, str]] = [("dir-name", name)]
    keys = (
        ("include-patterns", includes),
        ("exclude-patterns", excludes),
        ("followpaths", followed),
    )
    for key, values in keys:
        if all(value.isascii() for value in values):
            metadata += [(key, value) for value in values]
        else:
            metadata += [(key, quote_plus(value)) for value in values] + [(f"{key}-encoded", "1")]
    return tuple(metadata)


def start(
    sources: Mapping[str, str | MemoryFiles],
    metadata: Metadata,
    *,
    on_warning: OnWarning | None = None,
    window: int = 1 << 20,
) -> Call:
    return Call(sync_handler(sources, on_warning=on_warning), metadata=metadata, window=window)


def copy_of(
    path: str,
    *,
    includes: tuple[str, ...] = (),
    excludes: tuple[str, ...] = (),
    followed: tuple[str, ...] = (),
) -> Copy:
    """A whole transfer of a directory."""
    metadata = ask_for(includes=includes, excludes=excludes, followed=followed)
    call = start({"context": path}, metadata)
    found = fetch(call.stream)
    call.wait()
    return found
