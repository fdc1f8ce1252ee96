"""A private dockerd with BuildKit and the containerd image store, for tests and scripts.

Everything it has lives in one temporary directory: its own containerd, data, sockets and client
configuration. Nothing of a docker that the machine may already run is used or changed. There is no
network: RUN steps need `--network=none`, and base images come from `base_image()`.
"""

import http.client
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

PROGRAMS = ("dockerd", "containerd", "runc", "docker", "busybox", "setpriv")
PACKAGES = "docker.io docker-cli docker-buildx containerd runc busybox-static util-linux"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
BUILD_TIMEOUT_S = 120.0
PRUNE_TIMEOUT_S = 20.0
ROOM_BYTES = 2 * 10**9
BASE = "kitcache-base:1"


class NoDaemonError(Exception):
    """No dockerd can run here; the text says why and what to install."""


class DaemonError(Exception):
    """A daemon or a client of it failed; the text ends with what it printed."""


class Finished(NamedTuple):
    """What a client command left behind: exit code, and all that it printed."""

    code: int
    text: str


def why_unavailable() -> str | None:
    """The reason why no private dockerd can run here, or None when one can be tried."""
    if os.geteuid() != 0:
        return "dockerd needs root, and this is uid " + str(os.geteuid())
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: apt-get install {PACKAGES})"
    try:
        buildx = subprocess.run(
            ["docker", "buildx", "version"], check=False, capture_output=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"docker buildx does not run: {error}"
    if buildx.returncode:
        return "docker has no buildx plugin (Debian: apt-get install docker-buildx)"
    return None


class Daemon:
    """A running dockerd; a context manager that leaves no process, mount or file.

    With containerd_store=False it has docker's older image store, which can export no local cache.
    Raises NoDaemonError where none can run, DaemonError where one should have run.
    """

    def __init__(self, *, containerd_store: bool = True) -> None:
        reason = why_unavailable()
        if reason:
            raise NoDaemonError(reason)
        # Not pytest's tmp_path: a socket path has room for 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="kitcache-dockerd-", dir=_fast_directory()))
        self.socket = self.root / "docker.sock"
        self.containerd_store = containerd_store
        self.storage_driver = _storage_driver(self.root, containerd_store)
        self._children: list[subprocess.Popen[bytes]] = []
        (self.root / "config").mkdir()
        self.env = _client_environment(self.socket, self.root / "config")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns once the daemon answers a ping."""
        containerd = self.root / "containerd.sock"
        self._write_config(containerd)
        self._spawn("containerd", "--config", str(self.root / "containerd.toml"))
        self._wait_for("containerd", lambda: _accepts(containerd))
        self._spawn("dockerd", "--config-file", str(self.root / "daemon.json"))
        self._wait_for("dockerd", lambda: _answers_ping(self.socket))

    def stop(self) -> None:
        """Ends both daemons, dockerd first, and takes away what they had."""
        while self._children:
            child = self._children.pop()
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for mount in mounts_below(self.root):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.root, ignore_errors=True)

    def docker(self, *args: str, timeout_s: float = BUILD_TIMEOUT_S) -> Finished:
        """Runs the docker client against this daemon, whatever comes of it."""
        done = subprocess.run(
            ["docker", *args],
            check=False,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
        return Finished(done.returncode, done.stdout)

    def must(self, *args: str) -> str:
        """Like `docker`, and raises DaemonError unless the client succeeded."""
        done = self.docker(*args)
        if done.code:
            raise DaemonError(f"docker {' '.join(args)}: exit {done.code}\n{done.text}")
        return done.text

    def build_command(self, context: Path, *options: str) -> list[str]:
        """The arguments after `docker` that build a context, with plain progress."""
        fixed = ["--progress=plain", "--provenance=false", "--network=none"]
        return ["buildx", "build", *fixed, *options, str(context)]

    def build(self, context: Path, *options: str) -> str:
        """Builds a context; the plain progress."""
        return self.must(*self.build_command(context, *options))

    def export(self, context: Path, dest: Path, *, tag: str = "latest", **attrs: str) -> str:
        """Builds a context and exports the cache to a local directory; the plain progress.

        The result is not stored as an image, so that no image keeps the layers alive.
        """
        cache = cache_to(dest, tag=tag, **attrs)
        return self.build(context, "--output=type=cacheonly", "--cache-to", cache)

    def prune(self) -> None:
        """Drops the daemon's own build cache, all of it."""
        deadline = time.monotonic() + PRUNE_TIMEOUT_S
        self.must("buildx", "prune", "--all", "--force")
        # The daemon lets go of a build's records a moment after the client has ended.
        while self.cache_size() != "0B":
            if time.monotonic() > deadline:
                raise DaemonError(f"a prune left records:\n{self.must('buildx', 'du')}")
            self.must("buildx", "prune", "--all", "--force")

    def cache_size(self) -> str:
        """Size of the daemon's own build cache, as `docker buildx du` prints it."""
        return self.must("buildx", "du").split()[-1]

    def base_image(self) -> str:
        """The name of an image that holds a static busybox and nothing else."""
        if self.docker("image", "inspect", BASE).code:
            archive = self.root / "base.tar"
            _write_busybox_tree(archive)
            self.must("import", str(archive), BASE)
        return BASE

    def try_step(self) -> None:
        """Runs one step. Raises DaemonError where mounts or containers are forbidden to us."""
        context = self.root / "try"
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {self.base_image()}\nRUN true\n")
        self.build(context, "--output=type=cacheonly")
        self.prune()

    def version(self) -> str:
        """Engine and client versions in one line."""
        engine = self.must("version", "--format", "{{.Server.Version}}").strip()
        return f"dockerd {engine}, {self.must('buildx', 'version').strip()}"

    def _write_config(self, containerd: Path) -> None:
        root = self.root
        # A dockerd without --containerd would use the machine's own, if one runs.
        (root / "containerd.toml").write_text(
            f'version = 2\nroot = "{root}/containerd"\nstate = "{root}/containerd-state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{containerd}"\n'
        )
        # Written by hand, one key a line: it is what a person would read here.
        (root / "daemon.json").write_text(
            "{\n"
            f'  "features": {{"containerd-snapshotter": {str(self.containerd_store).lower()}}},\n'
            f'  "storage-driver": "{self.storage_driver}",\n'
            '  "bridge": "none",\n'
            '  "iptables": false,\n'
            '  "ip6tables": false,\n'
            '  "ip-forward": false,\n'
            f'  "data-root": "{root}/data",\n'
            f'  "exec-root": "{root}/exec",\n'
            f'  "pidfile": "{root}/dockerd.pid",\n'
            f'  "containerd": "{containerd}",\n'
            f'  "hosts": ["unix://{self.socket}"]\n'
            "}\n"
        )

    def _spawn(self, *command: str) -> None:
        # pdeathsig: a killed test run must not leave daemons behind. A session of its own: Ctrl-C
        # reaches pytest alone, which then stops dockerd before containerd.
        with open(self.root / f"{command[0]}.log", "wb") as log:
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(child)

    def _wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        child = self._children[-1]
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            ended = child.poll() is not None
            if ended or time.monotonic() > deadline:
                what = f"ended with {child.returncode}" if ended else "does not answer"
                log = (self.root / f"{name}.log").read_text(errors="replace")
                raise DaemonError(f"{name} {what}:\n{log[-3000:]}")
            time.sleep(0.02)


def cache_to(dest: Path, **attrs: str) -> str:
    """The value of `--cache-to` for a local directory; `_` in a name stands for `-`."""
    pairs = [f"{name.replace('_', '-')}={value}" for name, value in attrs.items()]
    return ",".join(["type=local", f"dest={dest}", *pairs])


def mounts_below(root: Path) -> list[str]:
    """Mount points at or below a directory, the deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        if point == str(root) or point.startswith(f"{root}/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def _client_environment(sock: Path, config: Path) -> dict[str, str]:
    """The caller's environment without what would lead a docker client elsewhere."""
    foreign = ("DOCKER_", "BUILDX_", "BUILDKIT_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env.update(DOCKER_HOST=f"unix://{sock}", DOCKER_CONFIG=str(config), NO_COLOR="1")
    return env


def _fast_directory() -> str | None:
    """Shared memory where it has room: the daemon syncs each blob to disk, thousands in a run."""
    shared = "/dev/shm"
    try:
        found = os.statvfs(shared)
    except OSError:
        return None
    has_room = found.f_bavail * found.f_frsize >= ROOM_BYTES
    return shared if has_room and not found.f_flag & os.ST_NOEXEC else None


def _storage_driver(root: Path, containerd_store: bool) -> str:
    if _overlay_works(root):
        return "overlayfs" if containerd_store else "overlay2"
    return "native" if containerd_store else "vfs"


def _overlay_works(root: Path) -> bool:
    """Whether an overlay can be mounted in a directory (not where / is an overlay itself)."""
    for name in ("lower", "upper", "work", "merged"):
        (root / "probe" / name).mkdir(parents=True)
    probe = root / "probe"
    options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(probe / "merged")]
    works = subprocess.run(command, check=False, capture_output=True).returncode == 0
    if works:
        subprocess.run(["umount", str(probe / "merged")], check=True)
    shutil.rmtree(probe)
    return works


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _answers_ping(path: Path) -> bool:
    connection = http.client.HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _write_busybox_tree(archive: Path) -> None:
    program = shutil.which("busybox")
    assert program is not None
    with tarfile.open(archive, "w") as tar:
        entry = tar.gettarinfo(os.path.realpath(program), "bin/busybox")
        entry.mtime = 0
        with open(program, "rb") as file:
            tar.addfile(entry, file)
        for name in ("sh", "cat", "true"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
