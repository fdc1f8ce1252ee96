"""kitcache.Client on a real BuildKit: what a build returns and tells, and what it sends."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.client import Client
from kitcache.errors import BuildFailed, UsageError
from kitcache.options.build import BuildRequest
from kitcache.options.outputs import Output
from tests.integration.clientkit import NOWHERE, write
from tests.integration.daemon import BASE


def test_a_build_is_a_typed_result(client: Client, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM scratch\nCOPY a /\n", a="x")
    result = client.build(context, outputs=[Output("local", dest=str(tmp_path / "out"))])
    assert (tmp_path / "out" / "a").read_text() == "x"
    assert len(result.ref) == 25
    assert (result.caches, result.warnings, result.notices) == ((), (), ())


def test_what_the_daemon_says_of_itself(client: Client) -> None:
    assert client.is_engine
    assert client.info().package
    workers = client.workers()
    assert "linux/amd64" in workers[0].platforms or "linux/arm64" in workers[0].platforms
    assert workers[0].exports_local_caches


def test_provenance_where_it_is_asked_for(client: Client, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM scratch\nCOPY a /\n", a="x")
    output = f"type=oci,dest={tmp_path}/out.tar"
    asked = client.build(context, outputs=[output], attests={"provenance": "mode=max"})
    assert "buildType" in str(asked.provenance)
    assert client.build(context, outputs=[output]).provenance == {}


def test_news_come_in_the_thread_that_builds(client: Client, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM scratch\nCOPY a /\n", a="x")
    heard: set[int] = set()
    client.build(context, outputs=NOWHERE, on_update=lambda _: heard.add(threading.get_ident()))
    assert heard == {threading.get_ident()}


def test_a_mistyped_attribute_is_noticed(client: Client, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM scratch\nCOPY a /\n", a="x")
    heard: list[str] = []
    result = client.build(
        context,
        outputs=NOWHERE,
        cache_to=[f"type=local,dest={tmp_path}/cache,mdoe=max"],
        on_notice=heard.append,
    )
    assert result.notices == tuple(heard)
    assert len(heard) == 1
    assert "mdoe" in heard[0]
    assert "mode" in heard[0].replace("mdoe", "")


def test_a_failed_step_is_an_error_with_all_that_is_known(client: Client, tmp_path: Path) -> None:
    context = write(tmp_path / "c", f"FROM {BASE}\n\nRUN echo dear me; exit 7\n")
    with pytest.raises(BuildFailed) as caught:
        client.build(context, outputs=NOWHERE, network="none")
    error = caught.value
    assert error.step_exit_code == 7
    assert error.log == ("dear me",)
    assert [(s.filename, s.first_line) for s in error.locations] == [("Dockerfile", 3)]


def test_several_builds_at_once_on_one_client(client: Client, tmp_path: Path) -> None:
    def build(number: int) -> str:
        context = write(tmp_path / f"c{number}", "FROM scratch\nCOPY a /\n", a=f"{number}" * 9)
        out = tmp_path / f"out{number}"
        client.build(context, outputs=[f"type=local,dest={out}"])
        return (out / "a").read_text()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(build, range(4))) == [f"{number}" * 9 for number in range(4)]


def test_the_news_of_a_build_can_be_iterated_over(client: Client, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM scratch\nCOPY a /\n", a=str(tmp_path))
    build = client.start(BuildRequest(context, outputs=(Output("cacheonly"),)), BuildOptions())
    names = {vertex.name for update in build for vertex in update.vertexes}
    assert build.is_over
    assert build.next_update() is None
    assert "[1/1] COPY a /" in names
    assert build.result().digest is None or build.result().digest
    with pytest.raises(UsageError, match="iterated over already"):
        iter(build)


def test_directories_that_look_alike_are_told_apart(client: Client, tmp_path: Path) -> None:
    """Equal names, sizes and times: the daemon compares a transfer by those alone."""
    built = []
    for name in ("one", "two"):
        context = write(tmp_path / name / "same", "FROM scratch\nCOPY a /\n", a=f"{name}.")
        for path in (Path(context), *Path(context).iterdir()):
            os.utime(path, ns=(10**18, 10**18))
        out = tmp_path / f"out-{name}"
        client.build(context, outputs=[f"type=local,dest={out}"])
        built.append((out / "a").read_text())
    assert built == ["one.", "two."]


def test_another_directory_in_the_place_of_one(client: Client, tmp_path: Path) -> None:
    """The same path, made anew: neither its name nor its dates tell that it is another one."""
    built = []
    for text in ("one.", "two."):
        place = tmp_path / "place"
        if place.exists():
            place.rename(tmp_path / "before")
        context = write(place, "FROM scratch\nCOPY a /\n", a=text)
        for path in (Path(context), *Path(context).iterdir()):
            os.utime(path, ns=(10**18, 10**18))
        client.build(context, outputs=[f"type=local,dest={tmp_path}/out"])
        built.append((tmp_path / "out" / "a").read_text())
    assert built == ["one.", "two."]
