"""The messages of a file transfer, encoded and decoded without copies of what they carry.

Wire numbers: proto/files.proto; fsutil, types/wire.proto. File modes are Go's: io/fs, FileMode.
"""

import stat
from enum import IntEnum
from typing import NamedTuple

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.wire.fields import encode_varint, malformed, read_fields

DATA_BYTES = 256 * 1024
"""The most that one packet carries. BuildKit's own clients send 32 KiB."""

MODE_DIR = 1 << 31
MODE_SYMLINK = 1 << 27
MODE_DEVICE = 1 << 26
MODE_FIFO = 1 << 25
MODE_SOCKET = 1 << 24
MODE_SETUID = 1 << 23
MODE_SETGID = 1 << 22
MODE_CHAR_DEVICE = 1 << 21
MODE_STICKY = 1 << 20
MODE_IRREGULAR = 1 << 19
MODE_TYPE = (
    MODE_DIR
    | MODE_SYMLINK
    | MODE_DEVICE
    | MODE_FIFO
    | MODE_SOCKET
    | MODE_CHAR_DEVICE
    | MODE_IRREGULAR
)
"""What makes an entry no regular file, whose bytes can be asked for."""

# A socket's bit is cleared, as fsutil does it: it arrives as an empty regular file.
_TYPES = {
    stat.S_IFDIR: MODE_DIR,
    stat.S_IFLNK: MODE_SYMLINK,
    stat.S_IFBLK: MODE_DEVICE,
    stat.S_IFCHR: MODE_DEVICE | MODE_CHAR_DEVICE,
    stat.S_IFIFO: MODE_FIFO,
}
_BITS = (
    (stat.S_ISUID, MODE_SETUID),
    (stat.S_ISGID, MODE_SETGID),
    (stat.S_ISVTX, MODE_STICKY),
)


class PacketType(IntEnum):
    """What a packet says."""

    STAT = 0
    REQ = 1
    DATA = 2
    FIN = 3
    ERR = 4


class FileStat(NamedTuple):
    """One name below the root.

    path: relative, clean, with slashes. mode: Go's FileMode. size: bytes, 0 for a directory.
    linkname: a symlink's target, or the first sent name of a hard link.
    """

    path: str
    mode: int
    size: int = 0
    mtime_ns: int = 0
    linkname: str = ""
    devmajor: int = 0
    devminor: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def is_dir(self) -> bool:
        """A directory."""
        return bool(self.mode & MODE_DIR)

    @property
    def is_symlink(self) -> bool:
        """A symbolic link."""
        return bool(self.mode & MODE_SYMLINK)

    @property
    def is_file(self) -> bool:
        """Has bytes that can be asked for; a hard link counts."""
        return not self.mode & MODE_TYPE


class Packet(NamedTuple):
    """One message. entry: of a STAT, None where it ends the list. data: a view of the message."""

    kind: int
    stat: FileStat | None
    id: int
    data: memoryview


def to_go_mode(st_mode: int) -> int:
    """Go's FileMode for a st_mode."""
    mode = st_mode & 0o777 | _TYPES.get(stat.S_IFMT(st_mode), 0)
    if st_mode & 0o7000:
        for ours, theirs in _BITS:
            if st_mode & ours:
                mode |= theirs
    return mode


def permissions_of(mode: int) -> int:
    """What chmod is to be given for Go's FileMode."""
    return mode & 0o777 | sum(ours for ours, theirs in _BITS if mode & theirs)


def encode_stat(entry: FileStat) -> bytes:
    """A STAT, always of user and group 0. Raises UnicodeEncodeError for a name that is no UTF-8."""
    packet = files_pb2.Packet()
    found = packet.stat
    found.path = entry.path
    found.mode = entry.mode
    found.size = entry.size
    # Go's time in 64 bits ends in 2262 and begins anew: so does what buildx sends.
    found.mod_time = (entry.mtime_ns + 2**63) % 2**64 - 2**63
    if entry.linkname:
        found.linkname = entry.linkname
    if entry.mode & MODE_DEVICE:
        found.devmajor = entry.devmajor
        found.devminor = entry.devminor
    for key, value in entry.xattrs:
        found.xattrs[key] = value
    return packet.SerializeToString()


END_OF_LIST = b""
"""A STAT without a stat."""
FIN = b"\x08\x03"


def encode_request(number: int) -> bytes:
    """A REQ for the entry with that number."""
    return b"\x08\x01\x18" + encode_varint(number)


def encode_data_head(number: int, size: int) -> bytes:
    """What stands before size bytes of DATA. With size 0 it is the whole packet, the end."""
    head = b"\x08\x02\x18" + encode_varint(number)
    return head + b"\x22" + encode_varint(size) if size else head


def encode_error(text: str) -> bytes:
    """An ERR: the transfer is over."""
    data = text.encode("utf-8", "replace")
    return b"\x08\x04\x22" + encode_varint(len(data)) + data


def decode_packet(message: bytes) -> Packet:
    """Raises RpcError for what is no packet."""
    kind = number = 0
    entry = None
    data = memoryview(b"")
    for field, value in read_fields(message):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field == 2 and isinstance(value, memoryview):
            entry = _decode_entry(bytes(value))
        elif field == 3 and isinstance(value, int):
            number = value & 0xFFFFFFFF
        elif field == 4 and isinstance(value, memoryview):
            data = value
    return Packet(kind, entry, number, data)


def _decode_entry(data: bytes) -> FileStat:
    try:
        found = files_pb2.Stat.FromString(data)
    except (DecodeError, UnicodeDecodeError):
        raise malformed() from None
    return FileStat(
        path=found.path,
        mode=found.mode,
        size=found.size,
        mtime_ns=found.mod_time,
        linkname=found.linkname,
        devmajor=found.devmajor,
        devminor=found.devminor,
        xattrs=tuple(found.xattrs.items()),
    )
