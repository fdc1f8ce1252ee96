"""kitcache plugin: install `docker-kitcache` where docker looks for it, and remove it."""

import argparse
import os
import sys
from collections.abc import Iterator

from kitcache.buildkit.daemon.config import CONFIG_FILE, config_directory, read_object
from kitcache.cli import PLUGIN_CALL, options
from kitcache.cli.console import Console
from kitcache.errors import NotFound, printable
from kitcache.wrap.plugin import (
    SYSTEM_DIRECTORIES,
    Plugin,
    find_plugins,
    install_plugin,
    remove_plugin,
    search_path,
    user_directory,
)

_ACTIONS = ("install", "remove", "status")

COMMAND = options.Command(
    description="""\
install makes kitcache a plugin of docker's client, so that `docker kitcache
reset DIR`, `docker kitcache build …` work: it writes a launcher for this very
kitcache to ~/.docker/cli-plugins (or below DOCKER_CONFIG), or with --system for
every user of this machine. remove deletes that launcher, and no other file.
status shows which launcher docker would run, and whether it works (exit code 1
if it does not). docker's config.json is never changed.""",
    epilog="""\
examples:
  kitcache plugin install
  sudo kitcache plugin install --system
  kitcache plugin status""",
    arguments=(
        options.argument("action", "ACTION", f"one of {', '.join(_ACTIONS)}", choices=_ACTIONS),
        options.switch("--system", "for all users: below /usr/local/lib/docker"),
        options.QUIET,
    ),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Install, remove, or show the launcher."""
    work = {"install": _install, "remove": _remove, "status": _status}[args.action]
    return console.each([""], lambda _: work(console, args.system))


_OUTCOMES = {
    "installed": "installed; `docker kitcache` runs this kitcache",
    "replaced": "replaced; `docker kitcache` runs this kitcache now",
    "unchanged": "unchanged; `docker kitcache` runs this kitcache",
}


def _install(console: Console, is_system: bool) -> int:
    done = install_plugin(_own_directories(is_system)[0], _this_kitcache())
    console.print_result(done, [printable(f"{done.path}: {_OUTCOMES[done.outcome]}")])
    first, *_ = find_plugins(_search_path())
    if first.path != done.path:
        console.print_warning([f"warning: docker runs {first.path}, which it finds first"])
    elif first.problem:
        console.print_warning([f"warning: {first.path} does not work: {first.problem}"])
    return 0


def _remove(console: Console, is_system: bool) -> int:
    removed = [path for path in map(remove_plugin, _own_directories(is_system)) if path]
    lines = [f"{printable(path)}: removed" for path in removed]
    console.print_result(removed, lines or ["no launcher of kitcache exists: nothing to remove"])
    rest = find_plugins(_search_path())
    console.print_note(f"docker still finds {plugin.path}" for plugin in rest)
    return 0


def _status(console: Console, is_system: bool) -> int:
    directories = SYSTEM_DIRECTORIES if is_system else _search_path()
    plugins = find_plugins(directories)
    if not plugins:
        raise NotFound(
            "",
            "docker has no kitcache plugin",
            details=tuple(f"looked in {directory}" for directory in directories),
            effect="",
            hints=("kitcache plugin install",),
        )
    console.print_result(plugins, _status_lines(plugins))
    return int(not plugins[0].is_ours or bool(plugins[0].problem))


def _status_lines(plugins: tuple[Plugin, ...]) -> Iterator[str]:
    for position, plugin in enumerate(plugins):
        use = (
            "not run by docker: it uses the first plugin above" if position else "docker runs this"
        )
        yield printable(f"{plugin.path}: {use}")
        if not plugin.is_ours:
            yield "  not a launcher of kitcache"
        elif plugin.problem:
            yield printable(f"  a launcher of kitcache, broken: {plugin.problem}")
            yield "  hint: kitcache plugin install"
        else:
            yield printable(f"  a launcher of kitcache, works; runs {' '.join(plugin.command)}")


def _own_directories(is_system: bool) -> tuple[str, ...]:
    return SYSTEM_DIRECTORIES if is_system else (user_directory(config_directory(os.environ)),)


def _search_path() -> tuple[str, ...]:
    directory = config_directory(os.environ)
    try:
        config = read_object(os.path.join(directory, CONFIG_FILE)) or {}
    except ValueError:  # Docker's client reports that the file is invalid.
        config = {}
    extra = config.get("cliPluginsExtraDirs")
    names = extra if isinstance(extra, list) else []
    return search_path(directory, [name for name in names if isinstance(name, str)])


def _this_kitcache() -> tuple[str, ...]:
    """Return the running command with an absolute path, so that it does not depend on PATH."""
    script = os.path.abspath(sys.argv[0])
    is_script = os.path.basename(script) == "kitcache" and os.access(script, os.X_OK)
    # -P: do not import a directory `kitcache` in the working directory.
    words = (script,) if is_script else (sys.executable, "-P", "-m", "kitcache")
    return (*words, PLUGIN_CALL)
