"""The launcher `docker-kitcache` for `docker kitcache`: finds, installs and removes it.

Source: docker/cli, cli-plugins/manager/manager.go and manager_unix.go (directories, in order).
"""

import os
import shlex
import stat
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, KitcacheError, Unsafe
from kitcache.store.userfiles import replace_user_file

LAUNCHER = "docker-kitcache"
SYSTEM_DIRECTORIES = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
METADATA_CALL = "docker-cli-plugin-metadata"

_HEAD = b"""#!/bin/sh
# kitcache-docker-plugin: created by `kitcache plugin install`; `kitcache plugin remove` deletes it.
"""
_READ_BYTES = 64 * 1024
_ANSWER_TIMEOUT_S = 20.0
_DIRECTORY_MODE = 0o755
_LAUNCHER_MODE = 0o755


class Plugin(NamedTuple):
    """A `docker-kitcache` in a plugin directory.

    Attributes:
        is_ours: True if `kitcache plugin install` has written it.
        command: The command that it runs; () if it is not kitcache's launcher.
        problem: Why kitcache's launcher does not work; "" if it works.
    """

    path: str
    is_ours: bool
    command: tuple[str, ...] = ()
    problem: str = ""


class Installed(NamedTuple):
    """The result of an installation."""

    path: str
    outcome: Literal["installed", "replaced", "unchanged"]


def user_directory(config_directory: str) -> str:
    """Return the plugin directory in a user's docker configuration directory."""
    return os.path.join(config_directory, "cli-plugins")


def search_path(config_directory: str, extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Return docker's plugin directories in order. extra: cliPluginsExtraDirs of config.json."""
    return (*extra, user_directory(config_directory), *SYSTEM_DIRECTORIES)


def find_plugins(directories: Iterable[str]) -> tuple[Plugin, ...]:
    """Find every `docker-kitcache`; docker uses the first. Run each launcher of kitcache once."""
    plugins = []
    for path in (os.path.join(directory, LAUNCHER) for directory in directories):
        if os.path.exists(path):
            content = _read_launcher(path)
            command = _command_of(content) if content is not None else ()
            problem = _problem_of(path, command) if content is not None else ""
            plugins.append(Plugin(path, content is not None, command, problem))
    return tuple(plugins)


def install_plugin(directory: str, command: tuple[str, ...]) -> Installed:
    """Write a launcher that runs `command`; create the directory if it does not exist.

    Raises:
        Unsafe: A file of that name is not kitcache's launcher.
        KitcacheError: The launcher cannot be written.
    """
    path = os.path.join(directory, LAUNCHER)
    content = _HEAD + os.fsencode(f'exec {shlex.join(command)} "$@"\n')
    existing = _read_launcher(path)
    if existing == content and stat.S_IMODE(os.lstat(path).st_mode) == _LAUNCHER_MODE:
        return Installed(path, "unchanged")
    if existing is None and os.path.lexists(path):
        raise _foreign(path, "name another DOCKER_CONFIG, or move that file away")
    try:
        os.makedirs(directory, _DIRECTORY_MODE, exist_ok=True)
        _replace(directory, path, content)
    except OSError as error:
        raise _failed(directory, "cannot be written to", error) from None
    return Installed(path, "replaced" if existing else "installed")


def remove_plugin(directory: str) -> str | None:
    """Delete kitcache's launcher. Return its path, or None if there was none.

    Raises:
        Unsafe: A file of that name is not kitcache's launcher.
        KitcacheError: The launcher cannot be deleted.
    """
    path = os.path.join(directory, LAUNCHER)
    if not os.path.lexists(path):
        return None
    if _read_launcher(path) is None:
        raise _foreign(path, "remove it with the tool that installed it")
    try:
        os.unlink(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(path, "cannot be deleted", error) from None
    return path


def _read_launcher(path: str) -> bytes | None:
    """Return the content of kitcache's launcher; None if the file is missing or another file."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as file:
            content = file.read(_READ_BYTES)
    except OSError:
        return None
    return content if content.startswith(_HEAD) else None


def _command_of(content: bytes) -> tuple[str, ...]:
    """Return the command of the launcher's `exec` line; () if a user has edited it."""
    with suppress(ValueError):
        words = shlex.split(os.fsdecode(content[len(_HEAD) :]))
        if words[:1] == ["exec"] and words[-1:] == ["$@"]:
            return tuple(words[1:-1])
    return ()


def _problem_of(path: str, command: tuple[str, ...]) -> str:
    if not command:
        return "it was edited, so its command is unknown"
    if not os.path.exists(command[0]):
        return f"it runs {command[0]}, which does not exist"
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
    return "" if answers else f"it runs {command[0]}, which does not answer docker as kitcache does"


def _replace(directory: str, path: str, content: bytes) -> None:
    """Write a temporary file and rename it, so docker never runs a partly written launcher."""
    # docker lists names that begin with docker-, so it does not list the temporary file.
    temporary = os.path.join(directory, f".{LAUNCHER}.{os.urandom(8).hex()}")
    with replace_user_file(path, temporary, _LAUNCHER_MODE) as file:
        file.write(content)
        os.fchmod(file.fileno(), _LAUNCHER_MODE)


def _foreign(path: str, step: str) -> Unsafe:
    return Unsafe(path, "it is not kitcache's own launcher", effect=NOTHING_CHANGED, hints=(step,))


def _failed(path: str, doing: str, error: OSError) -> KitcacheError:
    is_system = os.path.dirname(path) in SYSTEM_DIRECTORIES or path in SYSTEM_DIRECTORIES
    step = (
        "run it as root, or install it only for yourself"
        if is_system
        else "correct the directory's owner or mode, or set DOCKER_CONFIG to a directory of yours"
    )
    return KitcacheError(
        path,
        f"{doing}: {error.strerror or error}",
        effect=NOTHING_CHANGED,
        hints=(step,),
    )
