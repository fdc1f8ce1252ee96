"""A daemon that wants to write beside the output directory, or to keep us for ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.session.outputs import DirectoryTarget, output_handler
from tests.hostile.privilege import NOBODY, needs_root, reachable_box
from tests.unit.buildkit.session.sender import DIR, LINK, Sent, deliver, file, stat
from tests.unit.buildkit.session.streams import Call

Packet = files_pb2.Packet


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/mine").write_bytes(b"mine")
    (tmp_path / "box/out").mkdir(parents=True)
    return tmp_path / "box/out"


def snapshot(path: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


def refused(out: Path, *entries: Sent) -> str:
    """The transfer fails, and nothing beside the directory changes."""
    outside = out.parent.parent / "outside"
    before = snapshot(outside)
    error = deliver(out, *entries)
    assert error is not None
    assert snapshot(outside) == before
    assert os.listdir(out.parent) == ["out"]
    assert not [name for name in os.listdir(out) if name.endswith(".tmp")]
    return error.message


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "..",
        ".",
        "",
        "/x",
        "/",
        "a/../../x",
        "a/..",
        "./x",
        "a//x",
        "a/",
        "x\0y",
        "../../outside/mine",
    ],
)
def test_a_path_that_is_none_is_refused(out: Path, path: str) -> None:
    for entry in (file(path, b"x"), stat(path, DIR | 0o755), stat(path, LINK, linkname="x")):
        message = refused(out, stat("a", DIR | 0o755), entry)
        assert "is not a path below the output directory" in message


@pytest.mark.parametrize(
    "entries",
    [
        (stat("a", LINK | 0o777, linkname="../../outside"), file("a/mine", b"x")),
        (stat("a", LINK | 0o777, linkname="../../outside"), stat("a/b", DIR | 0o755)),
        (file("a", b""), file("a/b", b"x")),
        (file("a/b", b"x"),),
        (stat("a", DIR | 0o755), stat("a", LINK | 0o777, linkname="/"), file("a/x", b"x")),
        (stat("a", DIR | 0o755), file("b", b""), file("a/x", b"x")),
        (file("b", b""), file("a", b"")),
        (file("a", b""), file("a", b"")),
        (stat("h", 0o644, linkname="../../outside/mine"),),
        (stat("h", 0o644, linkname="/etc/passwd"),),
        (stat("a", LINK | 0o777, linkname="../../outside/mine"), stat("h", 0o644, linkname="a")),
        (stat("h", 0o644, linkname="h"),),
        (stat("l", LINK | 0o777, linkname="x\0y"),),
        (stat("n", 0o644, size=-1),),
        (stat("n", LINK | 0o777),),
    ],
)
def test_trees_that_would_lead_out_are_refused(out: Path, entries: tuple[Sent, ...]) -> None:
    refused(out, *entries)


def test_a_link_that_was_there_is_not_written_through(out: Path) -> None:
    (out / "d").symlink_to("../../outside")
    message = refused(out, stat("d", DIR | 0o755), file("d/mine", b"x"))
    assert message.endswith('"d" is a symlink there')
    assert (out / "d").is_symlink()


def test_a_link_with_the_name_of_a_file_is_replaced(out: Path) -> None:
    (out / "mine").symlink_to("../../outside/mine")
    (out / "to-dir").symlink_to("../../outside")
    assert deliver(out, file("mine", b"new"), file("to-dir", b"new")) is None
    assert not (out / "mine").is_symlink()
    assert (out / "to-dir").read_bytes() == b"new"
    assert (out / "../../outside/mine").read_bytes() == b"mine"


def test_a_hard_link_of_theirs_is_not_written_into(out: Path) -> None:
    os.link(out / "../../outside/mine", out / "mine")
    assert deliver(out, file("mine", b"new", 0o600)) is None
    assert (out / "../../outside/mine").read_bytes() == b"mine"


def test_a_directory_with_files_is_not_emptied_for_a_file(out: Path) -> None:
    (out / "d").mkdir()
    (out / "d/mine").touch()
    assert '"d" is a directory with files' in refused(out, file("d", b"x"))
    assert (out / "d/mine").exists()


def test_a_parent_that_became_a_link_in_mid_transfer_is_not_followed(out: Path) -> None:
    call = Call(output_handler({0: DirectoryTarget(str(out))}))
    entries = [stat("d", DIR | 0o755)]
    entries += [stat(f"d/{n:03}", DIR | 0o755) for n in range(100)]
    call.stream.send(*(entry.message for entry in entries))
    call.stream.send(stat("e", DIR | 0o755).message, stat("e/f", 0o644, size=1).message)
    assert Packet.FromString(call.stream.receive() or b"").id == 102
    # All that was made is there; "d" has long been closed again.
    (out / "d").rename(out / "moved")
    (out / "d").symlink_to("../../outside")
    call.stream.send(b"")
    call.say(data(102, b"x"), data(102))
    error = call.outcome()
    assert error is not None
    assert "would be written through a symlink" in error.message
    assert os.stat(out / "../../outside").st_mtime_ns != 10**18


def asked(out: Path) -> Call:
    """The daemon has told of a file of three bytes, and was asked for it."""
    call = Call(output_handler({0: DirectoryTarget(str(out))}))
    call.stream.send(stat("d", DIR | 0o755).message, stat("f", 0o644, size=3).message, b"")
    assert Packet.FromString(call.stream.receive() or b"") == Packet(type=Packet.REQ, id=1)
    return call


def data(number: int, content: bytes = b"") -> bytes:
    return Packet(type=Packet.DATA, id=number, data=content).SerializeToString()


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((data(0, b"x"),), "sent file 0, which was not requested"),
        ((data(7),), "sent file 7, which was not requested"),
        ((data(2**32 - 1, b"x"),), "which was not requested"),
        ((data(1, b"four"),), "has 4 bytes instead of 3"),
        ((data(1, b"ab"), data(1, b"cd")), "has 4 bytes instead of 3"),
        ((data(1, b"ab"), data(1)), "has 2 bytes instead of 3"),
        ((data(1),), "has 0 bytes instead of 3"),
        ((stat("g", 0o644).message,), "sent an entry after the end of its list"),
        ((b"",), "sent an entry after the end of its list"),
        (
            (Packet(type=Packet.FIN).SerializeToString(),),
            "ended the transfer before it sent all files",
        ),
        ((b"\xff\xff",), "malformed"),
    ],
)
def test_what_breaks_the_protocol_ends_it(
    out: Path, messages: tuple[bytes, ...], problem: str
) -> None:
    call = asked(out)
    call.say(*messages)
    error = call.outcome()
    assert error is not None
    assert problem in error.message
    assert os.listdir(out) == ["d"]


def test_a_file_that_never_ends_is_given_up(out: Path) -> None:
    call = asked(out)
    for _ in range(1 << 20):
        call.say(data(1, b"x"))
        if call.is_over:
            break
    call.wait()
    assert os.listdir(out) == ["d"]


def test_the_daemon_is_told_why(out: Path) -> None:
    call = Call(output_handler({0: DirectoryTarget(str(out))}))
    call.stream.send(stat("../x", 0o644).message)
    packet = Packet.FromString(call.stream.receive() or b"")
    assert packet.type == Packet.ERR
    assert b'the daemon sends "../x"' in packet.data


def test_names_are_shown_without_what_a_terminal_would_do(out: Path) -> None:
    assert "\x1b" not in refused(out, stat("\x1b[2J/x", DIR))


@pytest.mark.parametrize("kind", [1 << 26, 1 << 26 | 1 << 21, 1 << 24, 1 << 19])
def test_devices_with_numbers_that_cannot_be(out: Path, kind: int) -> None:
    for number in (-1, 2**62):
        message = refused(out, stat("dev", kind | 0o600, devmajor=number, devminor=number))
        assert '"dev"' in message


def receive_as_nobody(dest: Path, *what: str) -> str:
    """What the daemon is told at the end."""
    program = [sys.executable, "-m", "tests.hostile.output_as", str(NOBODY), str(dest), *what]
    top = Path(__file__).parents[2]
    return subprocess.run(program, check=True, cwd=top, capture_output=True, text=True).stdout


def test_directories_that_are_shut_by_their_own_mode_are_filled_first() -> None:
    needs_root()
    with reachable_box() as box:
        box.chmod(0o777)
        assert receive_as_nobody(box / "o") == ""
        for name, mode in (("shut", 0o000), ("shut/in", 0o555), ("shut/in/f", 0o400)):
            found = os.stat(box / "o" / name)
            assert found.st_mode & 0o777 == mode
            assert found.st_uid == NOBODY
        assert (box / "o/shut/in/f").read_bytes() == b"x"


def test_a_device_without_the_rights_is_named() -> None:
    needs_root()
    with reachable_box() as box:
        box.chmod(0o777)
        error = receive_as_nobody(box / "o", "device")
        assert error == f'{box / "o"}: "null" cannot be written: Operation not permitted'


def test_a_device_needs_its_rights(out: Path) -> None:
    needs_root()
    assert deliver(out, stat("null", 1 << 26 | 1 << 21 | 0o666, devmajor=1, devminor=3)) is None
    assert os.stat(out / "null").st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize("time_ns", [2**63 - 1, -(2**63)])
def test_times_at_the_end_of_the_world_are_no_reason_to_stop(out: Path, time_ns: int) -> None:
    assert deliver(out, file("f", b"x", mod_time=time_ns), stat("g", DIR, mod_time=time_ns)) is None
