"""Every way in which kitcache fails, each with its own exit code.

    KitcacheError      1  failed without a code of its own
    ├── NotFound       1  no such tag, digest or blob
    ├── Unreadable     1  a file that is there cannot be read: nothing is decided by it
    ├── UsageError     2  a command line or an argument that cannot be understood
    ├── Incomplete     3  done in part
    ├── NotACache     10  no cache directory at that path
    ├── Busy          11  somebody holds the lock, or an export is under way
    ├── Damaged       12  what a tag reaches cannot be known, or has a hole
    ├── Unsafe        13  refused: going on could touch what is not ours
    ├── LimitNotReached 14  what has to be kept holds more than the limit allows
    ├── NoDaemon      20  no BuildKit answers, or it lacks what was asked
    ├── BuildFailed   21  the daemon could not build it
    ├── NotExecutable 126  the program that is to run is there, and cannot be run
    ├── NotInstalled 127  the program that is to run is not there
    └── Cancelled    130  stopped by the caller

An error says what happened and where, what was left alone, and what to do next. Its facts are
attributes; `str(error)` is the sentence to print, with names that came from a disk escaped. The
password of a URL is in neither.
"""

from typing import Any, ClassVar, Literal, NamedTuple

from kitcache.masking import hide_password

NOTHING_REMOVED = "nothing was removed"
NOTHING_CHANGED = "nothing was changed"
NOTHING_MORE = "nothing more was removed; what tags reach is where it was"

Fact = str | int | float | tuple[str, ...] | None
NoDaemonKind = Literal["unreachable", "lost", "unsupported", "closed", "forked"]


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal could act on, or cannot print.

    Control characters, invisible format characters (the bidirectional ones too) and bytes that
    were no UTF-8 come out as \x1b, \u202e, \udcff.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class KitcacheError(Exception):
    """The base of all failures; raised itself for I/O errors and for names that are not there.

    path: the directory as the caller named it. problem: what happened, one clause.
    details: further lines. untouched: what was left alone. next_steps: commands or advice.
    """

    exit_code: ClassVar[int] = 1
    _facts: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        path: str,
        problem: str,
        *,
        details: tuple[str, ...] = (),
        effect: str = NOTHING_REMOVED,
        hints: tuple[str, ...] = (),
    ) -> None:
        path, problem = hide_password(path), hide_password(problem)
        super().__init__(path, problem)
        self.path = path
        self.problem = problem
        self.details = tuple(map(hide_password, details))
        self.effect = effect
        self.hints = tuple(map(hide_password, hints))

    def __reduce__(self) -> tuple[object, ...]:
        """Make copies and pickles whole: they do not know our arguments."""
        return _restore, (type(self), self.args, self.__dict__)

    @property
    def facts(self) -> dict[str, Fact]:
        """The named facts of this kind of failure, beyond path and problem."""
        return {name: getattr(self, name) for name in self._facts}

    @property
    def headline(self) -> str:
        """The first line of the message."""
        return f"{self.path}: {self.problem}" if self.path else self.problem

    def __str__(self) -> str:
        lines = [self.headline, *(f"  {line}" for line in self.details)]
        if self.effect:
            lines.append(f"  {self.effect}")
        lines += [f"  hint: {hint}" for hint in self.hints[:3]]
        return "\n".join(map(printable, lines))


def _restore(
    kind: type[KitcacheError], args: tuple[str, ...], state: dict[str, object]
) -> KitcacheError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(KitcacheError):
    """A command line, an age or a name that cannot be understood."""

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        path: str = "",
        details: tuple[str, ...] = (),
        hints: tuple[str, ...] = (),
    ) -> None:
        super().__init__(path, problem, details=details, effect="", hints=hints)


class NotFound(KitcacheError):
    """No such tag, digest or blob in this cache."""


class Incomplete(KitcacheError):
    """Done in part: some files could not be removed. `left` says which, and why."""

    exit_code = 3
    _facts = ("not_deleted_count",)

    def __init__(
        self, path: str, *, not_deleted: tuple[tuple[str, str], ...], not_deleted_count: int
    ) -> None:
        shown = tuple(f"{name}: {reason}" for name, reason in not_deleted[:5])
        more = (
            (f"and {not_deleted_count - len(shown):,} more",)
            if not_deleted_count > len(shown)
            else ()
        )
        super().__init__(
            path,
            f"{not_deleted_count:,} {'file' if not_deleted_count == 1 else 'files'} could not be removed",
            details=shown + more,
            effect="what could be removed is gone; what tags reach is where it was",
            hints=("mend what is named above, then run the same command again",),
        )
        self.not_deleted = not_deleted
        self.not_deleted_count = not_deleted_count


class NotACache(KitcacheError):
    """The path is no directory, or holds neither an `oci-layout` nor an `index.json`."""

    exit_code = 10

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            path,
            f"not a cache: {problem}",
            details=(
                "expected: a directory with oci-layout, index.json and blobs/,"
                " as --cache-to type=local,dest=DIR writes it",
            ),
            effect=NOTHING_CHANGED,
            hints=("name the directory that an export was given as dest",),
        )


class Busy(KitcacheError):
    """A lock was not had in time, or an export is under way. retry_after_s: seconds, if known."""

    exit_code = 11
    _facts = ("holder_pid", "holder_command", "retry_after_s")

    def __init__(
        self,
        path: str,
        problem: str,
        *,
        holder_pid: int | None = None,
        holder_command: str | None = None,
        retry_after_s: float | None = None,
        effect: str = NOTHING_REMOVED,
        hints: tuple[str, ...] = (),
    ) -> None:
        super().__init__(path, problem, effect=effect, hints=hints)
        self.holder_pid = holder_pid
        self.holder_command = holder_command
        self.retry_after_s = retry_after_s


class _OnTheWay(KitcacheError):
    """Met on the way from a root to what it reaches.

    tag: the ref name, None where the entry has none or the fault is index.json's own. chain:
    index.json, then every step down to the fault.
    """

    def __init__(
        self,
        path: str,
        problem: str,
        *,
        tag: str | None = None,
        chain: tuple[str, ...] = (),
        details: tuple[str, ...] = (),
        effect: str = NOTHING_REMOVED,
        hints: tuple[str, ...] = (),
    ) -> None:
        where = (f"path: {' > '.join(chain)}",) if chain else ()
        super().__init__(path, problem, details=where + details, effect=effect, hints=hints)
        self.tag = tag
        self.chain = chain

    @property
    def facts(self) -> dict[str, Fact]:
        """The tag, and the path to the fault; before them the kind of a Damaged."""
        return {**super().facts, "tag": self.tag, "chain": " > ".join(self.chain) or None}


class Damaged(_OnTheWay):
    """What a tag reaches cannot be known (nothing was removed), or a tag has lost a blob.

    kind: one word, such as missing, torn, wrong-digest, not-json, malformed, ambiguous,
    unreadable, lost.
    """

    exit_code = 12
    _facts = ("kind",)

    def __init__(
        self,
        path: str,
        problem: str,
        *,
        kind: str,
        tag: str | None = None,
        chain: tuple[str, ...] = (),
        details: tuple[str, ...] = (),
        effect: str = NOTHING_REMOVED,
        hints: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            path,
            problem,
            tag=tag,
            chain=chain,
            details=details,
            effect=effect,
            hints=hints,
        )
        self.kind = kind


class Unreadable(_OnTheWay):
    """A file that is there cannot be read. It may be whole, so nothing was decided by it.

    file: what it is, such as "blob sha256:9c1e…". clause: "cannot be read", and why.
    """

    def __init__(
        self,
        path: str,
        file: str,
        reason: str,
        *,
        tag: str | None = None,
        chain: tuple[str, ...] = (),
        effect: str = NOTHING_CHANGED,
        hints: tuple[str, ...] = (),
    ) -> None:
        clause = f"cannot be read: {reason}"
        super().__init__(
            path,
            f"{file} {clause}",
            tag=tag,
            chain=chain,
            effect=effect,
            hints=hints,
        )
        self.file = file
        self.clause = clause


class Unsafe(_OnTheWay):
    """Refused: going on could touch or load what it should not (a link, a cap, a version)."""

    exit_code = 13


class LimitNotReached(KitcacheError):
    """What has to be kept holds more than the limit allows. Both figures are bytes."""

    exit_code = 14
    _facts = ("limit_bytes", "needed_bytes")

    def __init__(
        self,
        path: str,
        problem: str,
        *,
        limit_bytes: int,
        needed_bytes: int,
        details: tuple[str, ...] = (),
        effect: str = NOTHING_CHANGED,
        hints: tuple[str, ...] = (),
    ) -> None:
        super().__init__(path, problem, details=details, effect=effect, hints=hints)
        self.limit_bytes = limit_bytes
        self.needed_bytes = needed_bytes


class NoDaemon(KitcacheError):
    """No BuildKit answers at that address, or it lacks what was asked. path: the address.

    kind: unreachable (nothing was asked of it), lost (after it had answered), unsupported (it
    answers, and is no BuildKit or lacks what was asked), closed or forked (the Client's own state).
    """

    exit_code = 20
    _facts = ("kind",)

    def __init__(
        self,
        address: str,
        problem: str,
        *,
        kind: NoDaemonKind = "unreachable",
        details: tuple[str, ...] = (),
        hints: tuple[str, ...] = (),
    ) -> None:
        super().__init__(address, problem, details=details, effect="nothing was built", hints=hints)
        self.kind = kind


class SourceLocation(NamedTuple):
    """Lines of a Dockerfile that an error is about. Lines count from 1; text is the whole file."""

    filename: str
    first_line: int
    last_line: int
    text: str


class BuildFailed(KitcacheError):
    """The daemon could not build it.

    step: the name of the step that failed, "" where none did. log: its last lines. sources: where
    in a Dockerfile. step_exit_code: of the program in a RUN, None where none ran. ref: the build's
    name in the daemon's history. warnings, notices: as in BuildResult.
    """

    exit_code = 21

    def __init__(
        self,
        problem: str,
        *,
        step: str = "",
        log: tuple[str, ...] = (),
        locations: tuple[SourceLocation, ...] = (),
        step_exit_code: int | None = None,
        ref: str = "",
        warnings: tuple[Any, ...] = (),
        notices: tuple[str, ...] = (),
        hints: tuple[str, ...] = (),
    ) -> None:
        super().__init__("", problem, effect="", hints=hints)
        self.step = step
        self.log = log
        self.locations = locations
        self.step_exit_code = step_exit_code
        self.ref = ref
        self.warnings = warnings
        self.notices = notices

    @property
    def facts(self) -> dict[str, Fact]:
        """The step, its exit code and log, the first place in a Dockerfile, and what was told."""
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


class NotExecutable(KitcacheError):
    """The program that `kitcache exec` is to run is there, and cannot be run. Nothing was built."""

    exit_code = 126

    def __init__(self, program: str, reason: str) -> None:
        super().__init__(
            "",
            f"{program} cannot be run: {reason}",
            effect="nothing was built",
            hints=("look at the file's permissions and its first line",),
        )


class NotInstalled(KitcacheError):
    """The program that `kitcache exec` is to run is not there. Nothing was built."""

    exit_code = 127

    def __init__(self, program: str) -> None:
        super().__init__(
            "",
            f"{program} is not installed, or not in PATH",
            effect="nothing was built",
            hints=("install it, or name its path",),
        )


class Cancelled(KitcacheError):
    """Stopped by Ctrl-C or by the caller's cancel event: a sweep between two blobs, or a build.

    removed_blobs, removed_bytes: by a sweep until then; bytes are file sizes. timeout_s: of a build
    that took longer than it was allowed to, else None.
    """

    exit_code = 130
    _facts = ("deleted_blobs", "deleted_bytes", "timeout_s")

    def __init__(
        self,
        path: str,
        *,
        deleted_blobs: int = 0,
        deleted_bytes: int = 0,
        problem: str = "stopped on request",
        effect: str = NOTHING_REMOVED,
        timeout_s: float | None = None,
    ) -> None:
        if deleted_blobs:
            effect = (
                f"{deleted_blobs:,} unreferenced {'blob' if deleted_blobs == 1 else 'blobs'}"
                " had been removed, and nothing that a tag reaches"
            )
        super().__init__(
            path,
            problem,
            effect=effect,
            hints=("run the same command again to finish",),
        )
        self.deleted_blobs = deleted_blobs
        self.deleted_bytes = deleted_bytes
        self.timeout_s = timeout_s
