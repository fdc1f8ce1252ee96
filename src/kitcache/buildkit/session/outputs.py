"""FileSend.DiffCopy: receives the outputs of a build and writes them to their targets.

The daemon names an output by its position in the request. Source: BuildKit, session/filesync.
"""

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from kitcache.buildkit.session.abort import abort, one_line
from kitcache.buildkit.session.unpack import unpack
from kitcache.buildkit.wire.fields import unwrap_bytes
from kitcache.buildkit.wire.grpc import Code, Metadata, RpcError, first
from kitcache.buildkit.wire.rpc import Handler, Stream
from kitcache.errors import KitcacheError, NoDaemon, printable
from kitcache.options.attributes import is_true
from kitcache.store.userfiles import replace_user_file

DIFF_COPY = "/moby.filesync.v1.FileSend/DiffCopy"

MIRRORS_SINCE = (0, 31)
"""The first BuildKit with mode=delete; it announces the mode with each transfer."""
_EXPORTER_ID = "buildkit-attachable-exporter-id"
_IS_WHOLE = "buildkit-exporter-multi-platform"


class DirectoryTarget(NamedTuple):
    """A directory that receives a tree. It is created if it does not exist.

    Attributes:
        path: The directory.
        is_mirror: Delete all files that the daemon does not send.
    """

    path: str
    is_mirror: bool = False


class StreamTarget(NamedTuple):
    """A file or stream that receives bytes, such as a tar.

    Attributes:
        sink: A path, a binary stream, or a function. A file is replaced when it is complete; a
            device or pipe is written directly. A stream is not closed. A function is called with
            each piece, a view that is valid during the call.
    """

    sink: str | BinaryIO | Callable[[memoryview], object]


Target = DirectoryTarget | StreamTarget


def output_handler(
    targets: Mapping[int, Target], on_failure: Callable[[KitcacheError], None] | None = None
) -> Handler:
    """Return the handler of DIFF_COPY.

    A file that cannot be written ends the call with a message that names it.

    Args:
        targets: By the positions of their outputs in the request.
        on_failure: Called with the error, because not every daemon reports the message.
    """

    def handle(stream: Stream) -> None:
        target = _choose(targets, stream.metadata)
        try:
            if isinstance(target, DirectoryTarget):
                if target.is_mirror:
                    _expect_whole(stream.metadata)
                unpack(stream, target.path, is_mirror=target.is_mirror)
            else:
                _receive(stream, target.sink)
        except KitcacheError as error:
            if on_failure is not None:
                on_failure(error)
            if isinstance(target, DirectoryTarget):
                abort(stream, one_line(error))
            raise RpcError(Code.UNKNOWN, one_line(error)) from None

    return handle


def _choose(targets: Mapping[int, Target], metadata: Metadata) -> Target:
    text = first(metadata, _EXPORTER_ID) or "0"
    target = targets.get(int(text)) if text.isdecimal() and len(text) < 10 else None
    if target is None:
        raise RpcError(Code.NOT_FOUND, f"this build has no output {printable(text)}")
    return target


def _expect_whole(metadata: Metadata) -> None:
    """Raise NoDaemon if the daemon can send a tree in parts, as each would delete the others."""
    if not is_true(first(metadata, _IS_WHOLE) or ""):
        raise NoDaemon(
            "",
            f"local exporter mode=delete requires BuildKit {'.'.join(map(str, MIRRORS_SINCE))}",
            kind="unsupported",
            hints=("omit mode=delete, and empty the directory first",),
        )


def _receive(stream: Stream, sink: str | BinaryIO | Callable[[memoryview], object]) -> None:
    if isinstance(sink, str):
        _receive_file(stream, sink)
    elif callable(sink):
        for message in stream:
            sink(unwrap_bytes(message))
    else:
        _receive_stream(stream, sink, "the output")


def _receive_stream(stream: Stream, sink: BinaryIO, name: str) -> None:
    try:
        for message in stream:
            data = unwrap_bytes(message)
            while data:
                data = data[sink.write(data) :]
        sink.flush()
    except OSError as error:
        raise _unwritable(name, error) from None


def _receive_file(stream: Stream, path: str) -> None:
    is_special = False
    try:
        with suppress(FileNotFoundError):
            mode = os.stat(path).st_mode
            is_special = not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
        if is_special:
            with open(path, "wb", buffering=0) as special:
                _receive_stream(stream, special, path)
            return
        # A symlink at the path is followed, because the caller named it.
        path = os.path.realpath(path)
        with replace_user_file(path, f"{path}.{os.urandom(8).hex()}.tmp") as file:
            _receive_stream(stream, file, path)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: str, error: OSError) -> KitcacheError:
    return KitcacheError(path, f"cannot be written: {error.strerror}", effect="")
