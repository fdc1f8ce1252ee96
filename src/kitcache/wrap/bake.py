"""docker buildx bake: resolved by `bake --print`, which builds nothing.

A list of exports is replaced with --set, which overrides the file. Several --set of one field are
added up, so the user's own are omitted. The printed definition contains them.
Source: buildx bake/bake.go (newOverrides, AddOverrides).
"""

import os
from collections.abc import Callable, Mapping
from threading import Event

from kitcache.wrap import flagtables
from kitcache.wrap.argv import Job, Recognized, Rewritten, unchanged_job
from kitcache.wrap.flags import Option, is_flag_set, option_values, read_line
from kitcache.wrap.query import Exports, Fields, is_remote, make_job, read_answer, run_query

_BUILDS_NOTHING = ("print", "help", "h", "list", "list-targets", "list-variables", "check", "call")
_CWD = "cwd://"  # The prefix of a local file next to a remote definition.
_FIELDS = Fields("cache-to", "cache-from", "contexts")


def bake_job(
    command: Recognized,
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes | None],
    cancel: Event | None = None,
) -> Job:
    """Return the job of a bake command. Bake fetches a remote definition.

    Raises:
        NotUnderstood, ClientFailed, Cancelled: As recognize and run_query.
    """
    argv, end = command.argv, command.at + 1
    line = read_line(argv, end, flagtables.BAKE, watched=("set", "file"))
    if is_flag_set(line.options, _BUILDS_NOTHING):
        return unchanged_job(argv)
    # Source: buildx commands/bake.go (bakeEnvFiles).
    files = option_values(line.options, "f", "file")
    separator = environ.get("BUILDX_BAKE_PATH_SEPARATOR") or os.pathsep
    files = files or environ.get("BUILDX_BAKE_FILE", "").split(separator)
    stdin = read_stdin() if any(name.removeprefix(_CWD) == "-" for name in files) else None
    query = (*argv[:end], "--print", *argv[end:])
    targets = read_answer(query, run_query(query, environ, stdin, cancel).stdout).get("target")
    own = {n for option in line.options if _sets_exports(option) for n in option.positions}

    def replace(exports: Exports) -> Rewritten:
        settings = []
        for name, texts in exports.items():
            # Set an empty list only if the user's own setting is omitted.
            for text in texts or [""] * bool(own):
                settings += ["--set", f"{name}.cache-to={text}"]
        rest = [word for n, word in enumerate(argv) if n >= end and n not in own]
        return Rewritten((*argv[:end], *settings, *rest), stdin)

    return make_job(
        argv,
        targets if isinstance(targets, dict) else {},
        _FIELDS,
        replace,
        stdin=stdin,
        is_remote=any(is_remote(argv[n]) for n in line.positionals[:1]),
    )


def _sets_exports(option: Option) -> bool:
    key = (option.value or "").partition("=")[0].removesuffix("+")
    return option.name == "set" and key.split(".")[1:] == ["cache-to"]
