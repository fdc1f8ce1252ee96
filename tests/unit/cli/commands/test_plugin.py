"""kitcache plugin: what it says, and what it takes for itself."""

import os
import sys
from pathlib import Path

import pytest

from kitcache.wrap.plugin import LAUNCHER
from tests.caches.snapshot import take_snapshot
from tests.hostile.command import Answer, run, run_command
from tests.hostile.privilege import NOBODY, needs_root, reachable_box, run_as

SCRIPT = Path(sys.executable).with_name("kitcache")


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)


def plugin(cwd: Path, *words: str, **env: str) -> Answer:
    return run(cwd, "plugin", *words, env=env)


def test_the_launcher_runs_this_kitcache_by_its_script(tmp_path: Path) -> None:
    run_command([SCRIPT, "plugin", "install"], tmp_path)
    text = (tmp_path / ".docker" / "cli-plugins" / LAUNCHER).read_text()
    assert text.endswith(f'\nexec {SCRIPT} docker-cli-plugin "$@"\n')


def test_the_launcher_runs_this_kitcache_by_its_interpreter(tmp_path: Path) -> None:
    """And not one that the working directory has, whoever put it there."""
    assert plugin(tmp_path, "install").code == 0
    launcher = tmp_path / ".docker" / "cli-plugins" / LAUNCHER
    text = launcher.read_text()
    assert text.endswith(f'\nexec {sys.executable} -P -m kitcache docker-cli-plugin "$@"\n')
    (tmp_path / "kitcache").mkdir()
    (tmp_path / "kitcache" / "__init__.py").touch()
    (tmp_path / "kitcache" / "__main__.py").write_text("print('not me')")
    assert "SchemaVersion" in run_command([launcher, "docker-cli-plugin-metadata"], tmp_path).out


def test_a_script_that_cannot_be_run_is_not_named(tmp_path: Path) -> None:
    """`python kitcache …`, where kitcache has no x bit."""
    copy = tmp_path / "kitcache"
    copy.write_bytes(SCRIPT.read_bytes())
    assert run_command([sys.executable, copy, "plugin", "install"], tmp_path).code == 0
    assert plugin(tmp_path, "status").code == 0


def test_from_nothing_to_installed_to_nothing(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "x"}')
    before = take_snapshot(tmp_path)
    path = f"{tmp_path}/.docker/cli-plugins/{LAUNCHER}"
    missing = plugin(tmp_path, "status")
    assert (missing.code, missing.out) == (1, "")
    assert "hint: kitcache plugin install" in missing.err
    installed = plugin(tmp_path, "install")
    assert (installed.code, installed.err) == (0, "")
    assert installed.out.startswith(f"{path}: installed;")
    assert plugin(tmp_path, "install").out.startswith(f"{path}: unchanged;")
    status = plugin(tmp_path, "status")
    assert (status.code, status.err) == (0, "")
    assert status.out.startswith(
        f"{path}: docker runs this\n  a launcher of kitcache, works; runs "
    )
    assert plugin(tmp_path, "remove").out == f"{path}: removed\n"
    assert "nothing to remove" in plugin(tmp_path, "remove").out
    (tmp_path / ".docker" / "cli-plugins").rmdir()
    assert take_snapshot(tmp_path).keys() == before.keys()
    assert (tmp_path / ".docker" / "config.json").read_text() == '{"currentContext": "x"}'


def test_docker_config_says_where(tmp_path: Path) -> None:
    plugin(tmp_path, "install", DOCKER_CONFIG="else where")
    assert (tmp_path / "else where" / "cli-plugins" / LAUNCHER).exists()
    assert not (tmp_path / ".docker").exists()


def test_what_docker_finds_first_is_said(tmp_path: Path) -> None:
    extra = tmp_path / "extra" / LAUNCHER
    extra.parent.mkdir()
    extra.write_text("#!/bin/sh\n")
    (tmp_path / ".docker").mkdir()
    config = f'{{"cliPluginsExtraDirs": ["{extra.parent}", 7]}}'
    (tmp_path / ".docker" / "config.json").write_text(config)
    installed = plugin(tmp_path, "install")
    assert installed.code == 0
    assert f"warning: docker runs {extra}" in installed.err
    status = plugin(tmp_path, "status")
    assert status.code == 1
    assert status.out.splitlines()[:2] == [
        f"{extra}: docker runs this",
        "  not a launcher of kitcache",
    ]
    assert "not run by docker" in status.out.splitlines()[2]


def test_a_broken_launcher_is_said_and_mended(tmp_path: Path) -> None:
    plugin(tmp_path, "install")
    launcher = tmp_path / ".docker" / "cli-plugins" / LAUNCHER
    launcher.write_text(launcher.read_text().replace(sys.executable, "/gone/python"))
    status = plugin(tmp_path, "status")
    assert status.code == 1
    assert (
        "  a launcher of kitcache, broken: it runs /gone/python, which does not exist\n"
        in status.out
    )
    assert "  hint: kitcache plugin install\n" in status.out
    assert ": replaced;" in plugin(tmp_path, "install").out
    assert plugin(tmp_path, "status").code == 0


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    launcher = tmp_path / ".docker" / "cli-plugins" / LAUNCHER
    launcher.parent.mkdir(parents=True)
    launcher.write_text("#!/bin/sh\n")
    for action in ("install", "remove"):
        answer = plugin(tmp_path, action)
        assert (answer.code, answer.out) == (13, "")
        assert "is not kitcache's own launcher\n  nothing was changed\n  hint: " in answer.err
    assert launcher.read_text() == "#!/bin/sh\n"


def test_a_directory_of_somebody_else_s() -> None:
    needs_root()
    with reachable_box() as box:
        answer = run_as(NOBODY, box, "plugin", "install")
        assert (answer.code, answer.out) == (1, "")
        assert f"{box}/.docker/cli-plugins: cannot be written to: Permission denied" in answer.err
        assert "hint: correct the directory's owner or mode, or set DOCKER_CONFIG" in answer.err
        assert plugin(box, "install").code == 0
        answer = run_as(NOBODY, box, "plugin", "remove")
        assert answer.code == 1
        assert "cannot be deleted: Permission denied" in answer.err
        assert os.listdir(box / ".docker" / "cli-plugins") == [LAUNCHER]


def test_a_system_directory_without_being_root() -> None:
    needs_root()
    with reachable_box() as box:
        answer = run_as(NOBODY, box, "plugin", "install", "--system")
        assert answer.code == 1
        assert "/usr/local/lib/docker/cli-plugins: cannot be written to: " in answer.err
        assert "hint: run it as root, or install it only for yourself" in answer.err


def test_quiet_prints_errors_only(tmp_path: Path) -> None:
    assert plugin(tmp_path, "install", "--quiet") == (0, "", "")
    assert plugin(tmp_path, "status", "-q") == (0, "", "")
    assert plugin(tmp_path, "remove", "-q") == (0, "", "")
    assert plugin(tmp_path, "status", "-q").code == 1
