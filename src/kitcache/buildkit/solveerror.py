"""The error of a failed Solve: the step, its log, the lines of the Dockerfile.

The details of a status are JSON, each with its own type. A malformed detail is ignored.
Source: BuildKit, solver/errdefs and frontend/gateway/errdefs.
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator

from kitcache.buildkit.session.registry import HUB_HOSTS
from kitcache.buildkit.status import BuildWarning
from kitcache.buildkit.steps import StepTracker
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.errors import BuildFailed, SourceLocation, printable
from kitcache.masking import hide_password

_NOISE = re.compile(r"rpc error: code = \w+ desc = ")
_PREFIX = "failed to solve: "
_MAX_LOCATIONS = 10
_REFUSED = re.compile(
    "401 Unauthorized|no basic auth credentials|authentication required|insufficient_scope"
)
_RULE = "-" * 20
_CONTEXT_LINES = 2
_NOTE_LOG_LINES = 20

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
    """Return the error for a Solve that ended with this status.

    Its step is the step that the status names, else the first failed step, with the end of its log.
    It has at most ten different locations. A note for tracebacks repeats all of this.

    Args:
        hide: Hides secrets in a text; the steps are masked already.
        hosts: Hosts for which the daemon has requested a login.
    """
    failed_steps = [step for step in steps.steps if step.state == "error"]
    for value in _details(error, "errdefs.Vertex+json"):
        digest = value.get("digest")
        if isinstance(digest, str) and (named := steps.find(digest)):
            failed_steps.insert(0, named)
            break
    step = failed_steps[0] if failed_steps else None
    lines = [line.text for line in step.log] if step else []
    if step and step.unfinished:
        lines.append(step.unfinished)
    codes = [value.get("Code", 0) for value in _details(error, "gatewayapi.ExitMessage+json")]
    message = _NOISE.sub("", hide(error.message)).removeprefix(_PREFIX).strip()
    failed = BuildFailed(
        _PREFIX + (message or (step.error if step else "") or f"status {int(error.code)}"),
        step=step.name if step else "",
        log=tuple(lines),
        locations=tuple(dict.fromkeys(_locations(error, hide)))[:_MAX_LOCATIONS],
        step_exit_code=next((code for code in map(_number, codes) if code is not None), None),
        ref=ref,
        warnings=warnings,
        notices=notices,
        hints=login_hints(message, hosts),
    )
    if note := "\n".join(printable(line.expandtabs()) for line in _note_lines(failed)):
        failed.add_note(note)
    return failed


def login_hints(message: str, hosts: Collection[str]) -> tuple[str, ...]:
    """Return the command for a login if a registry refused access; () for any other failure."""
    if not _REFUSED.search(message):
        return ()
    named = [host for host in sorted(hosts) if host in message] or sorted(hosts)
    host = named[0] if len(named) == 1 else "HOST"
    return ("docker login" if host in HUB_HOSTS else f"docker login {host}",)


def source_lines(location: SourceLocation) -> Iterator[str]:
    """Return the location with the lines around it. Callers have to make the lines printable."""
    lines = location.text.split("\n")
    if not lines[-1]:
        lines.pop()
    start = max(0, location.first_line - 1 - _CONTEXT_LINES)
    end = location.last_line + _CONTEXT_LINES
    yield f"{location.filename}:{location.first_line}"
    yield _RULE
    for number, line in enumerate(lines[start:end], start + 1):
        mark = ">>>" if location.first_line <= number <= location.last_line else "   "
        yield f" {number:3d} | {mark} {line.rstrip()}"
    yield _RULE


def _note_lines(failed: BuildFailed) -> Iterator[str]:
    if failed.step:
        code = failed.step_exit_code
        yield f"step: {failed.step}" + ("" if code is None else f" (exit code {code})")
        for line in failed.log[-_NOTE_LOG_LINES:]:
            yield f"  {line}"
    for location in failed.locations:
        yield from source_lines(location)
    for notice in failed.notices:
        yield f"notice: {notice}"


def _locations(error: RpcError, hide: Callable[[str], str]) -> Iterator[SourceLocation]:
    for value in _details(error, "errdefs.Source+json"):
        info = _object(value.get("info"))
        filename, data, ranges = info.get("filename", ""), info.get("data"), value.get("ranges")
        if not isinstance(filename, str) or not isinstance(data, str):
            continue
        try:
            text = b64decode(data, validate=True).decode("utf-8", "backslashreplace")
        except ValueError:
            continue
        # An instruction of several lines has several ranges.
        lines = [
            (first, max(first, _line(place, "end")))
            for place in (ranges if isinstance(ranges, list) else [])
            if (first := _line(place, "start")) > 0
        ]
        first = min((first for first, _ in lines), default=0)
        if 1 <= first <= len(text.split("\n")):
            yield SourceLocation(filename, first, max(last for _, last in lines), hide(text))


def _line(place: object, end: str) -> int:
    return _number(_object(_object(place).get(end)).get("line")) or 0


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


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
