"""mode=delete: which directories it may empty, and on which daemon."""

from pathlib import Path

import pytest

from kitcache.buildkit.build import BuildOptions
from kitcache.buildkit.client import Client
from kitcache.buildkit.proto import control_pb2, files_pb2
from kitcache.errors import KitcacheError, NoDaemon, UsageError
from kitcache.options.build import BuildRequest
from kitcache.options.outputs import parse_output
from tests.hostile.failing import failure, success
from tests.hostile.fake_daemon import Answer, FakeDaemon, Script, Solve
from tests.hostile.fake_session import FILE_SEND

ALLOW = "buildx.local.delete"
WHOLE = (("buildkit-attachable-exporter-id", "0"), ("buildkit-exporter-multi-platform", "1"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """here/out, below the current directory, and other/out beside that; both hold a file."""
    for name in ("here/out", "other/out"):
        (context.parent / name).mkdir(parents=True)
        (context.parent / name / "old").touch()
    (tmp_path / "here" / "link").symlink_to("../other")
    (tmp_path / "other" / "back").symlink_to("../here")
    monkeypatch.chdir(tmp_path / "here")


def export_directory(solve: Solve) -> Answer:
    """An output that holds one directory."""
    stat = files_pb2.Stat(path="new", mode=1 << 31 | 0o755, mod_time=10**18)
    packets = (
        files_pb2.Packet(type=files_pb2.Packet.STAT, stat=stat),
        files_pb2.Packet(type=files_pb2.Packet.STAT),
        files_pb2.Packet(type=files_pb2.Packet.FIN),
    )
    messages = [packet.SerializeToString() for packet in packets]
    list(solve.session.stream(FILE_SEND, messages, WHOLE))
    return {}


def output(dest: str) -> dict[str, list[str]]:
    return {"outputs": [f"type=local,dest={dest},mode=delete"]}


def with_leave(script: Script, context: Path, dest: str, *allow: str) -> None:
    outputs = tuple(map(parse_output, output(dest)["outputs"]))
    request = BuildRequest(str(context), outputs=outputs, allow=allow)
    with FakeDaemon(script) as daemon, Client(daemon.address) as client:
        client.start(request, BuildOptions()).result()


def refused(context: Path, dest: str, **more: object) -> KitcacheError:
    """Why the build is refused; nothing has changed on the disk."""
    before = sorted(context.parent.rglob("*"))
    error = failure(export_directory, context, **output(dest), **more)
    assert sorted(context.parent.rglob("*")) == before
    return error


@pytest.mark.parametrize("dest", [".", "../here", "..", "../other/out", "link/out", "/", "out/.."])
def test_a_directory_that_is_not_below_the_current_one_needs_leave(
    context: Path, dest: str
) -> None:
    error = refused(context, dest)
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert "allow buildx.local.delete if that is meant" in error.hints


@pytest.mark.parametrize("dest", ["out", "./out/", "../here/out", "link/back/out", "new/deep"])
def test_a_directory_below_the_current_one_needs_none(context: Path, dest: str) -> None:
    success(export_directory, context, **output(dest))
    assert [path.name for path in Path(dest).iterdir()] == ["new"]


@pytest.mark.parametrize("dest", ["../other/out", "link/out"])
def test_with_leave_any_directory_will_do(context: Path, dest: str) -> None:
    success(export_directory, context, **output(dest), allow=ALLOW)
    assert [path.name for path in Path(dest).iterdir()] == ["new"]


def test_the_leave_is_not_the_daemons_business(context: Path) -> None:
    asked = []

    def script(solve: Solve) -> Answer:
        asked.append(list(solve.request.entitlements))
        return export_directory(solve)

    with_leave(script, context, "out", ALLOW, "network.host")
    assert asked == [["network.host"]]


@pytest.mark.parametrize("word", [f"{ALLOW}=true", f"{ALLOW}="])
def test_the_leave_has_no_value(context: Path, word: str) -> None:
    with pytest.raises(UsageError, match=r"buildx\.local\.delete does not accept a value"):
        with_leave(export_directory, context, "out", word)


@pytest.mark.parametrize("dest", ["out", "out/cache", "link/back/out/cache"])
def test_no_cache_of_the_build_is_deleted(context: Path, dest: str) -> None:
    Path("out/old").unlink()
    caches = [f"type=local,dest={dest}"]
    error = failure(export_directory, context, **output("out"), cache_to=caches)
    assert isinstance(error, UsageError)
    assert "mode=delete in out would delete this output of the build" in str(error)


@pytest.mark.parametrize(
    "other",
    ["type=tar,dest=out/tar", "type=tar,dest=link/back/out/tar", "type=local,dest=out/deep"],
)
def test_no_other_output_of_the_build_is_deleted(context: Path, other: str) -> None:
    outputs = [*output("out")["outputs"], other]
    error = failure(export_directory, context, outputs=outputs)
    assert isinstance(error, UsageError)
    assert "mode=delete in out would delete this output of the build" in str(error)
    assert Path("out/old").exists()


def test_other_outputs_may_lie_beside_it(context: Path) -> None:
    outputs = [*output("out")["outputs"], "type=tar,dest=tar", "type=local,dest=."]
    success(export_directory, context, outputs=outputs)
    assert [path.name for path in Path("out").iterdir()] == ["new"]


@pytest.mark.parametrize("version", ["v0.30.9", "v0.31.0"])
def test_a_daemon_that_says_how_old_it_is(context: Path, version: str) -> None:
    told = control_pb2.InfoResponse()
    told.buildkit_version.version = version
    answers = {"Info": told.SerializeToString()}
    if version == "v0.31.0":
        success(export_directory, context, **output("out"), answers=answers)
        return
    error = refused(context, "out", answers=answers)
    assert isinstance(error, NoDaemon)
    assert error.kind == "unsupported"
    assert "its BuildKit is v0.30.9, and mode=delete requires 0.31" in str(error)


def test_a_daemon_that_turns_out_to_be_too_old(context: Path) -> None:
    def script(solve: Solve) -> Answer:
        list(solve.session.stream(FILE_SEND, [], WHOLE[:1]))
        return {}

    before = sorted(context.parent.rglob("*"))
    error = failure(script, context, **output("out"))
    assert isinstance(error, NoDaemon)
    assert "mode=delete requires BuildKit 0.31" in str(error)
    assert sorted(context.parent.rglob("*")) == before
