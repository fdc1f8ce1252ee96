"""A pipe, or a device without an end, in the place of a file that a build reads or writes."""

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kitcache.buildkit.proto import session_pb2
from kitcache.buildkit.sources import prepare_secret
from kitcache.errors import Cancelled
from kitcache.options.secrets import Secret
from tests.hostile.command import Answer, run, run_command
from tests.hostile.failing import success
from tests.hostile.fake_daemon import Answer as Response
from tests.hostile.fake_daemon import FakeDaemon, Solve, build_nothing
from tests.hostile.fake_session import GET_SECRET

Make = Callable[[Path], None]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.fixture
def top(context: Path) -> Path:
    """The box of a context: what the builds below name lies in it."""
    for name in ("docker/buildx/defaults", "tls", "other"):
        (context.parent / name).mkdir(parents=True)
    return context.parent


def build(top: Path, *words: str, **env: str) -> Answer:
    with FakeDaemon(build_nothing, is_engine=True) as daemon:
        env = {"DOCKER_CONFIG": f"{top}/docker", "DOCKER_HOST": daemon.address.url, **env}
        return run(top, "build", "-o", "type=cacheonly", *words, "context", env=env)


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (fifo, "context/.dockerignore", ()),
        (endless, "context/.dockerignore", ()),
        (fifo, "context/Special.dockerignore", ("-f", "context/Special")),
        (fifo, "other/.dockerignore", ("--build-context", "other=other")),
    ],
)
def test_an_ignore_file(top: Path, make: Make, name: str, words: tuple[str, ...]) -> None:
    (top / "context" / "Special").write_text("FROM scratch\n")
    make(top / name)
    answer = build(top, *words)
    assert answer.code == 2
    assert f"{name}: the ignore file is not a regular file\n  nothing was built" in answer.err


@pytest.mark.parametrize("option", ["--iidfile", "--metadata-file"])
def test_a_pipe_for_results_that_nobody_reads(top: Path, option: str) -> None:
    fifo(top / "p")
    answer = build(top, option, "p")
    assert answer.code == 1
    assert "p: cannot be written: no process reads it\n  the build itself is done" in answer.err


def test_results_go_into_a_pipe_that_is_read(top: Path) -> None:
    with FakeDaemon(build_nothing) as daemon:
        words = (
            f"build --addr {daemon.address.url} -o type=cacheonly --metadata-file >(cat) context"
        )
        line = f"{sys.executable} -m kitcache {words} | cat"
        answer = run_command(["bash", "-c", line], top)
    assert '"buildx.build.ref"' in answer.out


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (fifo, "config.json"),
        (endless, "config.json"),
        (fifo, "buildx/current"),
        (fifo, "buildx/defaults/{}"),
    ],
)
def test_a_file_of_dockers_configuration(top: Path, make: Make, name: str) -> None:
    with FakeDaemon(build_nothing, is_engine=True) as daemon:
        url = daemon.address.url
        make(top / "docker" / name.format(hashlib.sha256(url.encode()).hexdigest()[:20]))
        env = {"DOCKER_CONFIG": f"{top}/docker", "DOCKER_HOST": url}
        answer = run(top, "build", "-o", "type=cacheonly", "context", env=env)
    assert answer.code == 0, answer
    assert ("it is not a regular file" in answer.err) == (name == "config.json")


def test_a_context_of_docker(top: Path) -> None:
    where = top / "docker" / "contexts" / "meta" / hashlib.sha256(b"there").hexdigest()
    where.mkdir(parents=True)
    fifo(where / "meta.json")
    answer = build(top, DOCKER_HOST="", DOCKER_CONTEXT="there")
    assert answer.code == 20
    assert "it is not a regular file" in answer.err


@pytest.mark.parametrize(("make", "name"), [(fifo, "ca.pem"), (endless, "key.pem")])
def test_a_certificate(top: Path, make: Make, name: str) -> None:
    for each in ("ca.pem", "cert.pem", "key.pem"):
        (make if each == name else Path.touch)(top / "tls" / each)
    answer = build(top, "--addr", "tcp://127.0.0.1:1", "--tlsdir", "tls")
    assert answer.code == 20
    assert f"tls/{name}: it is not a regular file" in answer.err


def test_a_device_as_a_secret(top: Path) -> None:
    answer = build(top, "--secret", "id=s,src=/dev/zero")
    assert answer.code == 1
    assert "the file of the secret s cannot be read: it is larger than 512,000 bytes" in answer.err


def test_a_pipe_as_a_secret_is_read_once_and_given_as_often_as_asked(context: Path) -> None:
    """As bash's <(COMMAND): the command may have ended, or still be at it."""
    given = []

    def script(solve: Solve) -> Response:
        request = session_pb2.GetSecretRequest(id="s").SerializeToString()
        for _ in range(2):
            answer = solve.session.unary(GET_SECRET, request)
            given.append(session_pb2.GetSecretResponse.FromString(answer).data)
        return {}

    for text in (b"sesame", b""):
        reading, writing = os.pipe()
        with open(reading, "rb"), open(writing, "wb") as pipe:
            pipe.write(text)
            pipe.close()
            success(script, context, secrets=[Secret("s", path=f"/dev/fd/{reading}")])
    assert given == [b"sesame", b"sesame", b"", b""]


def test_a_named_pipe_as_a_secret_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "p"
    fifo(path)
    secret = Secret("s", path=str(path))
    writers: list[threading.Thread] = []

    def write(named: str) -> None:
        if not writers:
            writers.append(threading.Thread(target=Path(named).write_bytes, args=(b"sesame",)))
            writers[0].start()

    ready = prepare_secret(secret, write)
    writers[0].join()
    assert ready.data == b"sesame"

    def cancel(_named: str) -> None:
        raise Cancelled("")

    with pytest.raises(Cancelled):
        prepare_secret(secret, cancel)
