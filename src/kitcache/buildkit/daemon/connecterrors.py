"""Why a daemon could not be had, in words: what happened, and what to do next."""

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

ANOTHER = "name another daemon with --addr or --builder"
_START = "start docker or buildkitd"
_GIVE_TLS = "if it expects TLS, give its CA, and a client certificate with its key"
_OTHER_NAME_STEPS = (
    "name the host as its certificate does",
    "say what the certificate calls it: --tlsservername NAME",
)
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")


class ConnectProblem(NamedTuple):
    """One clause, and advice."""

    problem: str
    hints: tuple[str, ...] = (ANOTHER,)
    kind: NoDaemonKind = "unreachable"


_SILENT = ConnectProblem("it does not answer", ("is it overloaded, or something else?", ANOTHER))
_CLOSED = ConnectProblem("it closed the connection", ("see the daemon's log", ANOTHER))
_TROUBLES: tuple[tuple[type[OSError], ConnectProblem], ...] = (
    (TimeoutError, _SILENT),
    (FileNotFoundError, ConnectProblem("there is no such socket", (_START, ANOTHER))),
    (ConnectionRefusedError, ConnectProblem("nothing listens there", (_START, ANOTHER))),
    (ConnectionError, _CLOSED),
)
_CALLS: Mapping[int | None, ConnectProblem] = {
    Code.DEADLINE_EXCEEDED: _SILENT,
    Code.UNIMPLEMENTED: ConnectProblem(
        "no BuildKit: it speaks gRPC, but knows no moby.buildkit.v1.Control", kind="unsupported"
    ),
}


class Attempt(NamedTuple):
    """How far it got. answer: to the engine's upgrade, where that was asked for and refused."""

    transport: SocketTransport | None = None
    answer: Answer | None = None


class NotAnEngineError(Exception):
    """What came back to an upgrade was no HTTP, or nothing."""


def no_daemon(address: Address, error: Exception, attempt: Attempt) -> NoDaemon:
    """The failure to raise.

    error: OSError, RpcError, NotAnEngineError, or ValueError from make_context.
    """
    trouble = (
        _program(address, error, attempt)
        or _certificates(address, error, attempt)
        or _language(attempt)
        or _network(address, _root_of(error, attempt))
        or _call(address, error, attempt)
    )
    return NoDaemon(
        address.url,
        trouble.problem,
        kind=trouble.kind,
        details=(f"chosen by {address.origin}",),
        hints=trouble.hints,
    )


def refused_upgrade(address: Address, answer: Answer) -> NoDaemon:
    """The failure to raise where something speaks HTTP, but does not switch to BuildKit."""
    kind: NoDaemonKind = "unsupported"
    if "HTTPS server" in answer.message:
        kind = "unreachable"
        problem, steps = "it expects TLS", ("set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",)
    else:
        problem = f"it refuses BuildKit: HTTP {answer.status}, {answer.message}"
        steps = ("docker 18.09 or newer has BuildKit",) if answer.status == 404 else (ANOTHER,)
    details = (f"chosen by {address.origin}",)
    return NoDaemon(address.url, problem, kind=kind, details=details, hints=steps)


def no_answer(address: Address, error: RpcError, *, is_lost: bool) -> NoDaemon:
    """The failure to raise where a daemon that had answered before does not answer a call."""
    kind: NoDaemonKind = "lost" if is_lost else "unreachable"
    if error.code == Code.UNIMPLEMENTED:
        kind = "unsupported"
    steps = ("look at the daemon's log, then try again",)
    return NoDaemon(address.url, f"the daemon does not answer: {error}", kind=kind, hints=steps)


def _root_of(error: Exception, attempt: Attempt) -> Exception:
    """What the socket itself failed with: a call only knows that its connection is gone."""
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
    words = attempt.transport.last_stderr_line() if attempt.transport else ""
    if not words:
        return None
    said = f"{program} says: {words}"
    if isinstance(error, TimeoutError) or _code_of(error) == Code.DEADLINE_EXCEEDED:
        return ConnectProblem(f"{_SILENT.problem}; {said}", _SILENT.hints)
    return ConnectProblem(said, (*_wake(address), ANOTHER))


def _wake(address: Address) -> tuple[str, ...]:
    node = address.url.partition("://buildx_buildkit_")[2]
    return ("docker buildx inspect --bootstrap makes the container of a builder",) if node else ()


def _certificates(address: Address, error: Exception, attempt: Attempt) -> ConnectProblem | None:
    if address.tls is None:
        return None
    from kitcache.buildkit.daemon.tlstransport import (  # noqa: PLC0415 - costs 11 ms
        OTHER_NAME,
        REFUSED,
        explain,
    )

    # A certificate that is not trusted is both.
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return ConnectProblem(f"a certificate cannot be used: {error}", ("mend that file",))
    problem = explain(_root_of(error, attempt))
    if problem is None and _hung_up(error, attempt):
        # The handshake was good; but with TLS 1.3 only the first answer shows that a client's
        # certificate is taken.
        problem = REFUSED
    if problem == REFUSED:
        return _refused_certificate(address)
    if problem and problem.startswith(OTHER_NAME):
        return ConnectProblem(problem, _OTHER_NAME_STEPS)
    return ConnectProblem(problem, ("give the right CA, certificate and key",)) if problem else None


def _hung_up(error: Exception, attempt: Attempt) -> bool:
    """Whether the end came without a byte before it."""
    if attempt.transport is None or attempt.transport.opening:
        return False
    return _code_of(error) == Code.UNAVAILABLE or isinstance(error, NotAnEngineError)


def _refused_certificate(address: Address) -> ConnectProblem:
    if address.tls and address.tls.cert:
        advice = "give a certificate that was signed by the CA that the daemon trusts"
        return ConnectProblem(f"the daemon refused our certificate, {address.tls.cert}", (advice,))
    advice = "give a client certificate and its key"
    return ConnectProblem("the daemon wants a client certificate, and we have none", (advice,))


def _network(address: Address, error: Exception) -> ConnectProblem | None:
    if isinstance(error, PermissionError):
        return ConnectProblem("permission denied", (*_group_of(address.url), ANOTHER))
    if isinstance(error, socket.gaierror):
        return ConnectProblem(f"no such host is known: {error.strerror}")
    for kind, trouble in _TROUBLES:
        if isinstance(error, kind):
            return trouble
    return ConnectProblem(_reason(error)) if isinstance(error, OSError) else None


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOTSOCK or error.strerror is None:
        return str(error)
    return error.strerror


def _group_of(url: str) -> tuple[str, ...]:
    with suppress(OSError, KeyError):
        name = grp.getgrgid(os.stat(url.removeprefix("unix://")).st_gid).gr_name
        if name != "root":
            return (f"join the group that may use it: sudo usermod -aG {name} $USER",)
    return ("run as a user who may open it",)


def _language(attempt: Attempt) -> ConnectProblem | None:
    """What is there, if its first words are not BuildKit's."""
    opening = attempt.transport.opening if attempt.transport else b""
    if opening.startswith(_TLS_RECORDS) or b"HTTPS server" in opening:
        return ConnectProblem(
            "it expects TLS", ("give its CA, and a client certificate with its key",)
        )
    if attempt.answer and attempt.answer.status:
        return _web_server(f" (HTTP {attempt.answer.status})")
    return _web_server("") if opening.startswith(b"HTTP/") else None


def _web_server(status: str) -> ConnectProblem:
    return ConnectProblem(f"no BuildKit: a web server answers{status}", kind="unsupported")


def _call(address: Address, error: Exception, attempt: Attempt) -> ConnectProblem:
    """What became of the first call, or of the upgrade."""
    if _hung_up(error, attempt):
        may_be_tls = address.url.startswith("tcp://") and address.tls is None
        return ConnectProblem(_CLOSED.problem, ((_GIVE_TLS,) if may_be_tls else ()) + _CLOSED.hints)
    return _CALLS.get(_code_of(error)) or ConnectProblem(f"no BuildKit answers: {error}")


def _code_of(error: Exception) -> int | None:
    return error.code if isinstance(error, RpcError) else None
