"""A tree that the daemon sends, merged into one directory. No path that it sends leads out of it.

Names go relative to open directories, links are never followed, a file has its name once it is
whole. Directories get their mode and time at the end. Written as the calling user, whatever owner
was sent. Source: tonistiigi/fsutil, receive.go, diskwriter.go (which follows links in parents, and
empties a directory that is in a file's way: we refuse both).
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

_ASKED_AT_ONCE = 64
_NODES = {
    MODE_DEVICE: stat.S_IFBLK,
    MODE_DEVICE | MODE_CHAR_DEVICE: stat.S_IFCHR,
    MODE_FIFO: stat.S_IFIFO,
}


def unpack(stream: Stream, path: str, *, is_mirror: bool = False) -> None:
    """Receive a tree into the directory at path, which is made if it is not there.

    is_mirror: whatever else is in the directory is deleted, once all has come.

    Back as soon as the daemon knows that all is written. Raises KitcacheError for what cannot or
    must not be written, RpcError where the daemon fails; what was whole by then stays.
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


class _Made(NamedTuple):
    """A directory, to get its mode and time at the end. is_ours: it was not there before."""

    entry: FileStat
    is_ours: bool


class _Growing:
    """A file that is being written under another name."""

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
        self._directories: list[_Made] = []
        self._wanted: deque[tuple[int, FileStat]] = deque()
        self._asked: dict[int, _Growing] = {}

    def run(self) -> None:
        """Until the last FIN."""
        while not self._is_complete():
            message = self._stream.receive()
            if message is None:
                raise RpcError(Code.ABORTED, "the daemon ended an output half-way")
            self._take(decode_packet(message))
            self._ask()
        self._finish()
        self._stream.send(FIN)
        for message in self._stream:
            packet = decode_packet(message)
            raise_error_packet(packet, "sender")
            # At once: the daemon never closes its half, it waits for our end.
            if packet.kind == PacketType.FIN:
                return

    def drop(self) -> None:
        """Remove what is not whole."""
        for file in self._asked.values():
            if file.fd >= 0:
                os.close(file.fd)
                directory, _ = split(file.entry.path)
                with suppress(OSError):
                    os.unlink(file.temporary, dir_fd=self._root.directory(directory))

    def _is_complete(self) -> bool:
        return self._has_all_names and not self._wanted and not self._asked

    def _take(self, packet: Packet) -> None:
        raise_error_packet(packet, "sender")
        if packet.kind == PacketType.DATA:
            self._write(packet.id, packet.data)
        elif packet.kind == PacketType.FIN:
            raise self._refused("", "the daemon says that all was sent, before it was")
        elif packet.kind == PacketType.STAT:
            if self._has_all_names:
                raise self._refused("", "the daemon goes on after the end of its list")
            if packet.stat is None:
                self._has_all_names = True
            else:
                self._place(packet.stat)

    def _ask(self) -> None:
        requests = []
        while self._wanted and len(self._asked) < _ASKED_AT_ONCE:
            number, entry = self._wanted.popleft()
            self._asked[number] = _Growing(entry)
            requests.append(encode_request(number))
        if requests:
            self._stream.send(*requests)

    def _place(self, entry: FileStat) -> None:
        number = self._count
        self._count += 1
        self._order.check(entry)
        if self._sent is not None:
            self._sent.add(entry)
        with self._telling(entry.path):
            if entry.is_dir:
                self._make_directory(entry)
            elif entry.is_symlink:
                self._put(entry, lambda name, fd: os.symlink(entry.linkname, name, dir_fd=fd))
                self._set_link_time(entry)
            elif not entry.is_file:
                if entry.mode & MODE_TYPE not in _NODES:
                    raise self._refused(entry.path, "is of a kind that cannot be made here")
                self._put(entry, lambda name, fd: _make_node(entry, name, fd))
            elif entry.linkname:
                self._expect_link(entry)
            else:
                self._expect_file(number, entry)

    def _make_directory(self, entry: FileStat) -> None:
        directory, name = split(entry.path)
        fd = self._root.directory(directory)
        is_ours = True
        try:
            # Ours alone until the end: its mode may not even let us write into it.
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode) and self._sent is None:
                raise self._refused(entry.path, "is a link there, and would lead out") from None
            is_ours = not stat.S_ISDIR(mode)
            if is_ours:
                os.unlink(name, dir_fd=fd)
                os.mkdir(name, 0o700, dir_fd=fd)
        self._directories.append(_Made(entry, is_ours))

    def _expect_link(self, entry: FileStat) -> None:
        if entry.linkname not in self._files:
            raise self._refused(entry.path, f'is a link to "{entry.linkname}", which was not sent')
        self._links.append(entry)

    def _expect_file(self, number: int, entry: FileStat) -> None:
        self._files.add(entry.path)
        if entry.size < 0:
            raise self._refused(entry.path, f"cannot have {entry.size} bytes")
        self._wanted.append((number, entry))

    def _write(self, number: int, data: memoryview) -> None:
        file = self._asked.get(number)
        if file is None:
            raise self._refused("", f"the daemon sends file {number}, which was not asked for")
        file.written += len(data)
        size = file.entry.size
        if file.written > size or (not data and file.written < size):
            problem = f"was to have {size:,} bytes, and comes with {file.written:,}"
            raise self._refused(file.entry.path, problem)
        with self._telling(file.entry.path):
            if file.fd < 0:
                self._open(file)
            if data:
                _write_all(file.fd, data)
            else:
                self._complete(number, file)

    def _open(self, file: _Growing) -> None:
        directory, _ = split(file.entry.path)
        temporary = _temporary_name()
        file.fd = self._root.use(
            directory, lambda fd: os.open(temporary, NEW_FILE_FLAGS, 0o600, dir_fd=fd)
        )
        file.temporary = temporary

    def _complete(self, number: int, file: _Growing) -> None:
        _set_metadata(file.fd, file.entry)
        os.close(file.fd)
        file.fd = -1
        del self._asked[number]
        self._rename(file.temporary, file.entry.path)

    def _put(self, entry: FileStat, make: Callable[[str, int], None]) -> None:
        """Make something under another name, then give it its own."""
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
            # Also where both were names of one file already: then rename does nothing.
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=fd)

    def _set_link_time(self, entry: FileStat) -> None:
        directory, name = split(entry.path)
        times = (entry.mtime_ns, entry.mtime_ns)
        fd = self._root.directory(directory)
        os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)

    def _finish(self) -> None:
        for entry in self._links:
            with self._telling(entry.path):
                self._link(entry)
        if self._sent is not None:
            for directory in self._sent.directories:
                with self._telling(directory, "deleted from"):
                    self._sent.delete_others(directory, self._root)
        for entry, is_ours in reversed(self._directories):
            with self._telling(entry.path), _forgiving(not is_ours):
                _set_metadata(self._root.directory(entry.path), entry)

    def _link(self, entry: FileStat) -> None:
        # The directory of the first name may be closed when that of the second is opened.
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
    def _telling(self, path: str, what: str = "written") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"cannot be {what}: {error.strerror}"
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                problem = "would be written through a link or a file that is there"
            elif error.errno == errno.ENOTEMPTY:
                problem = "is a directory with files there, and none in the output"
            raise self._refused(path, problem) from None
        except (OverflowError, ValueError):
            raise self._refused(path, "has a time or a number that cannot be") from None

    def _refused(self, path: str, problem: str) -> KitcacheError:
        return KitcacheError(
            self._root.path,
            f'"{path}" {problem}' if path else problem,
            effect="what was written whole by then stays",
        )


@contextmanager
def _forgiving(is_foreign: bool) -> Iterator[None]:
    """What others own keeps the mode and time that it has."""
    try:
        yield
    except PermissionError:
        if not is_foreign:
            raise


def _temporary_name() -> str:
    return f".kitcache-{os.urandom(8).hex()}.tmp"


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _make_node(entry: FileStat, name: str, fd: int) -> None:
    permissions = permissions_of(entry.mode)
    device = os.makedev(entry.devmajor, entry.devminor)
    os.mknod(name, _NODES[entry.mode & MODE_TYPE] | permissions, device, dir_fd=fd)
    try:
        # What the umask took, and of the node itself: a link may stand in its place by now.
        os.chmod(name, permissions, dir_fd=fd, follow_symlinks=False)
    except (NotImplementedError, ValueError):
        raise OSError(errno.ELOOP, "is not what was made") from None
    times = (entry.mtime_ns, entry.mtime_ns)
    os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)


def _set_metadata(fd: int, entry: FileStat) -> None:
    # Attributes are a file system's business: upstream tries, and goes on.
    if sys.platform == "linux":
        for key, value in entry.xattrs:
            with suppress(OSError):
                os.setxattr(fd, key, value)
    os.fchmod(fd, permissions_of(entry.mode))
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
