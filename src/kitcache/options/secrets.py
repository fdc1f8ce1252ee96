"""Secret: the value of --secret.

Sources: buildx util/buildflags/secrets.go, BuildKit session/secrets/secretsprovider/store.go.
"""

from collections.abc import Mapping
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.options.attributes import HIDDEN, quote_go, split_fields, suggest

_KEYS = ("id", "src", "source", "env", "type")


class Secret(NamedTuple):
    """A secret that a build may ask for by its id.

    path: the file to read it from when it is asked for. data: the secret itself, never shown.
    Exactly one of them is set.
    """

    id: str
    path: str | None = None
    data: bytes | None = None

    def __repr__(self) -> str:
        data = "" if self.data is None else f", data={HIDDEN}"
        return f"Secret({self.id!r}, path={self.path!r}{data})"


def parse_secret(text: str, environ: Mapping[str, str]) -> Secret:
    """The value of --secret: id=ID[,src=FILE|,env=VARIABLE][,type=file|env].

    With an id alone it is the environment variable of that name, else the file. A variable that is
    not set is an empty secret, as for buildx. Raises UsageError in buildx's words.
    """
    attrs = _read(text)
    name = attrs.get("id", "")
    if not name:
        raise UsageError("secret missing ID", next_steps=("write id=NAME,src=FILE",))
    path = attrs.get("src", "")
    variable = attrs.get("env", "")
    if attrs.get("type") == "env" and not variable:
        variable, path = path, ""
    if not variable and not path:
        variable, path = (name, "") if name in environ else ("", name)
    if variable:
        return Secret(name, data=environ.get(variable, "").encode(errors="surrogateescape"))
    return Secret(name, path=path)


def _read(text: str) -> dict[str, str]:
    try:
        fields = split_fields(text)
    except UsageError as error:
        raise UsageError(f"failed to parse csv secret: {error.problem}") from None
    attrs = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            raise UsageError(
                f"invalid field '{field}' must be a key=value pair",
                next_steps=("write id=NAME,src=FILE",),
            )
        attrs[_known_key(key.lower(), field)] = value
    if (kind := attrs.get("type", "file")) not in ("file", "env"):
        raise UsageError(
            f"unsupported secret type {quote_go(kind)}", next_steps=("use type=file or type=env",)
        )
    return attrs


def _known_key(key: str, field: str) -> str:
    if key not in _KEYS:
        meant = suggest(key, _KEYS)
        raise UsageError(
            f"unexpected key '{key}' in '{field}'",
            next_steps=(f"did you mean {meant}?" if meant else "known: id, src, env, type",),
        )
    return "src" if key == "source" else key
