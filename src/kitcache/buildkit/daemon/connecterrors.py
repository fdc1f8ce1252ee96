"""The errors of a failed connection: a problem and hints."""

import errno
import grp
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.engine import Answer
from kitcache.buildkit.daemon.transport import SocketTransport
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.errors import NoDaemon, NoDaemonKind

ANOTHER = "name another daemon"
_START = "start docker or buildkitd"
_GIVE_TLS = "if it expects TLS, give its CA, and a client certificate with its key"
_OTHER_NAME_HINTS = (
    "use the host name that is in its certificate",
    "state the name in the certificate",
)
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")


class ConnectProblem(NamedTuple):
    """The problem as one clause, and hints."""

    problem: str
    hints: tuple[str, ...] = (ANOTHER,)
    kind: NoDaemonKind = "unreachable"


_SILENT = ConnectProblem(
    "it does not answer", ("check if it is overloaded, or not a BuildKit", ANOTHER)
)
_CLOSED = ConnectProblem("it closed the connection", ("see the daemon's log", ANOTHER))
_NETWORK_PROBLEMS: tuple[tuple[type[OSError], ConnectProblem], ...] = (
    (TimeoutError, _SILENT),
    (FileNotFoundError, ConnectProblem("there is no such socket", (_START, ANOTHER))),
    (ConnectionRefusedError, ConnectProblem("nothing listens there", (_START, ANOTHER))),
    (ConnectionError, _CLOSED),
)
_CALL_PROBLEMS: Mapping[int | None, ConnectProblem] = {
    Code.DEADLINE_EXCEEDED: _SILENT,
    Code.UNIMPLEMENTED: ConnectProblem(
        "not a BuildKit: it is a gRPC server without moby.buildkit.v1.Control", kind="unsupported"
    ),
}


class Attempt(NamedTuple):
    """The transport of a failed attempt, and the answer to an upgrade that was refused."""

    transport: SocketTransport | None = None
    answer: Answer | None = None


class NotAnEngineError(Exception):
    """The answer to an upgrade was not HTTP, or was empty."""


def no_daemon(address: Address, error: Exception, attempt: Attempt) -> NoDaemon:
    """Return the error to raise for a failed attempt.

    Args:
        address: The daemon's.
        error: OSError, RpcError, NotAnEngineError, or ValueError from make_context.
        attempt: What is known of it.
    """
    problem = (
        _program(address, error, attempt)
        or _certificates(address, error, attempt)
        or _language(attempt)
        or _network(address, _root_of(error, attempt))
        or _call(address, error, attempt)
    )
    return NoDaemon(
        address.url,
        problem.problem,
        kind=problem.kind,
        details=(f"chosen by {address.origin}",),
        hints=problem.hints,
    )


def refused_upgrade(address: Address, answer: Answer) -> NoDaemon:
    """Return the error to raise if an HTTP server refuses the upgrade to BuildKit."""
    if "HTTPS server" in answer.message:
        kind: NoDaemonKind = "unreachable"
        problem, hint = "it expects TLS", "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"
    else:
        kind = "unsupported"
        problem = f"it refuses BuildKit: HTTP {answer.status}, {answer.message}"
        hint = "docker 18.09 or newer has BuildKit" if answer.status == 404 else ANOTHER
    details = (f"chosen by {address.origin}",)
    return NoDaemon(address.url, problem, kind=kind, details=details, hints=(hint,))


def no_answer(address: Address, error: RpcError, *, is_lost: bool) -> NoDaemon:
    """Return the error to raise if a daemon that has answered before does not answer a call."""
    kind: NoDaemonKind = "lost" if is_lost else "unreachable"
    if error.code == Code.UNIMPLEMENTED:
        kind = "unsupported"
    hints = ("look at the daemon's log, then try again",)
    return NoDaemon(address.url, f"the daemon does not answer: {error}", kind=kind, hints=hints)


def _root_of(error: Exception, attempt: Attempt) -> Exception:
    # A call reports only a lost connection; the error of its socket explains more.
    if isinstance(error, RpcError) and attempt.transport and attempt.transport.failure:
        return attempt.transport.failure
    return error


def _program(address: Address, error: Exception, attempt: Attempt) -> ConnectProblem | None:
    if not address.command:
        return None
    program = address.command[0]
    if isinstance(error, OSError) and attempt.transport is None:
        if isinstance(error, FileNotFoundError):
            return ConnectProblem(f"the program {program!r} is not installed", (ANOTHER,))
        return ConnectProblem(
            f"the program {program!r} cannot be run: {error.strerror}", (ANOTHER,)
        )
    line = attempt.transport.last_stderr_line() if attempt.transport else ""
    if not line:
        return None
    problem = f"{program} reports: {line}"
    if isinstance(error, TimeoutError) or _code_of(error) == Code.DEADLINE_EXCEEDED:
        return ConnectProblem(f"{_SILENT.problem}; {problem}", _SILENT.hints)
    create = "docker buildx inspect --bootstrap creates the container of a builder"
    is_node = "://buildx_buildkit_" in address.url
    return ConnectProblem(problem, (create, ANOTHER) if is_node else (ANOTHER,))


def _certificates(address: Address, error: Exception, attempt: Attempt) -> ConnectProblem | None:
    if address.tls is None:
        return None
    from kitcache.buildkit.daemon.tlstransport import (  # noqa: PLC0415 - costs 11 ms
        OTHER_NAME,
        REFUSED,
        explain,
    )

    # An SSLCertVerificationError is a ValueError and an OSError.
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return ConnectProblem(f"a certificate cannot be used: {error}", ("repair that file",))
    problem = explain(_root_of(error, attempt))
    if problem is None and _hung_up(error, attempt):
        # With TLS 1.3 the handshake succeeds before the server checks the client's certificate.
        problem = REFUSED
    if problem == REFUSED and address.tls.cert:
        hint = "give a certificate that was signed by the CA that the daemon trusts"
        return ConnectProblem(f"the daemon refused the certificate {address.tls.cert}", (hint,))
    if problem == REFUSED:
        hint = "give a client certificate and its key"
        return ConnectProblem("the daemon requires a client certificate", (hint,))
    if problem and problem.startswith(OTHER_NAME):
        return ConnectProblem(problem, _OTHER_NAME_HINTS)
    return ConnectProblem(problem, ("give the right CA, certificate and key",)) if problem else None


def _hung_up(error: Exception, attempt: Attempt) -> bool:
    """Return True if the connection was closed before a byte was received."""
    if attempt.transport is None or attempt.transport.opening:
        return False
    return _code_of(error) == Code.UNAVAILABLE or isinstance(error, NotAnEngineError)


def _network(address: Address, error: Exception) -> ConnectProblem | None:
    if isinstance(error, PermissionError):
        return ConnectProblem("permission denied", (_access_hint(address.url), ANOTHER))
    if isinstance(error, socket.gaierror):
        return ConnectProblem(f"the host is unknown: {error.strerror}")
    for kind, problem in _NETWORK_PROBLEMS:
        if isinstance(error, kind):
            return problem
    if not isinstance(error, OSError):
        return None
    is_named = error.errno == errno.ENOTSOCK or error.strerror is None
    return ConnectProblem(str(error) if is_named else str(error.strerror))


def _access_hint(url: str) -> str:
    with suppress(OSError, KeyError):
        name = grp.getgrgid(os.stat(url.removeprefix("unix://")).st_gid).gr_name
        if name != "root":
            return f"join the group that may use it: sudo usermod -aG {name} $USER"
    return "run as a user who may open it"


def _language(attempt: Attempt) -> ConnectProblem | None:
    """Return the problem if the first bytes show another kind of server."""
    opening = attempt.transport.opening if attempt.transport else b""
    if opening.startswith(_TLS_RECORDS) or b"HTTPS server" in opening:
        return ConnectProblem(
            "it expects TLS", ("give its CA, and a client certificate with its key",)
        )
    status = attempt.answer.status if attempt.answer else 0
    if not status and not opening.startswith(b"HTTP/"):
        return None
    number = f" (HTTP {status})" if status else ""
    return ConnectProblem(f"not a BuildKit: a web server answers{number}", kind="unsupported")


def _call(address: Address, error: Exception, attempt: Attempt) -> ConnectProblem:
    if _hung_up(error, attempt):
        may_be_tls = address.url.startswith("tcp://") and address.tls is None
        return ConnectProblem(_CLOSED.problem, ((_GIVE_TLS,) if may_be_tls else ()) + _CLOSED.hints)
    return _CALL_PROBLEMS.get(_code_of(error)) or ConnectProblem(f"no BuildKit answers: {error}")


def _code_of(error: Exception) -> int | None:
    return error.code if isinstance(error, RpcError) else None
