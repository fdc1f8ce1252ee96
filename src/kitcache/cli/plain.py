"""Progress as appended lines, as `docker buildx build --progress=plain` prints it.

A step gets its number when it is first shown. Steps that have ended are printed first. Then one
running step is printed at a time; after about five seconds another running step follows.
Source: BuildKit, util/progress/progressui/printer.go.
"""

from collections.abc import Callable
from typing import TextIO

from kitcache.buildkit.status import BuildUpdate, Transfer
from kitcache.buildkit.steps import LogLine, Step, StepTracker
from kitcache.cli.steptext import amount_text, clean, clean_log, log_time

_SETTLE_S = 0.1
_TURN_S = 5.0
_SECOND_NS = 10**9
_STATUS_NS = 5 * _SECOND_NS
_STATUS_SHARE = 0.05


class _Pending:
    """The changes of a step that are not printed yet."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.transfers: dict[str, Transfer] = {}
        self.lines: list[LogLine] = []

    @property
    def urgency(self) -> tuple[bool, float]:
        """The sort key: steps with transfers or lines first, then the step that waits longest."""
        return not (self.transfers or self.lines), self.since_s


class Plain:
    """A display for logs and for CI. `clock` returns monotonic seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float], *, colour: bool) -> None:
        self._stream = stream
        self._clock = clock
        self._colour = colour
        self._steps = StepTracker()
        self._numbers: dict[str, int] = {}
        self._pending: dict[str, _Pending] = {}
        self._shown: dict[tuple[str, str], Transfer] = {}
        self._current: str | None = None
        self._turn_s = 0.0
        self._unfinished_s: float | None = None
        self._news_s: float | None = None
        self._out: list[str] = []

    def update(self, update: BuildUpdate) -> None:
        """Add an update. The updates of a tenth of a second are printed together."""
        news = self._steps.apply(update)
        now_s = self._clock()
        for key in news.steps:
            self._pending_of(key, now_s)
        for key, transfer in news.transfers:
            self._pending_of(key, now_s).transfers[transfer.id] = transfer
        for key, line in news.lines:
            self._pending_of(key, now_s).lines.append(line)
        if self._news_s is None:
            self._news_s = now_s
        self.tick()

    def tick(self) -> None:
        """Print the changes if a tenth of a second has passed since the first of them."""
        now_s = self._clock()
        if self._news_s is None or now_s - self._news_s >= _SETTLE_S:
            self._news_s = None
            self._print_ended(now_s)
            self._print_running(now_s)
            self._flush()

    def note(self, text: str) -> None:
        """Print a remark on lines of its own."""
        self._out += map(clean, text.split("\n"))
        self._flush()

    def close(self) -> None:
        """Print all changes, also of steps that did not end."""
        now_s = self._clock()
        self._print_ended(now_s)
        for step in self._steps.steps:
            if step.key in self._pending or step.unfinished:
                self._print_step(step.key, now_s)
                self._put_unfinished(step.key)
        self._flush()

    def _pending_of(self, key: str, now_s: float) -> _Pending:
        if key not in self._pending:
            self._pending[key] = _Pending(now_s)
        return self._pending[key]

    def _print_ended(self, now_s: float) -> None:
        ended = [
            (key != self._current, step.intervals[-1].stop_ns or 0 if step.intervals else 0, key)
            for key in self._pending
            if (step := self._steps.get(key)) and step.state != "running"
        ]
        for _, _, key in sorted(ended):
            self._print_step(key, now_s)

    def _print_running(self, now_s: float) -> None:
        if self._current in self._pending:
            self._print_step(self._current, now_s)
        self._print_unfinished(now_s)
        if self._current is None or now_s - self._turn_s >= _TURN_S:
            following = self._next_step()
            if following:
                self._print_step(following, now_s)

    def _next_step(self) -> str | None:
        waiting = [key for key in self._pending if self._steps.get(key)]
        if waiting:
            return min(waiting, key=lambda key: self._pending[key].urgency)
        if self._current:
            return None
        running = (step.key for step in self._steps.steps if step.state == "running")
        return next(running, None)

    def _print_unfinished(self, now_s: float) -> None:
        """Print a line without an end after five seconds: a prompt, a row of dots."""
        step = self._steps.get(self._current) if self._current else None
        if step is None or not step.unfinished:
            self._unfinished_s = None
        elif self._unfinished_s is None:
            self._unfinished_s = now_s
        elif now_s - self._unfinished_s >= _TURN_S:
            self._unfinished_s = None
            self._put_unfinished(step.key)

    def _print_step(self, key: str, now_s: float) -> None:
        pending = self._pending.pop(key, None)
        step = self._steps.get(key)
        if step is None:
            return
        if key != self._current:
            self._print_name(step, now_s)
        if pending:
            for transfer in pending.transfers.values():
                self._put_transfer(key, transfer)
            for line in pending.lines:
                self._put_line(key, line)
        if step.state != "running":
            self._put_unfinished(key)
            self._put(key, _ending(step))
            self._current = None

    def _print_name(self, step: Step, now_s: float) -> None:
        if self._current:
            self._put(self._current, "...")
        if self._numbers:
            self._out.append("")
        self._numbers.setdefault(step.key, len(self._numbers) + 1)
        self._put(step.key, clean(step.name))
        self._current = step.key
        self._turn_s = now_s
        self._unfinished_s = None

    def _put_transfer(self, key: str, transfer: Transfer) -> None:
        if transfer.started_ns is None or not _is_due(
            transfer, self._shown.get((key, transfer.id))
        ):
            return
        self._shown[key, transfer.id] = transfer
        words = [clean(transfer.id), amount_text(transfer.current, transfer.total)]
        until_ns = transfer.completed_ns or transfer.timestamp_ns or transfer.started_ns
        seconds = (until_ns - transfer.started_ns) / _SECOND_NS
        words.append(f"{seconds:.1f}s" if seconds > 0.01 else "")
        words.append("done" if transfer.completed_ns is not None else "")
        self._put(key, " ".join(filter(None, words)))

    def _put_unfinished(self, key: str) -> None:
        if line := self._steps.break_line(key):
            self._put_line(key, line)

    def _put_line(self, key: str, line: LogLine) -> None:
        text = clean_log(line.text, colour=self._colour)
        self._put(key, f"{log_time(line.seconds)} {text}")

    def _put(self, key: str, text: str) -> None:
        self._out.append(f"#{self._numbers[key]} {text}")

    def _flush(self) -> None:
        if self._out:
            text = "\n".join((*self._out, ""))
            self._out.clear()
            self._stream.write(text)
            self._stream.flush()


def _is_due(transfer: Transfer, shown: Transfer | None) -> bool:
    """Return True for the first and the last state of a transfer, and every 5 % or 5 s."""
    if shown is None or transfer.completed_ns != shown.completed_ns:
        return True
    if transfer.completed_ns is not None:
        return False
    more = transfer.current - shown.current
    waited_ns = (transfer.timestamp_ns or 0) - (shown.timestamp_ns or 0)
    return waited_ns >= _STATUS_NS or (
        transfer.total > 0 and more >= _STATUS_SHARE * transfer.total
    )


def _ending(step: Step) -> str:
    if step.state == "error":
        return f"ERROR: {clean(step.error)}"
    if step.state in ("cached", "canceled"):
        return step.state.upper()
    return f"DONE {step.seconds(0):.1f}s"
