"""kitcache plugin: puts `docker-kitcache` where docker looks, and takes it away."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator

from kitcache.buildkit.daemon.config import CONFIG_FILE, config_directory, read_object
from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.main import PLUGIN_CALL
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

_DESCRIPTION = """\
install makes kitcache a plugin of docker's client, so that `docker kitcache
reset DIR`, `docker kitcache build …` work: it writes a launcher for this very
kitcache to ~/.docker/cli-plugins (or below DOCKER_CONFIG), or with --system for
every user of this machine. remove deletes that launcher, and no other file.
status shows which launcher docker would run, and whether it works (exit 1 if it
does not). docker's config.json is never changed."""

_EPILOG = """\
examples:
  kitcache plugin install
  sudo kitcache plugin install --system
  kitcache plugin status"""


_ACTIONS = ("install", "remove", "status")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument(
        "action", metavar="ACTION", choices=_ACTIONS, help=f"one of {', '.join(_ACTIONS)}"
    )
    parser.add_argument(
        "--system", action="store_true", help="for all users: below /usr/local/lib/docker"
    )
    options.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Install, remove, or look."""
    session = Console(wants_json=False, is_quiet=args.quiet)
    work = {"install": _install, "remove": _remove, "status": _status}[args.action]
    return max(session.each([""], lambda _: work(session, args.system)))


def _install(session: Console, is_system: bool) -> int:
    done = install_plugin(_own_directories(is_system)[0], _this_kitcache())
    session.print_result(done, [printable(f"{done.path}: {_OUTCOMES[done.outcome]}")])
    first, *_ = find_plugins(_search_path())
    if first.path != done.path:
        session.warn([printable(f"warning: docker takes {first.path}, which it finds first")])
    elif first.problem:
        session.warn([printable(f"warning: {first.path} does not work: {first.problem}")])
    return 0


_OUTCOMES = {
    "installed": "installed; `docker kitcache` runs this kitcache",
    "replaced": "replaced; `docker kitcache` runs this kitcache now",
    "unchanged": "was there already; `docker kitcache` runs this kitcache",
}


def _remove(session: Console, is_system: bool) -> int:
    removed = [path for path in map(remove_plugin, _own_directories(is_system)) if path]
    session.print_result(removed, [f"{printable(path)}: removed" for path in removed] or _nothing())
    left = find_plugins(_search_path())
    session.print_note([printable(f"docker still finds {plugin.path}") for plugin in left])
    return 0


def _nothing() -> Iterable[str]:
    return ["no plugin of kitcache's is there: nothing to remove"]


def _status(session: Console, is_system: bool) -> int:
    directories = SYSTEM_DIRECTORIES if is_system else _search_path()
    found = find_plugins(directories)
    if not found:
        raise NotFound(
            "",
            "docker has no kitcache plugin",
            details=tuple(f"looked in {directory}" for directory in directories),
            effect="",
            hints=("kitcache plugin install",),
        )
    session.print_result(found, _status_lines(found))
    return int(not found[0].is_ours or bool(found[0].problem))


def _status_lines(found: tuple[Plugin, ...]) -> Iterator[str]:
    for position, plugin in enumerate(found):
        taken = "not taken by docker: one above comes first" if position else "docker takes this"
        yield printable(f"{plugin.path}: {taken}")
        if not plugin.is_ours:
            yield "  not kitcache's own"
        elif plugin.problem:
            yield printable(f"  kitcache's, and broken: {plugin.problem}")
            yield "  hint: kitcache plugin install"
        else:
            yield printable(f"  kitcache's, works; runs {' '.join(plugin.command)}")


def _own_directories(is_system: bool) -> tuple[str, ...]:
    return SYSTEM_DIRECTORIES if is_system else (user_directory(config_directory(os.environ)),)


def _search_path() -> tuple[str, ...]:
    directory = config_directory(os.environ)
    try:
        config = read_object(os.path.join(directory, CONFIG_FILE)) or {}
    except ValueError:  # docker's client would complain of it
        config = {}
    extra = config.get("cliPluginsExtraDirs")
    names = extra if isinstance(extra, list) else []
    return search_path(directory, [name for name in names if isinstance(name, str)])


def _this_kitcache() -> tuple[str, ...]:
    """The command that is running, by an absolute path; not what PATH will have another day."""
    script = os.path.abspath(sys.argv[0])
    is_script = os.path.basename(script) == "kitcache" and os.access(script, os.X_OK)
    # -P: a directory `kitcache` below the working directory is not to be taken for it.
    words = (script,) if is_script else (sys.executable, "-P", "-m", "kitcache")
    return (*words, PLUGIN_CALL)
