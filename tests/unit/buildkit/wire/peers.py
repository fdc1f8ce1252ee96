"""Our HTTP/2 connection and one of the h2 library, with the same handful of methods.

Each keeps what came to it, by stream: the header lists, the data, how it ended.
"""

import contextlib
from collections import defaultdict
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from kitcache.buildkit.wire.events import DataReceived, GoAwayReceived, HeadersReceived, StreamReset
from kitcache.buildkit.wire.frames import ErrorCode
from kitcache.buildkit.wire.headers import Headers
from kitcache.buildkit.wire.http2 import Http2Connection

REQUEST: Headers = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/t.T/M"),
    (":authority", "localhost"),
)
REPLY: Headers = ((":status", "200"), ("content-type", "application/grpc"))


class Arrived:
    """What came on one stream."""

    def __init__(self) -> None:
        self.headers: list[Headers] = []
        self.data = bytearray()
        self.is_ended = False
        self.is_reset = False


class Peer:
    def __init__(self) -> None:
        self.arrived: dict[int, Arrived] = defaultdict(Arrived)
        self.unconsumed: dict[int, int] = defaultdict(int)
        self.goaways: list[tuple[int, int]] = []


class Ours(Peer):
    def __init__(self, *, is_client: bool) -> None:
        super().__init__()
        self.connection = Http2Connection(is_client=is_client)

    def output(self) -> bytes:
        return b"".join(self.connection.send_queue.take(2**40))

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive(data):
            match event:
                case HeadersReceived(stream_id, headers, is_end):
                    self.arrived[stream_id].headers.append(headers)
                    self.arrived[stream_id].is_ended |= is_end
                case DataReceived(stream_id, data, is_end):
                    self.arrived[stream_id].data += data
                    self.arrived[stream_id].is_ended |= is_end
                    self.unconsumed[stream_id] += len(data)
                case StreamReset(stream_id, _, problem):
                    assert not problem
                    self.arrived[stream_id].is_reset = True
                case GoAwayReceived(last_stream_id, code, _):
                    self.goaways.append((last_stream_id, code))

    def open(self, headers: Headers) -> int:
        return self.connection.open_stream(headers)

    def send_headers(self, stream_id: int, headers: Headers, is_end: bool) -> None:
        self.connection.send_headers(stream_id, headers, is_end=is_end)

    def room(self, stream_id: int) -> int:
        return self.connection.send_window(stream_id)

    def send_data(self, stream_id: int, data: bytes, padding: int | None, is_end: bool) -> None:
        self.connection.send_data(stream_id, memoryview(data), is_end=is_end)

    def reset(self, stream_id: int) -> None:
        self.connection.reset(stream_id, ErrorCode.CANCEL)

    def consume(self, stream_id: int) -> None:
        self.connection.credit(stream_id, self.unconsumed.pop(stream_id, 0))

    def change_settings(self, settings: dict[int, int]) -> None:
        """Ours never change."""

    def extras(self, stream_id: int) -> None:
        """We send nothing that is not needed."""


class Theirs(Peer):
    def __init__(self, *, is_client: bool) -> None:
        super().__init__()
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8")
        )
        self.frame_size = 16_384
        # Big headers are what this is about.
        self.connection.decoder.max_header_list_size = 2**24
        self.connection.local_settings = h2.settings.Settings(
            client=is_client,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 2**24,
            },
        )
        self.connection.initiate_connection()

    def output(self) -> bytes:
        return self.connection.data_to_send()

    def receive(self, data: bytes) -> None:
        # h2 looks at a new limit only in the call after the one that brought its ACK.
        self.connection.max_inbound_frame_size = self.frame_size
        for event in self.connection.receive_data(data):
            self._take(event)

    def _take(self, event: Any) -> None:
        match event:
            case h2.events.DataReceived():
                self.arrived[event.stream_id].data += event.data
                self.unconsumed[event.stream_id] += event.flow_controlled_length
            case h2.events.InformationalResponseReceived():
                pass
            case (
                h2.events.RequestReceived()
                | h2.events.ResponseReceived()
                | h2.events.TrailersReceived()
            ):
                headers = tuple((str(name), str(value)) for name, value in event.headers)
                self.arrived[event.stream_id].headers.append(headers)
            case h2.events.StreamEnded():
                self.arrived[event.stream_id].is_ended = True
            case h2.events.StreamReset():
                assert event.remote_reset
                self.arrived[event.stream_id].is_reset = True
            case h2.events.ConnectionTerminated():
                self.goaways.append((event.last_stream_id, int(event.error_code)))

    def open(self, headers: Headers) -> int:
        stream_id = self.connection.get_next_available_stream_id()
        # With a priority, which makes the frame's layout another.
        self.connection.send_headers(stream_id, headers, priority_weight=7)
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, is_end: bool) -> None:
        self.connection.send_headers(stream_id, headers, end_stream=is_end)

    def room(self, stream_id: int) -> int:
        # Leaves room for padding.
        return self.connection.local_flow_control_window(stream_id) - 257

    def send_data(self, stream_id: int, data: bytes, padding: int | None, is_end: bool) -> None:
        step = self.connection.max_outbound_frame_size - 257
        for place in range(0, len(data) or 1, step):
            piece = data[place : place + step]
            is_last = is_end and place + step >= len(data)
            self.connection.send_data(stream_id, piece, end_stream=is_last, pad_length=padding)

    def reset(self, stream_id: int) -> None:
        self.connection.reset_stream(stream_id, error_code=8)

    def consume(self, stream_id: int) -> None:
        count = self.unconsumed.pop(stream_id, 0)
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            self.connection.acknowledge_received_data(count, stream_id)

    def change_settings(self, settings: dict[int, int]) -> None:
        self.frame_size = max(self.frame_size, settings.get(5, 0))
        self.connection.update_settings(settings)  # type: ignore[arg-type]

    def extras(self, stream_id: int) -> None:
        """What a peer may send at any time."""
        self.connection.ping(b"12345678")
        if self.connection.config.client_side:
            self.connection.prioritize(stream_id, weight=3)
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.connection.increment_flow_control_window(1000, stream_id)
