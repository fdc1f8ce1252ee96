"""`kitcache build`, stopped from outside: by signals, closed streams, readers that go away."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from kitcache.buildkit.proto import control_pb2
from kitcache.gc.control import Control
from kitcache.store.locks import lock_store
from kitcache.store.open import open_store
from tests.hostile.fake_daemon import Answer, FakeDaemon, Solve, build_nothing
from tests.hostile.fake_messages import vertex
from tests.hostile.fake_session import FILE_SEND, WAIT_S
from tests.hostile.sound_cache import Cache
from tests.integration.kit import command
from tests.integration.listener import listen_unix, silent

LAYER = b"a new layer " * 30_000
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


class Running:
    """A command under way. said: what it has told on stderr so far."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child
        self.said = ""

    def wait_for(self, words: str) -> None:
        """Read stderr until it says so."""
        assert self.child.stderr is not None
        while words not in self.said:
            assert select.select([self.child.stderr], [], [], WAIT_S)[0], self.said
            data = os.read(self.child.stderr.fileno(), 65536)
            assert data, self.said
            self.said += data.decode()

    def expect(self, event: Event) -> None:
        """Wait for it; what the command said, where it ended instead."""
        ends = time.monotonic() + WAIT_S
        while not event.wait(0.1):
            assert self.child.poll() is None, self.child.communicate()[1].decode()
            assert time.monotonic() < ends, "neither it nor the end of the command came"

    def end(self) -> int:
        """Wait for the end; the exit code."""
        self.said += self.child.communicate(timeout=WAIT_S)[1].decode()
        assert "Traceback" not in self.said, self.said
        assert "this is a bug" not in self.said, self.said
        return self.child.returncode


@contextmanager
def running(url: str, *args: str | Path) -> Iterator[Running]:
    """`kitcache build` with pipes at all its ends."""
    full = command("build", "--addr", url, "--progress=plain", *args)
    with subprocess.Popen(
        full, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        try:
            yield Running(child)
        finally:
            child.kill()


def url(daemon: FakeDaemon) -> str:
    return daemon.address.url


def export_to(cache: Cache) -> str:
    return f"--cache-to=type=local,dest={cache.root},tag=new,reset=true"


class Hanging:
    """A build that uploads some of a cache and then hangs. began, ended: as the daemon sees it."""

    def __init__(self, *, keeps_status: bool = False) -> None:
        self.began, self.ended = Event(), Event()
        self._keeps_status = keeps_status

    def __call__(self, solve: Solve) -> Answer:
        solve.keeps_status = self._keeps_status
        solve.tell(vertex("sha256:1", "a step"))
        solve.session.begin_upload(solve.store, LAYER)
        self.began.set()
        if solve.is_over.wait(WAIT_S):
            self.ended.set()
        solve.wait()


@SIGNALS
def test_one_signal_cancels_the_build_on_the_daemon(
    context: Path, cache: Cache, number: signal.Signals
) -> None:
    build = Hanging()
    with FakeDaemon(build, is_engine=True) as daemon:
        with running(url(daemon), export_to(cache), context) as run:
            run.expect(build.began)
            run.child.send_signal(number)
            assert run.end() == 130
        assert build.ended.wait(WAIT_S)
    assert "cancelling the build on the daemon; Ctrl-C again leaves at once" in run.said
    assert "the build was cancelled on the daemon" in run.said
    assert "no tag was changed" in run.said
    cache.expect_unchanged()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once(
    context: Path, cache: Cache, first: signal.Signals, second: signal.Signals
) -> None:
    """Although the daemon has not yet said what became of the build."""
    build = Hanging(keeps_status=True)
    with FakeDaemon(build) as daemon:
        with running(url(daemon), export_to(cache), context) as run:
            run.expect(build.began)
            run.child.send_signal(first)
            run.wait_for("cancelling the build")
            run.child.send_signal(second)
            assert run.end() == -second
        assert build.ended.wait(WAIT_S)
    assert (cache.root / "index.json").read_bytes() == cache.index


@SIGNALS
def test_a_signal_while_the_daemon_does_not_answer(
    context: Path, tmp_path: Path, number: signal.Signals
) -> None:
    connected = Event()

    def behave(client: object) -> None:
        connected.set()
        silent(client)  # type: ignore[arg-type]

    with listen_unix(tmp_path / "s", behave), running(f"unix://{tmp_path}/s", context) as run:
        run.expect(connected)
        run.child.send_signal(number)
        assert run.end() == 130
    assert "stopped on request\n  nothing was built" in run.said


def test_a_signal_while_another_holds_the_cache(context: Path, cache: Cache) -> None:
    with (
        open_store(cache.root) as layout,
        lock_store(layout, "exclusive", Control("", None, None).wait_policy(0)),
        FakeDaemon() as daemon,
        running(url(daemon), export_to(cache), context) as run,
    ):
        run.wait_for("waiting")
        run.child.send_signal(signal.SIGINT)
        assert run.end() == 130
        assert daemon.solves == []
    cache.expect_unchanged()


def test_a_signal_while_stdin_says_nothing(context: Path) -> None:
    with FakeDaemon() as daemon, running(url(daemon), "-") as run:
        run.wait_for("building on")
        run.child.send_signal(signal.SIGINT)
        run.wait_for("stopped on request")
        assert run.end() == 130
        assert daemon.solves == []


def test_a_reader_that_goes_away(context: Path) -> None:
    """As `-o - | head -c 100`: the build fails, and says why."""

    def build(solve: Solve) -> Answer:
        def pieces() -> Iterator[bytes]:
            piece = control_pb2.BytesMessage(data=b"x" * 2**20).SerializeToString()
            for _ in range(64):
                yield piece

        list(solve.session.stream(FILE_SEND, pieces()))
        return {}

    with FakeDaemon(build) as daemon, running(url(daemon), "-o", "-", context) as run:
        assert run.child.stdout is not None
        assert os.read(run.child.stdout.fileno(), 100) == b"x" * 100
        run.child.stdout.close()
        run.child.stdout = None
        assert run.end() in (1, 21)
    assert "the output: cannot be written: Broken pipe" in run.said


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_build_needs_none_of_its_streams(context: Path, cache: Cache, closed: str) -> None:
    def build(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "a step"))
        solve.export_cache(LAYER)
        return {}

    with FakeDaemon(build) as daemon:
        line = command("build", "--addr", url(daemon), export_to(cache), context)
        done = subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *line],
            check=False,
            capture_output=True,
            timeout=WAIT_S,
        )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stdout + done.stderr
    assert (cache.root / "index.json").read_bytes() != cache.index


@pytest.mark.parametrize("options", [("-",), ("-f", "-", ".")])
def test_stdin_that_is_not_there_but_wanted(context: Path, options: tuple[str, ...]) -> None:
    with FakeDaemon() as daemon:
        line = command("build", "--addr", url(daemon), *options)
        done = subprocess.run(
            ["sh", "-c", '"$@" <&-', "sh", *line],
            check=False,
            capture_output=True,
            timeout=WAIT_S,
            cwd=context,
        )
    assert done.returncode == 2, done.stderr.decode()
    assert b"means stdin, but there is no stdin" in done.stderr


# What the process comes to where the daemon fails.


def cut(solve: Solve) -> Answer:
    solve.session.begin_upload(solve.store, LAYER)
    solve.daemon.cut()
    solve.wait()


def make_a_hole(solve: Solve) -> Answer:
    solve.export_cache(LAYER, b"other", without=LAYER)
    return {}


@pytest.mark.parametrize("is_engine", [False, True])
@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (cut, 20, "the daemon was lost while it built"),
        (make_a_hole, 12, "not published"),
        (lambda _: b"\xff" * 9, 21, "no SolveResponse"),
        (build_nothing, 0, "nothing to export"),
    ],
    ids=["cut", "hole", "garbage", "empty"],
)
def test_exit_codes(
    context: Path, cache: Cache, script: object, code: int, words: str, is_engine: bool
) -> None:
    with (
        FakeDaemon(script, is_engine=is_engine) as daemon,  # type: ignore[arg-type]
        running(url(daemon), export_to(cache), context) as run,
    ):
        assert run.end() == code, run.said
    assert words in run.said
    cache.expect_unchanged()
