"""Hides, in the texts that a daemon returns, the passwords that were sent to it.

In names and errors, the user's part of every URL is hidden. Logs are the output of programs: there
only secrets that this build has sent in a URL or as the key of a cache are hidden, in each quoting.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import quote, unquote

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.status import BuildUpdate, VertexLog
from kitcache.masking import HIDDEN, find_users, hide_password
from kitcache.options.attributes import SECRETS

# A shorter secret without its URL can be a normal word in a log.
_MIN_ALONE = 8
# Characters that Go does not escape in the user's part of a URL.
_SAFE = "$&+,;=-_.~"
# GitHub accepts a token as the user name, with one of these as the password.
_NO_PASSWORD = ("", "x-oauth-basic")


class Mask:
    """Hides known secrets in texts. The pieces of one log must arrive in order."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._in_text = re.compile("|".join(map(re.escape, self._secrets)))
        self._encoded = [text.encode("utf-8", "surrogateescape") for text in self._secrets]
        self._in_data = re.compile(b"|".join(map(re.escape, self._encoded)))
        self._held: dict[tuple[str, int], bytes] = {}

    def text(self, text: str) -> str:
        """Return a text of the daemon without secrets, and without any password in a URL."""
        if self._secrets:
            text = self._in_text.sub(lambda match: HIDDEN + "@" * match[0].endswith("@"), text)
        return hide_password(text)

    def value(self, value: Any) -> Any:
        """Return a JSON value with every text masked, keys included."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(item) for item in value]
            case dict():
                return {self.text(key): self.value(item) for key, item in value.items()}
        return value

    def update(self, update: BuildUpdate) -> BuildUpdate:
        """Return the masked update. The end of a log can be in a later update or in `rest`."""
        ended = {v.digest for v in update.vertexes if v.completed_ns is not None}
        return BuildUpdate(
            tuple(
                vertex._replace(
                    name=self.text(vertex.name),
                    error=self.text(vertex.error),
                    group=vertex.group and vertex.group._replace(name=self.text(vertex.group.name)),
                )
                for vertex in update.vertexes
            ),
            tuple(
                transfer._replace(id=self.text(transfer.id), name=self.text(transfer.name))
                for transfer in update.transfers
            ),
            (*self._mask_logs(update.logs), *self._release(ended)),
            tuple(
                warning._replace(
                    short=self.text(warning.short), detail=tuple(map(self.text, warning.detail))
                )
                for warning in update.warnings
            ),
        )

    def rest(self) -> BuildUpdate:
        """Return the remaining ends of logs, at the end of a build."""
        return BuildUpdate(logs=tuple(self._release({vertex for vertex, _ in self._held})))

    def _mask_logs(self, logs: tuple[VertexLog, ...]) -> Iterator[VertexLog]:
        """Yield the masked pieces. Keep the end of a piece that may be the start of a secret."""
        for log in logs:
            if not self._secrets:
                yield log
                continue
            key = log.vertex, log.stream
            data = self._in_data.sub(_hide, self._held.pop(key, b"") + log.data)
            for size in range(min(len(self._encoded[0]) - 1, len(data)), 0, -1):
                if any(secret.startswith(data[-size:]) for secret in self._encoded):
                    self._held[key] = data[-size:]
                    data = data[:-size]
                    break
            if data:
                yield log._replace(data=data)

    def _release(self, vertexes: set[str]) -> Iterator[VertexLog]:
        for key in [key for key in self._held if key[0] in vertexes]:
            yield VertexLog(*key, self._held.pop(key))


def _hide(match: re.Match[bytes]) -> bytes:
    return HIDDEN.encode() + b"@" * match[0].endswith(b"@")


def make_mask(request: control_pb2.SolveRequest) -> Mask:
    """Return the mask of all secrets that a Solve sends in its attributes."""
    cache = request.cache
    attributes = [request.frontend_attrs, *(exporter.attrs for exporter in request.exporters)]
    attributes += [entry.attrs for entry in (*cache.exports, *cache.imports)]
    secrets: set[str] = set()
    for key, value in chain.from_iterable(attrs.items() for attrs in attributes):
        if key in SECRETS:
            secrets.add(value)
        is_proxy = key.lower().endswith("_proxy") and "://" not in value
        for user in find_users(f"http://{value}" if is_proxy else value):
            secrets.update(_spellings(user))
    return Mask(secrets)


def _spellings(user: str) -> Iterator[str]:
    """Yield the forms of the user's part: as sent, decoded, and as Go and HTTP encode it."""
    name, _, password = user.partition(":")
    plain = f"{unquote(name)}:{unquote(password)}" if ":" in user else unquote(user)
    go = quote(unquote(name), safe=_SAFE) + ":" + quote(unquote(password), safe=_SAFE)
    for form in (user, plain, go):
        yield f"{form}@"
        if len(form) >= _MIN_ALONE:
            yield form
    yield b64encode(plain.encode("utf-8", "surrogateescape")).decode()
    for form in (password, unquote(password), *([name] if password in _NO_PASSWORD else [])):
        if len(form) >= _MIN_ALONE and form not in _NO_PASSWORD:
            yield form
