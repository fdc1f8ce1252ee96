"""Receives a tree from the daemon into a directory. No received path can lead out of it.

Names are relative to open directories, symlinks are not followed, and a file gets its name when it
is complete. Directories get their modes and times at the end. The owner is the calling user.
Source: tonistiigi/fsutil, receive.go, diskwriter.go (which also follows symlinks in parents, and
empties a directory that a file replaces; kitcache refuses both).
"""

import errno
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from kitcache.buildkit.session.abort import raise_error_packet
from kitcache.buildkit.session.dirroot import DirectoryRoot, split
from kitcache.buildkit.session.mirror import SentNames, delete
from kitcache.buildkit.session.packets import (
    FIN,
    MODE_CHAR_DEVICE,
    MODE_DEVICE,
    MODE_FIFO,
    MODE_TYPE,
    FileStat,
    Packet,
    PacketType,
    decode_packet,
    encode_request,
    permissions_of,
)
from kitcache.buildkit.session.validator import Order
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Stream
from kitcache.errors import KitcacheError
from kitcache.store.layout import NEW_FILE_FLAGS

_MAX_REQUESTS = 64
_NODES = {
    MODE_DEVICE: stat.S_IFBLK,
    MODE_DEVICE | MODE_CHAR_DEVICE: stat.S_IFCHR,
    MODE_FIFO: stat.S_IFIFO,
}


def unpack(stream: Stream, path: str, *, is_mirror: bool = False) -> None:
    """Receive a tree into a directory, which is created if it does not exist.

    Return when the daemon has been told that everything is written. Raises KitcacheError for paths
    that cannot or must not be written, RpcError if the daemon fails; complete files are kept.

    Args:
        stream: The call.
        path: The directory.
        is_mirror: Delete all other files of the directory, after the tree was received.
    """
    try:
        os.makedirs(path, exist_ok=True)
        root = DirectoryRoot(path)
    except OSError as error:
        problem = f"cannot be written to: {error.strerror}"
        raise KitcacheError(path, problem, effect="") from None
    with root:
        receiver = _Receiver(stream, root, SentNames() if is_mirror else None)
        try:
            receiver.run()
        finally:
            receiver.drop()


class _PendingDirectory(NamedTuple):
    """A directory that gets its mode and time at the end; `is_new` if it did not exist before."""

    entry: FileStat
    is_new: bool


class _PartialFile:
    """A file that is written under a temporary name."""

    def __init__(self, entry: FileStat) -> None:
        self.entry = entry
        self.temporary = ""
        self.fd = -1
        self.written = 0


class _Receiver:
    def __init__(self, stream: Stream, root: DirectoryRoot, sent: SentNames | None) -> None:
        self._sent = sent
        self._stream = stream
        self._root = root
        self._order = Order(root.path)
        self._count = 0
        self._has_all_names = False
        self._files: set[str] = set()
        self._links: list[FileStat] = []
        self._directories: list[_PendingDirectory] = []
        self._wanted: deque[tuple[int, FileStat]] = deque()
        self._asked: dict[int, _PartialFile] = {}

    def run(self) -> None:
        """Receive until the last FIN."""
        while not self._has_all_names or self._wanted or self._asked:
            message = self._stream.receive()
            if message is None:
                raise RpcError(Code.ABORTED, "the daemon ended an incomplete output")
            self._take(decode_packet(message))
            self._ask()
        self._finish()
        self._stream.send(FIN)
        for message in self._stream:
            packet = decode_packet(message)
            raise_error_packet(packet, "sender")
            # The daemon waits for the end of this stream before it closes its own.
            if packet.kind == PacketType.FIN:
                return

    def drop(self) -> None:
        """Delete incomplete files."""
        for file in self._asked.values():
            if file.fd >= 0:
                os.close(file.fd)
                directory, _ = split(file.entry.path)
                with suppress(OSError):
                    os.unlink(file.temporary, dir_fd=self._root.directory(directory))

    def _take(self, packet: Packet) -> None:
        raise_error_packet(packet, "sender")
        if packet.kind == PacketType.DATA:
            self._write(packet.id, packet.data)
        elif packet.kind == PacketType.FIN:
            raise self._refused("", "the daemon ended the transfer before it sent all files")
        elif packet.kind == PacketType.STAT:
            if self._has_all_names:
                raise self._refused("", "the daemon sent an entry after the end of its list")
            if packet.stat is None:
                self._has_all_names = True
            else:
                self._place(packet.stat)

    def _ask(self) -> None:
        requests = []
        while self._wanted and len(self._asked) < _MAX_REQUESTS:
            number, entry = self._wanted.popleft()
            self._asked[number] = _PartialFile(entry)
            requests.append(encode_request(number))
        if requests:
            self._stream.send(*requests)

    def _place(self, entry: FileStat) -> None:
        number = self._count
        self._count += 1
        self._order.check(entry)
        if self._sent is not None:
            self._sent.add(entry)
        with self._named_errors(entry.path):
            if entry.is_dir:
                self._make_directory(entry)
            elif entry.is_symlink:
                self._put(entry, lambda name, fd: os.symlink(entry.linkname, name, dir_fd=fd))
                directory, name = split(entry.path)
                times = (entry.mtime_ns, entry.mtime_ns)
                fd = self._root.directory(directory)
                os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
            elif not entry.is_file:
                if entry.mode & MODE_TYPE not in _NODES:
                    raise self._refused(entry.path, "is of a kind that cannot be created")
                self._put(entry, lambda name, fd: _make_node(entry, name, fd))
            elif entry.linkname:
                self._expect_link(entry)
            else:
                self._expect_file(number, entry)

    def _make_directory(self, entry: FileStat) -> None:
        directory, name = split(entry.path)
        fd = self._root.directory(directory)
        is_new = True
        try:
            # Its final mode can forbid writing into it.
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode) and self._sent is None:
                raise self._refused(entry.path, "is a symlink there") from None
            is_new = not stat.S_ISDIR(mode)
            if is_new:
                os.unlink(name, dir_fd=fd)
                os.mkdir(name, 0o700, dir_fd=fd)
        self._directories.append(_PendingDirectory(entry, is_new))

    def _expect_link(self, entry: FileStat) -> None:
        if entry.linkname not in self._files:
            raise self._refused(
                entry.path, f'is a hard link to "{entry.linkname}", not sent before'
            )
        self._links.append(entry)

    def _expect_file(self, number: int, entry: FileStat) -> None:
        self._files.add(entry.path)
        if entry.size < 0:
            raise self._refused(entry.path, f"cannot have {entry.size} bytes")
        self._wanted.append((number, entry))

    def _write(self, number: int, data: memoryview) -> None:
        file = self._asked.get(number)
        if file is None:
            raise self._refused("", f"the daemon sent file {number}, which was not requested")
        file.written += len(data)
        size = file.entry.size
        if file.written > size or (not data and file.written < size):
            problem = f"has {file.written:,} bytes instead of {size:,}"
            raise self._refused(file.entry.path, problem)
        with self._named_errors(file.entry.path):
            if file.fd < 0:
                self._open(file)
            if data:
                while data:
                    data = data[os.write(file.fd, data) :]
                return
            _set_metadata(file.fd, file.entry)
            os.close(file.fd)
            file.fd = -1
            del self._asked[number]
            self._rename(file.temporary, file.entry.path)

    def _open(self, file: _PartialFile) -> None:
        directory, _ = split(file.entry.path)
        temporary = _temporary_name()
        file.fd = self._root.use(
            directory, lambda fd: os.open(temporary, NEW_FILE_FLAGS, 0o600, dir_fd=fd)
        )
        file.temporary = temporary

    def _put(self, entry: FileStat, make: Callable[[str, int], None]) -> None:
        """Create a file under a temporary name, then rename it."""
        directory, _ = split(entry.path)
        temporary = _temporary_name()
        fd = self._root.directory(directory)
        try:
            make(temporary, fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=fd)
            raise
        self._rename(temporary, entry.path)

    def _rename(self, temporary: str, path: str) -> None:
        directory, name = split(path)
        fd = self._root.directory(directory)
        try:
            try:
                os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
            except IsADirectoryError:
                if self._sent is None:
                    os.rmdir(name, dir_fd=fd)
                else:
                    delete(name, fd)
                os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            # Rename does nothing if both are names of one file.
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=fd)

    def _finish(self) -> None:
        for entry in self._links:
            with self._named_errors(entry.path):
                self._link(entry)
        if self._sent is not None:
            for directory in self._sent.directories:
                with self._named_errors(directory, "deleted from"):
                    self._sent.delete_others(directory, self._root)
        for entry, is_new in reversed(self._directories):
            with self._named_errors(entry.path):
                try:
                    _set_metadata(self._root.directory(entry.path), entry)
                except PermissionError:
                    # A directory of another user keeps its mode and time.
                    if is_new:
                        raise

    def _link(self, entry: FileStat) -> None:
        # The first directory can be closed when the second is opened.
        source_directory, source = split(entry.linkname)
        source_fd = self._root.use(source_directory, os.dup)
        try:
            self._put(
                entry,
                lambda name, fd: os.link(
                    source, name, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False
                ),
            )
        finally:
            os.close(source_fd)

    @contextmanager
    def _named_errors(self, path: str, verb: str = "written") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"cannot be {verb}: {error.strerror}"
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                problem = "would be written through a symlink or a file"
            elif error.errno == errno.ENOTEMPTY:
                problem = "is a directory with files in the target, but not in the output"
            raise self._refused(path, problem) from None
        except (OverflowError, ValueError):
            raise self._refused(path, "has an invalid time or device number") from None

    def _refused(self, path: str, problem: str) -> KitcacheError:
        return KitcacheError(
            self._root.path,
            f'"{path}" {problem}' if path else problem,
            effect="files that were complete are kept",
        )


def _temporary_name() -> str:
    return f".kitcache-{os.urandom(8).hex()}.tmp"


def _make_node(entry: FileStat, name: str, fd: int) -> None:
    permissions = permissions_of(entry.mode)
    device = os.makedev(entry.devmajor, entry.devminor)
    os.mknod(name, _NODES[entry.mode & MODE_TYPE] | permissions, device, dir_fd=fd)
    try:
        # The umask has removed bits. A symlink can have replaced the node.
        os.chmod(name, permissions, dir_fd=fd, follow_symlinks=False)
    except (NotImplementedError, ValueError):
        raise OSError(errno.ELOOP, "was replaced") from None
    times = (entry.mtime_ns, entry.mtime_ns)
    os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)


def _set_metadata(fd: int, entry: FileStat) -> None:
    # As in fsutil, attributes that the file system refuses are skipped.
    if sys.platform == "linux":
        for key, value in entry.xattrs:
            with suppress(OSError):
                os.setxattr(fd, key, value)
    os.fchmod(fd, permissions_of(entry.mode))
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
