"""The docker engine's upgrades: an HTTP/1.1 request, after whose answer the bytes are HTTP/2.

Source: docker/docker, api/server/router/grpc and session; client/hijack.go.
"""

import json
from typing import NamedTuple

from kitcache.buildkit.daemon.transport import Deadline, SocketTransport
from kitcache.buildkit.wire.grpc import Metadata

# GRPC: the engine serves, Control lives there. SESSION: we serve; what the session is, is in the
# headers of the request.
GRPC = "/grpc"
SESSION = "/session"
SWITCHED = 101

_MOST_HEAD_BYTES = 64 * 1024


class Answer(NamedTuple):
    """What came back. status: of HTTP, 0 where it was no HTTP. message: why not, if said."""

    status: int
    message: str


def request_upgrade(
    transport: SocketTransport, path: str, deadline: Deadline, *, metadata: Metadata = ()
) -> Answer:
    """Asks for it. After SWITCHED the transport's next bytes belong to HTTP/2.

    Raises OSError, TimeoutError too.
    """
    transport.set_timeout(deadline.remaining_s())
    transport.write(_request(path, metadata))
    received = b""
    while b"\r\n\r\n" not in received:
        if received and not (received.startswith(b"HTTP/") or b"HTTP/".startswith(received)):
            return Answer(0, "")
        transport.set_timeout(deadline.remaining_s())
        data = transport.read()
        if not data or len(received) > _MOST_HEAD_BYTES:
            return Answer(0, "")
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    answer = _read_answer(head, rest)
    if answer.status == SWITCHED:
        transport.unread(rest)
    return answer


def _request(path: str, metadata: Metadata) -> bytes:
    """Raises ValueError for metadata that could be more than a header."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: h2c",
        "Content-Length: 0",
    ]
    for name, value in metadata:
        if not (name + value).isprintable():
            raise ValueError(f"a header cannot hold the value of {name}")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def _read_answer(head: bytes, body: bytes) -> Answer:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    try:
        status = int(words[1])
    except (ValueError, IndexError):
        return Answer(0, "")
    return Answer(status, _message(body) or " ".join(words[2:]))


def _message(body: bytes) -> str:
    """What the engine says in its JSON, or the first line of anything else."""
    try:
        found = json.loads(body)
    except ValueError:
        return body[:200].decode("utf-8", "replace").strip().split("\n")[0]
    message = found.get("message") if isinstance(found, dict) else None
    return message if isinstance(message, str) else ""
