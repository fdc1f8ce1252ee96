"""`docker-kitcache`: the launcher that makes `docker kitcache` work, and where docker looks for it.

Source: docker/cli, cli-plugins/manager/manager.go and manager_unix.go (where, and in which order).
"""

import os
import shlex
import stat
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, KitcacheError, Unsafe

LAUNCHER = "docker-kitcache"
SYSTEM_DIRECTORIES = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
METADATA_CALL = "docker-cli-plugin-metadata"

_HEAD = b"""#!/bin/sh
# kitcache-docker-plugin: made by `kitcache plugin install`, `kitcache plugin remove` takes it away.
"""
_READ_BYTES = 64 * 1024
_ANSWER_TIMEOUT_S = 20.0
_DIRECTORY_MODE = 0o755
_LAUNCHER_MODE = 0o755


class Plugin(NamedTuple):
    """A `docker-kitcache` that is there. command: what ours runs; () where it is not ours.

    problem: why ours does not work, "" where it does, or where it is not ours.
    """

    path: str
    is_ours: bool
    command: tuple[str, ...] = ()
    problem: str = ""


class Installed(NamedTuple):
    """The launcher's path, and what became of it."""

    path: str
    outcome: Literal["installed", "replaced", "unchanged"]


def user_directory(config_directory: str) -> str:
    """Where a user's docker looks, below its configuration directory."""
    return os.path.join(config_directory, "cli-plugins")


def search_path(config_directory: str, extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Where docker looks, in its order. extra: config.json's cliPluginsExtraDirs."""
    return (*extra, user_directory(config_directory), *SYSTEM_DIRECTORIES)


def find_plugins(directories: Iterable[str]) -> tuple[Plugin, ...]:
    """Every `docker-kitcache` there; docker takes the first. Ours are run, to see them answer."""
    paths = [os.path.join(directory, LAUNCHER) for directory in directories]
    return tuple(_examine(path) for path in paths if os.path.exists(path))


def install_plugin(directory: str, command: tuple[str, ...]) -> Installed:
    """Put a launcher there that runs `command`; the directory is made if it is not there.

    Raises Unsafe where a file of that name is not ours, KitcacheError where nothing can be written.
    """
    path = os.path.join(directory, LAUNCHER)
    wanted = _HEAD + os.fsencode(f'exec {shlex.join(command)} "$@"\n')
    found = _content(path)
    if found == wanted and stat.S_IMODE(os.lstat(path).st_mode) == _LAUNCHER_MODE:
        return Installed(path, "unchanged")
    if found is None and os.path.lexists(path):
        raise _foreign(path, "name another DOCKER_CONFIG, or move that file away")
    try:
        os.makedirs(directory, _DIRECTORY_MODE, exist_ok=True)
        _replace(directory, path, wanted)
    except OSError as error:
        raise _failed(directory, "cannot be written to", error) from None
    return Installed(path, "replaced" if found else "installed")


def remove_plugin(directory: str) -> str | None:
    """Take our launcher away; its path, or None where there was none.

    Raises Unsafe where a file of that name is not ours, KitcacheError where it cannot be removed.
    """
    path = os.path.join(directory, LAUNCHER)
    if not os.path.lexists(path):
        return None
    if _content(path) is None:
        raise _foreign(path, "remove it by the means that put it there")
    try:
        os.unlink(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(path, "cannot be removed", error) from None
    return path


def _examine(path: str) -> Plugin:
    content = _content(path)
    if content is None:
        return Plugin(path, is_ours=False)
    command = _command_of(content)
    return Plugin(path, is_ours=True, command=command, problem=_problem_of(path, command))


def _content(path: str) -> bytes | None:
    """What our launcher says; None where there is none, or something else of that name."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as file:
            content = file.read(_READ_BYTES)
    except OSError:
        return None
    return content if content.startswith(_HEAD) else None


def _command_of(content: bytes) -> tuple[str, ...]:
    """The command on the launcher's `exec` line, () where somebody has edited it away."""
    with suppress(ValueError):
        words = shlex.split(os.fsdecode(content[len(_HEAD) :]))
        if words[:1] == ["exec"] and words[-1:] == ["$@"]:
            return tuple(words[1:-1])
    return ()


def _problem_of(path: str, command: tuple[str, ...]) -> str:
    if not command:
        return "it was edited, and what it runs is not known"
    if not os.path.exists(command[0]):
        return f"{command[0]}, which it runs, is gone"
    try:
        done = subprocess.run(  # noqa: S603 - docker itself runs it at every `docker --help`
            [path, METADATA_CALL],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_TIMEOUT_S,
            check=False,
        )
        answers = b'"Vendor": "kitcache"' in done.stdout
    except OSError as error:
        return f"it cannot be run: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "it does not answer"
    return "" if answers else f"{command[0]}, which it runs, is no kitcache that answers docker"


def _replace(directory: str, path: str, content: bytes) -> None:
    """Write beside and rename: docker runs a whole launcher or none."""
    # docker lists names that begin with docker-, and so does not see this one.
    beside = os.path.join(directory, f".{LAUNCHER}.{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(beside, flags, _LAUNCHER_MODE)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, _LAUNCHER_MODE)
        os.rename(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def _foreign(path: str, step: str) -> Unsafe:
    return Unsafe(path, "it is not kitcache's own launcher", effect=NOTHING_CHANGED, hints=(step,))


def _failed(path: str, doing: str, error: OSError) -> KitcacheError:
    is_system = os.path.dirname(path) in SYSTEM_DIRECTORIES or path in SYSTEM_DIRECTORIES
    step = (
        "run it as root, or leave --system out: then it is for you alone"
        if is_system
        else "mend the directory's owner or mode, or set DOCKER_CONFIG to one that is yours"
    )
    return KitcacheError(
        path,
        f"{doing}: {error.strerror or error}",
        effect=NOTHING_CHANGED,
        hints=(step,),
    )
