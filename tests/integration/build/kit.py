"""Runs `kitcache build` and `docker buildx build` on one daemon, and reads what came out."""

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.integration import kit
from tests.integration.daemon import BASE, BUILD_TIMEOUT_S, Daemon

SCRATCH = "FROM scratch\nCOPY . /\n"
BUILDX = ("--provenance=false",)


class Built(NamedTuple):
    """What one run said and how it ended."""

    command: tuple[str, ...]
    code: int
    stdout: bytes
    err: str

    @property
    def out(self) -> str:
        return self.stdout.decode()

    def __str__(self) -> str:
        return f"{' '.join(self.command)}: exit {self.code}\n{self.stdout[:2000]!r}\n{self.err}"


class Entry(NamedTuple):
    """A file in a tar: kind as tar has it, all that a COPY brings along, and a hash of the data."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    link: str
    mtime: float
    data: str


class Kit:
    """Both clients, with a home and a configuration of their own."""

    def __init__(self, daemon: Daemon, home: Path) -> None:
        self.daemon = daemon
        self.config = home / ".docker"
        self.config.mkdir(parents=True)
        self.env = {**daemon.env, "HOME": str(home), "DOCKER_CONFIG": str(self.config)}

    def run(
        self,
        *args: str | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Built:
        """`kitcache build`, whatever comes of it; a traceback or a bug fails the test at once."""
        whole = {**self.env, **(env or {})}
        built = run_command(kit.command("build", *args), stdin, env=whole, cwd=cwd)
        assert "Traceback" not in built.err, built
        assert "this is a bug" not in built.err, built
        return built

    def must(
        self,
        *args: str | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Built:
        """Like `run`, and exit code 0 is expected."""
        built = self.run(*args, stdin=stdin, env=env, cwd=cwd)
        assert built.code == 0, built
        return built

    def files(
        self, *args: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> dict[str, bytes]:
        """The files of a build's result, by path; RUN steps have no network."""
        built = self.must("-o", "-", "--network=none", *args, stdin=stdin, env=env)
        return read_files(built.stdout)

    def buildx(self, *args: str | Path) -> Built:
        """`docker buildx build`, without attestations."""
        command = ["docker", "buildx", "build", *BUILDX, *map(str, args)]
        return run_command(command, env=self.env)


def run_command(
    command: list[str],
    stdin: bytes = b"",
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> Built:
    """Any command, whatever comes of it."""
    done = subprocess.run(
        command,
        check=False,
        input=stdin,
        capture_output=True,
        env=env,
        cwd=cwd,
        timeout=BUILD_TIMEOUT_S,
    )
    err = done.stderr.decode(errors="backslashreplace")
    return Built(tuple(command), done.returncode, done.stdout, err)


def context(directory: Path, dockerfile: str | None = SCRATCH, **files: str) -> Path:
    """A directory with a Dockerfile and files; `__` in a name stands for a slash, `_` for a dot."""
    directory.mkdir(parents=True, exist_ok=True)
    if dockerfile is not None:
        (directory / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def running(*steps: str, before: str = "") -> str:
    """A Dockerfile that runs steps in a busybox, and keeps what they left in /out."""
    lines = [f"FROM {BASE} AS work", before, "RUN busybox mkdir /out"]
    lines += [f"RUN {step}" for step in steps]
    return "\n".join([*lines, "FROM scratch", "COPY --from=work /out /", ""])


def read_files(tar: bytes) -> dict[str, bytes]:
    """The regular files of a tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        opened = ((entry.name, archive.extractfile(entry)) for entry in archive)
        return {name: file.read() for name, file in opened if file is not None}


def read_entries(tar: bytes) -> dict[str, Entry]:
    """Every entry of a tar."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isreg() else None
            found[entry.name] = Entry(
                entry.type,
                entry.mode,
                (entry.uid, entry.gid),
                entry.linkname,
                entry.mtime,
                hashlib.sha256(file.read() if file else b"").hexdigest(),
            )
    return found


def tar_of(**files: str) -> bytes:
    """A tar with these files, for stdin."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def tree_bytes(root: Path) -> bytes:
    """All bytes of all files below a directory, and their names: to search for what must not be."""
    found = []
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            found += [os.fsencode(path), b"" if path.is_symlink() else path.read_bytes()]
    return b"\0".join(found)
