"""Every failure of kitcache, each with its own exit code.

    KitcacheError      1  a failure without its own code
    ├── NotFound       1  no such tag, digest or blob
    ├── Unreadable     1  a file exists but cannot be read; it may be intact
    ├── UsageError     2  a command line or an argument that cannot be parsed
    ├── Incomplete     3  done in part
    ├── NotACache     10  no cache directory at that path, or no such bucket
    ├── Busy          11  another process holds the lock, or an export is running
    ├── Damaged       12  a tag's reachability is unknown, or it has lost a blob
    ├── Unsafe        13  refused: to continue could change files outside the cache
    ├── LimitNotReached 14  the tags that must be kept exceed the limit
    ├── NotConfirmed  15  a run on a bucket deleted nothing until it is confirmed
    ├── NoDaemon      20  no BuildKit answers, or it lacks a feature that was asked for
    ├── BuildFailed   21  the daemon could not execute the build
    ├── NotExecutable 126  the program to run exists but cannot be executed
    ├── NotInstalled 127  the program to run does not exist
    └── Cancelled    130  stopped by the caller

A class declares its exit code and its fields; the constructor follows from them. `str(error)` is
the message, with unprintable characters escaped and passwords of URLs hidden.
"""

from copyreg import __newobj__  # type: ignore[attr-defined]
from typing import Any, ClassVar, Literal, NamedTuple, dataclass_transform

from kitcache.masking import hide_password

NOTHING_DELETED = "nothing was deleted"
NOTHING_CHANGED = "nothing was changed"
NOTHING_BUILT = "nothing was built"
CONFIRM = "confirm one run of reset on this cache"
NOTHING_MORE = "nothing more was deleted; reachable blobs are unchanged"
_LIVE_UNCHANGED = "reachable blobs are unchanged"
_LISTED = 5

Fact = str | int | float | tuple[str, ...] | None
NoDaemonKind = Literal["unreachable", "lost", "unsupported", "closed", "forked"]


def printable(text: str) -> str:
    r"""Return the text with each character escaped that is unprintable or could control a terminal.

    Control characters, invisible format characters (such as the bidirectional ones) and bytes that
    were not UTF-8 become \x1b, \u202e, \udcff.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class _Field(NamedTuple):
    default: Any
    is_keyword: bool = True
    is_argument: bool = True
    annotation: Any = None


_REQUIRED: Any = object()


def field(*, default: Any = _REQUIRED, kw_only: bool) -> Any:
    """Declare an argument of the constructor that is positional or has a default."""
    return _Field(default, kw_only)


def fixed_field(default: Any = "", *, init: Literal[False] = False) -> Any:
    """Declare a field that is not an argument of the constructor."""
    return _Field(default, is_argument=init)


@dataclass_transform(kw_only_default=True, field_specifiers=(field, fixed_field))
class _Declared(Exception):
    """An exception whose constructor follows from the annotations of its class.

    The constructor is compiled, as NamedTuple compiles its own: `dataclasses` is slow to import.
    A class that defines a constructor keeps it.
    """

    exit_code: ClassVar[int] = 1
    _declared: ClassVar[dict[str, _Field]] = {}

    def __init_subclass__(cls) -> None:
        if "__init__" in vars(cls):
            return
        cls._declared = dict(cls._declared)
        for name, annotation in cls.__annotations__.items():
            value = vars(cls).get(name, _REQUIRED)
            field = value if isinstance(value, _Field) else _Field(value)
            cls._declared[name] = field._replace(annotation=annotation)
            if field.default is not _REQUIRED:
                setattr(cls, name, field.default)
            elif value is field:
                delattr(cls, name)
        fields = {name: field for name, field in cls._declared.items() if field.is_argument}
        words = {
            name: name if field.default is _REQUIRED else f"{name}=fields[{name!r}].default"
            for name, field in fields.items()
        }
        keyword = [words[name] for name, field in fields.items() if field.is_keyword]
        positional = [words[name] for name, field in fields.items() if not field.is_keyword]
        head = ", ".join(["self", *positional, *(["*", *keyword] if keyword else [])])
        scope: dict[str, Any] = {"fields": fields}
        exec(f"def __init__({head}): self._fill(locals())", scope)  # noqa: S102
        cls.__init__ = scope["__init__"]  # type: ignore[method-assign]
        cls.__init__.__qualname__ = f"{cls.__qualname__}.__init__"
        cls.__init__.__annotations__ = {name: field.annotation for name, field in fields.items()}


class KitcacheError(_Declared):
    """Base class of all failures; raised itself for I/O errors.

    Attributes:
        path: The directory as the caller named it, "" if the error is not about one.
        problem: The event, one clause.
        details: Further lines.
        effect: The changes, such as "nothing was deleted".
        hints: Commands or advice, best first.
    """

    path: str = field(kw_only=False)
    problem: str = field(kw_only=False)
    details: tuple[str, ...] = ()
    effect: str = NOTHING_DELETED
    hints: tuple[str, ...] = ()

    def _fill(self, arguments: dict[str, Any]) -> None:
        del arguments["self"]
        defaults = {name: field.default for name, field in self._declared.items()}
        self.__dict__.update(defaults | arguments)
        self._complete()
        self.path, self.problem = hide_password(self.path), hide_password(self.problem)
        self.details = tuple(map(hide_password, self.details))
        self.hints = tuple(map(hide_password, self.hints))
        self.args = (self.path, self.problem)

    def _complete(self) -> None:
        """Set the fields that follow from the arguments."""

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle all fields, without a call of the constructor."""
        return __newobj__, (type(self), *self.args), self.__dict__

    @property
    def facts(self) -> dict[str, Fact]:
        """The keyword arguments that only this kind of failure has."""
        return {
            name: getattr(self, name)
            for name, field in self._declared.items()
            if field.is_argument and field.is_keyword and name not in KitcacheError._declared
        }

    @property
    def headline(self) -> str:
        """The first line of the message."""
        return f"{self.path}: {self.problem}" if self.path else self.problem

    def __str__(self) -> str:
        lines = [self.headline, *(f"  {line}" for line in (*self.details, self.effect) if line)]
        lines += [f"  hint: {hint}" for hint in self.hints[:3]]
        return "\n".join(map(printable, lines))


class UsageError(KitcacheError):
    """A command line, an age or a name that cannot be parsed."""

    exit_code = 2
    path: str = field(default="", kw_only=True)
    effect: str = fixed_field()


class NotFound(KitcacheError):
    """No such tag, digest or blob in this cache."""


class Incomplete(KitcacheError):
    """Done in part: some files could not be deleted; `not_deleted` has names and reasons.

    Attributes:
        deleted_count: The number of files that were deleted.
    """

    exit_code = 3
    problem: str = fixed_field()
    details: tuple[str, ...] = fixed_field()
    effect: str = fixed_field()
    hints: tuple[str, ...] = fixed_field(("fix these causes, then run the same command again",))
    not_deleted: tuple[tuple[str, str], ...] = field(kw_only=False)
    not_deleted_count: int
    deleted_count: int = 0

    def _complete(self) -> None:
        others = "the other unreachable files were" if self.deleted_count else "no file was"
        self.effect = f"{others} deleted; {_LIVE_UNCHANGED}"
        count = self.not_deleted_count
        self.problem = f"{count:,} {'file' if count == 1 else 'files'} could not be deleted"
        self.details = tuple(f"{name}: {reason}" for name, reason in self.not_deleted[:_LISTED])
        if count > len(self.details):
            self.details += (f"and {count - len(self.details):,} more",)


class NotACache(KitcacheError):
    """Not a directory, neither an `oci-layout` nor an `index.json` in it, or no such bucket."""

    exit_code = 10
    problem: str = fixed_field()
    details: tuple[str, ...] = fixed_field(
        (
            "expected: a directory with oci-layout, index.json and blobs/,"
            " as a cache export of type=local writes it",
        )
    )
    effect: str = fixed_field(NOTHING_CHANGED)
    hints: tuple[str, ...] = fixed_field(("name the directory that an export used as dest",))
    reason: str = field(kw_only=False)

    def _complete(self) -> None:
        self.problem = f"not a cache: {self.reason}"


class Busy(KitcacheError):
    """A lock was not acquired in time, or an export is running.

    Attributes:
        holder_pid: The process that holds the lock, None if unknown.
        holder_command: Its program, and its subcommand if that is a known one; None if unknown.
        retry_after_s: Seconds until a new attempt can succeed, None if unknown.
    """

    exit_code = 11
    holder_pid: int | None = None
    holder_command: str | None = None
    retry_after_s: float | None = None


class _BlobError(KitcacheError):
    """Base class of errors about a blob that a root reaches.

    Attributes:
        tag: Ref name; None if the entry has none or index.json itself is at fault.
        chain: index.json, then each blob down to the fault.
    """

    tag: str | None = None
    chain: tuple[str, ...] = ()

    def _complete(self) -> None:
        if self.chain:
            self.details = (f"path: {' > '.join(self.chain)}", *self.details)

    @property
    def facts(self) -> dict[str, Fact]:
        """The facts of KitcacheError, with the chain as one text."""
        return {**super().facts, "chain": " > ".join(self.chain) or None}


class Damaged(_BlobError):
    """The reachability of a tag is unknown (nothing was deleted), or a tag has lost a blob.

    Attributes:
        kind: One word, such as missing, wrong-size, wrong-digest, not-json, malformed, ambiguous,
            unreadable or lost.
    """

    exit_code = 12
    kind: str


class Unreadable(_BlobError):
    """A file exists but cannot be read. It may be intact, so nothing is removed because of it."""

    effect: str = NOTHING_CHANGED
    problem: str = fixed_field()
    file: str = field(kw_only=False)
    reason: str = field(kw_only=False)

    @property
    def clause(self) -> str:
        """The problem without the file: "cannot be read: …"."""
        return f"cannot be read: {self.reason}"

    def _complete(self) -> None:
        super()._complete()
        self.problem = f"{self.file} {self.clause}"


class Unsafe(_BlobError):
    """Refused: to continue could change or load other files (a symlink, a cap, a version)."""

    exit_code = 13


class LimitNotReached(KitcacheError):
    """The tags that must be kept exceed the limit: they need `needed_bytes`."""

    exit_code = 14
    effect: str = NOTHING_CHANGED
    limit_bytes: int
    needed_bytes: int


class NotConfirmed(KitcacheError):
    """A bucket's first run, or one with far fewer live blobs: it deletes only if confirmed."""

    exit_code = 15
    details: tuple[str, ...] = fixed_field(())
    effect: str = fixed_field(NOTHING_DELETED)
    hints: tuple[str, ...] = (CONFIRM,)


class NoDaemon(KitcacheError):
    """No BuildKit answers at that address, or it lacks a feature that was asked for.

    Attributes:
        path: The address.
        kind: "unreachable": no call was answered. "lost": the connection broke after an answer.
            "unsupported": the daemon is not a BuildKit or lacks the feature. "closed" and
            "forked": the Client was closed, or is used in a child process.
    """

    exit_code = 20
    effect: str = fixed_field(NOTHING_BUILT)
    kind: NoDaemonKind = "unreachable"


class SourceLocation(NamedTuple):
    """Lines of a Dockerfile that an error is about: numbers from 1, and the text of the file."""

    filename: str
    first_line: int
    last_line: int
    text: str


class BuildFailed(KitcacheError):
    """The daemon could not execute the build.

    Attributes:
        step: The name of the step that failed, "" if none did.
        log: The last lines of its output.
        locations: Lines of a Dockerfile.
        step_exit_code: The exit code of the program in a RUN, None if none ran.
        ref: The build's name in the daemon's history.
        warnings, notices: As in BuildResult.
    """

    exit_code = 21
    path: str = fixed_field()
    effect: str = fixed_field()
    step: str = ""
    log: tuple[str, ...] = ()
    locations: tuple[SourceLocation, ...] = ()
    step_exit_code: int | None = None
    ref: str = ""
    warnings: tuple[Any, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Fact]:
        """The step, its exit code and log, the first location, and the texts of the warnings."""
        first = self.locations[0] if self.locations else None
        return {
            "step": self.step or None,
            "step_exit_code": self.step_exit_code,
            "file": first.filename if first else None,
            "line": first.first_line if first else None,
            "log": self.log,
            "ref": self.ref or None,
            "warnings": tuple(warning.short for warning in self.warnings),
            "notices": self.notices,
        }


class _NotRun(KitcacheError):
    path: str = fixed_field()
    problem: str = fixed_field()
    effect: str = fixed_field(NOTHING_BUILT)
    program: str = field(kw_only=False)


class NotExecutable(_NotRun):
    """The program to run exists but cannot be executed. Nothing was built."""

    exit_code = 126
    hints: tuple[str, ...] = fixed_field(("check the file's permissions and its first line",))
    reason: str = field(kw_only=False)

    def _complete(self) -> None:
        self.problem = f"{self.program} cannot be run: {self.reason}"


class NotInstalled(_NotRun):
    """The program to run does not exist. Nothing was built."""

    exit_code = 127
    hints: tuple[str, ...] = fixed_field(("install it, or name its path",))

    def _complete(self) -> None:
        self.problem = f"{self.program} is not installed, or not in PATH"


class Cancelled(KitcacheError):
    """Stopped by Ctrl-C or by the caller's cancel event, between two blobs or during a build.

    Attributes:
        deleted_blobs: The number of blobs that a sweep had deleted.
        deleted_bytes: Their file sizes.
        timeout_s: The time limit of a build that exceeded it, else None.
    """

    exit_code = 130
    problem: str = field(default="stopped on request", kw_only=True)
    details: tuple[str, ...] = fixed_field(())
    hints: tuple[str, ...] = fixed_field(("run the same command again to finish",))
    deleted_blobs: int = 0
    deleted_bytes: int = 0
    timeout_s: float | None = None

    def _complete(self) -> None:
        if self.deleted_blobs:
            blobs = "blob" if self.deleted_blobs == 1 else "blobs"
            self.effect = (
                f"{self.deleted_blobs:,} unreachable {blobs} had been deleted;"
                " reachable blobs are unchanged"
            )
