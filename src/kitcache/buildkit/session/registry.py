"""Registry logins of docker: config.json, and the credential helpers that it names.

The daemon gets only logins that it requests by host. The methods for tokens and keys are not
served, so the daemon fetches a token itself.
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
_POLL_S = 0.1

HUB_HOSTS = ("registry-1.docker.io", "docker.io", "index.docker.io")
_HUB_KEY = "https://index.docker.io/v1/"
# The user name of a helper whose secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105 - part of the protocol
_NOT_FOUND = b"credentials not found"


class Credentials(Opaque):
    """A login. The user name is "" if the secret is an identity token. Neither is ever shown.

    Raises UsageError if one of them is not text. A login is equal only to itself.
    """

    __slots__ = ("_secret", "_username")
    _username: Callable[[], str]
    _secret: Callable[[], str]

    def __init__(self, username: str, secret: str) -> None:
        kinds: dict[str, type] = {"username": type(username), "secret": type(secret)}
        for name, kind in kinds.items():
            if not issubclass(kind, str):
                username = secret = ""  # a traceback with locals must not show the secret
                raise UsageError(f"Credentials: {name} is of type {kind.__name__}, not str")
        self._keep(_username=username, _secret=secret)

    @property
    def username(self) -> str:
        """The user name, "" if the secret is an identity token."""
        return self._username()

    @property
    def secret(self) -> str:
        """The password or token."""
        return self._secret()

    def __repr__(self) -> str:
        return "Credentials(…)"


class DockerConfig:
    """The logins in docker's configuration directory. Thread-safe; config.json is read at once.

    Args:
        directory: The configuration directory.
        warn: Called once with each problem of config.json or of a helper. There is no login then,
            and the build continues.
        helper_timeout_s: The time limit of a credential helper.
        cancel: Ends a helper that runs.
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
        """Return the login for a registry's host[:port], None if there is none. Raises Cancelled.

        A helper runs once for each host.
        """
        # One at a time: two helpers would ask the user twice for one keychain.
        with self._lock:
            if host not in self._known:
                self._known[host] = self._find(_HUB_KEY if host in HUB_HOSTS else host)
            return self._known[host]

    def _find(self, key: str) -> Credentials | None:
        helpers = get_object(self._config, "credHelpers")
        helper = get_text(helpers, key) or get_text(self._config, "credsStore")
        if not helper:
            return self._look_up(key)
        program = f"docker-credential-{helper}"
        try:
            return ask_helper(program, key, self._timeout_s, self._cancel)
        except ValueError as error:
            self._warn_once(f"no login for {_host_of(key)}: {program}: {error}")
            return None

    def _look_up(self, key: str) -> Credentials | None:
        # Old versions of docker wrote keys with a scheme, a path, or both.
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
                self._warn_once(f"the login for {key} in {CONFIG_FILE} is malformed and not used")
                return None
        return Credentials(username, password) if username or password else None

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            self._warn(printable(warning))


def ask_helper(
    program: str, key: str, timeout_s: float, cancel: threading.Event
) -> Credentials | None:
    """Return the login that a helper stores for a key of config.json, None if there is none.

    Raises Cancelled, and ValueError with the problem of the helper; it quotes none of its output.
    The helper has ended when this returns.
    """
    import subprocess  # noqa: PLC0415 - slow to import, and few configurations have a helper

    try:
        helper = subprocess.Popen(  # noqa: S603 - docker's credential helper
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
    output: bytes | None = None
    ends_s = time.monotonic() + timeout_s
    with helper:
        try:
            # The input of communicate is lost if the first timeout finds it unwritten.
            with suppress(BrokenPipeError):
                if helper.stdin:
                    helper.stdin.write(key.encode("utf-8", "surrogateescape"))
            while output is None:
                if cancel.is_set():
                    raise Cancelled("", effect="")
                if time.monotonic() >= ends_s:
                    raise ValueError(f"no answer in {timeout_s:g} s")
                with suppress(subprocess.TimeoutExpired):
                    output, _ = helper.communicate(timeout=_POLL_S)
        finally:
            helper.kill()
    if helper.returncode:
        if _NOT_FOUND in output.lower():
            return None
        raise ValueError(f"exit code {helper.returncode}")
    return _parse_login(output)


def _parse_login(output: bytes) -> Credentials | None:
    try:
        login = json.loads(output)
    except (ValueError, RecursionError):
        login = None
    if not isinstance(login, dict):
        raise ValueError("its output is not a JSON object")
    username, secret = get_text(login, "Username"), get_text(login, "Secret")
    if not secret:
        return None
    return Credentials("" if username == _TOKEN_USER else username, secret)


def auth_handlers(credentials: Callable[[str], Credentials | None]) -> dict[str, Handler]:
    """Return the handler that sends the login for a host."""

    def answer(request: bytes) -> bytes:
        host = CredentialsRequest.FromString(request).host
        login = credentials(host) or Credentials("", "")
        response = CredentialsResponse(username=login.username, secret=login.secret)
        return response.SerializeToString()

    return {CREDENTIALS: unary_handler(answer)}


def _decode_auth(auth: str) -> tuple[str, str]:
    username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    if not colon:
        raise ValueError("no colon")
    return username, password.strip("\0")


def _host_of(key: str) -> str:
    without = key.removeprefix("https://").removeprefix("http://")
    return without.partition("/")[0]
