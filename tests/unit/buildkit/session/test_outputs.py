import io
import os
from pathlib import Path

import pytest

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.session.outputs import StreamTarget, Target, output_handler
from kitcache.buildkit.wire.grpc import Code, Metadata, RpcError
from kitcache.errors import KitcacheError
from tests.unit.buildkit.session.streams import Call
from tests.unit.buildkit.session.wired import calling


def numbered(number: str) -> Metadata:
    return (("buildkit-attachable-exporter-id", number),)


def put(target: Target, *parts: bytes, is_cut: bool = False) -> RpcError | None:
    """Send the parts; is_cut: and go away instead of ending."""
    call = Call(output_handler({0: target}))
    for part in parts:
        call.say(control_pb2.BytesMessage(data=part).SerializeToString())
    if is_cut:
        call.stream.cancel()
    else:
        call.stream.end()
    return call.outcome()


def test_a_file_appears_whole(tmp_path: Path) -> None:
    dest = tmp_path / "out.tar"
    assert put(StreamTarget(str(dest)), b"ab", b"", b"c" * 300_000) is None
    assert dest.read_bytes() == b"ab" + b"c" * 300_000
    assert os.listdir(tmp_path) == ["out.tar"]


def test_the_same_over_a_real_connection(tmp_path: Path) -> None:
    dest = tmp_path / "out.tar"
    handler = output_handler({2: StreamTarget(str(dest))})
    with calling(handler, numbered("2")) as stream:
        stream.send(control_pb2.BytesMessage(data=b"abc").SerializeToString())
        stream.end()
        assert stream.receive() is None
    assert dest.read_bytes() == b"abc"


def test_a_cut_off_file_leaves_the_old_one(tmp_path: Path) -> None:
    dest = tmp_path / "out.tar"
    dest.write_bytes(b"old")
    assert put(StreamTarget(str(dest)), b"new", is_cut=True) is not None
    assert dest.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.tar"]


def test_what_is_no_message_leaves_the_old_one(tmp_path: Path) -> None:
    dest = tmp_path / "out.tar"
    dest.write_bytes(b"old")
    call = Call(output_handler({0: StreamTarget(str(dest))}))
    call.stream.send(b"\x0a\x05a")
    error = call.outcome()
    assert error is not None
    assert error.code == Code.INTERNAL
    assert dest.read_bytes() == b"old"


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real.tar")
    assert put(StreamTarget(str(tmp_path / "link")), b"x") is None
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.tar").read_bytes() == b"x"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert put(StreamTarget(str(fifo)), b"abc") is None
    assert os.read(reader, 10) == b"abc"
    os.close(reader)
    assert fifo.is_fifo()


def test_a_link_to_a_pipe_is_written_to_by_its_own_name() -> None:
    """Such as /dev/stdout: what it leads to has no path that could be opened."""
    reader, writer = os.pipe()
    assert put(StreamTarget(f"/proc/self/fd/{writer}"), b"archive") is None
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == b"archive"


def test_a_failure_is_told_with_its_path(tmp_path: Path) -> None:
    told: list[KitcacheError] = []
    dest = tmp_path / "missing" / "out.tar"
    call = Call(output_handler({0: StreamTarget(str(dest))}, told.append))
    call.stream.end()
    assert call.outcome() is not None
    assert [error.path for error in told] == [str(dest)]


def test_open_streams_and_callables_get_every_byte() -> None:
    sink = io.BytesIO()
    assert put(StreamTarget(sink), b"ab", b"c") is None
    assert sink.getvalue() == b"abc"
    pieces: list[bytes] = []
    assert put(StreamTarget(lambda view: pieces.append(bytes(view))), b"ab", b"c") is None
    assert pieces == [b"ab", b"c"]


@pytest.mark.parametrize("number", ["1", "-1", "x", "1e3", "99999999999999999999", "²"])
def test_an_output_that_nobody_asked_for_has_no_place(tmp_path: Path, number: str) -> None:
    call = Call(output_handler({0: StreamTarget(str(tmp_path / "f"))}), metadata=numbered(number))
    error = call.outcome()
    assert error is not None
    assert error.code == Code.NOT_FOUND
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["missing/f", "."])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, name: str) -> None:
    error = put(StreamTarget(str(tmp_path / name)), b"x")
    assert error is not None
    assert str(tmp_path / name).rstrip("/.") in error.message
    assert "cannot be written" in error.message


def test_a_reader_that_leaves_ends_the_call() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb", buffering=0) as sink:
        error = put(StreamTarget(sink), b"x")
    assert error is not None
    assert error.message == "the output: cannot be written: Broken pipe"
