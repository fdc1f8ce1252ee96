"""StepTracker: the updates of a build combined into steps. No clock, no I/O.

A vertex is a step; the vertices of one progress group form one step. A vertex is first reported
bare (planned), then started, then completed, and may start again. Logs are split at any byte.
Source: BuildKit, util/progress/progressui.
"""

import codecs
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

from kitcache.buildkit.status import BuildUpdate, BuildWarning, Transfer, Vertex, VertexLog

State = Literal["planned", "running", "done", "cached", "error", "canceled"]

LOG_LINES = 100
_LINE_BYTES = 16 * 1024
_SECOND_NS = 10**9


class Interval(NamedTuple):
    """A period in which a step ran. stop_ns: None while it runs."""

    start_ns: int
    stop_ns: int | None


class LogLine(NamedTuple):
    r"""A line of a step's output, without its newline.

    Attributes:
        seconds: Time since the step began.
        text: An invalid byte is shown as \xff. All other characters, also controls, are kept.
    """

    seconds: float
    text: str


class Step(NamedTuple):
    """A step in its current state.

    Attributes:
        key: Digest of its vertex, or id of its group.
        intervals: When it ran, without overlaps.
        error: "" unless it failed.
        transfers: Its transfers in the order in which they began.
        log: The last LOG_LINES lines of its output.
        unfinished: Output after the last line.
    """

    key: str
    name: str
    state: State
    intervals: tuple[Interval, ...]
    error: str
    transfers: tuple[Transfer, ...]
    warnings: tuple[BuildWarning, ...]
    log: tuple[LogLine, ...]
    unfinished: str

    def seconds(self, now_ns: int) -> float:
        """Return the running time of the step: the sum of its intervals."""
        total_ns = sum(
            (now_ns if stop_ns is None else stop_ns) - start_ns
            for start_ns, stop_ns in self.intervals
        )
        return max(0, total_ns) / _SECOND_NS


class StepChanges(NamedTuple):
    """The changes of an update. Each pair begins with the key of the step.

    Attributes:
        steps: Keys of steps that began, ended or changed, in order, also of hidden steps.
        transfers: The transfers of the update.
        lines: The lines that are complete now.
    """

    steps: tuple[str, ...]
    transfers: tuple[tuple[str, Transfer], ...]
    lines: tuple[tuple[str, LogLine], ...]


class StepTracker:
    """The steps of a build, from its updates."""

    def __init__(self) -> None:
        self._of_vertex: dict[str, _Step] = {}
        self._groups: dict[str, _Step] = {}
        self._begun: dict[str, _Step] = {}
        self._warnings: dict[BuildWarning, None] = {}

    def apply(self, update: BuildUpdate) -> StepChanges:
        """Apply an update. Logs and transfers of an unknown vertex are ignored."""
        changed: dict[str, None] = {}
        for vertex in update.vertexes:
            step = self._step_of(vertex)
            if step.put(vertex):
                changed[step.key] = None
            if step.has_begun and step.key not in self._begun:
                self._begun[step.key] = step
        transfers = []
        for transfer in update.transfers:
            if owner := self._of_vertex.get(transfer.vertex):
                owner.put_transfer(transfer)
                transfers.append((owner.key, transfer))
        for warning in update.warnings:
            self._warnings[warning] = None
            if owner := self._of_vertex.get(warning.vertex):
                owner.put_warning(warning)
        lines = []
        for log in update.logs:
            if owner := self._of_vertex.get(log.vertex):
                lines += [(owner.key, line) for line in owner.put_log(log)]
        return StepChanges(tuple(changed), tuple(transfers), tuple(lines))

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps: first those that have begun, in that order, then the planned steps."""
        planned = {
            step.key: step
            for step in self._of_vertex.values()
            if step.key not in self._begun and not step.is_hidden
        }
        return tuple(step.view() for step in (*self._begun.values(), *planned.values()))

    @property
    def warnings(self) -> tuple[BuildWarning, ...]:
        """All different warnings, in order."""
        return tuple(self._warnings)

    @property
    def started_ns(self) -> int | None:
        """The start of the first step, by the daemon's clock; None if no step has started."""
        starts = (step.started_ns for step in self._begun.values())
        return min((start for start in starts if start is not None), default=None)

    def get(self, key: str) -> Step | None:
        """Return the step with that key; None if it has not begun."""
        step = self._begun.get(key)
        return step.view() if step else None

    def find(self, vertex: str) -> Step | None:
        """Return the step of the vertex with that digest, or None."""
        step = self._of_vertex.get(vertex)
        return step.view() if step else None

    def break_line(self, key: str) -> LogLine | None:
        """Return the step's unfinished line, and start a new line; None if there is none."""
        step = self._begun.get(key)
        return step.break_line() if step else None

    def _step_of(self, vertex: Vertex) -> "_Step":
        step = self._of_vertex.get(vertex.digest)
        if step is None:
            group = vertex.group
            if group is None:
                step = _Step(vertex.digest, vertex.name, is_group=False)
            else:
                step = self._groups.get(group.id) or _Step(group.id, group.name, is_group=True)
                self._groups[group.id] = step
            self._of_vertex[vertex.digest] = step
        return step


def merge_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the union in order, without overlaps. An open interval has no end."""
    merged: list[Interval] = []
    for start_ns, stop_ns in sorted(intervals, key=lambda interval: interval.start_ns):
        if stop_ns is not None and stop_ns < start_ns:
            stop_ns = start_ns  # noqa: PLW2901 - a clock was set back
        last = merged[-1] if merged else None
        if last and (last.stop_ns is None or last.stop_ns >= start_ns):
            ends_later = last.stop_ns is not None and (stop_ns is None or stop_ns > last.stop_ns)
            if ends_later:
                merged[-1] = Interval(last.start_ns, stop_ns)
        else:
            merged.append(Interval(start_ns, stop_ns))
    return tuple(merged)


class _Step:
    """A step as it is built up from its vertices, transfers and logs."""

    def __init__(self, key: str, name: str, *, is_group: bool) -> None:
        self.key = key
        self._name = name
        self._is_group = is_group
        self._members: dict[str, Vertex] = {}
        self._ran: dict[tuple[str, int], Interval] = {}
        self._intervals: tuple[Interval, ...] = ()
        self._transfers: dict[str, Transfer] = {}
        self._warnings: dict[BuildWarning, None] = {}
        self._lines = _Lines()
        self._view: Step | None = None

    def put(self, vertex: Vertex) -> bool:
        """Store a vertex. Return False if nothing has changed."""
        old = self._members.get(vertex.digest)
        # If another part of the graph needs a vertex, the daemon sends it again, bare.
        if old == vertex or (old is not None and _is_bare(vertex) and not _is_bare(old)):
            return False
        self._members[vertex.digest] = vertex
        if vertex.started_ns is not None:
            ran = Interval(vertex.started_ns, vertex.completed_ns)
            self._ran[vertex.digest, vertex.started_ns] = ran
            self._intervals = merge_intervals(self._ran.values())
        if not self._is_group:
            self._name = vertex.name
        self._view = None
        return True

    def put_transfer(self, transfer: Transfer) -> None:
        self._transfers[transfer.id] = transfer
        self._view = None

    def put_warning(self, warning: BuildWarning) -> None:
        self._warnings[warning] = None
        self._view = None

    def put_log(self, log: VertexLog) -> list[LogLine]:
        """Append a piece of log. Return the lines that are complete now."""
        seconds = 0.0
        if self._intervals and log.timestamp_ns is not None:
            seconds = max(0, log.timestamp_ns - self._intervals[-1].start_ns) / _SECOND_NS
        self._view = None
        return self._lines.put(log.data, seconds)

    def break_line(self) -> LogLine | None:
        self._view = None
        return self._lines.end()

    @property
    def started_ns(self) -> int | None:
        """The start of its first interval, or None."""
        return self._intervals[0].start_ns if self._intervals else None

    @property
    def is_hidden(self) -> bool:
        """True for a group in which only weak members have started and none has failed."""
        return self._is_group and not any(
            vertex.error
            or (vertex.started_ns is not None and vertex.group and not vertex.group.weak)
            for vertex in self._members.values()
        )

    @property
    def has_begun(self) -> bool:
        """True if it is not hidden and has started or failed."""
        return not self.is_hidden and self._state != "planned"

    @property
    def _state(self) -> State:
        if error := self._error:
            return "canceled" if _is_canceled(error) else "error"
        if not self._intervals:
            return "planned"
        if self._intervals[-1].stop_ns is None:
            return "running"
        return "cached" if all(vertex.cached for vertex in self._members.values()) else "done"

    @property
    def _error(self) -> str:
        errors = [vertex.error for vertex in self._members.values() if vertex.error]
        return min(errors, key=_is_canceled, default="")

    def view(self) -> Step:
        if self._view is None:
            self._view = Step(
                self.key,
                self._name,
                self._state,
                self._intervals,
                self._error,
                tuple(t for t in self._transfers.values() if t.started_ns is not None),
                tuple(self._warnings),
                tuple(self._lines.last),
                self._lines.unfinished,
            )
        return self._view


class _Lines:
    """The lines of a log that arrives in pieces."""

    def __init__(self) -> None:
        self.last: deque[LogLine] = deque(maxlen=LOG_LINES)
        self._data = b""
        self._seconds = 0.0

    @property
    def unfinished(self) -> str:
        """The text after the last newline."""
        return _text_of(self._data)

    def put(self, data: bytes, seconds: float) -> list[LogLine]:
        """Append bytes printed at that time. Return the lines that are complete now."""
        lines: list[LogLine] = []
        pieces = data.split(b"\n")
        for n, piece in enumerate(pieces, 1):
            if not self._data:
                self._seconds = seconds
            self._data += piece
            while len(self._data) > _LINE_BYTES:
                size = _whole_characters(self._data[:_LINE_BYTES]) or _LINE_BYTES
                lines.append(self._take(size))
            if n < len(pieces):
                lines.append(self._take(len(self._data)))
        return lines

    def end(self) -> LogLine | None:
        """Return the unfinished line up to its last complete character, or None."""
        size = _whole_characters(self._data)
        return self._take(size) if size else None

    def _take(self, size: int) -> LogLine:
        line = LogLine(self._seconds, _text_of(self._data[:size]))
        self._data = self._data[size:]
        self.last.append(line)
        return line


def _text_of(line: bytes) -> str:
    # As on a terminal, the text after a carriage return replaces the text before it.
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return shown.decode("utf-8", "backslashreplace")


def _whole_characters(data: bytes) -> int:
    """Return the size of the data without an incomplete character at its end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return len(data) - len(decoder.getstate()[0])


def _is_bare(vertex: Vertex) -> bool:
    return vertex.started_ns is None and not vertex.error


def _is_canceled(error: str) -> bool:
    return error.endswith("context canceled")
