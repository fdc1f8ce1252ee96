"""Asking a client what a command of its means: run, and its JSON read."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple

from kitcache.errors import Cancelled, NotExecutable
from kitcache.options.attributes import join_attributes
from kitcache.wrap.argv import ClientFailed
from kitcache.wrap.child import find_program, run_script_too
from kitcache.wrap.flags import NotUnderstood

_GLANCE_S = 0.1


class Said(NamedTuple):
    """What a command wrote to stdout, and to stderr."""

    printed: bytes
    warned: bytes


def ask(
    argv: Sequence[str],
    environ: Mapping[str, str],
    stdin: bytes | None,
    cancel: Event | None = None,
) -> Said:
    """Run a command to its end, and end it once cancel is set.

    Raises Refused, NotExecutable, Cancelled.
    """
    try:
        process = run_script_too(
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
        said = _listen(process, stdin or b"", cancel)
    if cancel is not None and cancel.is_set():
        raise Cancelled("", effect="the command was not started")
    code = process.returncode
    if code:
        raise ClientFailed(code if code > 0 else 128 - code, said.warned)
    return said


def _listen(process: "subprocess.Popen[bytes]", stdin: bytes, cancel: Event | None) -> Said:
    said: bytes | None = stdin
    while True:
        try:
            return Said(*process.communicate(said, timeout=_GLANCE_S))
        except subprocess.TimeoutExpired:
            said = None  # it remembers what is left to write
            # A signal that was sent to us alone.
            if cancel is not None and cancel.is_set():
                process.terminate()


def read_answer(argv: Sequence[str], printed: bytes) -> dict[str, Any]:
    """The JSON object that a command has printed. Raises NotUnderstood where it is none."""
    try:
        document = json.loads(printed)
    except (ValueError, RecursionError) as error:
        document = error
    if not isinstance(document, dict):
        raise NotUnderstood(
            f"{' '.join(argv[:4])} … did not print what it would build",
            hints=("use a newer version of that client",),
        )
    return document


def entries_of(value: object) -> tuple[str, ...]:
    """A list of cache options as texts. Newer clients print objects, older ones texts."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(item if isinstance(item, str) else _as_text(item) for item in items)


def _as_text(item: object) -> str:
    if not isinstance(item, dict):
        raise NotUnderstood(f"a cache option is neither a text nor an object: {item!r}")
    pairs = [(str(key), str(value)) for key, value in item.items()]
    return join_attributes(sorted(pairs, key=lambda pair: pair[0] != "type"))


def is_remote(word: str) -> bool:
    """Whether the clients would fetch this in place of opening it.

    Source: buildx util/urlutil, moby pkg/urlutil, compose's remote loaders.
    """
    schemes = ("http://", "https://", "git://", "git@", "ssh://", "oci://", "github.com/")
    return word.startswith(schemes) and not os.path.exists(word)
