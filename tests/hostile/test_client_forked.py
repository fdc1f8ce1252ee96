"""A client in a child after fork: unusable there, and the parent's build does not notice it."""

import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from tests.hostile.fake_daemon import Answer, FakeDaemon, Solve
from tests.hostile.fake_messages import vertex
from tests.hostile.fake_session import WAIT_S

HEALTH = "/grpc.health.v1.Health/Check"
# One build, and a child in the middle of it. argv: the context, the daemon's socket, then the
# program between, if there is one. What the child does is appended to `child`.
PARENT = """
import gc, multiprocessing, os, sys
from kitcache import Address, BuildRequest, Client, NoDaemon, BuildOptions

context, path, *program = sys.argv[1:]
client = Client(Address(f"unix://{path}", "the test", None, False, tuple(program)))
build = client.start(BuildRequest(context), BuildOptions())
while not (update := build.next_update()) or not update.vertexes:
    pass

def child():
    global client, build
    CHILD

if "multiprocessing" in WAY:
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    code = process.exitcode
else:
    pid = os.fork()
    if not pid:
        child()
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print("child", code, flush=True)
print("built", len(build.result().ref), client.info().version)
"""
REFUSALS = """
    for use in (client.info, client.workers, client.build, build.next_update, build.result,
                build.cancel, lambda: client.start(BuildRequest(context), BuildOptions()).result()):
        try:
            use()
        except NoDaemon as error:
            assert error.kind == "forked" and str(os.getppid()) in error.problem, error
        else:
            os._exit(9)
"""
WAYS = {
    "using it": REFUSALS,
    "closing it": "client.close()",
    "a with block": "client.__exit__(None, None, None)",
    "sys.exit": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "garbage collection": "del client, build; gc.collect()",
    "multiprocessing": REFUSALS,
    "multiprocessing, closing": "client.close()",
}
RELAY = """
import socket, sys, threading
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
def copy(receive, send, done):
    while data := receive(65536):
        send(data)
    done()
def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
threading.Thread(target=copy, args=(sys.stdin.buffer.raw.read, line.sendall,
    lambda: line.shutdown(socket.SHUT_WR)), daemon=True).start()
copy(line.recv, write, lambda: None)
"""


@pytest.mark.parametrize(
    ("way", "is_program"),
    [*((way, False) for way in WAYS), ("closing it", True), ("sys.exit", True)],
)
def test_a_child_does_not_touch_the_parents_build(
    context: Path, way: str, is_program: bool
) -> None:
    go_on = Event()

    def script(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "a step"))
        assert go_on.wait(WAIT_S)
        solve.session.unary(HEALTH)
        return {}

    text = PARENT.replace("CHILD", WAYS[way].strip()).replace("WAY", repr(way))
    with FakeDaemon(script) as daemon:
        relay = (sys.executable, "-c", RELAY, daemon.path) if is_program else ()
        command = [sys.executable, "-c", text, str(context), daemon.path, *relay]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as parent:
            assert parent.stdout is not None
            first = parent.stdout.readline()
            go_on.set()
            rest = parent.communicate(timeout=WAIT_S)[0]
    assert (first + rest, parent.returncode) == ("child 0\nbuilt 25 v0.99.0\n", 0)


def test_a_child_that_goes_on_does_not_keep_the_connection_open(context: Path) -> None:
    """The parent is killed: its build ends on the daemon, whatever children it has left."""
    text = PARENT.replace("CHILD", "print('child', flush=True); sys.stdin.read()")
    has_ended = Event()

    def script(solve: Solve) -> Answer:
        solve.tell(vertex("sha256:1", "a step"))
        try:
            solve.wait()
        finally:
            if solve.is_over.is_set():
                has_ended.set()

    with FakeDaemon(script) as daemon:
        command = [sys.executable, "-c", text.replace("WAY", "''"), str(context), daemon.path]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "child\n"
            parent.kill()
            assert has_ended.wait(WAIT_S)
