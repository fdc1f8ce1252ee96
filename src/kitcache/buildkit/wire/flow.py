"""Windows: how much of a connection and of each stream may be under way. Source: RFC 9113, 5.2."""

STREAM_WINDOW = 8 * 2**20
CONNECTION_WINDOW = 16 * 2**20


class ReceiveWindow:
    """What the peer may send. Credit is told in quarters of the window, not byte by byte."""

    __slots__ = ("_credit", "_left", "_size")

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._credit = 0

    def take(self, count: int) -> bool:
        """So many bytes came; whether they were allowed."""
        self._left -= count
        return self._left >= 0

    def give(self, count: int) -> int:
        """So many were consumed: how many to announce now, 0 for none yet."""
        self._credit += count
        if self._credit < self._size // 4:
            return 0
        more, self._credit = self._credit, 0
        self._left += more
        return more


class StreamState:
    """One stream of a connection. room: how many bytes we may send; below 0 after a setting."""

    __slots__ = ("has_headers", "inflow", "is_receiving", "is_sending", "send_window")

    def __init__(self, room: int) -> None:
        self.send_window = room
        self.inflow = ReceiveWindow(STREAM_WINDOW)
        self.is_sending = True
        self.is_receiving = True
        self.has_headers = False
