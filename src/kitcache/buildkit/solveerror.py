"""A Solve that failed, as an error that says where: the step, its log, the Dockerfile's lines.

The details of a status are JSON, each a type of its own; one that is malformed is left out.
Source: BuildKit, solver/errdefs and frontend/gateway/errdefs.
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator
from typing import TypeGuard

from kitcache.buildkit.session.registry import HUB_HOSTS
from kitcache.buildkit.status import BuildWarning
from kitcache.buildkit.steps import Step, StepTracker
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.errors import BuildFailed, SourceLocation, printable
from kitcache.masking import hide_password

_NOISE = re.compile(r"rpc error: code = \w+ desc = ")
_PREFIX = "failed to solve: "
_MAX_SOURCES = 10
_REFUSED = re.compile(
    "401 Unauthorized|no basic auth credentials|authentication required|insufficient_scope"
)
_SOURCE_RULE = "-" * 20
_AROUND = 2
_NOTED_LOG_LINES = 20

Json = dict[str, object]


def build_failed(
    error: RpcError,
    steps: StepTracker,
    *,
    hide: Callable[[str], str] = hide_password,
    ref: str = "",
    warnings: tuple[BuildWarning, ...] = (),
    notices: tuple[str, ...] = (),
    hosts: Collection[str] = (),
) -> BuildFailed:
    """The error for a Solve that ended with this status, after these steps.

    hide: takes the secrets out of a text; those of the steps are out already. hosts: for which the
    daemon has asked a login.

    The step is the one that the status names, or else the first that failed. log: the last lines
    of it that are known. sources: at most ten places, none twice. A note on the error has all that
    for whoever prints a traceback.
    """
    step = _failed_step(error, steps)
    message = _NOISE.sub("", hide(error.message)).removeprefix(_PREFIX).strip()
    failed = BuildFailed(
        _PREFIX + (message or (step.error if step else "") or f"status {int(error.code)}"),
        step=step.name if step else "",
        log=tuple(_log_of(step)) if step else (),
        locations=tuple(dict.fromkeys(_sources(error, hide)))[:_MAX_SOURCES],
        step_exit_code=_exit_code(error),
        ref=ref,
        warnings=warnings,
        notices=notices,
        hints=login_steps(message, hosts),
    )
    if note := "\n".join(map(_show, _note_lines(failed))):
        failed.add_note(note)
    return failed


def login_steps(message: str, hosts: Collection[str]) -> tuple[str, ...]:
    """What to do where a registry refuses a login, or the lack of one; () for any other failure."""
    if not _REFUSED.search(message):
        return ()
    named = [host for host in sorted(hosts) if host in message] or sorted(hosts)
    host = named[0] if len(named) == 1 else "HOST"
    return ("docker login" if host in HUB_HOSTS else f"docker login {host}",)


def source_lines(source: SourceLocation) -> Iterator[str]:
    """Return the place in a Dockerfile and the lines around it, as they came: not printable yet."""
    lines = source.text.split("\n")
    if not lines[-1]:
        lines.pop()
    before, after = max(0, source.first_line - 1 - _AROUND), source.last_line + _AROUND
    yield f"{source.filename}:{source.first_line}"
    yield _SOURCE_RULE
    for number, line in enumerate(lines[before:after], before + 1):
        mark = ">>>" if source.first_line <= number <= source.last_line else "   "
        yield f" {number:3d} | {mark} {line.rstrip()}"
    yield _SOURCE_RULE


def _note_lines(failed: BuildFailed) -> Iterator[str]:
    if failed.step:
        code = failed.step_exit_code
        yield f"step: {failed.step}" + ("" if code is None else f" (exit code {code})")
        for line in failed.log[-_NOTED_LOG_LINES:]:
            yield f"  {line}"
    for source in failed.locations:
        yield from source_lines(source)
    for notice in failed.notices:
        yield f"notice: {notice}"


def _show(line: str) -> str:
    return printable(line.expandtabs())


def _failed_step(error: RpcError, steps: StepTracker) -> Step | None:
    for value in _details(error, "errdefs.Vertex+json"):
        digest = value.get("digest")
        step = steps.find(digest) if isinstance(digest, str) else None
        if step is not None:
            return step
    return next((step for step in steps.steps if step.state == "error"), None)


def _log_of(step: Step) -> Iterator[str]:
    for line in step.log:
        yield line.text
    if step.unfinished:
        yield step.unfinished


def _exit_code(error: RpcError) -> int | None:
    for value in _details(error, "gatewayapi.ExitMessage+json"):
        code = value.get("Code", 0)
        if _is_number(code):
            return int(code)
    return None


def _sources(error: RpcError, hide: Callable[[str], str]) -> Iterator[SourceLocation]:
    for value in _details(error, "errdefs.Source+json"):
        info = _object(value.get("info"))
        filename, data = info.get("filename", ""), info.get("data")
        if not isinstance(filename, str) or not isinstance(data, str):
            continue
        try:
            text = b64decode(data, validate=True).decode("utf-8", "backslashreplace")
        except ValueError:
            continue
        lines = [found for place in _list(value.get("ranges")) if (found := _lines(place))]
        first = min((first for first, _ in lines), default=0)
        if 1 <= first <= len(text.split("\n")):
            yield SourceLocation(filename, first, max(last for _, last in lines), hide(text))


def _lines(place: object) -> tuple[int, int] | None:
    """A range's first and last line; an instruction of several lines comes as several ranges."""
    first = _line(_object(place).get("start"))
    return (first, max(first, _line(_object(place).get("end")))) if first > 0 else None


def _line(position: object) -> int:
    line = _object(position).get("line", 0)
    return int(line) if _is_number(line) else 0


def _details(error: RpcError, name: str) -> Iterator[Json]:
    for detail in error.details:
        if detail.type_url.rpartition("/")[2] == name:
            try:
                value = json.loads(detail.value)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
