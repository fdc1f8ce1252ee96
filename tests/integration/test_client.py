"""kitcache.Client on a real BuildKit: threads, progress, cancel, errors of the caller's own."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

import kitcache
from kitcache.buildkit.build import Wishes
from kitcache.buildkit.client import Client
from kitcache.buildkit.status import Update
from kitcache.errors import BuildFailed, Cancelled, NoDaemon
from kitcache.options.build import BuildRequest
from kitcache.options.outputs import Output
from tests.integration import witness
from tests.integration.daemon import BASE, Daemon
from tests.integration.kit import command

pytestmark = pytest.mark.xdist_group("daemon")

WAIT_S = 30.0
NOWHERE = ["type=cacheonly"]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    daemon.base_image()
    with Client(f"unix://{daemon.socket}") as opened:
        yield opened


def write(directory: Path, dockerfile: str, **files: str) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


class Step:
    """A step that runs until it is killed. is_running: once its first line has come."""

    def __init__(self, directory: Path) -> None:
        self._word = f"step-{os.urandom(8).hex()}"
        self.is_running = Event()
        self.updates: list[Update] = []
        self.context = write(
            directory,
            f"FROM {BASE}\n"
            f"RUN echo ready && busybox sh -c 'busybox sleep 600; busybox true {self._word}'\n",
        )

    def hear(self, update: Update) -> None:
        self.updates.append(update)
        if any(log.data.startswith(b"ready") for log in update.logs):
            self.is_running.set()

    def processes(self) -> list[int]:
        """Of this step, wherever they run."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (directory / "cmdline").read_bytes().split(b"\0")
                if b"busybox" in words[0] and any(self._word.encode() in w for w in words):
                    found.append(int(directory.name))
        return found

    def expect_gone(self) -> None:
        """The daemon has ended it, or does so in a moment."""
        ends = time.monotonic() + WAIT_S
        while self.processes():
            assert time.monotonic() < ends, "the step goes on"
            time.sleep(0.02)

    def expect_drained(self) -> None:
        """The last news told that the step was cancelled."""
        errors = [
            v.error for u in self.updates for v in u.vertexes if v.name.startswith("[2/2] RUN")
        ]
        assert any("canceled" in error for error in errors), errors


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path / "step")


# One build.


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
    assert [(s.filename, s.first_line) for s in error.sources] == [("Dockerfile", 3)]


def test_several_builds_at_once_on_one_client(client: Client, tmp_path: Path) -> None:
    def build(number: int) -> str:
        context = write(tmp_path / f"c{number}", "FROM scratch\nCOPY a /\n", a=f"{number}" * 9)
        out = tmp_path / f"out{number}"
        client.build(context, outputs=[f"type=local,dest={out}"])
        return (out / "a").read_text()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(build, range(4))) == [f"{number}" * 9 for number in range(4)]


# A build under way.


def test_the_news_of_a_build_can_be_iterated_over(client: Client, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM scratch\nCOPY a /\n", a=str(tmp_path))
    build = client.start(BuildRequest(context, outputs=(Output("cacheonly"),)), Wishes())
    names = {vertex.name for update in build for vertex in update.vertexes}
    assert build.is_over
    assert build.next_update() is None
    assert "[1/1] COPY a /" in names
    assert build.result().digest is None or build.result().digest
    assert list(build) == []


def test_waiting_for_news_has_an_end(client: Client, step: Step) -> None:
    request = BuildRequest(step.context, network="none", outputs=(Output("cacheonly"),))
    build = client.start(request, Wishes())
    while not step.is_running.is_set():
        update = build.next_update(WAIT_S)
        assert update is not None
        step.hear(update)
    while build.next_update(0.5) is not None:
        pass
    assert not build.is_over
    build.cancel()
    for update in build:
        step.hear(update)
    for _ in range(2):
        with pytest.raises(Cancelled, match="the build was cancelled on the daemon"):
            build.result()
    step.expect_gone()
    step.expect_drained()


def test_a_cancel_from_another_thread_ends_the_step(client: Client, step: Step) -> None:
    cancel = Event()
    canceller = threading.Thread(target=lambda: (step.is_running.wait(WAIT_S), cancel.set()))
    canceller.start()
    with pytest.raises(Cancelled) as caught:
        client.build(
            step.context, outputs=NOWHERE, network="none", on_update=step.hear, cancel=cancel
        )
    canceller.join()
    assert caught.value.exit_code == 130
    step.expect_gone()
    step.expect_drained()


def test_a_build_that_was_cancelled_before_it_began(client: Client, tmp_path: Path) -> None:
    cancel = Event()
    cancel.set()
    context = write(tmp_path / "c", "FROM scratch\n")
    with pytest.raises(Cancelled):
        client.build(context, outputs=NOWHERE, cancel=cancel)


class OwnError(Exception):
    """The caller's."""


def test_an_exception_of_the_callers_ends_the_build_and_is_raised(
    client: Client, step: Step, tmp_path: Path
) -> None:
    def hear(update: Update) -> None:
        step.hear(update)
        if step.is_running.is_set():
            raise OwnError

    with pytest.raises(OwnError):
        client.build(step.context, outputs=NOWHERE, network="none", on_update=hear)
    step.expect_gone()
    assert client.build(write(tmp_path / "c", "FROM scratch\n"), outputs=NOWHERE).ref


def test_closing_a_client_ends_its_builds(daemon: Daemon, step: Step) -> None:
    daemon.base_image()
    client = Client(f"unix://{daemon.socket}")
    with ThreadPoolExecutor(1) as pool:
        build = pool.submit(
            client.build, step.context, outputs=NOWHERE, network="none", on_update=step.hear
        )
        assert step.is_running.wait(WAIT_S)
        client.close()
        error = build.exception(WAIT_S)
    assert isinstance(error, Cancelled)
    assert "the client was closed while it built" in str(error)
    step.expect_gone()


def test_a_client_that_is_closed_says_so(daemon: Daemon, tmp_path: Path) -> None:
    with Client(f"unix://{daemon.socket}") as client:
        pass
    client.close()
    context = write(tmp_path / "c", "FROM scratch\n")
    calls: list[Callable[[], object]] = [
        client.info,
        client.workers,
        lambda: client.build(context),
        lambda: client.start(BuildRequest(context), Wishes()).result(),
    ]
    for call in calls:
        with pytest.raises(NoDaemon, match="this client is closed"):
            call()


def descriptors() -> set[str]:
    """What this process has open, but for what the interpreter itself does now and then."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return {one for one in found if "/proc/" not in one}


def settled(look: Callable[[], set[str]], before: set[str]) -> set[str]:
    """What there is more than before, once threads have had their time to end."""
    ends = time.monotonic() + WAIT_S
    while (more := look() - before) and time.monotonic() < ends:
        time.sleep(0.02)
    return more


def test_builds_leave_neither_threads_nor_open_files(daemon: Daemon, tmp_path: Path) -> None:
    def threads() -> set[str]:
        return {f"{thread.name} {thread.ident}" for thread in threading.enumerate()}

    context = write(tmp_path / "c", "FROM scratch\nCOPY a /\n", a="x")
    bad = write(tmp_path / "bad", "FROM scratch\nCOPY none /\n")
    cache = f"dest={tmp_path}/cache"
    before = threads(), descriptors()
    with Client(f"unix://{daemon.socket}") as client:
        client.info()
        kept = threads(), descriptors()
        for number in range(5):
            client.build(
                context,
                outputs=[f"type=local,dest={tmp_path}/out", f"type=tar,dest={tmp_path}/tar"],
                cache_to=[f"type=local,{cache},tag=t{number}"],
                cache_from=[f"type=local,src={tmp_path}/cache,tag=t{number - 1}"],
            )
            with pytest.raises(BuildFailed):
                client.build(bad, outputs=NOWHERE)
        assert settled(threads, kept[0]) == set()
        assert settled(descriptors, kept[1]) == set()
    assert settled(threads, before[0]) == set()
    assert settled(descriptors, before[1]) == set()


# What a directory's name and date do not tell.


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


# The command, and a daemon that goes.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_on_the_daemon(
    daemon: Daemon, step: Step, number: signal.Signals
) -> None:
    daemon.base_image()
    line = command("build", "--network=none", "-o", "type=cacheonly", step.context)
    with subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=daemon.env
    ) as child:
        assert child.stderr is not None
        said = ""
        while "ready\n" not in said:
            text = child.stderr.readline()
            assert text, said
            said += "" if "RUN" in text else text
        child.send_signal(number)
        said += child.communicate(timeout=WAIT_S)[1]
    assert child.returncode == 130, said
    assert "cancelling the build on the daemon" in said
    assert "CANCELED" in said
    step.expect_gone()


def test_a_daemon_that_stops_and_one_that_is_killed(step: Step, tmp_path: Path) -> None:
    """In mid-build, and with a cache that is exported to."""
    with Daemon() as own:
        own.base_image()
        cache = tmp_path / "cache"
        context = write(tmp_path / "c", "FROM scratch\nCOPY a /\n", a="x")
        pid = int((own.root / "dockerd.pid").read_text())
        with Client(f"unix://{own.socket}") as client, ThreadPoolExecutor(1) as pool:
            client.build(context, outputs=NOWHERE, cache_to=[f"type=local,dest={cache}"])
            index = (cache / "index.json").read_bytes()

            def begin(step: Step, cancel: Event) -> "Future[kitcache.BuildResult]":
                build = pool.submit(
                    client.build,
                    step.context,
                    outputs=NOWHERE,
                    network="none",
                    cache_to=[f"type=local,dest={cache},tag=new,reset=true"],
                    on_update=step.hear,
                    cancel=cancel,
                )
                assert step.is_running.wait(WAIT_S)
                return build

            cancel = Event()
            build = begin(step, cancel)
            os.kill(pid, signal.SIGSTOP)
            cancel.set()
            stopped = build.exception(WAIT_S)
            os.kill(pid, signal.SIGCONT)
            step.expect_gone()
            other = Step(tmp_path / "other")
            build = begin(other, Event())
            os.kill(pid, signal.SIGKILL)
            killed = build.exception(WAIT_S)
        for orphan in other.processes():
            os.kill(orphan, signal.SIGKILL)
    assert isinstance(stopped, Cancelled)
    assert isinstance(killed, NoDaemon)
    assert killed.exit_code == 20
    assert "the daemon was lost while it built" in str(killed)
    assert (cache / "index.json").read_bytes() == index
    assert witness.look(cache).missing == frozenset()
    assert not list((cache / "ingest").iterdir())
