import os
from contextlib import suppress
from pathlib import Path

import pytest

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.session.outputs import DirectoryTarget, output_handler
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.buildkit.wire.rpc import Stream
from tests.unit.buildkit.session.sender import DIR, LINK, deliver, file, stat
from tests.unit.buildkit.session.streams import Call
from tests.unit.buildkit.session.wired import calling

Packet = files_pb2.Packet


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep/out"


def test_a_tree_is_written_with_modes_and_times(out: Path) -> None:
    error = deliver(
        out,
        stat("bin", DIR | 0o555, mod_time=1_500_000_000_000_000_007),
        file("bin/run", b"#!", 0o755 | 1 << 23, mod_time=1_600_000_000_000_000_009),
        stat("bin/sh", LINK | 0o777, linkname="run"),
        file("empty", b"", 0o400),
    )
    assert error is None
    run = os.stat(out / "bin/run")
    assert (out / "bin/run").read_bytes() == b"#!"
    assert run.st_mode & 0o7777 == 0o4755
    assert run.st_mtime_ns == 1_600_000_000_000_000_009
    assert run.st_uid == os.getuid()
    assert os.readlink(out / "bin/sh") == "run"
    assert os.stat(out / "bin").st_mode & 0o7777 == 0o555
    assert os.stat(out / "bin").st_mtime_ns == 1_500_000_000_000_000_007
    assert sorted(os.listdir(out)) == ["bin", "empty"]


def test_the_same_over_a_real_connection(out: Path) -> None:
    def send(stream: Stream) -> None:
        stream.send(stat("a", 0o644, size=3).message, b"")
        assert Packet.FromString(stream.receive() or b"") == Packet(type=Packet.REQ, id=0)
        for data in (b"ab", b"c", b""):
            packet = Packet(type=Packet.DATA, id=0, data=data)
            stream.send(packet.SerializeToString())
        fin = Packet(type=Packet.FIN).SerializeToString()
        assert stream.receive() == fin
        stream.send(fin)
        # The daemon does not close its half; the call ends all the same.
        assert stream.receive() is None

    with calling(output_handler({0: DirectoryTarget(str(out))}), ()) as stream:
        send(stream)
    assert (out / "a").read_bytes() == b"abc"


def test_it_is_merged_into_what_is_there(out: Path) -> None:
    (out / "d").mkdir(parents=True)
    (out / "d/mine").write_bytes(b"mine")
    (out / "d/new").write_bytes(b"old")
    (out / "was-file").write_bytes(b"x")
    (out / "was-dir").mkdir()
    error = deliver(
        out,
        stat("d", DIR | 0o755),
        file("d/new", b"new"),
        file("was-dir", b"file"),
        stat("was-file", DIR | 0o755),
    )
    assert error is None
    assert (out / "d/mine").read_bytes() == b"mine"
    assert (out / "d/new").read_bytes() == b"new"
    assert (out / "was-dir").read_bytes() == b"file"
    assert (out / "was-file").is_dir()


def test_hard_links_are_made_again(out: Path) -> None:
    tree = (
        stat("d", DIR | 0o755),
        file("d/first", b"abc"),
        stat("second", 0o644, linkname="d/first"),
    )
    for _ in range(2):
        assert deliver(out, *tree) is None
        assert os.stat(out / "d/first").st_ino == os.stat(out / "second").st_ino
        assert (out / "second").read_bytes() == b"abc"
        assert sorted(os.listdir(out)) == ["d", "second"]


def test_a_pipe_is_made(out: Path) -> None:
    assert deliver(out, stat("p", 0o640 | 1 << 25)) is None
    assert (out / "p").is_fifo()
    assert os.stat(out / "p").st_mode & 0o777 == 0o640


def test_more_files_than_can_be_open(out: Path) -> None:
    files = [file(f"{n:04}", str(n).encode()) for n in range(2000)]
    assert deliver(out, *files) is None
    assert [(out / f"{n:04}").read_bytes() for n in range(2000)] == [
        str(n).encode() for n in range(2000)
    ]


def test_only_so_many_files_are_asked_for_at_once(out: Path) -> None:
    call = Call(output_handler({0: DirectoryTarget(str(out))}))
    tree = (stat(f"{n:04}", 0o644).message for n in range(200))
    answers = [Packet(type=Packet.DATA, id=n).SerializeToString() for n in (9, 3)]
    failure = Packet(type=Packet.ERR, data=b"enough").SerializeToString()
    call.stream.send(*tree, b"", *answers, failure)
    asked = []
    with suppress(RpcError):
        for message in iter(call.stream.receive, None):
            asked.append(Packet.FromString(message).id)  # noqa: PERF401  # until it is refused
    assert asked == list(range(66))


def test_a_cut_in_the_middle_leaves_no_half_file(out: Path) -> None:
    out.mkdir(parents=True)
    (out / "a").write_bytes(b"old")
    call = Call(output_handler({0: DirectoryTarget(str(out))}))
    call.stream.send(stat("a", 0o644, size=6).message)
    assert call.stream.receive() is not None
    call.stream.send(Packet(type=Packet.DATA, id=0, data=b"new").SerializeToString())
    call.stream.end()
    assert call.outcome() is not None
    assert os.listdir(out) == ["a"]
    assert (out / "a").read_bytes() == b"old"


def test_the_daemon_s_error_ends_it(out: Path) -> None:
    call = Call(output_handler({0: DirectoryTarget(str(out))}))
    call.stream.send(Packet(type=Packet.ERR, data=b"lost").SerializeToString())
    error = call.outcome()
    assert error is not None
    assert error.message == "error from sender: lost"


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    error = deliver(tmp_path / "f", file("a", b""))
    assert error is not None
    assert "f: cannot be written to: File exists" in error.message
