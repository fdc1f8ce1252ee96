"""The session of one build: its handlers and its metadata.

Source: BuildKit, session/session.go and session/grpc.go.
"""

from collections.abc import Callable, Mapping
from typing import BinaryIO

from kitcache.buildkit.session import health, outputs, sync, upload
from kitcache.buildkit.session.content import content_handlers
from kitcache.buildkit.session.memory import MemoryFiles
from kitcache.buildkit.session.outputs import Target
from kitcache.buildkit.session.registry import Credentials, auth_handlers
from kitcache.buildkit.session.secrets import secret_handlers
from kitcache.buildkit.session.stores import ContentStore
from kitcache.buildkit.session.walk import ExcludedDirectories
from kitcache.buildkit.wire.grpc import Metadata
from kitcache.buildkit.wire.rpc import Handler
from kitcache.errors import KitcacheError
from kitcache.options.secrets import Secret

_EXPOSE = "x-docker-expose-session-"
_NAME = "kitcache"


def make_handlers(
    *,
    sources: Mapping[str, str | MemoryFiles],
    excluded: ExcludedDirectories,
    uploads: Mapping[str, BinaryIO],
    files: Mapping[int, Target],
    stores: Mapping[str, ContentStore],
    secrets: tuple[Secret, ...],
    credentials: Callable[[str], Credentials | None],
    on_notice: Callable[[str], None],
    on_failure: Callable[[KitcacheError], None],
) -> dict[str, Handler]:
    """Return the handlers of all calls that the daemon can make; they serve only this build.

    Args:
        sources: Directories by the names that the daemon uses.
        excluded: Directories that no source sends.
        uploads: Streams by their ids.
        files: Targets by the positions of their outputs in the request.
        stores: Content stores by their ids.
        secrets: The secrets of the build.
        credentials: Returns the login for a registry's host.
        on_notice: Called with each warning.
        on_failure: Called with the error of an output.
    """
    handlers: dict[str, Handler] = {
        **health.health_handlers(),
        **auth_handlers(credentials),
        **secret_handlers(secrets),
        sync.DIFF_COPY: sync.sync_handler(sources, excluded=excluded, on_warning=on_notice),
    }
    if uploads:
        handlers[upload.PULL] = upload.upload_handler(uploads)
    if files:
        handlers[outputs.DIFF_COPY] = outputs.output_handler(files, on_failure)
    if stores:
        handlers.update(content_handlers(stores))
    return handlers


def make_metadata(session: str, shared_key: str, handlers: Mapping[str, Handler]) -> Metadata:
    """Return the headers that describe a session to the daemon."""
    return (
        (f"{_EXPOSE}uuid", session),
        (f"{_EXPOSE}name", _NAME),
        (f"{_EXPOSE}sharedkey", shared_key),
        *((f"{_EXPOSE}grpc-method", method) for method in handlers),
    )
