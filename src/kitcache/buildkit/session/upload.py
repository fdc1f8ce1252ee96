"""Upload.Pull: sends a build context that is one stream, such as a tar on stdin.

Source: BuildKit, session/upload/uploadprovider.
"""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import BinaryIO

from kitcache.buildkit.session.packets import DATA_BYTES
from kitcache.buildkit.wire.fields import wrap_bytes
from kitcache.buildkit.wire.grpc import Code, RpcError, first
from kitcache.buildkit.wire.rpc import Handler, Stream
from kitcache.errors import printable

PULL = "/moby.upload.v1.Upload/Pull"


def upload_handler(streams: Mapping[str, BinaryIO]) -> Handler:
    """Return the handler of PULL: it sends each stream once.

    The id is that of context=http://buildkit-session/ID; an unknown or a sent one is NOT_FOUND. The
    streams are read to their end and not closed.
    """
    lock = Lock()
    remaining = dict(streams)

    def handle(stream: Stream) -> None:
        name = (first(stream.metadata, "urlpath") or "").rpartition("/")[2]
        with lock:
            source = remaining.pop(name, None)
        if source is None:
            raise RpcError(Code.NOT_FOUND, f'no stream "{printable(name)}" in this session')
        # read1 returns the bytes of a pipe as they arrive.
        read: Callable[[int], bytes] = getattr(source, "read1", source.read)
        try:
            while data := read(DATA_BYTES):
                stream.send(wrap_bytes(data))
        except OSError as error:
            raise RpcError(Code.UNKNOWN, f"the context cannot be read: {error.strerror}") from None

    return handle
