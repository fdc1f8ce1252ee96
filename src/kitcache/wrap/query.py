"""Queries a client: runs it, parses the JSON that it prints, and makes a Job of its builds."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple

from kitcache.errors import Cancelled, NotExecutable
from kitcache.options.attributes import join_attributes
from kitcache.wrap.argv import ClientFailed, Job, Rewritten
from kitcache.wrap.child import find_program, start_or_run_script
from kitcache.wrap.contexts import contexts_of_definition
from kitcache.wrap.flags import NotUnderstood

_POLL_S = 0.1

Exports = dict[str, list[str]]
"""The exports of each build, by its name."""


class Output(NamedTuple):
    """The output of a command."""

    stdout: bytes
    stderr: bytes


class Fields(NamedTuple):
    """A client's names for the fields of a build."""

    exports: str
    imports: str
    contexts: str


def run_query(
    argv: Sequence[str],
    environ: Mapping[str, str],
    stdin: bytes | None,
    cancel: Event | None = None,
) -> Output:
    """Run a command to its end; terminate it when cancel is set.

    Raises:
        ClientFailed: Its exit code is not 0.
        NotExecutable, Cancelled: As named.
    """
    try:
        process = start_or_run_script(
            find_program(argv[0], environ) or argv[0],
            argv,
            lambda path, words: subprocess.Popen(  # noqa: S603 - the user's own command
                words,
                executable=path,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ),
        )
    except OSError as error:
        raise NotExecutable(argv[0], error.strerror or str(error)) from None
    with process:
        output = _communicate(process, stdin or b"", cancel)
    if cancel is not None and cancel.is_set():
        raise Cancelled("", effect="the command was not started")
    code = process.returncode
    if code:
        raise ClientFailed(code if code > 0 else 128 - code, output.stderr)
    return output


def _communicate(process: "subprocess.Popen[bytes]", stdin: bytes, cancel: Event | None) -> Output:
    remaining: bytes | None = stdin
    while True:
        try:
            return Output(*process.communicate(remaining, timeout=_POLL_S))
        except subprocess.TimeoutExpired:
            remaining = None  # Popen continues to write the first input.
            # A signal to kitcache alone does not reach the client.
            if cancel is not None and cancel.is_set():
                process.terminate()


def read_answer(argv: Sequence[str], stdout: bytes) -> dict[str, Any]:
    """Parse the JSON object that a command has printed. Raises NotUnderstood."""
    try:
        document = json.loads(stdout)
    except (ValueError, RecursionError) as error:
        document = error
    if not isinstance(document, dict):
        raise NotUnderstood(
            f"{' '.join(argv[:4])} … did not print its build plan",
            hints=("use a newer version of that client",),
        )
    return document


def make_job(
    argv: tuple[str, ...],
    builds: Mapping[str, Mapping[str, Any]],
    fields: Fields,
    replace: Callable[[Exports], Rewritten],
    *,
    stdin: bytes | None,
    builds_all: bool = True,
    is_remote: bool = False,
) -> Job:
    """Return the job of a command that makes these builds.

    Args:
        builds: Each build's definition, by its name.
        replace: Makes the command with other exports.
        stdin: The input of the command if kitcache has read it.
        is_remote: The definitions were fetched.
    """
    by_name = {name: entries_of(build.get(fields.exports)) for name, build in builds.items()}
    exports = tuple(text for texts in by_name.values() for text in texts)

    def rewrite(texts: Sequence[str]) -> Rewritten:
        if tuple(texts) == exports:
            return Rewritten(argv, stdin)
        rest = iter(texts)
        return replace({name: [next(rest) for _ in old] for name, old in by_name.items()})

    return Job(
        argv,
        rewrite,
        exports,
        tuple(n for n, texts in enumerate(by_name.values()) for _ in texts),
        tuple(text for build in builds.values() for text in entries_of(build.get(fields.imports))),
        tuple(
            context
            for build in builds.values()
            for context in contexts_of_definition(build, fields.contexts, is_remote=is_remote)
        ),
        builds_all,
    )


def entries_of(value: object) -> tuple[str, ...]:
    """Return cache options as strings. Newer clients print objects, older clients strings."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(item if isinstance(item, str) else _join(item) for item in items)


def _join(item: object) -> str:
    if not isinstance(item, dict):
        raise NotUnderstood(f"a cache option is neither a text nor an object: {item!r}")
    pairs = [(str(key), str(value)) for key, value in item.items()]
    return join_attributes(sorted(pairs, key=lambda pair: pair[0] != "type"))


def is_remote(word: str) -> bool:
    """Return True if clients fetch this word instead of opening a file.

    Source: buildx util/urlutil, moby pkg/urlutil, compose's remote loaders.
    """
    schemes = ("http://", "https://", "git://", "git@", "ssh://", "oci://", "github.com/")
    return word.startswith(schemes) and not os.path.exists(word)
