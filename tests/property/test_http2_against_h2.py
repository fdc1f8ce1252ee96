"""Whatever two HTTP/2 peers do to each other, and however the bytes are cut: all arrives.

Our connection talks with the h2 library's, in both roles. What is sent waits for room as a real
sender does; windows and frame sizes change in mid-stream, data is padded, headers need
CONTINUATION. h2 raises on anything that it takes for a violation.
"""

from itertools import cycle
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.wire.headers import Headers
from tests.unit.buildkit.wire.peers import REPLY, REQUEST, Ours, Peer, Theirs

PATTERN = bytes(range(251)) * 1200


class Outgoing:
    """What one side wants to send on one stream."""

    def __init__(self) -> None:
        self.headers: list[Headers] = []
        self.sent = bytearray()
        self.waiting = bytearray()
        self.padding: int | None = None
        self.end: Headers | None = None
        self.is_ended = False
        self.is_reset = False


class Talk:
    """Two peers and what each has sent. side 0 is the client."""

    def __init__(self, *, we_call: bool, cuts: list[int]) -> None:
        kinds: tuple[Any, Any] = (Ours, Theirs) if we_call else (Theirs, Ours)
        self.sides: tuple[Any, Any] = (kinds[0](is_client=True), kinds[1](is_client=False))
        self.cuts = cycle(cuts)
        self.sending: tuple[dict[int, Outgoing], dict[int, Outgoing]] = ({}, {})

    def deliver(self, sender: int) -> bool:
        data = self.sides[sender].output()
        place = 0
        while place < len(data):
            size = next(self.cuts)
            self.sides[1 - sender].receive(data[place : place + size])
            place += size
        return bool(data)

    def flush(self, side: int) -> None:
        """Send what there is room for, and the end once nothing waits."""
        peer = self.sides[side]
        for stream_id, out in self.sending[side].items():
            if out.is_ended or not self.is_alive(side, stream_id) or not out.headers:
                continue
            count = min(max(peer.room(stream_id), 0), len(out.waiting))
            is_end = out.end == () and count == len(out.waiting)
            if count or is_end:
                peer.send_data(stream_id, bytes(out.waiting[:count]), out.padding, is_end)
                out.sent += out.waiting[:count]
                del out.waiting[:count]
            if out.end and not out.waiting:
                peer.send_headers(stream_id, out.end, True)
                out.headers.append(out.end)
                is_end = True
            out.is_ended = is_end

    def is_alive(self, side: int, stream_id: int) -> bool:
        is_reset = self.sides[side].arrived[stream_id].is_reset
        return not is_reset and not self.sending[side][stream_id].is_reset

    def settle(self) -> None:
        """Until nobody has anything more to say."""
        is_busy = True
        while is_busy:
            for side in (0, 1):
                for stream_id in list(self.sides[side].unconsumed):
                    self.sides[side].consume(stream_id)
                self.flush(side)
            is_busy = self.deliver(0)
            is_busy = self.deliver(1) or is_busy

    def check(self) -> None:
        for side in (0, 1):
            for stream_id, out in self.sending[side].items():
                arrived = self.sides[1 - side].arrived[stream_id]
                assert bytes(out.sent).startswith(arrived.data)
                was_cut = out.is_reset or self.sending[1 - side][stream_id].is_reset
                if was_cut:
                    continue
                assert not out.waiting
                assert arrived.data == out.sent
                assert arrived.headers == out.headers
                assert arrived.is_ended == out.is_ended == (out.end is not None)


def headers_of(size: int) -> Headers:
    # More takes h2's Huffman coder seconds.
    long = "v" * min(size, 40_000)
    return (("x-short", "ä"), ("x-long", long), ("x-short", "2")) if size else ()


class Step(NamedTuple):
    """what: an action of one side on one of the streams, where that makes sense at the time."""

    what: str
    side: int
    stream: int
    size: int
    padding: int | None

    def run(self, talk: Talk) -> None:
        getattr(self, self.what)(talk, talk.sides[self.side])

    def open(self, talk: Talk, _: Peer) -> None:
        headers = REQUEST + headers_of(self.size)
        stream_id = talk.sides[0].open(headers)
        talk.sending[0][stream_id] = Outgoing()
        talk.sending[0][stream_id].headers.append(headers)
        talk.sending[1][stream_id] = Outgoing()

    def pick(self, talk: Talk) -> tuple[int, Outgoing] | None:
        alive = [
            (stream_id, out)
            for stream_id, out in talk.sending[self.side].items()
            if talk.is_alive(self.side, stream_id) and not out.is_ended
        ]
        return alive[self.stream % len(alive)] if alive else None

    def headers(self, talk: Talk, peer: Any) -> None:
        picked = self.pick(talk)
        if picked and self.side == 1 and not picked[1].headers and peer.arrived[picked[0]].headers:
            if isinstance(peer, Theirs) and self.size:
                peer.send_headers(picked[0], ((":status", "103"), ("link", "x")), False)
            picked[1].headers.append(REPLY + headers_of(self.size))
            peer.send_headers(picked[0], picked[1].headers[0], False)

    def data(self, talk: Talk, _: Peer) -> None:
        picked = self.pick(talk)
        if picked and picked[1].headers and picked[1].end is None:
            picked[1].waiting += PATTERN[: self.size]
            picked[1].padding = self.padding

    def end(self, talk: Talk, _: Peer) -> None:
        picked = self.pick(talk)
        if picked and picked[1].headers and picked[1].end is None:
            picked[1].end = headers_of(self.size if self.side else 0)

    def reset(self, talk: Talk, peer: Any) -> None:
        picked = self.pick(talk)
        if picked and peer.arrived[picked[0]].headers:
            peer.reset(picked[0])
            picked[1].is_reset = True

    def settings(self, talk: Talk, peer: Any) -> None:
        peer.change_settings({1: self.size % 5000, 4: self.size, 5: 16_384 + self.size % 50_000})

    def extras(self, talk: Talk, peer: Any) -> None:
        picked = self.pick(talk)
        if picked and peer.arrived[picked[0]].headers:
            peer.extras(picked[0])

    def deliver(self, talk: Talk, _: Peer) -> None:
        talk.flush(self.side)
        talk.deliver(self.side)

    def consume(self, talk: Talk, peer: Any) -> None:
        for stream_id in list(peer.unconsumed):
            peer.consume(stream_id)


STEPS = st.builds(
    Step,
    st.sampled_from(["open", "headers", "data", "data", "end", "reset", "settings", "deliver"])
    | st.sampled_from(["extras", "deliver", "consume"]),
    st.integers(0, 1),
    st.integers(0, 3),
    st.one_of(st.sampled_from([0, 1, 16_384, 65_535, 70_000, 300_000]), st.integers(0, 100_000)),
    st.none() | st.integers(0, 255),
)
CUTS = st.lists(
    st.one_of(st.integers(1, 30), st.integers(1, 40_000)), min_size=1, max_size=8
).filter(lambda cuts: sum(cuts) > 200 * len(cuts))


@given(st.booleans(), CUTS, st.lists(STEPS, max_size=40))
def test_all_that_is_sent_arrives(we_call: bool, cuts: list[int], steps: list[Step]) -> None:
    talk = Talk(we_call=we_call, cuts=cuts)
    # h2 takes the first ACK that it gets for that of all settings that it has sent by then.
    talk.settle()
    Step("open", 0, 0, 0, None).run(talk)
    for step in steps:
        step.run(talk)
    talk.settle()
    # A window that was closed by a setting is opened by one.
    for side in (0, 1):
        Step("settings", side, 0, 65_535, None).run(talk)
    talk.settle()
    talk.check()
