"""The options of `kitcache build`, each seen in what came out of a real build."""

import bz2
import gzip
import json
import lzma
import os
import re
from pathlib import Path

import pytest

from tests.integration.build.kit import Kit, context, running, tar_of
from tests.integration.contexts import steps
from tests.integration.daemon import BASE, Daemon

ONE = "FROM scratch\nCOPY one /\n"
TWO = "FROM scratch\nCOPY two /\n"


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A context with two files; its own Dockerfile takes the first, all others the second."""
    return context(tmp_path / "both", ONE, one="1", two="2")


def test_the_dockerfile_of_the_context_is_the_default(kit: Kit, both: Path) -> None:
    assert kit.files(both) == {"one": b"1"}


def test_a_dockerfile_of_another_name(kit: Kit, both: Path) -> None:
    context(both, None, sub__two_dockerfile=TWO)
    assert kit.files("-f", both / "sub" / "two.dockerfile", both) == {"two": b"2"}


def test_a_dockerfile_in_another_directory(kit: Kit, both: Path, tmp_path: Path) -> None:
    elsewhere = context(tmp_path / "elsewhere", TWO)
    assert kit.files("--file", elsewhere / "Dockerfile", both) == {"two": b"2"}


def test_a_dockerfile_is_named_from_where_we_are(kit: Kit, both: Path) -> None:
    context(both, None, two_dockerfile=TWO)
    built = kit.must("-f", "two.dockerfile", "-o", "out", ".", cwd=both)
    assert os.listdir(both / "out") == ["two"], built


def test_a_dockerfile_in_lower_case(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "lower", None, two="2")
    (where / "dockerfile").write_text(TWO)
    assert kit.files(where) == {"two": b"2"}


def test_a_dockerfile_on_stdin(kit: Kit, both: Path) -> None:
    assert kit.files("-f", "-", both, stdin=TWO.encode()) == {"two": b"2"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_context_on_stdin(kit: Kit, pack: type[bytes]) -> None:
    packed = pack(tar_of(Dockerfile=ONE, one="1", two="2", sub__Two=TWO))
    assert kit.files("-", stdin=packed) == {"one": b"1"}
    assert kit.files("-", "-f", "sub/Two", stdin=packed) == {"two": b"2"}


def test_a_dockerfile_alone_on_stdin_has_no_context(kit: Kit) -> None:
    text = running("echo 1 > /out/one").encode()
    assert kit.files("-", stdin=text) == {"one": b"1\n"}
    built = kit.run("-", "-o", "-", stdin=ONE.encode())
    assert built.code == 21
    assert '"/one": not found' in built.err


def test_the_target_is_the_last_stage_that_is_built(kit: Kit, tmp_path: Path) -> None:
    stages = "FROM scratch AS first\nCOPY one /\nFROM nowhere.invalid/x\nCOPY two /\n"
    where = context(tmp_path / "stages", stages, one="1", two="2")
    assert kit.files("--target", "first", where) == {"one": b"1"}


def test_build_args(kit: Kit, tmp_path: Path) -> None:
    args = "ARG GIVEN=x\nARG TAKEN=x\nARG ABSENT=default\nARG EMPTY=x"
    where = context(
        tmp_path / "args", running('echo "$GIVEN,$TAKEN,$ABSENT,$EMPTY" > /out/args', before=args)
    )
    words = ["GIVEN=a=b c", "TAKEN", "ABSENT", "EMPTY="]
    options = [word for arg in words for word in ("--build-arg", arg)]
    assert kit.files(*options, where, env={"TAKEN": "from outside"}) == {
        "args": b"a=b c,from outside,default,\n"
    }


def test_labels_and_several_tags(kit: Kit, both: Path) -> None:
    tags = ("-t", "labels:1", "--tag", "localhost/team/labels")
    kit.must(*tags, "--label", "one=1", "--label", "two=a=b", both)
    names = ("labels:1", "localhost/team/labels:latest")
    found = [json.loads(kit.daemon.must("image", "inspect", name))[0] for name in names]
    assert found[0]["Id"] == found[1]["Id"]
    assert found[0]["Config"]["Labels"] == {"one": "1", "two": "a=b"}
    assert sorted(found[0]["RepoTags"]) == sorted(names)


def test_two_platforms_are_two_images_in_one_index(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "two", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n")
    context(where, None, amd64="a", arm64="b")
    assert kit.files("--platform", "linux/amd64,linux/arm64", where) == {
        "linux_amd64/arch": b"a",
        "linux_arm64/arch": b"b",
    }
    assert kit.files("--platform", "linux/arm64", where) == {"arch": b"b"}


STAGES = f"""\
FROM {BASE} AS one
RUN echo 1 > /one
FROM {BASE} AS two
RUN echo 2 > /two
FROM scratch
COPY --from=one /one /
COPY --from=two /two /
"""


def test_steps_run_anew_where_the_cache_is_not_wanted(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "stages", STAGES)
    run_one, run_two = "[one 2/2] RUN echo 1 > /one", "[two 2/2] RUN echo 2 > /two"

    def states(*options: str) -> tuple[str, str]:
        found = steps(kit.must("-o", "type=cacheonly", "--network=none", *options, where).err)
        return found[run_one], found[run_two]

    states()
    assert states() == ("CACHED", "CACHED")
    assert states("--no-cache-filter", "two") == ("CACHED", "DONE")
    assert states("--no-cache-filter=one,two") == ("DONE", "DONE")
    assert states("--no-cache") == ("DONE", "DONE")
    assert states("--no-cache=false") == ("CACHED", "CACHED")


def test_hosts_limits_and_shared_memory_of_a_step(kit: Kit, tmp_path: Path) -> None:
    look = "cat /etc/hosts > /out/hosts; ulimit -Sn > /out/soft; ulimit -Hn > /out/hard"
    where = context(tmp_path / "look", running(look, "busybox df -k /dev/shm > /out/shm"))
    hosts = ("--add-host", "box:10.1.2.3", "--add-host=six=[fd00::1]")
    found = kit.files(*hosts, "--ulimit", "nofile=100:200", "--shm-size", "32m", where)
    assert re.search(rb"^10\.1\.2\.3\s+box$", found["hosts"], re.MULTILINE)
    assert re.search(rb"^fd00::1\s+six$", found["hosts"], re.MULTILINE)
    assert (found["soft"], found["hard"]) == (b"100\n", b"200\n")
    assert found["shm"].split()[8] == b"32768"


def test_the_network_of_a_step(kit: Kit, tmp_path: Path) -> None:
    look = "busybox readlink /proc/self/ns/net > /out/ns; cat /proc/net/dev > /out/devices"
    where = context(tmp_path / "net", running(look))
    ours = os.readlink("/proc/self/ns/net").encode()
    none = kit.files(where)
    assert none["ns"].strip() != ours
    assert none["devices"].count(b":") == 1
    host = kit.files("--network", "host", where)
    assert host["ns"].strip() == ours


def test_an_entitlement_that_the_daemon_refuses(kit: Kit, both: Path) -> None:
    built = kit.run("--allow", "security.insecure", both)
    assert built.code == 21
    assert "kitcache: failed to solve: " in built.err
    assert "security.insecure is not allowed" in built.err


def test_the_metadata_file_has_what_buildx_has_in_it(kit: Kit, both: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    options = ("-t", "metadata:1", "-t", "metadata:2", "--metadata-file")
    kit.must(*options, ours, both)
    kit.buildx(*options, theirs, both)
    found, expected = json.loads(ours.read_text()), json.loads(theirs.read_text())
    assert found.pop("kitcache.caches") == []
    assert found.pop("kitcache.notices") == []
    assert found.pop("kitcache.logins") == []
    assert re.fullmatch("[a-z0-9]{25}", found.pop("buildx.build.ref"))
    del expected["buildx.build.ref"]
    assert "containerimage.digest" in expected
    assert found == expected


def test_a_docker_context_is_a_builder(kit: Kit, both: Path, daemon: Daemon) -> None:
    env = {name: value for name, value in kit.env.items() if name != "DOCKER_HOST"}
    kit.env = {**env, "DOCKER_HOST": ""}
    create = ("context", "create", "away", "--docker", f"host=unix://{daemon.socket}")
    daemon.must("--config", str(kit.config), *create)
    for options, more in ((("--builder", "away"), {}), ((), {"DOCKER_CONTEXT": "away"})):
        built = kit.must(*options, "-o", "type=cacheonly", both, env=more)
        assert built.err.startswith(f"building on unix://{daemon.socket} (")
        assert "away" in built.err.splitlines()[0]
    built = kit.run("--builder", "afar", "-o", "type=cacheonly", both)
    assert built.code == 2
    assert "builder 'afar' was not found" in built.err
