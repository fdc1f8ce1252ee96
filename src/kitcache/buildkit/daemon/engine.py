"""The docker engine's upgrades: after the response to an HTTP/1.1 request the bytes are HTTP/2.

Source: docker/docker, api/server/router/grpc and session; client/hijack.go.
"""

import json
from typing import NamedTuple

from kitcache.buildkit.daemon.transport import Deadline, SocketTransport
from kitcache.buildkit.wire.grpc import Metadata

GRPC = "/grpc"
"""Here the engine is the gRPC server, with the service Control."""
SESSION = "/session"
"""Here the client is the gRPC server. The headers of the request describe the session."""
SWITCHED = 101

_MAX_HEAD_BYTES = 64 * 1024


class Answer(NamedTuple):
    """The response to an upgrade.

    Attributes:
        status: The HTTP status, 0 if the bytes were not HTTP.
        message: The reason of a refusal, if there is one.
    """

    status: int
    message: str


def request_upgrade(
    transport: SocketTransport, path: str, deadline: Deadline, *, metadata: Metadata = ()
) -> Answer:
    """Request an upgrade. After SWITCHED the next bytes of the transport are HTTP/2.

    Raises OSError (TimeoutError).
    """
    transport.set_timeout(deadline.remaining_s())
    transport.write(_request(path, metadata))
    received = b""
    while b"\r\n\r\n" not in received:
        if received and not (received.startswith(b"HTTP/") or b"HTTP/".startswith(received)):
            return Answer(0, "")
        transport.set_timeout(deadline.remaining_s())
        data = transport.read()
        if not data or len(received) > _MAX_HEAD_BYTES:
            return Answer(0, "")
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    answer = _read_answer(head, rest)
    if answer.status == SWITCHED:
        transport.unread(rest)
    return answer


def _request(path: str, metadata: Metadata) -> bytes:
    """Return the bytes of a request. Raises ValueError for metadata with a line break."""
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
    try:
        value = json.loads(body)
    except ValueError:
        return body[:200].decode("utf-8", "replace").strip().split("\n")[0]
    message = value.get("message") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""
