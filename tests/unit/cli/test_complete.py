"""cli/complete.py: what can stand where the cursor is."""

import os
from pathlib import Path

import pytest

from kitcache.cli.complete import complete, run
from kitcache.cli.options import HELP
from kitcache.cli.parser import COMMANDS, load_command
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import Sample


def words(line: str) -> list[str]:
    found = complete(line.split(" "))
    assert found.kind == "words"
    return [candidate.word for candidate in found.candidates]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_offered_with_all_that_its_help_says(command: str) -> None:
    options = [each for each in load_command(command).COMMAND.arguments if each.is_option]
    wanted = {name: each.help for each in (HELP, *options) for name in each.names if each.help}
    found = complete([command, "-"])
    assert {c.word: c.meaning for c in found.candidates} == wanted
    assert all(wanted.values())


def test_what_was_given_is_not_offered_again_unless_it_can_be() -> None:
    offered = words("prune --json --keep-tag a -n --")
    assert {"--json", "--dry-run"}.isdisjoint(offered)
    assert {"--keep-tag", "--drop-tag", "--quiet"} < set(offered)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("reset ", "dirs"),
        ("reset -- --x", "dirs"),
        ("reset a b ", "dirs"),
        ("merge a b c ", "dirs"),
        ("build ", "dirs"),
        ("build --file ", "files"),
        ("build -f ", "files"),
        ("why a ", "files"),
        ("why a b ", "words"),
        ("reset --min-age ", "words"),
        ("reset --min-age 1h ", "dirs"),
        ("reset --min-age=1h ", "dirs"),
        ("reset --no-such ", "dirs"),
        ("zzz ", "words"),
        ("exec ", "command"),
        ("exec --reset dock", "command"),
        ("exec --lock-timeout ", "words"),
        ("exec --", "words"),
    ],
)
def test_kinds(line: str, kind: str) -> None:
    assert complete(line.split(" ")).kind == kind


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("exec -- ", 2),
        ("exec docker ", 1),
        ("exec --lock-timeout 5s -n -- docker build --x", 5),
        ("exec -- docker -- x", 2),
    ],
)
def test_where_another_command_begins(line: str, start: int) -> None:
    found = complete(line.split(" "))
    assert (found.kind, found.start) == ("command", start)


def test_every_command_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fish", ""]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["words", *(f"{name}\t{text}" for name, text in COMMANDS.items())]


def test_choices() -> None:
    assert words("plugin i") == ["install"]
    assert words("help un") == ["untag"]
    assert words("--v") == ["--version"]


def test_tags_of_the_cache_that_was_named(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    sample.box.tag("bad\nname", sample.dev)
    before = take_snapshot(sample.dir)
    assert words(f"ls {sample.dir} ") == ["main", "dev"]
    assert words(f"untag {sample.dir} main ") == ["dev"]
    assert words(f"trim {sample.dir} d") == ["dev"]
    assert words(f"tag {sample.dir} main d") == ["dev"]
    assert words(f"prune {sample.dir} --keep-tag m") == ["main"]
    assert words("prune --keep-tag m") == words("ls nowhere ") == []
    monkeypatch.setenv("HOME", str(sample.box.top))
    assert words("ls ~/cache m") == ["main"]
    assert differences(before, take_snapshot(sample.dir)) == []


@pytest.mark.parametrize("kind", ["wrong-size", "missing", "pipe", "link", "nested"])
def test_an_index_that_cannot_be_read_is_no_error(
    sample: Sample, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index = sample.dir / "index.json"
    data = index.read_bytes()
    index.unlink()
    match kind:
        case "wrong-size":
            index.write_bytes(data[:-9])
        case "pipe":
            os.mkfifo(index)
        case "link":
            index.symlink_to(sample.dir / "oci-layout")
        case "nested":
            index.write_bytes(b"[" * 100_000)
    assert run(["fish", "ls", str(sample.dir), ""]) == 0
    assert capsys.readouterr() == ("words\n", "")


def test_bash_numbers_words_in_its_own_way(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["exec", "--prune-policy", "=", "f", "--", "docker", ""]
    assert run(["bash", *typed]) == 0
    assert capsys.readouterr().out == "command 5\n"


def test_bash_replaces_what_stands_behind_the_last_break(
    sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    sample.box.tag("app:v1", sample.dev)
    sample.box.tag("it's", sample.dev)
    run(["bash", "ls", str(sample.dir), "app", ":", "v"])
    run(["bash", "ls", f"'{sample.dir}'", "i"])
    assert capsys.readouterr().out == "words\nv1\nwords\n" + "'it'\"'\"'s'\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh", "other"])
@pytest.mark.parametrize("typed", [[], [""], ["'"], ['"a', "\\"], ["ls", "\0", ""], ["\udcff"]])
def test_no_words_are_an_error(
    shell: str, typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([shell, *typed]) == 0
    assert capsys.readouterr().err == ""


def test_tcsh_gets_names_of_files_from_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-dir").mkdir()
    (tmp_path / "my-file").touch()
    (tmp_path / ".hidden").touch()
    for line in ("kitcache reset m", "kitcache prune --policy=m", "kitcache why x ", "kitcache un"):
        run(["tcsh", line])
    assert capsys.readouterr().out.splitlines() == [
        "my-dir/",
        "--policy=my-dir/",
        "--policy=my-file",
        "my-dir/",
        "my-file",
        "untag",
    ]
