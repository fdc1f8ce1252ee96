"""Contexts that are hard to send: each is sent, or refused with the name and the way out."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kitcache.buildkit.proto import files_pb2
from tests.hostile.privilege import NOBODY, needs_root, reachable_box
from tests.unit.buildkit.session.daemon import ToldError, ask_for, copy_of, fetch, start, take

Packet = files_pb2.Packet
PROGRAM = Path(__file__).with_name("context_as.py")


def refusal(path: Path, *, excludes: tuple[str, ...] = ()) -> str:
    call = start({"context": str(path)}, ask_for(excludes=excludes))
    with pytest.raises(ToldError) as caught:
        fetch(call.stream)
    error = call.outcome()
    assert error is not None
    assert error.message == str(caught.value)
    return error.message


def test_sockets_pipes_and_loops_are_sent_as_what_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("..")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = copy_of(str(tmp_path))
    assert found.paths == ["fifo", "loop", "socket", "up"]
    assert found.data == {"socket": b""}


def test_devices_are_told_and_never_read(tmp_path: Path) -> None:
    needs_root()
    os.mknod(tmp_path / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    found = copy_of(str(tmp_path))
    assert [(s.mode, s.devmajor, s.devminor) for s in found.stats] == [
        (0o600 | 1 << 26 | 1 << 21, 1, 5)
    ]
    assert found.data == {}


@pytest.mark.parametrize("name", ["new\nline", " ", "-", "a\tb", "\u202e", "\\", "*"])
def test_odd_names_arrive_as_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert copy_of(str(tmp_path)).data == {name: b"x"}


def test_a_name_that_is_no_utf_8_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.close(os.open(os.fsencode(tmp_path) + b"/d/caf\xe9", os.O_CREAT))
    assert refusal(tmp_path) == (
        'the name of "d/caf\\udce9" is not UTF-8 and cannot be sent;'
        " rename it, or list it in .dockerignore (a wildcard matches it)"
    )
    assert copy_of(str(tmp_path), excludes=("d/caf*",)).paths == ["d"]


def test_a_target_that_is_no_utf_8_is_named_too(tmp_path: Path) -> None:
    os.symlink(b"caf\xe9", os.fsencode(tmp_path) + b"/link")
    assert 'the target of "link"' in refusal(tmp_path)


def send_as(uid: int, path: Path, *excludes: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.context_as", str(uid), str(path), *excludes],
        capture_output=True,
        check=True,
        text=True,
        cwd=PROGRAM.parents[2],
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_what_cannot_be_read_is_named_unless_it_is_excluded() -> None:
    needs_root()
    with reachable_box() as box:
        (box / "ok").write_bytes(b"ok")
        (box / "ok").chmod(0o644)
        (box / "key").write_bytes(b"secret")
        (box / "key").chmod(0o600)
        (box / "shut").mkdir(mode=0o700)
        (box / "shut/in").touch()
        error = send_as(NOBODY, box, "shut")["error"]
        assert f'{box}: "key" cannot be read: Permission denied' in error
        assert error.endswith("make it readable, or list it in .dockerignore")
        assert '"shut" cannot be read: Permission denied' in send_as(NOBODY, box, "key")["error"]
        assert send_as(NOBODY, box, "key", "shut")["data"] == {"ok": "ok"}
        # An exception could lie below it: nobody knows, and upstream goes on as well.
        assert send_as(NOBODY, box, "key", "shut", "!shut/in")["paths"] == ["ok"]


def test_files_that_come_and_go_while_they_are_sent(tmp_path: Path) -> None:
    for n in range(300):
        (tmp_path / f"d{n % 7}").mkdir(exist_ok=True)
        (tmp_path / f"d{n % 7}/stays{n}").write_bytes(b"x" * n)
    is_over = threading.Event()

    def stir() -> None:
        while not is_over.is_set():
            for n in range(7):
                other = tmp_path / f"d{n}/comes"
                other.write_bytes(b"c")
                (tmp_path / f"d{n}/comes-too").mkdir(exist_ok=True)
                other.unlink()
                (tmp_path / f"d{n}/comes-too").rmdir()

    stirring = threading.Thread(target=stir)
    stirring.start()
    try:
        for _ in range(5):
            data = copy_of(str(tmp_path)).data
            for n in range(300):
                assert data[f"d{n % 7}/stays{n}"] == b"x" * n
    finally:
        is_over.set()
        stirring.join()


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_a_file_that_changes_its_size_is_sent_as_it_is_then(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    call = start({"context": str(tmp_path)}, ask_for())
    found = fetch(call.stream, before_asking=lambda: os.truncate(tmp_path / "f", size))
    assert found.data["f"] == (b"x" * 1000)[:size].ljust(size, b"\0")


def test_a_file_that_never_stops_growing_does_not_hold_the_build(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 600_000)
    call = start({"context": str(tmp_path)}, ask_for(), window=1 << 16)
    while take(call.stream).HasField("stat"):
        pass
    call.stream.send(Packet(type=Packet.REQ, id=0).SerializeToString())
    received = 0
    with (tmp_path / "log").open("ab") as log:
        while data := take(call.stream).data:
            received += len(data)
            # Always more than what was taken: who reads to the end has none.
            log.write(data * 2)
            log.flush()
            assert received <= 2_000_000
    call.stream.send(Packet(type=Packet.FIN).SerializeToString())
    assert call.outcome() is None


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_link_that_takes_the_place_of_a_file_leads_nowhere(tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"secret")
    context = tmp_path / "context"
    (context / "d").mkdir(parents=True)
    (context / "d/f").write_bytes(b"public")

    def swap() -> None:
        (context / "d/f").unlink()
        if what == "file":
            (context / "d/f").symlink_to(outside / "f")
        else:
            (context / "d").rmdir()
            (context / "d").symlink_to(outside)

    warnings: list[str] = []
    call = start({"context": str(context)}, ask_for(), on_warning=warnings.append)
    found = fetch(call.stream, before_asking=swap)
    # A directory that is still open is the one that was walked: its file is gone, not another's.
    assert found.data == {"d/f": b""}
    assert len(warnings) == 1


def test_links_out_of_the_context_are_not_followed_by_followpaths(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    context = tmp_path / "context"
    context.mkdir()
    (context / "out").symlink_to("../secret")
    (context / "abs").symlink_to(tmp_path / "secret")
    found = copy_of(str(context), followed=("out", "abs", "../secret", "x/../../secret"))
    assert found.paths == ["abs", "out"]
    assert found.data == {}


def test_a_context_deeper_than_a_path_may_be_long(tmp_path: Path) -> None:
    depth, name = 40, "d" * 200
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    file = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file, b"deep")
    os.close(file)
    os.close(fd)
    path = "/".join([name] * depth) + "/f"
    found = copy_of(str(tmp_path))
    assert len(found.paths) == depth + 1
    assert found.data == {path: b"deep"}
