"""Registry logins as docker keeps them: config.json, and the helper programs that it names.

Only what a daemon asks for by host leaves here, and neither tokens nor keys of our own do: the
methods for those are not served, and then the daemon fetches a token itself.
Sources: docker/cli, cli/config/configfile and credentials; docker-credential-helpers, client;
moby/buildkit, session/auth/authprovider.
"""

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kitcache.buildkit.daemon.config import CONFIG_FILE, get_object, get_text, read_object
from kitcache.buildkit.proto.session_pb2 import CredentialsRequest, CredentialsResponse
from kitcache.buildkit.session.unary import unary_handler
from kitcache.buildkit.wire.rpc import Handler
from kitcache.errors import Cancelled, UsageError, printable
from kitcache.options.opaque import Opaque

CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
HELPER_TIMEOUT_S = 30.0
_GLANCE_S = 0.1

HUB_HOSTS = ("registry-1.docker.io", "docker.io", "index.docker.io")
_HUB_KEY = "https://index.docker.io/v1/"
# What a helper calls the user when the secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105 - a word of the protocol
_NOT_FOUND = b"credentials not found"


class Credentials(Opaque):
    """A login. username: "" where the secret is an identity token. Neither is ever shown.

    Raises UsageError where one of them is not a text. Two logins are equal if they are one object.
    """

    __slots__ = ("_secret", "_username")
    _username: Callable[[], str]
    _secret: Callable[[], str]

    def __init__(self, username: str, secret: str) -> None:
        kinds: dict[str, type] = {"username": type(username), "secret": type(secret)}
        for name, kind in kinds.items():
            if not issubclass(kind, str):
                username = secret = ""  # so that a traceback with locals does not show the secret
                raise UsageError(f"Credentials: {name} is of type {kind.__name__}, not str")
        self._keep(_username=username, _secret=secret)

    @property
    def username(self) -> str:
        """The user's name, "" where the secret is an identity token."""
        return self._username()

    @property
    def secret(self) -> str:
        """The password or token."""
        return self._secret()

    def __repr__(self) -> str:
        return "Credentials(…)"


class DockerConfig:
    """The logins in docker's configuration directory. Threads may share it.

    config.json is read at once. warn: told, once each, of what cannot be used: config.json itself,
    a helper. There is no login then, and the build goes on as far as it gets. cancel: ends a helper
    that still runs.
    """

    def __init__(
        self,
        directory: str,
        warn: Callable[[str], None],
        *,
        helper_timeout_s: float = HELPER_TIMEOUT_S,
        cancel: threading.Event | None = None,
    ) -> None:
        self._warn = warn
        self._timeout_s = helper_timeout_s
        self._cancel = cancel or threading.Event()
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._known: dict[str, Credentials | None] = {}
        path = os.path.join(directory, CONFIG_FILE)
        try:
            self._config: Mapping[str, Any] = read_object(path) or {}
        except ValueError as error:
            self._config = {}
            self._warn_once(f"{path} {error}: no registry logins")

    def credentials(self, host: str) -> Credentials | None:
        """The login for a registry's host[:port]; None where there is none. A helper runs once.

        Raises Cancelled.
        """
        # One at a time: two helpers at once would ask a person twice for one keychain.
        with self._lock:
            if host not in self._known:
                self._known[host] = self._find(_HUB_KEY if host in HUB_HOSTS else host)
            return self._known[host]

    def _find(self, key: str) -> Credentials | None:
        helper = get_text(get_object(self._config, "credHelpers"), key) or get_text(
            self._config, "credsStore"
        )
        return self._ask(helper, key) if helper else self._look_up(key)

    def _look_up(self, key: str) -> Credentials | None:
        """Older dockers wrote keys with a scheme, a path, or both."""
        entries = get_object(self._config, "auths")
        if isinstance(entries.get(key), dict):
            return self._read_entry(key, entries[key])
        for other, entry in entries.items():
            if isinstance(entry, dict) and _host_of(other) == _host_of(key):
                return self._read_entry(other, entry)
        return None

    def _read_entry(self, key: str, entry: Mapping[str, Any]) -> Credentials | None:
        token = get_text(entry, "identitytoken")
        if token:
            return Credentials("", token)
        username, password = get_text(entry, "username"), get_text(entry, "password")
        if get_text(entry, "auth"):
            try:
                username, password = _decode_auth(get_text(entry, "auth"))
            except ValueError:
                self._warn_once(f"the login for {key} in {CONFIG_FILE} is garbled: not used")
                return None
        return Credentials(username, password) if username or password else None

    def _ask(self, helper: str, key: str) -> Credentials | None:
        program = f"docker-credential-{helper}"
        try:
            return ask_helper(program, key, self._timeout_s, self._cancel)
        except ValueError as error:
            self._warn_once(f"no login for {_host_of(key)}: {program}: {error}")
            return None

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            self._warn(printable(warning))


def ask_helper(
    program: str, key: str, timeout_s: float, cancel: threading.Event
) -> Credentials | None:
    """What a helper program keeps for a key of config.json; None where it has nothing.

    Raises ValueError, which says what is wrong with the helper and quotes none of its output, and
    Cancelled. The helper has ended by then.
    """
    import subprocess  # noqa: PLC0415 - few configurations have a helper, and it costs time

    try:
        helper = subprocess.Popen(  # noqa: S603 - docker's own way to keep logins
            [program, "get"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise ValueError("the program is not installed") from None
    except OSError as error:
        raise ValueError(error.strerror) from error
    answer: bytes | None = None
    ends_s = time.monotonic() + timeout_s
    with helper:
        try:
            # Not communicate's input: what a first timeout finds unwritten it never writes.
            with suppress(BrokenPipeError):
                if helper.stdin:
                    helper.stdin.write(key.encode("utf-8", "surrogateescape"))
            while answer is None:
                if cancel.is_set():
                    raise Cancelled("", effect="")
                if time.monotonic() >= ends_s:
                    raise ValueError(f"no answer in {timeout_s:g} s")
                with suppress(subprocess.TimeoutExpired):
                    answer, _ = helper.communicate(timeout=_GLANCE_S)
        finally:
            helper.kill()
    if helper.returncode:
        if _NOT_FOUND in answer.lower():
            return None
        raise ValueError(f"exit code {helper.returncode}")
    return _read_helper(answer)


def _read_helper(answer: bytes) -> Credentials | None:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("its answer is no JSON object")
    username, secret = get_text(found, "Username"), get_text(found, "Secret")
    if not secret:
        return None
    return Credentials("" if username == _TOKEN_USER else username, secret)


def auth_handlers(credentials: Callable[[str], Credentials | None]) -> dict[str, Handler]:
    """Gives the daemon the login for each host that it asks for."""

    def answer(request: bytes) -> bytes:
        host = CredentialsRequest.FromString(request).host
        login = credentials(host) or Credentials("", "")
        response = CredentialsResponse(username=login.username, secret=login.secret)
        return response.SerializeToString()

    return {CREDENTIALS: unary_handler(answer)}


def _decode_auth(auth: str) -> tuple[str, str]:
    """Raises ValueError."""
    username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    if not colon:
        raise ValueError("no colon")
    return username, password.strip("\0")


def _host_of(key: str) -> str:
    without = key.removeprefix("https://").removeprefix("http://")
    return without.partition("/")[0]
