"""Servers that a daemon fetches from: files over HTTP, and a git repository."""

import functools
import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 30.0
_IDENTITY = ("-c", "user.name=kit", "-c", "user.email=kit@localhost", "-c", "commit.gpgsign=false")


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_server(directory: Path) -> Iterator[str]:
    """The files of a directory; yields the URL without a slash at its end."""
    handler = functools.partial(_Silent, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def git(directory: Path, *args: str) -> str:
    command = ["git", "-C", str(directory), *_IDENTITY, *args]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_repository(directory: Path) -> None:
    """What is in the directory, as the one commit of the branch main."""
    git(directory, "init", "--quiet", "--initial-branch=main")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "-m", "all")


@contextmanager
def git_server(directory: Path) -> Iterator[str]:
    """The repositories below a directory; yields the URL without a slash at its end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}"]
    command = ["git", "daemon", *words, f"--base-path={directory}", str(directory)]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _accepts(port):
            assert child.poll() is None, command
            assert time.monotonic() < deadline, command
            time.sleep(0.02)
        yield f"git://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
