"""A program as a connection: its stdin and stdout are the bytes, its stderr the reason."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from kitcache.buildkit.daemon.child import ChildTransport

ECHO = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
STUBBORN = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "time.sleep(600)"
)


def child(code: str) -> ChildTransport:
    return ChildTransport((sys.executable, "-c", code))


def read_line(transport: ChildTransport) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += transport.read()
    return line


def test_what_is_written_is_its_stdin_and_what_is_read_its_stdout() -> None:
    data = bytes(range(256)) * 4000
    with ThreadPoolExecutor() as pool:
        transport = child(
            f"import sys; sys.stdout.buffer.write(sys.stdin.buffer.read({len(data)}))"
        )
        sent = pool.submit(transport.write, data)
        received = b""
        while part := transport.read():
            received += part
        sent.result()
    assert received == data
    transport.close()


def test_its_last_words_are_its_last_line_of_stderr() -> None:
    transport = child("import sys; print('one\\n', file=sys.stderr); sys.exit('two\\n\\n')")
    assert transport.read() == b""
    assert transport.last_stderr_line() == "two"
    transport.close()
    assert transport.last_stderr_line() == "two"


def test_a_talkative_program_is_not_read_into_memory_whole() -> None:
    transport = child("import sys; sys.stderr.write('x' * 10**6)")
    assert transport.read() == b""
    assert len(transport.last_stderr_line()) == 4096
    transport.close()


def test_closing_ends_a_program_that_waits_for_more() -> None:
    transport = child(ECHO)
    transport.close()
    assert transport._child.returncode is not None


def test_closing_ends_a_program_that_does_not_want_to() -> None:
    transport = child(STUBBORN)
    assert read_line(transport) == b"up\n"
    transport.close()
    transport.close()
    assert transport._child.returncode == -9


def test_ctrl_c_on_the_terminal_does_not_reach_it() -> None:
    transport = child("import os; print(os.getsid(0) == os.getpid(), flush=True)")
    assert read_line(transport) == b"True\n"
    transport.close()


def test_a_program_that_is_not_there_leaks_nothing() -> None:
    with pytest.raises(FileNotFoundError):
        ChildTransport(("/nonexistent/docker", "exec"))
