"""One client for longer: every call has an end, and a daemon that is restarted is found again."""

import fcntl
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.client import Client
from kitcache.errors import BuildFailed, Cancelled, NoDaemon
from kitcache.options.build import BuildRequest
from tests.hostile.failing import FLAVOURS, failure
from tests.hostile.fake_daemon import CONTROL, Answer, FakeDaemon, Solve, build_nothing
from tests.hostile.fake_messages import vertex
from tests.hostile.privilege import needs_root
from tests.hostile.sound_cache import Cache

NOWHERE = ("type=cacheonly",)


class MuteDaemon(FakeDaemon):
    """Never answers the calls of some names, once it is told to."""

    mute: frozenset[str] = frozenset()

    def serve(self, method: str) -> Any:
        if method.removeprefix(CONTROL) not in self.mute:
            return super().serve(method)
        self.asked.append(method)

        def hang(_requests: object, context: Any) -> Any:
            over = threading.Event()
            context.add_callback(over.set)
            over.wait()
            return iter(())

        return grpc.stream_stream_rpc_method_handler(hang)


@FLAVOURS
def test_every_question_has_an_end(is_engine: bool) -> None:
    with MuteDaemon(is_engine=is_engine) as daemon, Client(daemon.address) as client:
        channel = client._daemon.last.channel
        assert channel.timeout_s == 10
        channel.timeout_s = 0.1  # connecting may take longer on a machine that is busy
        daemon.mute = frozenset({"Info", "ListWorkers"})
        for ask in (client.info, client.workers):
            with pytest.raises(NoDaemon, match=r"no answer in time|Deadline") as caught:
                ask()
            assert caught.value.kind == "unreachable"
            assert caught.value.facts == {"kind": "unreachable"}
        daemon.mute = frozenset()
        channel.timeout_s = 10
        assert client.info().version


@FLAVOURS
def test_the_limit_of_a_build_bounds_the_questions_before_it(
    is_engine: bool, context: Path
) -> None:
    with MuteDaemon(is_engine=is_engine) as daemon, Client(daemon.address) as client:
        client._daemon.last.channel.timeout_s = 5
        daemon.mute = frozenset({"Info", "ListWorkers"})
        output = f"type=local,dest={context}/out,mode=delete"
        with pytest.raises(Cancelled) as caught:
            client.build(context, outputs=output, allow="buildx.local.delete", timeout_s=0.5)
        assert caught.value.timeout_s == 0.5
        assert "the build took longer than 0.5 s: the daemon does not answer" in str(caught.value)


def test_a_provenance_that_never_comes_ends_with_the_timeout(context: Path) -> None:
    with MuteDaemon() as daemon, Client(daemon.address, timeout_s=2) as client:
        daemon.mute = frozenset({"ListenBuildHistory"})
        result = client.build(str(context), outputs=NOWHERE, attests={"provenance": "mode=max"})
        assert result.provenance == {}
        assert f"{CONTROL}ListenBuildHistory" in daemon.asked


@FLAVOURS
def test_a_build_that_takes_longer_is_cancelled_on_the_daemon(
    context: Path, cache: Cache, is_engine: bool
) -> None:
    was_cancelled = threading.Event()

    def script(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "a step"))
        try:
            solve.wait()
        finally:
            was_cancelled.set()

    error = failure(script, context, cache, is_engine=is_engine, timeout_s=1.5)
    assert isinstance(error, Cancelled)
    assert error.timeout_s == error.facts["timeout_s"] == 1.5
    assert "the build took longer than 1.5 s: " in str(error)
    assert "no tag was changed" in str(error)
    assert was_cancelled.is_set()


def test_a_cancel_by_the_caller_is_none_by_the_time(context: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with FakeDaemon(lambda solve: solve.wait()) as daemon, Client(daemon.address) as client:
        with pytest.raises(Cancelled) as caught:
            client.build(str(context), outputs=NOWHERE, cancel=cancel, timeout_s=0)
        assert caught.value.timeout_s is None
        wishes = BuildOptions(timeout_s=0)
        with pytest.raises(Cancelled) as caught:
            client.start(BuildRequest(str(context)), wishes).result()
        assert caught.value.timeout_s == 0


def test_waiting_for_a_lock_counts(context: Path, cache: Cache) -> None:
    to = f"type=local,dest={cache.root}"
    with (
        (cache.root / "kitcache.lock").open("w") as lock,
        FakeDaemon() as daemon,
        Client(daemon.address) as client,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Cancelled, match=r"took longer than 0\.3 s"):
            client.build(str(context), cache_to=to, timeout_s=0.3)


@FLAVOURS
def test_after_a_restart_the_next_call_connects_anew(context: Path, is_engine: bool) -> None:
    def script(solve: Solve) -> Answer:
        if len(solve.daemon.solves) == 1:
            solve.daemon.cut()
            solve.wait()
        return {}

    with FakeDaemon(script, is_engine=is_engine) as daemon, Client(daemon.address) as client:
        with pytest.raises(NoDaemon) as caught:
            client.build(str(context), outputs=NOWHERE)
        assert caught.value.kind == "lost"
        assert client.build(str(context), outputs=NOWHERE).ref
        for _ in range(3):
            daemon.cut()
            assert client.info().version == "v0.99.0"
            assert client.workers()


def test_a_daemon_that_is_gone_is_unreachable_and_may_come_back() -> None:
    with FakeDaemon() as daemon:
        client = Client(daemon.address)
        assert client.info()
    with client:
        for _ in range(2):
            with pytest.raises(NoDaemon, match="there is no such socket") as caught:
                client.info()
            assert caught.value.kind == "unreachable"


def test_builds_under_way_end_on_a_daemon_that_goes_away(context: Path) -> None:
    """New calls are for the next daemon; here there is none."""
    is_going = threading.Event()
    go_on = threading.Event()

    def script(solve: Solve) -> Answer:
        solve.session.unary("/grpc.health.v1.Health/Check")
        solve.daemon.go_away()
        is_going.set()
        assert go_on.wait(20)
        return {}

    with FakeDaemon(script) as daemon, Client(daemon.address) as client:
        build = client.start(BuildRequest(str(context)), BuildOptions())
        assert is_going.wait(20)
        with pytest.raises(NoDaemon):
            client.info()
        go_on.set()
        assert build.result().ref


def test_closing_ends_a_build_on_an_older_connection(context: Path) -> None:
    is_running = threading.Event()

    def script(solve: Solve) -> Answer:
        solve.daemon.spoil(bytes.fromhex("00000807000000000000000fff00000000"))
        is_running.set()
        solve.wait()

    with FakeDaemon(script, is_engine=True) as daemon:
        client = Client(daemon.address)
        build = client.start(BuildRequest(str(context)), BuildOptions())
        assert is_running.wait(20)
        while client.info() and len(daemon.asked) < 5:
            pass
        client.close()
        with pytest.raises(Cancelled, match="the client was closed while it built"):
            build.result()
        with pytest.raises(NoDaemon) as caught:
            client.info()
        assert caught.value.kind == "closed"


def test_a_failed_build_is_no_lost_daemon(context: Path) -> None:
    def script(solve: Solve) -> Answer:
        solve.fail(grpc.StatusCode.UNAVAILABLE, "a registry is down")

    assert isinstance(failure(script, context), BuildFailed)
    with FakeDaemon(build_nothing, missing=["ListWorkers"]) as daemon:
        with Client(daemon.address) as client, pytest.raises(NoDaemon) as caught:
            client.workers()
        assert caught.value.kind == "unsupported"


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(("rpc-", "kitcache-"))]


FIFTY = """
import os, sys, threading, time
from kitcache import Address, Client, NoDaemon

address = Address(f"unix://{sys.argv[2]}", "the test", None, True)
Client(address).close()

def held():
    return sorted(os.listdir("/proc/self/fd")), threading.active_count()

before = held()
for number in range(50):
    client = Client(address)
    if number % 4 == 0:
        try:
            client.build(sys.argv[1], outputs=("type=cacheonly",))
        except NoDaemon:
            print("lost")
    client.close()
ends = time.monotonic() + 10
while held() != before and time.monotonic() < ends:
    time.sleep(0.01)
assert held() == before, (held(), before)
"""


def test_fifty_clients_leave_no_thread_and_no_open_file(context: Path) -> None:
    """In a process of their own: the daemon's sockets are not theirs."""

    def script(solve: Solve) -> Answer:
        if len(solve.daemon.solves) % 2 == 0:
            solve.daemon.cut()
            solve.wait()
        return {}

    with FakeDaemon(script, is_engine=True) as daemon:
        command = [sys.executable, "-c", FIFTY, str(context), daemon.path]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=60)
    assert done.stdout == 6 * "lost\n"


def test_a_daemon_that_always_goes_away_costs_one_connection(context: Path) -> None:
    with FakeDaemon() as daemon, Client(daemon.address) as client:
        for number in range(20):
            asked = len(daemon.asked)
            daemon.spoil(bytes.fromhex("00000807000000000000000fff00000000"))
            while len(daemon.asked) < asked + 2:  # the greeting of a new connection, and ours
                client.info()
            assert len(threads()) <= 4, number
        assert client.build(str(context), outputs=NOWHERE).ref


NAMES = """
import sys, time
from kitcache import Client, NoDaemon
try:
    Client("tcp://no-such-builder.example:1234", timeout_s=0.3)
except NoDaemon as error:
    print(error.kind, error.problem)
"""


def test_a_name_server_that_never_answers_does_not_hold_up_a_client(tmp_path: Path) -> None:
    """It would for 5 seconds, four times, and longer with more servers."""
    needs_root()
    server = f"127.{os.getpid() % 250}.53.53"
    (tmp_path / "resolv.conf").write_text(f"nameserver {server}\noptions timeout:30 attempts:1\n")
    line = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", line, "sh", str(tmp_path / "resolv.conf")]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((server, 53))
        done = subprocess.run(
            [*command, sys.executable, "-c", NAMES],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    assert done.stdout == "unreachable it does not answer\n"
