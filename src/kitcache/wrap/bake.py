"""docker buildx bake: what is resolved is what bake itself prints.

`--print` ends before anything is built. A list of exports is replaced by --set, which wins over
the file; those of the user for the same field would add up, and are contained in what was printed.
Source: buildx bake/bake.go (newOverrides, AddOverrides).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import NamedTuple

from kitcache.wrap import flagtables
from kitcache.wrap.argv import DirectJob, Job, Recognized, Rewritten
from kitcache.wrap.contexts import Context, contexts_of_definition
from kitcache.wrap.flags import Option, ParsedArgs, is_flag_set, read_line
from kitcache.wrap.query import ask, entries_of, is_remote, read_answer

_BUILDS_NOTHING = ("print", "help", "h", "list", "list-targets", "list-variables", "check", "call")
_HERE = "cwd://"  # beside a remote definition: a file of the working directory


class BakeJob(NamedTuple):
    """targets: name and exports of each, in the order of `exports`. at: of the word bake.

    dropped: the words of the user's own --set of exports. stdin: what bake reads its file from.
    """

    argv: tuple[str, ...]
    at: int
    targets: tuple[tuple[str, tuple[str, ...]], ...]
    imports: tuple[str, ...]
    dropped: frozenset[int]
    stdin: bytes | None
    contexts: tuple[Context, ...] = ()

    @property
    def exports(self) -> tuple[str, ...]:
        """All exports of all targets."""
        return tuple(text for _, texts in self.targets for text in texts)

    @property
    def solves(self) -> tuple[int, ...]:
        """Each target is a build."""
        return tuple(n for n, (_, texts) in enumerate(self.targets) for _ in texts)

    @property
    def builds_all(self) -> bool:
        """Every target is built."""
        return True

    def rewrite(self, exports: Sequence[str]) -> Rewritten:
        """The command, with --set for each target where anything changed."""
        if tuple(exports) == self.exports:
            return Rewritten(self.argv, self.stdin)
        rest = iter(exports)
        settings = []
        for name, texts in self.targets:
            now = [next(rest) for _ in texts]
            # An empty list has to be said only where the user's own setting goes.
            for text in now or [""] * bool(self.dropped):
                settings += ["--set", f"{name}.cache-to={text}"]
        words = [word for n, word in enumerate(self.argv) if n not in self.dropped]
        return Rewritten((*words[: self.at + 1], *settings, *words[self.at + 1 :]), self.stdin)


def bake_job(
    found: Recognized,
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes | None],
    cancel: Event | None = None,
) -> Job:
    """The caches of a bake command, as bake resolves them.

    Bake fetches a remote definition. Raises NotUnderstood, Cancelled, Refused where bake says
    nothing.
    """
    line = read_line(found.argv, found.at + 1, flagtables.BAKE, watched=("set", "file"))
    if is_flag_set(line.options, _BUILDS_NOTHING):
        return DirectJob(found.argv)
    reads_stdin = any(name.removeprefix(_HERE) == "-" for name in _files(line, environ))
    stdin = read_stdin() if reads_stdin else None
    is_fetched = any(is_remote(found.argv[n]) for n in line.positionals[:1])
    asked = (*found.argv[: found.at + 1], "--print", *found.argv[found.at + 1 :])
    document = read_answer(asked, ask(asked, environ, stdin, cancel).printed)
    listed = document.get("target")
    targets = listed if isinstance(listed, dict) else {}
    return BakeJob(
        found.argv,
        found.at,
        tuple((name, entries_of(target.get("cache-to"))) for name, target in targets.items()),
        tuple(text for target in targets.values() for text in entries_of(target.get("cache-from"))),
        frozenset(n for o in line.options if _sets_exports(o) for n in range(o.first, o.at + 1)),
        stdin,
        tuple(
            context
            for target in targets.values()
            for context in contexts_of_definition(target, "contexts", is_remote=is_fetched)
        ),
    )


def _files(line: ParsedArgs, environ: Mapping[str, str]) -> list[str]:
    """The files of the definition, as the command or else the environment names them.

    Source: buildx commands/bake.go (bakeEnvFiles).
    """
    named = [o.value or "" for o in line.options if o.name in ("f", "file")]
    separator = environ.get("BUILDX_BAKE_PATH_SEPARATOR") or os.pathsep
    return named or environ.get("BUILDX_BAKE_FILE", "").split(separator)


def _sets_exports(option: Option) -> bool:
    key = (option.value or "").partition("=")[0].removesuffix("+")
    return option.name == "set" and key.split(".")[1:] == ["cache-to"]
