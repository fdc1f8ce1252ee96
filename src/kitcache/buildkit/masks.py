"""What a daemon says, without the passwords that it was sent.

Names and errors lose every user's part of a URL. Logs are a program's own words: they lose what
this build has sent to the daemon in a URL, or as the key of a cache, however it is quoted.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.status import BuildUpdate, BuildWarning, Transfer, Vertex, VertexLog
from kitcache.masking import HIDDEN, find_users, hide_password
from kitcache.options.attributes import SECRETS

# A shorter one alone may be a word of any log.
_SHORTEST_ALONE = 8
# What Go leaves as it is in the user's part of a URL.
_SAFE = "$&+,;=-_.~"
# GitHub's way to name a token as the user.
_NO_PASSWORD = ("", "x-oauth-basic")


class Mask:
    """Takes known secrets out of texts. The pieces of one log have to come in order."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted({one for one in secrets if one}, key=len, reverse=True)
        self._in_text = re.compile("|".join(map(re.escape, self._secrets)))
        self._encoded = [one.encode("utf-8", "surrogateescape") for one in self._secrets]
        self._in_data = re.compile(b"|".join(map(re.escape, self._encoded)))
        self._held: dict[tuple[str, int], bytes] = {}

    def text(self, text: str) -> str:
        """A text of the daemon's without them, and without any password in a URL."""
        if self._secrets:
            text = self._in_text.sub(lambda found: f"{HIDDEN}{_end_of(found[0])}", text)
        return hide_password(text)

    def value(self, value: Any) -> Any:
        """The same for all texts in a value of JSON, the keys too."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(one) for one in value]
            case dict():
                return {self.text(key): self.value(one) for key, one in value.items()}
        return value

    def update(self, update: BuildUpdate) -> BuildUpdate:
        """News without them. The end of a log may come with later news, or with `rest`."""
        ended = {v.digest for v in update.vertexes if v.completed_ns is not None}
        return BuildUpdate(
            tuple(map(self._vertex, update.vertexes)),
            tuple(map(self._transfer, update.transfers)),
            (*self._logs(update.logs), *self._release(ended)),
            tuple(map(self._warning, update.warnings)),
        )

    def rest(self) -> BuildUpdate:
        """What was held back of logs: for the end of a build."""
        return BuildUpdate(logs=tuple(self._release({vertex for vertex, _ in self._held})))

    def _logs(self, logs: tuple[VertexLog, ...]) -> Iterator[VertexLog]:
        for log in logs:
            if not self._secrets:
                yield log
                continue
            key = log.vertex, log.stream
            data = self._in_data.sub(_hide_data, self._held.pop(key, b"") + log.data)
            held = self._beginning_at_the_end(data)
            if held:
                self._held[key] = data[-held:]
                data = data[:-held]
            if data:
                yield log._replace(data=data)

    def _beginning_at_the_end(self, data: bytes) -> int:
        """How many of the last bytes may be the beginning of a secret."""
        longest = len(self._encoded[0]) - 1
        ends = (data[-size:] for size in range(min(longest, len(data)), 0, -1))
        return next((len(end) for end in ends if self._begins_with(end)), 0)

    def _begins_with(self, end: bytes) -> bool:
        return any(one.startswith(end) for one in self._encoded)

    def _release(self, vertexes: set[str]) -> Iterator[VertexLog]:
        for key in [key for key in self._held if key[0] in vertexes]:
            yield VertexLog(*key, self._held.pop(key))

    def _vertex(self, vertex: Vertex) -> Vertex:
        group = vertex.group and vertex.group._replace(name=self.text(vertex.group.name))
        name, error = self.text(vertex.name), self.text(vertex.error)
        return vertex._replace(name=name, error=error, group=group)

    def _transfer(self, transfer: Transfer) -> Transfer:
        return transfer._replace(id=self.text(transfer.id), name=self.text(transfer.name))

    def _warning(self, warning: BuildWarning) -> BuildWarning:
        detail = tuple(map(self.text, warning.detail))
        return warning._replace(short=self.text(warning.short), detail=detail)


def _end_of(secret: str) -> str:
    """The @ of a user's part stays."""
    return "@" if secret.endswith("@") else ""


def _hide_data(found: re.Match[bytes]) -> bytes:
    return f"{HIDDEN}{_end_of(found[0][-1:].decode('latin-1'))}".encode()


def make_mask(request: control_pb2.SolveRequest) -> Mask:
    """The mask of all secrets that a Solve sends in its attributes."""
    secrets: set[str] = set()
    for attrs in _attributes(request):
        for key, value in attrs.items():
            if key in SECRETS:
                secrets.add(value)
            is_proxy = key.lower().endswith("_proxy") and "://" not in value
            for user in find_users(f"http://{value}" if is_proxy else value):
                secrets |= set(_spellings(user))
    return Mask(secrets)


def _attributes(request: control_pb2.SolveRequest) -> Iterator[Mapping[str, str]]:
    yield request.frontend_attrs
    for part in (request.exporters, request.cache.exports, request.cache.imports):
        for one in part:
            yield one.attrs


def _spellings(user: str) -> Iterator[str]:
    """The user's part of a URL as it may come back: as sent, decoded, as Go or HTTP has it."""
    name, _, password = user.partition(":")
    plain = f"{unquote(name)}:{unquote(password)}" if ":" in user else unquote(user)
    go = quote(unquote(name), safe=_SAFE) + ":" + quote(unquote(password), safe=_SAFE)
    for one in (user, plain, go):
        yield f"{one}@"
        if len(one) >= _SHORTEST_ALONE:
            yield one
    yield b64encode(plain.encode("utf-8", "surrogateescape")).decode()
    for alone in (password, unquote(password), *([name] if password in _NO_PASSWORD else [])):
        if len(alone) >= _SHORTEST_ALONE and alone not in _NO_PASSWORD:
            yield alone
