import os
from pathlib import Path

import pytest

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.session.memory import MemoryFiles
from kitcache.buildkit.session.sync import read_request, sync_handler
from kitcache.buildkit.wire.grpc import Code, RpcError
from tests.unit.buildkit.session.daemon import ToldError, ask_for, copy_of, fetch, start, take
from tests.unit.buildkit.session.wired import calling

Packet = files_pb2.Packet


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src/main.c").write_bytes(b"int main;")
    (tmp_path / "nothing").touch()
    (tmp_path / "big").write_bytes(bytes(range(256)) * 3000)
    (tmp_path / "link").symlink_to("src/main.c")
    return tmp_path


def test_all_of_a_directory_arrives(context: Path) -> None:
    found = copy_of(str(context))
    assert found.paths == ["big", "empty", "link", "nothing", "src", "src/main.c"]
    assert found.data == {
        "big": bytes(range(256)) * 3000,
        "nothing": b"",
        "src/main.c": b"int main;",
    }
    assert {(stat.uid, stat.gid) for stat in found.stats} == {(0, 0)}
    assert found.stats[2].linkname == "src/main.c"


def test_the_same_over_a_real_connection(context: Path) -> None:
    with calling(sync_handler({"context": str(context)}), ask_for()) as stream:
        assert fetch(stream) == copy_of(str(context))


def test_what_is_not_asked_for_is_not_sent(context: Path) -> None:
    call = start({"context": str(context)}, ask_for())
    assert fetch(call.stream, wants=lambda stat: stat.path == "nothing").data == {"nothing": b""}
    call.wait()


def test_requests_may_come_before_the_list_has_ended(tmp_path: Path) -> None:
    for n in range(3000):
        (tmp_path / f"{n:04}").write_bytes(str(n).encode())
    # What is told does not fit: who only sends, or only receives, would hang.
    call = start({"context": str(tmp_path)}, ask_for(), window=1 << 14)
    data: dict[int, bytes] = {}
    count, is_listed, done, early = 0, False, 0, 0
    while not (is_listed and done == count):
        packet = take(call.stream)
        if packet.type == Packet.DATA:
            data[packet.id] = data.get(packet.id, b"") + packet.data
            done += not packet.data
            early += not is_listed
        elif packet.HasField("stat"):
            call.stream.send(Packet(type=Packet.REQ, id=count).SerializeToString())
            count += 1
        else:
            is_listed = True
    call.stream.send(Packet(type=Packet.FIN).SerializeToString())
    assert take(call.stream).type == Packet.FIN
    call.wait()
    assert data == {n: str(n).encode() for n in range(3000)}
    assert early, "requests are answered while the list is still sent"


def test_patterns_choose(context: Path) -> None:
    assert copy_of(str(context), includes=("src/*.c",)).paths == ["src", "src/main.c"]
    assert copy_of(str(context), excludes=("*", "!link")).paths == ["link"]
    assert copy_of(str(context), followed=("link",)).paths == ["link", "src", "src/main.c"]
    assert copy_of(str(context), includes=("empty",), followed=("big",)).paths == ["big", "empty"]
    assert len(copy_of(str(context), includes=("empty",), followed=(".",)).paths) == 6


def test_encoded_names_are_decoded(tmp_path: Path) -> None:
    for name in ("é a", "b+c", "x"):
        (tmp_path / name).touch()
    assert copy_of(str(tmp_path), followed=("é a", "b+c")).paths == ["b+c", "é a"]
    # Unmarked values are what they are.
    assert read_request((("followpaths", "a%20b+c"),)).followed == ("a%20b+c",)


def test_no_other_directory_is_sent(context: Path) -> None:
    error = start({"context": str(context)}, ask_for("/etc")).outcome()
    assert error is not None
    assert (error.code, error.message) == (Code.NOT_FOUND, 'no access allowed to dir "/etc"')


def test_files_in_memory_are_a_directory_too() -> None:
    files = MemoryFiles({"Dockerfile": b"FROM scratch\n", "sub/.dockerignore": b"x", "z": b""})
    call = start({"dockerfile": files}, ask_for("dockerfile", excludes=("z",)))
    found = fetch(call.stream)
    assert found.paths == ["Dockerfile", "sub", "sub/.dockerignore"]
    assert found.data == {"Dockerfile": b"FROM scratch\n", "sub/.dockerignore": b"x"}
    assert [stat.mode for stat in found.stats] == [0o644, 0o755 | 1 << 31, 0o644]
    for followed, count in ((("sub",), 2), (("sub", "."), 4), (("./z", "x"), 1)):
        call = start({"dockerfile": files}, ask_for("dockerfile", followed=followed))
        assert len(fetch(call.stream).paths) == count


def test_a_dockerfile_in_memory_never_looks_like_the_one_before_it() -> None:
    times = []
    for text in (b"FROM a", b"FROM b"):
        call = start({"d": MemoryFiles({"Dockerfile": text})}, ask_for("d"))
        times.append(fetch(call.stream).stats[0].mod_time)
    assert times[0] != times[1]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    call = start({"context": str(tmp_path / "nix")}, ask_for())
    with pytest.raises(ToldError, match="nix: the directory cannot be opened: No such file"):
        take(call.stream)
    error = call.outcome()
    assert error is not None
    assert "nix: the directory cannot be opened" in error.message


def test_a_pattern_that_cannot_be_read_is_named(context: Path) -> None:
    call = start({"context": str(context)}, ask_for(excludes=("ok", "a[")))
    with pytest.raises(ToldError, match=r'pattern "a\[" cannot be used: syntax error'):
        take(call.stream)


def test_a_file_that_vanished_arrives_empty_and_is_told(context: Path) -> None:
    warnings: list[str] = []
    call = start({"context": str(context)}, ask_for(), on_warning=warnings.append)
    found = fetch(call.stream, before_asking=lambda: os.unlink(context / "src/main.c"))
    assert found.data["src/main.c"] == b""
    call.wait()
    assert warnings == ['"src/main.c" was deleted during the transfer: it is sent empty']


@pytest.mark.parametrize("number", [1, 2, 6, 99, 2**32 - 1])
def test_what_is_no_file_cannot_be_asked_for(context: Path, number: int) -> None:
    # 1 is a directory, 2 a symlink, there is no 6.
    call = start({"context": str(context)}, ask_for())
    while take(call.stream).HasField("stat"):
        pass
    call.stream.send(Packet(type=Packet.REQ, id=number).SerializeToString())
    with pytest.raises(ToldError, match=f"invalid file id {number}"):
        take(call.stream)
    error = call.outcome()
    assert error is not None
    assert error.code == Code.INVALID_ARGUMENT


def test_a_file_can_be_asked_for_once(context: Path) -> None:
    call = start({"context": str(context)}, ask_for())
    while take(call.stream).HasField("stat"):
        pass
    request = Packet(type=Packet.REQ, id=3).SerializeToString()
    call.stream.send(request)
    assert take(call.stream) == Packet(type=Packet.DATA, id=3)
    call.stream.send(request)
    with pytest.raises(ToldError, match="invalid file id 3"):
        take(call.stream)


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        (
            b"bad-\xff",
            b"f",
            'the name of "bad-\\udcff" is not UTF-8 and cannot be sent; rename it, ',
        ),
        (b"lnk", b"bad-\xff", 'the target of "lnk" is not UTF-8 and cannot be sent; list it in '),
    ],
)
def test_what_is_no_utf_8_is_told_apart(
    tmp_path: Path, name: bytes, target: bytes, words: str
) -> None:
    os.symlink(target, os.fsencode(tmp_path) + b"/" + name)
    call = start({"context": str(tmp_path)}, ask_for())
    with pytest.raises(ToldError) as caught:
        take(call.stream)
    assert words in str(caught.value)
    call.wait()


def test_the_daemon_s_error_ends_it(context: Path) -> None:
    call = start({"context": str(context)}, ask_for())
    call.stream.send(Packet(type=Packet.ERR, data=b"disk\x1b full").SerializeToString())
    error = call.outcome()
    assert error is not None
    assert error.message == "error from receiver: disk\\x1b full"


@pytest.mark.parametrize(
    "message", [b"\xff", b"\x08", b"\x22\x05a", b"\x0b", b"\x18" + b"\xff" * 11]
)
def test_what_is_no_packet_ends_it(context: Path, message: bytes) -> None:
    call = start({"context": str(context)}, ask_for())
    call.stream.send(message)
    error = call.outcome()
    assert error is not None
    assert error.code == Code.INTERNAL


def test_a_daemon_that_leaves_ends_it(context: Path) -> None:
    call = start({"context": str(context)}, ask_for())
    call.stream.end()
    error = call.outcome()
    assert error is not None
    assert error.code == Code.ABORTED


def test_a_cancelled_call_ends_in_the_middle_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(4 << 20))
    call = start({"context": str(tmp_path)}, ask_for(), window=1 << 16)
    while take(call.stream).HasField("stat"):
        pass
    call.stream.send(Packet(type=Packet.REQ, id=0).SerializeToString())
    assert take(call.stream).type == Packet.DATA
    call.stream.cancel()
    with pytest.raises(RpcError):
        call.stream.send(b"")
    call.wait()
