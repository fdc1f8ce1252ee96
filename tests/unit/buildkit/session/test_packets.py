import stat
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.session import packets
from kitcache.buildkit.session.packets import FileStat, PacketType
from kitcache.buildkit.wire.grpc import RpcError

Packet = files_pb2.Packet
numbers = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("ours", "go_s"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o1777, 0o777 | 1 << 31 | 1 << 20),
        (stat.S_IFLNK | 0o777, 0o777 | 1 << 27),
        (stat.S_IFBLK | 0o660, 0o660 | 1 << 26),
        (stat.S_IFCHR | 0o666, 0o666 | 1 << 26 | 1 << 21),
        (stat.S_IFIFO | 0o600, 0o600 | 1 << 25),
        (stat.S_IFSOCK | 0o600, 0o600),
        (stat.S_IFREG | 0o6755, 0o755 | 1 << 23 | 1 << 22),
    ],
)
def test_modes_are_go_s(ours: int, go_s: int) -> None:
    assert packets.to_go_mode(ours) == go_s
    assert packets.permissions_of(go_s) == stat.S_IMODE(ours)


@given(numbers, st.binary(max_size=300))
def test_what_is_written_by_hand_protobuf_reads(number: int, data: bytes) -> None:
    head = packets.encode_data_head(number, len(data))
    assert Packet.FromString(head + data) == Packet(type=Packet.DATA, id=number, data=data)
    request = Packet.FromString(packets.encode_request(number))
    assert request == Packet(type=Packet.REQ, id=number)


def test_the_short_ones_too() -> None:
    assert Packet.FromString(packets.FIN) == Packet(type=Packet.FIN)
    assert Packet.FromString(packets.END_OF_LIST) == Packet()
    failed = Packet(type=Packet.ERR, data=b"no")
    assert Packet.FromString(packets.encode_error("no")) == failed


entries = st.builds(
    FileStat,
    path=st.text(max_size=20),
    mode=numbers.map(lambda mode: mode | packets.MODE_DEVICE),
    size=st.integers(0, 2**63 - 1),
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    linkname=st.text(max_size=20),
    devmajor=st.integers(0, 2**20),
    devminor=st.integers(0, 2**20),
    xattrs=st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=1).map(
        lambda found: tuple(found.items())
    ),
)


@given(entries, numbers)
def test_what_protobuf_writes_is_read_by_hand(entry: FileStat, number: int) -> None:
    read = packets.decode_packet(packets.encode_stat(entry))
    assert (read.kind, read.stat, read.id) == (PacketType.STAT, entry, 0)
    message = Packet(type=Packet.DATA, id=number, data=b"xyz").SerializeToString()
    assert packets.decode_packet(message) == (PacketType.DATA, None, number, b"xyz")


def test_unknown_fields_are_passed_over() -> None:
    unknown = b"\x50\x01" + b"\x5a\x02hi" + b"\x65abcd" + b"\x69abcdefgh"
    assert packets.decode_packet(unknown + b"\x08\x03").kind == PacketType.FIN


@given(st.binary(max_size=40))
def test_garbage_is_read_or_refused(message: bytes) -> None:
    with suppress(RpcError):
        packets.decode_packet(message)


@pytest.mark.parametrize(("years", "go_s"), [(0, 0), (-70, -70), (292, 292), (506, 506 - 584)])
def test_times_begin_anew_where_go_s_end(years: int, go_s: int) -> None:
    """64 bits of nanoseconds are some 584 years."""
    year_ns = 2**64 // 584
    entry = FileStat("far", 0o644, 0, years * year_ns)
    sent = Packet.FromString(packets.encode_stat(entry)).stat.mod_time
    assert abs(sent - go_s * year_ns) < 584
