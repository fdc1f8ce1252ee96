"""FileSend.DiffCopy: what a build puts out comes to where its caller wanted it, and nowhere else.

Each output of the request has its number, and a target here. Source: BuildKit, session/filesync.
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

DIFF_COPY = "/moby.filesync.v1.FileSend/DiffCopy"

MIRRORS_SINCE = (0, 31)
"""The BuildKit that knows mode=delete, and says so with each transfer."""
_EXPORTER_ID = "buildkit-attachable-exporter-id"
_IS_WHOLE = "buildkit-exporter-multi-platform"


class DirectoryTarget(NamedTuple):
    """A tree, merged into the directory at path; it is made if it is not there.

    is_mirror: what the daemon does not send is deleted there.
    """

    path: str
    is_mirror: bool = False


class StreamTarget(NamedTuple):
    """One stream of bytes, such as a tar.

    sink: a path (the file appears once it is whole, an older one stays until then; a device or a
    pipe is written to), an open binary stream (left open), or what is called with each piece (a
    view that is good for the call).
    """

    sink: str | BinaryIO | Callable[[memoryview], object]


Target = DirectoryTarget | StreamTarget


def output_handler(
    targets: Mapping[int, Target], on_failure: Callable[[KitcacheError], None] | None = None
) -> Handler:
    """Serves DIFF_COPY: the outputs by their positions in the request.

    What cannot be written ends the call with a message that names it; on_failure is told too, for
    not every daemon passes the message on.
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
    """Raises NoDaemon for a daemon that may send a tree in parts: each would delete the others."""
    if not is_true(first(metadata, _IS_WHOLE) or ""):
        raise NoDaemon(
            "",
            f"local exporter mode=delete requires BuildKit {'.'.join(map(str, MIRRORS_SINCE))}",
            kind="unsupported",
            hints=("leave out mode=delete, and empty the directory first",),
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
            _write(sink, unwrap_bytes(message))
        sink.flush()
    except OSError as error:
        raise _unwritable(name, error) from None


def _receive_file(stream: Stream, path: str) -> None:
    try:
        if _is_special(path):
            with open(path, "wb", buffering=0) as special:
                _receive_stream(stream, special, path)
            return
        # The caller's own link is followed: it says where the file is.
        path = os.path.realpath(path)
        temporary = f"{path}.{os.urandom(8).hex()}.tmp"
        try:
            with open(temporary, "xb", buffering=0) as file:
                _receive_stream(stream, file, path)
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(path, error) from None


def _is_special(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _write(sink: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[sink.write(data) :]


def _unwritable(path: str, error: OSError) -> KitcacheError:
    return KitcacheError(path, f"cannot be written: {error.strerror}", effect="")
