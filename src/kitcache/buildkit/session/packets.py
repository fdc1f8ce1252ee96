"""The messages of a file transfer, encoded and decoded without a copy of the data.

Sources: proto/files.proto; fsutil, types/wire.proto. File modes are Go's: io/fs, FileMode.
"""

import stat
from enum import IntEnum
from typing import NamedTuple

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.wire.fields import encode_varint, malformed, read_fields

DATA_BYTES = 256 * 1024
"""The data of one packet. BuildKit's own clients send 32 KiB."""

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
"""The bits of everything but regular files, whose bytes can be requested."""

# As in fsutil, a socket has no bit: it is received as an empty regular file.
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
    """The kind of a packet."""

    STAT = 0
    REQ = 1
    DATA = 2
    FIN = 3
    ERR = 4


class FileStat(NamedTuple):
    """A file below the root of a transfer.

    Attributes:
        path: Relative, normalized, with slashes.
        mode: Go's FileMode.
        size: In bytes, 0 for a directory.
        linkname: The target of a symlink, or the first name of a hard link.
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
        """True for a directory."""
        return bool(self.mode & MODE_DIR)

    @property
    def is_symlink(self) -> bool:
        """True for a symlink."""
        return bool(self.mode & MODE_SYMLINK)

    @property
    def is_file(self) -> bool:
        """True for a regular file, and for a hard link to one."""
        return not self.mode & MODE_TYPE


class Packet(NamedTuple):
    """A message; `stat` is None at the end of a list, `data` is a view of the message."""

    kind: int
    stat: FileStat | None
    id: int
    data: memoryview


def to_go_mode(st_mode: int) -> int:
    """Return Go's FileMode for a st_mode."""
    mode = st_mode & 0o777 | _TYPES.get(stat.S_IFMT(st_mode), 0)
    if st_mode & 0o7000:
        mode |= sum(go_bit for bit, go_bit in _BITS if st_mode & bit)
    return mode


def permissions_of(mode: int) -> int:
    """Return the argument of chmod for Go's FileMode."""
    return mode & 0o777 | sum(bit for bit, go_bit in _BITS if mode & go_bit)


def encode_stat(entry: FileStat) -> bytes:
    """Return a STAT, with user and group 0. Raises UnicodeEncodeError if a name is not UTF-8."""
    packet = files_pb2.Packet()
    message = packet.stat
    message.path = entry.path
    message.mode = entry.mode
    message.size = entry.size
    # Go's times have 64 bits and wrap in 2262, also those that buildx sends.
    message.mod_time = (entry.mtime_ns + 2**63) % 2**64 - 2**63
    if entry.linkname:
        message.linkname = entry.linkname
    if entry.mode & MODE_DEVICE:
        message.devmajor = entry.devmajor
        message.devminor = entry.devminor
    for key, value in entry.xattrs:
        message.xattrs[key] = value
    return packet.SerializeToString()


END_OF_LIST = b""
"""A STAT without a file."""
FIN = b"\x08\x03"


def encode_request(number: int) -> bytes:
    """Return a REQ for the entry with that number."""
    return b"\x08\x01\x18" + encode_varint(number)


def encode_data_head(number: int, size: int) -> bytes:
    """Return the bytes before the data of a DATA. With size 0, the packet that ends a file."""
    head = b"\x08\x02\x18" + encode_varint(number)
    return head + b"\x22" + encode_varint(size) if size else head


def encode_error(text: str) -> bytes:
    """Return an ERR, which ends the transfer."""
    data = text.encode("utf-8", "replace")
    return b"\x08\x04\x22" + encode_varint(len(data)) + data


def decode_packet(message: bytes) -> Packet:
    """Return the packet in a message. Raises RpcError."""
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
        message = files_pb2.Stat.FromString(data)
    except (DecodeError, UnicodeDecodeError):
        raise malformed() from None
    return FileStat(
        path=message.path,
        mode=message.mode,
        size=message.size,
        mtime_ns=message.mod_time,
        linkname=message.linkname,
        devmajor=message.devmajor,
        devminor=message.devminor,
        xattrs=tuple(message.xattrs.items()),
    )
