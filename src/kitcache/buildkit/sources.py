"""The sources of a build's session: directories, an upload, image layouts, secrets.

The daemon can read only these. This module checks the disk before anything is built; inputs.py
interprets the request.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import BinaryIO, NamedTuple, cast

from kitcache.buildkit.inputs import Inputs, OciLayout, find_inputs, is_archive
from kitcache.buildkit.session.memory import MemoryFiles
from kitcache.buildkit.session.secrets import MAX_SECRET_BYTES
from kitcache.buildkit.session.stores import ContentStore
from kitcache.errors import KitcacheError, NotFound, UsageError
from kitcache.oci.index import find_entry
from kitcache.options.build import BuildRequest
from kitcache.options.secrets import Secret
from kitcache.store.index import parse_index, read_index
from kitcache.store.ioerrors import io_error
from kitcache.store.open import open_directory
from kitcache.store.userfiles import read_to_end

_HEAD_BYTES = 1024
_MAX_DOCKERFILE_BYTES = 16 * 1024 * 1024
# BuildKit parses zstd data as a Dockerfile, and its error does not name the reason.
_ZSTD = b"\x28\xb5\x2f\xfd"
_IGNORE_FILE = ".dockerignore"
_UNBUILT = "nothing was built"
_NON_BLOCKING = "stdin is non-blocking: it does not wait for data"


class SessionSources(NamedTuple):
    """The sources of a session.

    Attributes:
        sources: Local names, each with a directory or with files in memory.
        uploads: Streams by id.
        stores: Image layouts by store id.
        inputs: The build's inputs, with the frontend attributes that name the layouts.
        secrets: The secrets, with the data of those that are in a pipe.
    """

    sources: Mapping[str, str | MemoryFiles]
    uploads: Mapping[str, BinaryIO]
    stores: Mapping[str, ContentStore]
    inputs: Inputs
    secrets: tuple[Secret, ...]

    @property
    def directories(self) -> dict[str, str]:
        """The local names that are directories on disk."""
        return {name: path for name, path in self.sources.items() if isinstance(path, str)}


def open_sources(
    request: BuildRequest,
    stdin: BinaryIO | None,
    stack: ExitStack,
    pause: Callable[[str], None] = lambda _: None,
) -> SessionSources:
    """Open all sources that the request names, before the build starts.

    Args:
        stack: Closes the image layouts.
        pause: Called with the path repeatedly while a secret's pipe has no data. It may raise.
    """
    secrets = tuple(prepare_secret(secret, pause) for secret in request.secrets)
    head = b""
    if request.context == "-":
        head = _read_up_to(_require_stdin(stdin), _HEAD_BYTES)
        if not head:
            raise UsageError("the context is read from stdin, but stdin is empty")
        if head.startswith(_ZSTD):
            raise UsageError(
                "stdin is compressed with zstd, which BuildKit does not unpack as a context",
                hints=("decompress it with zstd -dc",),
            )
    upload_id = os.urandom(12).hex()
    inputs = find_inputs(
        request, os.path.isdir, stdin_is_archive=is_archive(head), upload_id=upload_id
    )
    sources: dict[str, str | MemoryFiles] = dict(inputs.sources)
    uploads: dict[str, BinaryIO] = {}
    if inputs.stdin == "dockerfile" and request.context == "-":
        sources["context"] = MemoryFiles({})
    if inputs.stdin == "context":
        uploads[upload_id] = cast("BinaryIO", _Joined(head, _require_stdin(stdin)))
    elif inputs.stdin == "dockerfile":
        max_bytes = _MAX_DOCKERFILE_BYTES + 1 - len(head)
        data = head + _read_up_to(_require_stdin(stdin), max_bytes)
        if len(data) > _MAX_DOCKERFILE_BYTES:
            raise UsageError("stdin is too long for a Dockerfile (over 16 MiB)")
        sources["dockerfile"] = MemoryFiles({"Dockerfile": data})
    elif "dockerfile" in sources:
        _check_dockerfile(request, str(sources["dockerfile"]), dict(inputs.attrs)["filename"])
    _check_ignore_files(inputs)
    stores = {}
    for layout in inputs.layouts:
        store, attr = _open_layout(layout, stack)
        stores[f"oci:{layout.store}"] = store
        inputs = inputs._replace(attrs=(*inputs.attrs, attr))
    return SessionSources(sources, uploads, stores, inputs, secrets)


def prepare_secret(secret: Secret, pause: Callable[[str], None]) -> Secret:
    """Return the secret, with its data if it is in a pipe or a device. Raise KitcacheError.

    A regular file is read when a step asks for it; here its existence is checked. A pipe, such as
    bash's <(COMMAND), can be read only once, and a step may ask twice.

    Args:
        pause: Called with the path repeatedly while a pipe has no data. It may raise.
    """
    path = secret.path
    if path is None:
        return secret
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return secret
        return Secret(secret.id, data=read_to_end(path, MAX_SECRET_BYTES, lambda: pause(path)))
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, OSError) else OSError(0, str(error))
        problem = f"the file of the secret {secret.id} cannot be read"
        failure = io_error(path, problem, cause, effect=_UNBUILT)
        if isinstance(error, FileNotFoundError):
            failure.hints = ("name a file that exists",)
        raise failure from None


def _require_stdin(stdin: BinaryIO | None) -> BinaryIO:
    if stdin is None:
        raise UsageError('"-" means stdin, but there is no stdin')
    return stdin


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """Read size bytes, or fewer at the end. One read of a pipe may return fewer before its end."""
    parts = []
    while size and (data := stream.read(size)) != b"":
        if data is None:
            raise UsageError(_NON_BLOCKING, hints=("os.set_blocking(fd, True)",))
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _check_dockerfile(request: BuildRequest, directory: str, name: str) -> None:
    """Check that the Dockerfile exists. The frontend tries the lower-case name of the default."""
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
            hints=("name the Dockerfile", "write one there"),
        ) from None
    except OSError as error:
        raise io_error(path, "the Dockerfile cannot be opened", error, effect=_UNBUILT) from None
    if not stat.S_ISREG(mode):
        raise UsageError("the Dockerfile is not a regular file", path=path)


def _check_ignore_files(inputs: Inputs) -> None:
    """Check that each ignore file is a file. The daemon would wait for a pipe or device for ever.

    Source: BuildKit, frontend/dockerui/context.go (the Dockerfile's own file has precedence).
    """
    own = f"{dict(inputs.attrs)['filename']}{_IGNORE_FILE}"
    for name, directory in inputs.sources:
        path = os.path.join(directory, own if name == "dockerfile" else _IGNORE_FILE)
        with suppress(OSError):  # the file is missing, or the daemon reports the problem
            mode = os.stat(path).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise UsageError("the ignore file is not a regular file", path=path)


def _open_layout(source: OciLayout, stack: ExitStack) -> tuple[ContentStore, tuple[str, str]]:
    """Return the store of an image layout, and the frontend attribute that names the image."""
    try:
        layout = stack.enter_context(open_directory(source.path))
        layout.open_directories()
        digest = source.digest
        if digest is None:
            entry = find_entry(parse_index(source.path, read_index(layout).data), source.tag)
            if entry is None or entry.descriptor is None:
                raise NotFound(source.path, f"it has no tag '{source.tag}'")
            digest = str(entry.descriptor.digest)
    except KitcacheError as error:
        error.effect = _UNBUILT
        raise error from None
    return ContentStore(layout), source.attr(digest)


class _Joined(io.RawIOBase):
    """The bytes that were read ahead, then the rest of the stream."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        # read1 returns what a pipe has now; read would wait until the pipe is closed.
        read = getattr(self._rest, "read1", self._rest.read)
        data = read(size)
        if data is None:
            raise BlockingIOError(errno.EAGAIN, _NON_BLOCKING)
        return bytes(data)
