"""Secret: the value of --secret.

Sources: buildx util/buildflags/secrets.go, BuildKit session/secrets/secretsprovider/store.go.
"""

from collections.abc import Callable, Mapping

from kitcache.errors import UsageError
from kitcache.masking import HIDDEN
from kitcache.options.attributes import PathLike, hints_for, path_text, quote_go, split_fields
from kitcache.options.opaque import Opaque

_KEYS = ("id", "src", "source", "env", "type")


class Secret(Opaque):
    """A secret that a step of a build can mount by its id. Two secrets are equal if identical.

    Attributes:
        id: The name by which a step requests the secret.
        path: The file to read when a step requests the secret, or None.
        data: The secret itself, or None. No repr shows it.

    Raises:
        UsageError: Not exactly one of path and data is given, or a type is wrong.
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
        error = _check(id, path, data)
        if error is not None:
            path = data = None  # so that a traceback with local variables does not show the secret
        text = None if path is None else path_text(path)
        self._keep(_id=id, _path=text, _data=data)
        if error is not None:
            raise error

    @property
    def id(self) -> str:
        """The name by which a step requests the secret."""
        return self._id()

    @property
    def path(self) -> str | None:
        """The file that contains the secret, or None."""
        return self._path()

    @property
    def data(self) -> bytes | None:
        """The secret itself, or None if it is in a file."""
        return self._data()

    def __repr__(self) -> str:
        place = f"path={self.path!r}" if self.data is None else f"data={HIDDEN}"
        return f"Secret({self.id!r}, {place})"


def _check(name: object, path: object, data: object) -> UsageError | None:
    if not isinstance(name, str) or not name:
        hint = 'write Secret("NAME", path=…) or Secret("NAME", data=…)'
        return UsageError("Secret: id is not a name", hints=(hint,))
    problem = hint = ""
    if path is None and data is None:
        problem, hint = "neither path nor data is given", "add path=FILE or data=BYTES"
    elif path is not None and data is not None:
        problem, hint = "both path and data are given", "leave one of them out"
    elif data is not None and not isinstance(data, bytes):
        kind = type(data).__name__
        problem, hint = f"data is of type {kind}, not bytes", "write data=TEXT.encode()"
    elif path is not None and not (isinstance(path, str) or hasattr(path, "__fspath__")):
        problem, hint = "path is not the path of a file", "write path=FILE"
    return UsageError(f"Secret({name!r}): {problem}", hints=(hint,)) if problem else None


def parse_secret(text: str, environ: Mapping[str, str]) -> Secret:
    """Return the value of --secret: id=ID[,src=FILE|,env=VARIABLE][,type=file|env].

    An id alone names the environment variable of that name, or else the file. As in buildx, a
    variable that is not set gives an empty secret. Raise UsageError in buildx's words.
    """
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
        if key.lower() not in _KEYS:
            problem = f"unexpected key '{key.lower()}' in '{field}'"
            raise UsageError(problem, hints=hints_for(key.lower(), _KEYS))
        attrs["src" if key.lower() == "source" else key.lower()] = value
    kind = attrs.get("type", "file")
    if kind not in ("file", "env"):
        raise UsageError(
            f"unsupported secret type {quote_go(kind)}", hints=("use type=file or type=env",)
        )
    return _make_secret(attrs, environ)


def _make_secret(attrs: Mapping[str, str], environ: Mapping[str, str]) -> Secret:
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
