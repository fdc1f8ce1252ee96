"""docker buildx bake: what is resolved is what bake itself prints.

`--print` ends before anything is built. A list of exports is replaced by --set, which wins over
the file; those of the user for the same field would add up, and are contained in what was printed.
Source: buildx bake/bake.go (newOverrides, AddOverrides).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.wrap import tables
from kitcache.wrap.argv import DirectJob, Job, Recognized, Rewritten
from kitcache.wrap.cachewords import read_export
from kitcache.wrap.flags import Line, Option, is_on, read_line
from kitcache.wrap.resolving import ask, entries_of, is_remote, read_answer

_BUILDS_NOTHING = ("print", "help", "h", "list", "list-targets", "list-variables", "check", "call")


class BakeJob(NamedTuple):
    """targets: name and exports of each, in the order of `exports`. at: of the word bake.

    dropped: the words of the user's own --set of exports. stdin: what bake reads its file from.
    is_confined: with --allow the user said where bake may write; a new place is to be added.
    """

    argv: tuple[str, ...]
    at: int
    targets: tuple[tuple[str, tuple[str, ...]], ...]
    imports: tuple[str, ...]
    dropped: frozenset[int]
    stdin: bytes | None
    is_confined: bool = False

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
            if self.is_confined:
                settings += [word for text in set(now) - set(texts) for word in _allow(text)]
        words = [word for n, word in enumerate(self.argv) if n not in self.dropped]
        return Rewritten((*words[: self.at + 1], *settings, *words[self.at + 1 :]), self.stdin)


def bake_job(found: Recognized, environ: Mapping[str, str], read_stdin: Callable[[], bytes]) -> Job:
    """The caches of a bake command, as bake resolves them.

    Raises UsageError for a remote definition, Refused where bake itself refuses, KitcacheError.
    """
    line = read_line(found.argv, found.at + 1, tables.BAKE, watched=("set", "file"))
    if is_on(line.options, _BUILDS_NOTHING):
        return DirectJob(found.argv, (), ())
    _check_local(found, line)
    files = [o.value for o in line.options if o.name in ("f", "file")]
    stdin = read_stdin() if "-" in files else None
    asked = (*found.argv[: found.at + 1], "--print", *found.argv[found.at + 1 :])
    document = read_answer(asked, ask(asked, environ, stdin))
    listed = document.get("target")
    targets = listed if isinstance(listed, dict) else {}
    return BakeJob(
        found.argv,
        found.at,
        tuple((name, entries_of(target.get("cache-to"))) for name, target in targets.items()),
        tuple(text for target in targets.values() for text in entries_of(target.get("cache-from"))),
        frozenset(n for o in line.options if _sets_exports(o) for n in range(o.first, o.at + 1)),
        stdin,
        any(o.name == "allow" and (o.value or "").startswith("fs") for o in line.options),
    )


def _allow(text: str) -> tuple[str, ...]:
    export = read_export(text)
    return () if export is None else ("--allow", f"fs.write={export.dest}")


def _check_local(found: Recognized, line: Line) -> None:
    words = [found.argv[n] for n in line.positionals]
    remote = next((word for word in words[:2] if is_remote(word)), None)
    if remote is None:
        return
    raise UsageError(
        f"the bake definition {remote} is remote: what it says when bake fetches it cannot be known"
        " before",
        next_steps=("fetch it, and name the file with --file",),
    )


def _sets_exports(option: Option) -> bool:
    key = (option.value or "").partition("=")[0].removesuffix("+")
    return option.name == "set" and key.split(".")[1:] == ["cache-to"]
