"""The stream of updates, folded to the steps that people follow. Pure: no clock, no I/O.

A vertex is a step; vertices of one progress group are one step together. A vertex comes bare (it is
planned), then started, then completed; it may start again after that. Logs arrive as bytes that are
cut anywhere. Source: BuildKit, util/progress/progressui.
"""

import codecs
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from kitcache.buildkit.status import BuildUpdate, BuildWarning, Transfer, Vertex, VertexLog

State = Literal["planned", "running", "done", "cached", "error", "canceled"]

LOG_LINES = 100
_LINE_BYTES = 16 * 1024
_SECOND_NS = 10**9


class Interval(NamedTuple):
    """A time in which a step ran. stop_ns: None while it runs."""

    start_ns: int
    stop_ns: int | None


class LogLine(NamedTuple):
    r"""A line that a step printed, without its end. seconds: since the step began.

    Bytes that are no UTF-8 read as \xff. All else is as it came, control characters too.
    """

    seconds: float
    text: str


class Step(NamedTuple):
    """A step as it is now.

    key: the digest of its vertex, or the id of its group. intervals: when it ran, without overlap.
    error: "" unless it failed. transfers: those that have begun, in that order. log: the last
    LOG_LINES lines; unfinished: what was printed after them.
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
        """For how long it has run; times in which it did not run do not count."""
        total_ns = sum(
            (now_ns if stop_ns is None else stop_ns) - start_ns
            for start_ns, stop_ns in self.intervals
        )
        return max(0, total_ns) / _SECOND_NS


class StepChanges(NamedTuple):
    """What an update changed. Pairs begin with the key of the step.

    steps: keys of steps that began, ended or changed, in order. A step that is not shown yet may be
    among them.
    """

    steps: tuple[str, ...]
    transfers: tuple[tuple[str, Transfer], ...]
    lines: tuple[tuple[str, LogLine], ...]


class StepTracker:
    """All that is known of a build's steps."""

    def __init__(self) -> None:
        self._of_vertex: dict[str, _Step] = {}
        self._groups: dict[str, _Step] = {}
        self._begun: dict[str, _Step] = {}
        self._warnings: dict[BuildWarning, None] = {}

    def apply(self, update: BuildUpdate) -> StepChanges:
        """Fold an update in. What belongs to a vertex that was never announced is dropped."""
        changed: dict[str, None] = {}
        for vertex in update.vertexes:
            step = self._step_of(vertex)
            if step.put(vertex):
                changed[step.key] = None
            if step.has_begun and step.key not in self._begun:
                self._begun[step.key] = step
        transfers = []
        for transfer in update.transfers:
            if found := self._of_vertex.get(transfer.vertex):
                found.put_transfer(transfer)
                transfers.append((found.key, transfer))
        for warning in update.warnings:
            self._warnings[warning] = None
            if found := self._of_vertex.get(warning.vertex):
                found.put_warning(warning)
        return StepChanges(tuple(changed), tuple(transfers), tuple(self._put_logs(update.logs)))

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps: those that have begun in the order in which they began, then the planned."""
        planned = {
            step.key: step
            for step in self._of_vertex.values()
            if step.key not in self._begun and not step.is_hidden
        }
        return tuple(step.view() for step in (*self._begun.values(), *planned.values()))

    @property
    def warnings(self) -> tuple[BuildWarning, ...]:
        """All warnings, each once, in order."""
        return tuple(self._warnings)

    @property
    def started_ns(self) -> int | None:
        """When the first step began, by the daemon's clock; None before."""
        starts = (step.started_ns for step in self._begun.values())
        return min((start for start in starts if start is not None), default=None)

    def get(self, key: str) -> Step | None:
        """The step with that key, None while it has not begun."""
        step = self._begun.get(key)
        return step.view() if step else None

    def find(self, vertex: str) -> Step | None:
        """The step that the vertex with that digest is, or is a part of."""
        step = self._of_vertex.get(vertex)
        return step.view() if step else None

    def break_line(self, key: str) -> LogLine | None:
        """End the step's unfinished line here; what follows is a new one. None: there is none."""
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

    def _put_logs(self, logs: Iterable[VertexLog]) -> Iterator[tuple[str, LogLine]]:
        for log in logs:
            if step := self._of_vertex.get(log.vertex):
                for line in step.put_log(log):
                    yield step.key, line


def merge_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """The union: in order, and apart from one another. One that has no end takes all after it."""
    merged: list[Interval] = []
    for start_ns, stop_ns in sorted(intervals, key=lambda interval: interval.start_ns):
        if stop_ns is not None and stop_ns < start_ns:
            stop_ns = start_ns  # noqa: PLW2901 - clocks that were set back
        last = merged[-1] if merged else None
        if last and (last.stop_ns is None or last.stop_ns >= start_ns):
            ends_later = last.stop_ns is not None and (stop_ns is None or stop_ns > last.stop_ns)
            if ends_later:
                merged[-1] = Interval(last.start_ns, stop_ns)
        else:
            merged.append(Interval(start_ns, stop_ns))
    return tuple(merged)


class _Step:
    """A step under way: what its vertices, transfers and logs have said so far."""

    def __init__(self, key: str, name: str, *, is_group: bool) -> None:
        self.key = key
        self._name = name
        self._is_group = is_group
        self._members: dict[str, Vertex] = {}
        self._ran: dict[tuple[str, int], Interval] = {}
        self._merged: tuple[Interval, ...] = ()
        self._transfers: dict[str, Transfer] = {}
        self._warnings: dict[BuildWarning, None] = {}
        self._lines = _Lines()
        self._view: Step | None = None

    def put(self, vertex: Vertex) -> bool:
        """Take a vertex's news; False where there is none."""
        old = self._members.get(vertex.digest)
        # The daemon announces a vertex once more, bare, when another part of the graph needs it.
        if old == vertex or (old is not None and _is_bare(vertex) and not _is_bare(old)):
            return False
        self._members[vertex.digest] = vertex
        if vertex.started_ns is not None:
            ran = Interval(vertex.started_ns, vertex.completed_ns)
            self._ran[vertex.digest, vertex.started_ns] = ran
            self._merged = merge_intervals(self._ran.values())
        if not self._is_group:
            self._name = vertex.name
        self._view = None
        return True

    def put_transfer(self, transfer: Transfer) -> None:
        """Take a transfer's news."""
        self._transfers[transfer.id] = transfer
        self._view = None

    def put_warning(self, warning: BuildWarning) -> None:
        """Take a warning."""
        self._warnings[warning] = None
        self._view = None

    def put_log(self, log: VertexLog) -> list[LogLine]:
        """Take a piece of log. Returns the lines that are whole now."""
        seconds = 0.0
        if self._merged and log.timestamp_ns is not None:
            seconds = max(0, log.timestamp_ns - self._merged[-1].start_ns) / _SECOND_NS
        self._view = None
        return self._lines.put(log.data, seconds)

    def break_line(self) -> LogLine | None:
        """End the unfinished line."""
        self._view = None
        return self._lines.end()

    @property
    def started_ns(self) -> int | None:
        """When it first began."""
        return self._merged[0].start_ns if self._merged else None

    @property
    def is_hidden(self) -> bool:
        """A group is not shown for the sake of weak members alone, unless one fails."""
        return self._is_group and not any(
            vertex.error
            or (vertex.started_ns is not None and vertex.group and not vertex.group.weak)
            for vertex in self._members.values()
        )

    @property
    def has_begun(self) -> bool:
        """Whether it is to be shown as more than planned."""
        return not self.is_hidden and self._state != "planned"

    @property
    def _state(self) -> State:
        if error := self._error:
            return "canceled" if _is_canceled(error) else "error"
        if not self._merged:
            return "planned"
        if self._merged[-1].stop_ns is None:
            return "running"
        return "cached" if all(vertex.cached for vertex in self._members.values()) else "done"

    @property
    def _error(self) -> str:
        errors = [vertex.error for vertex in self._members.values() if vertex.error]
        return min(errors, key=_is_canceled, default="")

    def view(self) -> Step:
        """The step as a value."""
        if self._view is None:
            self._view = Step(
                self.key,
                self._name,
                self._state,
                self._merged,
                self._error,
                tuple(t for t in self._transfers.values() if t.started_ns is not None),
                tuple(self._warnings),
                tuple(self._lines.last),
                self._lines.unfinished,
            )
        return self._view


class _Lines:
    """Bytes in, lines out."""

    def __init__(self) -> None:
        self.last: deque[LogLine] = deque(maxlen=LOG_LINES)
        self._data = b""
        self._seconds = 0.0

    @property
    def unfinished(self) -> str:
        """The line that has no end yet."""
        return _text_of(self._data)

    def put(self, data: bytes, seconds: float) -> list[LogLine]:
        """Take bytes that were printed at that time. Returns the lines that are whole now."""
        lines: list[LogLine] = []
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._append(piece, seconds)
            lines += self._cut_to(_LINE_BYTES)
            lines.append(self._take(len(self._data)))
        if rest:
            self._append(rest, seconds)
            lines += self._cut_to(_LINE_BYTES)
        return lines

    def end(self) -> LogLine | None:
        """End the line here, though not within a character."""
        size = _whole_characters(self._data)
        return self._take(size) if size else None

    def _append(self, data: bytes, seconds: float) -> None:
        if not self._data:
            self._seconds = seconds
        self._data += data

    def _cut_to(self, limit: int) -> Iterator[LogLine]:
        while len(self._data) > limit:
            yield self._take(_whole_characters(self._data[:limit]) or limit)

    def _take(self, size: int) -> LogLine:
        line = LogLine(self._seconds, _text_of(self._data[:size]))
        self._data = self._data[size:]
        self.last.append(line)
        return line


def _text_of(line: bytes) -> str:
    # As a terminal would leave it: a carriage return starts the line anew.
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return shown.decode("utf-8", "backslashreplace")


def _whole_characters(data: bytes) -> int:
    """How many bytes are left without the character that is cut at the end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return len(data) - len(decoder.getstate()[0])


def _is_bare(vertex: Vertex) -> bool:
    return vertex.started_ns is None and not vertex.error


def _is_canceled(error: str) -> bool:
    return error.endswith("context canceled")
