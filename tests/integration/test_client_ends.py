"""kitcache.Client on a real BuildKit: cancelled, closed, signalled, or left by its daemon."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

import kitcache
from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.client import Client
from kitcache.buildkit.status import BuildUpdate
from kitcache.errors import BuildFailed, Cancelled, NoDaemon
from kitcache.options.build import BuildRequest
from kitcache.options.outputs import Output
from tests.integration import witness
from tests.integration.clientkit import NOWHERE, WAIT_S, Step, write
from tests.integration.daemon import Daemon
from tests.integration.kit import command


def test_waiting_for_news_has_an_end(client: Client, step: Step) -> None:
    request = BuildRequest(step.context, network="none", outputs=(Output("cacheonly"),))
    build = client.start(request, BuildOptions())
    while not step.is_running.is_set():
        update = build.next_update(WAIT_S)
        assert update is not None
        step.hear(update)
    while build.next_update(0.5) is not None:
        pass
    assert not build.is_over
    build.cancel()
    while not build.is_over:
        step.hear(build.next_update(WAIT_S) or BuildUpdate())
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
    def hear(update: BuildUpdate) -> None:
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
        lambda: client.start(BuildRequest(context), BuildOptions()).result(),
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
