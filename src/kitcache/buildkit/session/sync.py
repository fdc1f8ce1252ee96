"""FileSync.DiffCopy: sends a directory of this build to the daemon.

The daemon receives the list of entries, requests the files that it lacks (also before the end of
the list), and confirms the end. Source: BuildKit, session/filesync; tonistiigi/fsutil, send.go.
"""

import time
from array import array
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from io import BytesIO
from typing import NamedTuple
from urllib.parse import unquote_plus

from kitcache.buildkit.log import LOG
from kitcache.buildkit.session.abort import abort, one_line, raise_error_packet
from kitcache.buildkit.session.dirroot import DirectoryRoot, split
from kitcache.buildkit.session.followpaths import resolve_followpaths
from kitcache.buildkit.session.memory import MemoryFiles, MemoryTree
from kitcache.buildkit.session.packets import (
    DATA_BYTES,
    END_OF_LIST,
    FIN,
    FileStat,
    PacketType,
    decode_packet,
    encode_data_head,
    encode_stat,
)
from kitcache.buildkit.session.patterns import Selection
from kitcache.buildkit.session.walk import (
    NOTHING_EXCLUDED,
    DirectoryTree,
    ExcludedDirectories,
    OpenFile,
    unreadable,
)
from kitcache.buildkit.wire.grpc import Code, Metadata, RpcError, all_values, first
from kitcache.buildkit.wire.rpc import Handler, Stream
from kitcache.errors import KitcacheError, printable
from kitcache.options.globs import BadPattern

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"

_BATCH_BYTES = 64 * 1024

OnWarning = Callable[[str], None]


SyncSource = DirectoryTree | MemoryTree
"""A directory that can be sent."""


class Request(NamedTuple):
    """A request of the daemon; the symlinks of `followed` are resolved, and it is included too."""

    name: str
    includes: tuple[str, ...]
    excludes: tuple[str, ...]
    followed: tuple[str, ...]


def sync_handler(
    sources: Mapping[str, str | MemoryFiles],
    *,
    excluded: ExcludedDirectories = NOTHING_EXCLUDED,
    on_warning: OnWarning | None = None,
) -> Handler:
    """Return the handler of DIFF_COPY. Other names are NOT_FOUND.

    A file that cannot be read ends the call with a message that names it.

    Args:
        sources: Paths of directories, or files in memory, by the names that the daemon uses.
        excluded: Cache directories, which are not sent.
        on_warning: Called for each excluded directory, and for each file that was deleted before
            the daemon requested it; the daemon receives an empty file.
    """

    def handle(stream: Stream) -> None:
        request = read_request(stream.metadata)
        source = sources.get(request.name)
        if source is None:
            name = printable(request.name)
            raise RpcError(Code.NOT_FOUND, f'no access allowed to dir "{name}"')
        LOG.debug("context %s: sent as the daemon asks for its files", printable(request.name))
        with ExitStack() as stack:
            try:
                tree, selection = _open(source, request, stack, excluded, on_warning)
                _Sender(stream, tree, on_warning).run(selection)
            except KitcacheError as error:
                abort(stream, one_line(error))
            except BadPattern as error:
                abort(stream, str(error), Code.INVALID_ARGUMENT)

    return handle


def read_request(metadata: Metadata) -> Request:
    """Return the request in the metadata; values of a key with KEY-encoded are query-unescaped."""

    def values(key: str) -> tuple[str, ...]:
        texts = all_values(metadata, key)
        if first(metadata, f"{key}-encoded") in ("1", "t", "T", "true", "TRUE", "True"):
            return tuple(unquote_plus(value, errors="surrogateescape") for value in texts)
        return texts

    return Request(
        name=next(iter(values("dir-name")), ""),
        includes=values("include-patterns"),
        excludes=values("exclude-patterns"),
        followed=values("followpaths"),
    )


def _open(
    source: str | MemoryFiles,
    request: Request,
    stack: ExitStack,
    excluded: ExcludedDirectories,
    on_warning: OnWarning | None,
) -> tuple[SyncSource, Selection]:
    def on_excluded(name: str) -> None:
        if on_warning:
            on_warning(f'the cache directory "{printable(name)}" is not sent with the context')

    if isinstance(source, MemoryFiles):
        is_all = not {"", ".", "/"}.isdisjoint(request.followed)
        includes = _includes(request, None if is_all else request.followed)
        return MemoryTree(source, time.time_ns()), Selection(includes, request.excludes)
    try:
        root = stack.enter_context(DirectoryRoot(source))
    except OSError as error:
        problem = f"the directory cannot be opened: {error.strerror}"
        raise KitcacheError(source, problem, effect="") from None
    includes = _includes(request, resolve_followpaths(root, request.followed))
    return DirectoryTree(root, excluded, on_excluded), Selection(includes, request.excludes)


def _includes(request: Request, followed: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the patterns of a request; None for all files, also if the root is requested."""
    if request.followed and (followed is None or "." in request.includes):
        return None
    return request.includes + (followed or ()) or None


class _Files:
    """The files that can be requested, by number. Takes about 30 bytes for each entry."""

    def __init__(self) -> None:
        self._directories: list[str] = []
        self._directory_of = array("I")
        self._ends = array("Q")
        self._names = bytearray()
        self._is_waiting = bytearray()

    def add(self, entry: FileStat) -> None:
        directory, name = split(entry.path)
        if not self._directories or self._directories[-1] != directory:
            self._directories.append(directory)
        self._directory_of.append(len(self._directories) - 1)
        if entry.is_file:
            self._names += name.encode()
        self._ends.append(len(self._names))
        self._is_waiting.append(entry.is_file)

    def take(self, number: int) -> str | None:
        """Return the path of a file; None if it is not a file or was requested before."""
        if number >= len(self._is_waiting) or not self._is_waiting[number]:
            return None
        self._is_waiting[number] = False
        start = self._ends[number - 1] if number else 0
        name = self._names[start : self._ends[number]].decode()
        directory = self._directories[self._directory_of[number]]
        return f"{directory}/{name}" if directory else name


class _Sender:
    def __init__(self, stream: Stream, source: SyncSource, on_warning: OnWarning | None) -> None:
        self._stream = stream
        self._source = source
        self._warn = on_warning
        self._files = _Files()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def run(self, selection: Selection) -> None:
        """Send the selection, and return when the daemon has confirmed the end."""
        is_done = False
        for entry in self._source.entries(selection):
            message = _encode(entry)
            self._files.add(entry)
            if self._put(message) and self._serve_waiting():
                is_done = True
                break
        if not is_done:
            self._put(END_OF_LIST)
            self._serve()
        self._flush()
        # The daemon waits for the end of this stream before it closes its own.
        self._stream.send(FIN)

    def _serve_waiting(self) -> bool:
        """Serve the requests that have arrived. Return True after FIN."""
        while True:
            try:
                message = self._stream.receive(timeout_s=0)
            except RpcError as error:
                if error.code == Code.DEADLINE_EXCEEDED:
                    return False
                raise
            if self._answer(message):
                return True

    def _serve(self) -> None:
        while not self._serve_waiting():
            self._flush()
            if self._answer(self._stream.receive()):
                return

    def _answer(self, message: bytes | None) -> bool:
        """Serve a request. Return True for FIN."""
        if message is None:
            raise RpcError(Code.ABORTED, "the daemon ended an incomplete file transfer")
        packet = decode_packet(message)
        if packet.kind == PacketType.REQ:
            path = self._files.take(packet.id)
            if path is None:
                text = f"invalid file id {packet.id}"
                abort(self._stream, text, Code.INVALID_ARGUMENT)
            self._send_file(packet.id, path)
        raise_error_packet(packet, "receiver")
        return packet.kind == PacketType.FIN

    def _send_file(self, number: int, path: str) -> None:
        file = self._source.open(path)
        if file is None:
            if self._warn:
                self._warn(f'"{printable(path)}" was deleted during the transfer: it is sent empty')
        else:
            try:
                self._send_bytes(number, file)
            except OSError as error:
                raise unreadable("", path, error) from None
            finally:
                file.close()
        self._put(encode_data_head(number, 0))

    def _send_bytes(self, number: int, file: OpenFile | BytesIO) -> None:
        while data := file.read(DATA_BYTES):
            head = encode_data_head(number, len(data))
            if len(data) < _BATCH_BYTES:
                self._put(head + data)
            else:
                self._flush()
                self._stream.send_parts(head, data)

    def _put(self, message: bytes) -> bool:
        """Add a message to the batch. Return True if the batch was sent."""
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        if self._waiting_bytes < _BATCH_BYTES:
            return False
        self._flush()
        return True

    def _flush(self) -> None:
        messages, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        if messages:
            self._stream.send(*messages)


def _encode(entry: FileStat) -> bytes:
    """Return the STAT of an entry. Raises KitcacheError for names that are not UTF-8."""
    try:
        return encode_stat(entry)
    except UnicodeEncodeError as error:
        is_name = error.object == entry.path
        part = "name" if is_name else "target" if error.object == entry.linkname else "attribute"
        raise KitcacheError(
            "",
            f'the {part} of "{printable(entry.path)}" is not UTF-8 and cannot be sent',
            effect="",
            hints=(
                f"{'rename it, or ' * is_name}list it in .dockerignore (a wildcard matches it)",
            ),
        ) from None
