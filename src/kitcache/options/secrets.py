"""Secret: the value of --secret.

Sources: buildx util/buildflags/secrets.go, BuildKit session/secrets/secretsprovider/store.go.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from kitcache.errors import UsageError
from kitcache.masking import HIDDEN
from kitcache.options.attributes import quote_go, split_fields, suggest
from kitcache.options.opaque import Opaque

_KEYS = ("id", "src", "source", "env", "type")


class PathLike(Protocol):
    """What os.fspath takes for a path, without os: nothing in this package does I/O."""

    def __fspath__(self) -> str:
        """Return the path as a text."""


class Secret(Opaque):
    """A secret that a build may ask for by its id.

    path: the file to read it from when it is asked for. data: the secret itself, never shown.
    Exactly one of them is given, else UsageError. Two secrets are equal if they are one object.
    """

    __slots__ = ("_data", "_id", "_path")
    _id: Callable[[], str]
    _path: Callable[[], str | None]
    _data: Callable[[], bytes | None]

    def __init__(
        self,
        id: str,  # noqa: A002 - the word of --secret
        path: str | PathLike | None = None,
        data: bytes | None = None,
    ) -> None:
        problem = _what_is_wrong(id, path, data)
        if problem:
            path = data = None  # so that a traceback with locals does not show the secret
        self._keep(_id=id, _path=None if path is None else _text_of(path), _data=data)
        if problem:
            raise UsageError(problem[0], hints=(problem[1],))

    @property
    def id(self) -> str:
        """The name by which a step asks for it."""
        return self._id()

    @property
    def path(self) -> str | None:
        """The file that holds it, or None."""
        return self._path()

    @property
    def data(self) -> bytes | None:
        """The secret itself, or None if it is in a file."""
        return self._data()

    def __repr__(self) -> str:
        place = f"path={self.path!r}" if self.data is None else f"data={HIDDEN}"
        return f"Secret({self.id!r}, {place})"


def _text_of(path: str | PathLike) -> str:
    return path if isinstance(path, str) else path.__fspath__()


def _what_is_wrong(name: object, path: object, data: object) -> tuple[str, str] | None:
    """Return what is wrong with the arguments of a Secret, and what to write instead."""
    if not isinstance(name, str) or not name:
        return "Secret: id is not a name", 'write Secret("NAME", path=…) or Secret("NAME", data=…)'
    what = f"Secret({name!r})"
    if path is None and data is None:
        return f"{what}: neither path nor data is given", "add path=FILE or data=BYTES"
    if path is not None and data is not None:
        return f"{what}: both path and data are given", "leave one of them out"
    if data is not None and not isinstance(data, bytes):
        kind = type(data).__name__
        return f"{what}: data is of type {kind}, not bytes", "write data=TEXT.encode()"
    if path is not None and not (isinstance(path, str) or hasattr(path, "__fspath__")):
        return f"{what}: path is not the path of a file", "write path=FILE"
    return None


def parse_secret(text: str, environ: Mapping[str, str]) -> Secret:
    """The value of --secret: id=ID[,src=FILE|,env=VARIABLE][,type=file|env].

    With an id alone it is the environment variable of that name, else the file. A variable that is
    not set is an empty secret, as for buildx. Raises UsageError in buildx's words.
    """
    attrs = _read(text)
    name = attrs.get("id", "")
    if not name:
        raise UsageError("secret missing ID", hints=("write id=NAME,src=FILE",))
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
                hints=("write id=NAME,src=FILE",),
            )
        attrs[_known_key(key.lower(), field)] = value
    if (kind := attrs.get("type", "file")) not in ("file", "env"):
        raise UsageError(
            f"unsupported secret type {quote_go(kind)}", hints=("use type=file or type=env",)
        )
    return attrs


def _known_key(key: str, field: str) -> str:
    if key not in _KEYS:
        meant = suggest(key, _KEYS)
        raise UsageError(
            f"unexpected key '{key}' in '{field}'",
            hints=(f"did you mean {meant}?" if meant else "known: id, src, env, type",),
        )
    return "src" if key == "source" else key
