"""Progress that is redrawn on a terminal several times a second, like buildx's tty.

`draw` does no I/O: steps, times and a size in, lines out.
Source: BuildKit, util/progress/progressui/display.go.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TextIO

from kitcache.buildkit.status import BuildUpdate, Transfer
from kitcache.buildkit.steps import Step, StepTracker
from kitcache.cli.steptext import amount_text, bytes_text, clean, clean_log
from kitcache.cli.text import crop, width_of

_FRAME_S = 0.1
_TAIL_LINES = 6
_TRANSFERS = 6
_MIN_NAME = 12
_RATE_AFTER_S = 0.5
_SECOND_NS = 10**9

_BLUE, _RED, _YELLOW, _FAINT = "\x1b[34m", "\x1b[31m", "\x1b[33m", "\x1b[2m"
_RESET = "\x1b[0m"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_ERASE_RIGHT, _ERASE_BELOW = "\x1b[K", "\x1b[J"
_COLOURS = {"done": _BLUE, "cached": _BLUE, "error": _RED, "canceled": _YELLOW}
_MARKS = {"cached": "CACHED ", "error": "ERROR ", "canceled": "CANCELED "}


class Size(NamedTuple):
    """The size of a terminal in characters. lines: None without a limit."""

    columns: int
    lines: int | None


class ScreenLine(NamedTuple):
    """A line of the display, narrower than the terminal. colour: A sequence, "" for none."""

    text: str
    colour: str = ""


def draw(steps: Sequence[Step], now_ns: int, elapsed_s: float, size: Size) -> list[ScreenLine]:
    """Return a header, and a line per step with its transfers and the end of its log.

    If there are too few lines, running steps are chosen first, then the steps that ended last;
    they are shown in their order. Planned steps are only counted. Without a limit of lines, as in
    the last frame, all steps are shown without logs.

    Args:
        now_ns: By the daemon's clock.
    """
    width = max(1, size.columns - 1)
    begun = [step for step in steps if step.state != "planned"]
    ended = sum(step.state != "running" for step in begun)
    is_finished = size.lines is None and ended == len(steps) > 0
    header = f"[+] Building {elapsed_s:.1f}s ({ended}/{len(steps)})"
    lines = [ScreenLine(crop(header + " FINISHED" * is_finished, width))]
    if size.lines is None:
        for step in begun:
            lines += (_head(step, now_ns, width), *_transfer_lines(step, now_ns, width))
    else:
        for block in _choose(begun, size.lines - 2, lambda step: _block(step, now_ns, width)):
            lines += block
    return lines


def _choose(
    begun: Sequence[Step], free: int, block_of: Callable[[Step], list[ScreenLine]]
) -> Iterator[list[ScreenLine]]:
    """Yield the blocks that fit into `free` lines."""
    running = [at for at, step in enumerate(begun) if step.state == "running"]
    running = running[max(0, len(running) - free) :] if free > 0 else []
    free -= len(running)
    chosen: dict[int, list[ScreenLine]] = {}
    for at in reversed(running):
        head, *details = block_of(begun[at])
        kept = details[max(0, len(details) - free) :] if free > 0 else []
        chosen[at] = [head, *kept]
        free -= len(kept)
    for at in range(len(begun) - 1, -1, -1):
        if free <= 0:
            break
        if begun[at].state != "running":
            chosen[at] = block_of(begun[at])[:free]
            free -= len(chosen[at])
    for at in sorted(chosen):
        yield chosen[at]


def _block(step: Step, now_ns: int, width: int) -> list[ScreenLine]:
    """Return the step's line, its latest transfers, and the end of its log while it runs."""
    lines = [_head(step, now_ns, width), *_transfer_lines(step, now_ns, width, _TRANSFERS)]
    if step.state == "running":
        texts = [line.text for line in step.log[-_TAIL_LINES:]]
        texts += [step.unfinished] * bool(step.unfinished)
        for text in texts[-_TAIL_LINES:]:
            shown = clean_log(text, colour=False).expandtabs()
            lines.append(ScreenLine(crop(f" => => # {shown}", width), _FAINT))
    return lines


def _head(step: Step, now_ns: int, width: int) -> ScreenLine:
    name = _MARKS.get(step.state, "") + clean(step.name)
    text = _row(f" => {name}", "", step.seconds(now_ns), width)
    return ScreenLine(text, _COLOURS.get(step.state, ""))


def _transfer_lines(
    step: Step, now_ns: int, width: int, limit: int | None = None
) -> Iterator[ScreenLine]:
    shown = step.transfers
    if limit is not None and len(shown) > limit:
        by_need = sorted(
            range(len(shown)), key=lambda at: (shown[at].completed_ns is not None, -at)
        )
        shown = tuple(shown[at] for at in sorted(by_need[:limit]))
    for transfer in shown:
        yield _transfer_line(transfer, now_ns, width)


def _transfer_line(transfer: Transfer, now_ns: int, width: int) -> ScreenLine:
    is_done = transfer.completed_ns is not None
    until_ns = now_ns if transfer.completed_ns is None else transfer.completed_ns
    seconds = max(0, until_ns - (transfer.started_ns or until_ns)) / _SECOND_NS
    amount = amount_text(transfer.current, transfer.total)
    if amount and not is_done and seconds >= _RATE_AFTER_S:
        amount += f"  {bytes_text(int(transfer.current / seconds))}/s"
    text = _row(f" => => {clean(transfer.id)}", amount, seconds, width)
    return ScreenLine(text, _BLUE if is_done else "")


def _row(name: str, amount: str, seconds: float, width: int) -> str:
    timer = f" {seconds:.1f}s"
    columns = width - len(timer) - 1
    if columns < _MIN_NAME:
        return crop(name, width)
    if amount and columns - len(amount) - 1 >= _MIN_NAME:
        name = f"{crop(name, columns - len(amount) - 1)} {amount}"
    shown = crop(name, columns)
    return shown + " " * (columns - width_of(shown)) + " " + timer


class Live:
    """A display for a person at a terminal.

    Args:
        clock: Returns monotonic seconds.
        size_of: Returns the size of the terminal; called before each frame.
    """

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float],
        size_of: Callable[[], Size],
        *,
        colour: bool,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._size_of = size_of
        self._colour = colour
        self._steps = StepTracker()
        self._began_s = clock()
        self._first: tuple[int, float] | None = None
        self._drawn_s = -_FRAME_S
        self._drawn: list[ScreenLine] = []

    def update(self, update: BuildUpdate) -> None:
        """Add news of the build."""
        self._steps.apply(update)
        if self._first is None and self._steps.started_ns is not None:
            # The daemon's clock and this machine's can differ.
            self._first = self._steps.started_ns, self._clock()
        self.tick()

    def tick(self) -> None:
        """Draw a frame, at most ten times a second."""
        now_s = self._clock()
        if now_s - self._drawn_s >= _FRAME_S:
            self._drawn_s = now_s
            self._show(self._size_of())

    def note(self, text: str) -> None:
        """Print a remark above the display."""
        size = self._size_of()
        lines = [clean(line) for line in text.split("\n")]
        self._stream.write(self._go_back(size) + _ERASE_BELOW + "\n".join((*lines, "")))
        self._drawn = []
        self._show(size)

    def close(self) -> None:
        """Draw the last frame, with all steps."""
        self._show(self._size_of()._replace(lines=None))

    def _show(self, size: Size) -> None:
        now_s = self._clock()
        first_ns, first_s = self._first or (0, now_s)
        now_ns = first_ns + int((now_s - first_s) * _SECOND_NS)
        lines = draw(self._steps.steps, now_ns, now_s - self._began_s, size)
        text = "".join(f"{self._paint(line)}{_ERASE_RIGHT}\n" for line in lines)
        start = self._go_back(size)
        self._stream.write(f"{_HIDE_CURSOR}{start}{text}{_ERASE_BELOW}{_SHOW_CURSOR}")
        self._stream.flush()
        self._drawn = lines

    def _paint(self, line: ScreenLine) -> str:
        return f"{line.colour}{line.text}{_RESET}" if self._colour and line.colour else line.text

    def _go_back(self, size: Size) -> str:
        """Return the sequence that moves to the first line; a narrower terminal wraps lines."""
        rows = sum(max(1, -(-width_of(line.text) // max(1, size.columns))) for line in self._drawn)
        return f"\x1b[{rows}A\r" if rows else ""
