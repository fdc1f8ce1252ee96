"""Flow control windows of a connection and its streams. Source: RFC 9113, 5.2."""

STREAM_WINDOW = 8 * 2**20
CONNECTION_WINDOW = 16 * 2**20


class ReceiveWindow:
    """The bytes that the peer can send. Credit is announced in quarters of the window."""

    __slots__ = ("_available", "_credit", "_size")

    def __init__(self, size: int) -> None:
        self._size = self._available = size
        self._credit = 0

    def receive(self, count: int) -> bool:
        """Count received bytes. Return False if they exceed the window."""
        self._available -= count
        return self._available >= 0

    def release(self, count: int) -> int:
        """Count consumed bytes. Return the credit to announce now, 0 for none yet."""
        self._credit += count
        if self._credit < self._size // 4:
            return 0
        more, self._credit = self._credit, 0
        self._available += more
        return more


class StreamState:
    """The state of one stream. Its send window can be negative after a setting."""

    __slots__ = ("has_headers", "is_receiving", "is_sending", "receive_window", "send_window")

    def __init__(self, room: int) -> None:
        self.send_window = room
        self.receive_window = ReceiveWindow(STREAM_WINDOW)
        self.is_sending = True
        self.is_receiving = True
        self.has_headers = False
