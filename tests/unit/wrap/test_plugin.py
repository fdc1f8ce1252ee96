"""wrap/plugin.py: only our own launcher is ever written, replaced or removed."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from kitcache.errors import KitcacheError, Unsafe
from kitcache.wrap import plugin
from kitcache.wrap.plugin import (
    LAUNCHER,
    SYSTEM_DIRECTORIES,
    Installed,
    Plugin,
    find_plugins,
    install_plugin,
    remove_plugin,
    search_path,
)

ANSWERS = """#!/bin/sh
[ "$1" = "two words" ] && [ "$2" = "it's" ] && shift 2
[ "$1" = docker-cli-plugin-metadata ] && echo '{"Vendor": "kitcache"}' && exit
printf '<%s>' "$@"
"""


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "docker" / "cli-plugins")


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    """A program that answers as a plugin does, by a path that a shell would take apart."""
    program = tmp_path / "an odd 'place' $HOME" / "kitcache"
    program.parent.mkdir()
    program.write_text(ANSWERS)
    program.chmod(0o755)
    return (str(program), "two words", "it's")


def launcher(directory: str) -> Path:
    return Path(directory, LAUNCHER)


FOREIGN = ("file", "empty", "link to ours", "dangling link", "directory", "fifo")


def make_foreign(path: Path, kind: str, command: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True)
    if kind == "file":
        path.write_text("#!/bin/sh\nexec kitcache docker-cli-plugin\n")
    elif kind == "empty":
        path.touch()
    elif kind == "link to ours":
        elsewhere = path.parent.parent / "elsewhere"
        path.symlink_to(install_plugin(str(elsewhere), command).path)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)


def test_what_is_installed_runs_the_command_with_docker_s_words(
    directory: str, command: tuple[str, ...]
) -> None:
    path = install_plugin(directory, command).path
    said = subprocess.check_output([path, "ls", "a b", "", "*"], text=True)
    assert said == "<ls><a b><><*>"


def test_installing_again_changes_nothing(directory: str, command: tuple[str, ...]) -> None:
    first = install_plugin(directory, command)
    before = os.stat(first.path)
    again = install_plugin(directory, command)
    assert (first.outcome, again) == ("installed", Installed(first.path, "unchanged"))
    assert os.stat(first.path).st_ino == before.st_ino
    assert os.listdir(directory) == [LAUNCHER]


def test_another_kitcache_takes_the_place_of_the_one_before(
    directory: str, command: tuple[str, ...]
) -> None:
    install_plugin(directory, ("/gone/kitcache",))
    assert install_plugin(directory, command).outcome == "replaced"
    assert find_plugins([directory])[0].command == command
    assert os.listdir(directory) == [LAUNCHER]


def test_anybody_may_run_it_whatever_the_umask(directory: str, command: tuple[str, ...]) -> None:
    before = os.umask(0o077)
    try:
        path = install_plugin(directory, command).path
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o755


def test_a_launcher_that_has_lost_its_mode_gets_it_back(
    directory: str, command: tuple[str, ...]
) -> None:
    path = install_plugin(directory, command).path
    os.chmod(path, 0o600)
    assert install_plugin(directory, command).outcome == "replaced"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o755


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_ours_is_neither_replaced_nor_removed(
    directory: str, command: tuple[str, ...], kind: str
) -> None:
    path = launcher(directory)
    make_foreign(path, kind, command)
    before = unread(os.lstat(path))
    with pytest.raises(Unsafe, match="not kitcache's own"):
        install_plugin(directory, command)
    with pytest.raises(Unsafe, match="not kitcache's own"):
        remove_plugin(directory)
    assert unread(os.lstat(path)) == before
    assert os.listdir(directory) == [LAUNCHER]


def unread(found: os.stat_result) -> tuple[float, ...]:
    """All but the access time, which reading changes."""
    return (*found[:7], *found[8:], found.st_mtime_ns, found.st_ctime_ns)


@pytest.mark.parametrize("kind", sorted(set(FOREIGN) - {"dangling link"}))
def test_what_is_not_ours_is_found_and_not_run(
    directory: str, command: tuple[str, ...], kind: str
) -> None:
    make_foreign(launcher(directory), kind, command)
    assert find_plugins([directory]) == (Plugin(str(launcher(directory)), is_ours=False),)


def test_docker_and_so_we_step_over_a_dangling_link(
    directory: str, command: tuple[str, ...]
) -> None:
    make_foreign(launcher(directory), "dangling link", command)
    assert find_plugins([directory]) == ()


def test_removing_takes_the_launcher_and_leaves_its_neighbours(
    directory: str, command: tuple[str, ...]
) -> None:
    path = install_plugin(directory, command).path
    Path(directory, "docker-other").touch()
    assert remove_plugin(directory) == path
    assert os.listdir(directory) == ["docker-other"]
    assert remove_plugin(directory) is None


def test_a_command_that_is_gone_is_a_problem(directory: str, command: tuple[str, ...]) -> None:
    install_plugin(directory, command)
    os.unlink(command[0])
    (found,) = find_plugins([directory])
    assert (found.is_ours, found.command) == (True, command)
    assert found.problem == f"it runs {command[0]}, which does not exist"


@pytest.mark.parametrize("does", ["exit 1", "echo '[]'", """echo '{"Vendor": "other"}'"""])
def test_a_command_that_is_no_kitcache_is_a_problem(
    directory: str, command: tuple[str, ...], does: str
) -> None:
    install_plugin(directory, command)
    Path(command[0]).write_text(f"#!/bin/sh\n{does}\n")
    assert "does not answer docker" in find_plugins([directory])[0].problem


def test_a_command_that_hangs_is_a_problem(
    directory: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "_ANSWER_TIMEOUT_S", 0.1)
    install_plugin(directory, command)
    Path(command[0]).write_text("#!/bin/sh\nexec sleep 60\n")
    assert find_plugins([directory])[0].problem == "it does not answer"


@pytest.mark.parametrize(
    "line", ['exec kitcache "$@', 'sudo kitcache "$@"', 'exec kitcache "$1"', 'exec "$@"', ""]
)
def test_an_edited_launcher_is_ours_and_broken(
    directory: str, command: tuple[str, ...], line: str
) -> None:
    path = Path(install_plugin(directory, command).path)
    path.write_text("\n".join([*path.read_text().splitlines()[:2], line]))
    (found,) = find_plugins([directory])
    assert (found.is_ours, found.command) == (True, ())
    assert "was edited" in found.problem
    assert remove_plugin(directory) == str(path)


def test_the_order_is_dockers(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = search_path(str(tmp_path), ["/extra"])
    assert path == ("/extra", f"{tmp_path}/cli-plugins", *SYSTEM_DIRECTORIES)
    places = [str(tmp_path / name) for name in "abc"]
    for place in (places[2], places[1]):
        install_plugin(place, command)
    assert [os.path.dirname(found.path) for found in find_plugins(places)] == places[1:]


def test_a_directory_that_is_a_file(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "docker").touch()
    with pytest.raises(KitcacheError, match="cannot be written to: Not a directory") as caught:
        install_plugin(str(tmp_path / "docker" / "cli-plugins"), command)
    assert caught.value.effect == "nothing was changed"


def test_a_disk_that_is_full_leaves_the_old_launcher_and_no_other_file(
    directory: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(directory, command)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(KitcacheError, match="No space left on device"):
        install_plugin(directory, ("/other",))
    assert os.listdir(directory) == [LAUNCHER]
    assert find_plugins([directory])[0].command == command
