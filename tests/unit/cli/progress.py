"""A build's news for tests of the displays, and a clock that stands until it is set."""

from io import StringIO

from kitcache.buildkit.status import BuildUpdate, Transfer, Vertex, VertexLog

S = 10**9


class Clock:
    """Seconds, as a display asks for them."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Output(StringIO):
    """A stream that knows what was written since the last look."""

    def new(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def vertex(key: str, start: float | None = 0, stop: float | None = None, **more: object) -> Vertex:
    """A vertex that began and ended after so many seconds of the daemon's clock."""
    times = [None if at is None else int((1000 + at) * S) for at in (start, stop)]
    return Vertex(key, (), f"RUN {key}", started_ns=times[0], completed_ns=times[1])._replace(
        **more
    )


def ended(key: str, start: float = 0, stop: float = 1, **more: object) -> BuildUpdate:
    return BuildUpdate((vertex(key, start, stop, **more),))


def begun(*keys: str) -> BuildUpdate:
    return BuildUpdate(tuple(vertex(key) for key in keys))


def log(key: str, text: str, at: float = 0) -> BuildUpdate:
    return BuildUpdate(logs=(VertexLog(key, 1, text.encode(), int((1000 + at) * S)),))


def transfer(
    key: str, current: int, total: int = 0, at: float = 0, *, done: bool = False
) -> BuildUpdate:
    """A transfer that began at 0, as it is at that second."""
    now = int((1000 + at) * S)
    state = Transfer("pulling", key, "", current, total, now, 1000 * S, now if done else None)
    return BuildUpdate(transfers=(state,))
