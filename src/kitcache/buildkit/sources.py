"""What one build lets the daemon ask for: directories, an upload, image layouts. Nothing else.

Here the disk is looked at, before anything is built; what a request means is inputs.py's to say.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import BinaryIO, NamedTuple, cast

from kitcache.buildkit.inputs import Inputs, OciLayout, find_inputs, is_archive
from kitcache.buildkit.secretfiles import prepare_secrets
from kitcache.buildkit.session.memory import MemoryFiles
from kitcache.buildkit.session.stores import ContentStore
from kitcache.errors import KitcacheError, NotFound, UsageError
from kitcache.oci.index import find_entry
from kitcache.options.build import BuildRequest
from kitcache.options.secrets import Secret
from kitcache.store.index import parse_index, read_index
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import open_layout

_HEAD_BYTES = 1024
_DOCKERFILE_LIMIT_BYTES = 16 * 1024 * 1024
# BuildKit takes it for a Dockerfile, and then fails without a reason.
_ZSTD = b"\x28\xb5\x2f\xfd"
_IGNORE_FILE = ".dockerignore"
_UNBUILT = "nothing was built"
_NON_BLOCKING = "stdin does not wait for its data (it is non-blocking)"


class SessionSources(NamedTuple):
    """What a session serves.

    sources: local names, each with a directory or with files in memory. uploads: streams by their
    id. stores: image layouts by store id. inputs: with the frontend attributes that name them.
    secrets: as the session gives them away.
    """

    sources: Mapping[str, str | MemoryFiles]
    uploads: Mapping[str, BinaryIO]
    stores: Mapping[str, ContentStore]
    inputs: Inputs
    secrets: tuple[Secret, ...]

    @property
    def directories(self) -> dict[str, str]:
        """The sources that are on disk."""
        return {name: path for name, path in self.sources.items() if isinstance(path, str)}


def make_offer(
    request: BuildRequest,
    stdin: BinaryIO | None,
    stack: ExitStack,
    pause: Callable[[str], None] = lambda _: None,
) -> SessionSources:
    """Find everything that the build names. stack: keeps open what has to stay so.

    pause: called with the path again and again while a secret's pipe gives nothing; it may raise.

    Raises UsageError, NotFound, NotACache and KitcacheError, before anything is built.
    """
    secrets = prepare_secrets(request.secrets, pause)
    head = b""
    if request.context == "-":
        head = _read_up_to(_expect_stdin(stdin), _HEAD_BYTES)
        if not head:
            raise UsageError("the context is to come from stdin, and stdin is empty")
        if head.startswith(_ZSTD):
            raise UsageError(
                "stdin is compressed with zstd, which BuildKit does not unpack as a context",
                hints=("zstd -dc FILE | kitcache build -",),
            )
    upload_id = os.urandom(12).hex()
    inputs = find_inputs(
        request, os.path.isdir, stdin_is_archive=is_archive(head), upload_id=upload_id
    )
    sources: dict[str, str | MemoryFiles] = dict(inputs.sources)
    uploads: dict[str, BinaryIO] = {}
    if inputs.is_context_empty:
        sources["context"] = MemoryFiles({})
    if inputs.stdin == "context":
        uploads[upload_id] = cast("BinaryIO", _Joined(head, _expect_stdin(stdin)))
    elif inputs.stdin == "dockerfile":
        data = _read_dockerfile(head, _expect_stdin(stdin))
        sources["dockerfile"] = MemoryFiles({"Dockerfile": data})
    elif "dockerfile" in sources:
        _expect_dockerfile(request, str(sources["dockerfile"]), dict(inputs.attrs)["filename"])
    _expect_ignore_files(inputs)
    stores, attrs = _open_layouts(inputs.layouts, stack)
    inputs = inputs._replace(attrs=(*inputs.attrs, *attrs))
    return SessionSources(sources, uploads, stores, inputs, secrets)


def _expect_stdin(stdin: BinaryIO | None) -> BinaryIO:
    if stdin is None:
        raise UsageError('"-" stands for stdin, and there is none')
    return stdin


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """Read size bytes, or fewer at the end. A single read may return what a pipe holds."""
    parts = []
    while size and (data := stream.read(size)) != b"":
        if data is None:
            raise UsageError(_NON_BLOCKING, hints=("os.set_blocking(fd, True)",))
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _read_dockerfile(head: bytes, stream: BinaryIO) -> bytes:
    data = head + _read_up_to(stream, _DOCKERFILE_LIMIT_BYTES + 1 - len(head))
    if len(data) > _DOCKERFILE_LIMIT_BYTES:
        raise UsageError("what comes from stdin is too long for a Dockerfile (over 16 MiB)")
    return data


def _expect_dockerfile(request: BuildRequest, directory: str, name: str) -> None:
    """The Dockerfile is there; the frontend tries the lower-case name too where none was given."""
    path = request.dockerfile or os.path.join(directory, name)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        lower = os.path.join(directory, name.lower())
        if request.dockerfile is None and os.path.exists(lower):
            return
        raise NotFound(
            path,
            "there is no Dockerfile",
            effect=_UNBUILT,
            hints=("name it with --file (-f)", "write one there"),
        ) from None
    except OSError as error:
        raise _unbuilt(io_error(path, "the Dockerfile cannot be opened", error)) from None
    if not stat.S_ISREG(mode):
        raise UsageError("the Dockerfile is no regular file", path=path)


def _expect_ignore_files(inputs: Inputs) -> None:
    """Each is a file, if it is there. The daemon would wait for a pipe, and read a device for ever.

    Source: BuildKit, frontend/dockerui/context.go (the Dockerfile's own goes first).
    """
    own = f"{dict(inputs.attrs)['filename']}{_IGNORE_FILE}"
    for name, directory in inputs.sources:
        path = os.path.join(directory, own if name == "dockerfile" else _IGNORE_FILE)
        with suppress(OSError):  # it is not there, or the daemon says what is wrong with it
            mode = os.stat(path).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise UsageError("the ignore file is not a regular file", path=path)


def _open_layouts(
    layouts: tuple[OciLayout, ...], stack: ExitStack
) -> tuple[dict[str, ContentStore], list[tuple[str, str]]]:
    stores, attrs = {}, []
    for context in layouts:
        try:
            layout = stack.enter_context(open_layout(context.path))
            layout.open_directories()
            digest = context.digest
            if digest is None:
                entry = find_entry(parse_index(context.path, read_index(layout).data), context.tag)
                if entry is None or entry.descriptor is None:
                    raise NotFound(context.path, f"it has no tag '{context.tag}'")
                digest = str(entry.descriptor.digest)
        except KitcacheError as error:
            raise _unbuilt(error) from None
        stores[f"oci:{context.store}"] = ContentStore(layout)
        attrs.append(context.attr(digest))
    return stores, attrs


def _unbuilt(error: KitcacheError) -> KitcacheError:
    error.effect = _UNBUILT
    return error


class _Joined(io.RawIOBase):
    """The bytes that were looked at, then the rest of the stream."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        # What a pipe has, not what it may have once the other end is done.
        read = getattr(self._rest, "read1", self._rest.read)
        data = read(size)
        if data is None:
            raise BlockingIOError(errno.EAGAIN, _NON_BLOCKING)
        return bytes(data)
