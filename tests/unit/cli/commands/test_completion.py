"""kitcache completion: each script, loaded by the shell itself and asked as Tab asks."""

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hostile.build import make_sample
from tests.hostile.command import run

MARK = b"\x1e"
BIN = Path(sys.executable).parent
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")


class Start(NamedTuple):
    """How a shell is started, and made ready to be read by a program."""

    command: tuple[str, ...]
    setup: str


STARTS = {
    "bash": Start(
        ("bash", "--norc", "--noprofile", "-i"),
        f"stty -echo; source {BASH_COMPLETION}; source ./script; complete -W 'build bake' client",
    ),
    "zsh": Start(
        ("zsh", "-f", "-i"),
        "PROMPT=; unsetopt prompt_cr prompt_sp; bindkey -e; mkdir functions;"
        " cp script functions/_kitcache; fpath=(./functions $fpath); autoload -U compinit;"
        " compinit -u -d ./dump; _client() { compadd build bake }; compdef _client client",
    ),
    "tcsh": Start(
        ("tcsh", "-f", "-i"), "set prompt=''; set edit; bindkey -e; set nobeep; source ./script"
    ),
}


class Shell:
    """An interactive shell on a terminal, with the completion script loaded, in a directory."""

    def __init__(self, start: Start, cwd: Path) -> None:
        self._master, slave = os.openpty()
        path = f"{BIN}:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            start.command,
            cwd=cwd,
            env={"PATH": path, "TERM": "dumb", "PS1": "", "INPUTRC": os.devnull, "HOME": str(cwd)},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._send(f"{start.setup}; printf '\\036'\n".encode())
        self._read_to_mark()

    def press_tab(self, line: str) -> str:
        """The line after Tab was pressed at its end, as the shell would run it."""
        # An echo in its place shows what the shell made of the words.
        self._send(b"\x01\x0b" + line.encode() + b"\t\x01printf '<%s>' '\x05'; printf '\\036'\n")
        seen = self._read_to_mark().decode()
        return seen.rpartition("<")[2].rpartition(">")[0]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _send(self, data: bytes) -> None:
        os.write(self._master, data)

    def _read_to_mark(self) -> bytes:
        seen = b""
        while MARK not in seen:
            ready, _, _ = select.select([self._master], [], [], 60)
            assert ready, f"the shell does not answer: {seen!r}"
            seen += os.read(self._master, 1000)
        return seen


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a cache, which has the tags main and dev, another directory, and a file."""
    top = tmp_path_factory.mktemp("completion")
    sample = make_sample(top)
    sample.box.tag("a tag", sample.dev)
    (top / "my-dir" / "inner").mkdir(parents=True)
    (top / "my-file").touch()
    return top


@pytest.fixture(scope="module", params=STARTS)
def shell(request: pytest.FixtureRequest, place: Path) -> Iterator[tuple[str, Shell]]:
    name: str = request.param
    if shutil.which(name) is None or (name == "bash" and not BASH_COMPLETION.exists()):
        pytest.skip(f"no {name} with completion on this machine")
    (place / "script").write_text(run(place, "completion", name).out)
    started = Shell(STARTS[name], place)
    yield name, started
    started.end()


LINES = [
    ("kitcache comp", "kitcache completion"),
    ("kitcache completion f", "kitcache completion fish"),
    ("kitcache reset --min", "kitcache reset --min-age"),
    ("kitcache reset my-", "kitcache reset my-dir/"),
    ("kitcache du --json my-dir my-", "kitcache du --json my-dir my-dir/"),
    ("kitcache why cache my-f", "kitcache why cache my-file"),
    ("kitcache prune --policy my-f", "kitcache prune --policy my-file"),
    ("kitcache prune --policy=my-f", "kitcache prune --policy=my-file"),
    ("kitcache ls cache m", "kitcache ls cache main"),
    ("kitcache untag --dry-run cache main d", "kitcache untag --dry-run cache main dev"),
    ("kitcache ls my-dir m", "kitcache ls my-dir m"),
    ("kitcache xyz", "kitcache xyz"),
    ("kitcache reset --xyz", "kitcache reset --xyz"),
    ("kitcache reset my-f", "kitcache reset my-f"),
]


def test_tab(shell: tuple[str, Shell]) -> None:
    for line, completed in LINES:
        # Some shells take the blank or the slash behind the word back when a command is typed.
        given = shell[1].press_tab(line).rstrip(" /")
        assert given == completed.rstrip("/"), line


def test_behind_the_dashes_the_other_command_completes(shell: tuple[str, Shell]) -> None:
    name, started = shell
    if name != "tcsh":
        for options in ("", "--reset ", "--lock-timeout 5s "):
            line = f"kitcache exec {options}-- client ba"
            assert started.press_tab(line).rstrip() == f"{line}ke"
        assert started.press_tab("kitcache exec --in-p").rstrip() == "kitcache exec --in-place"


def test_a_tag_is_quoted_where_it_has_to_be(shell: tuple[str, Shell]) -> None:
    name, started = shell
    if name == "zsh":
        assert started.press_tab("kitcache ls cache a").rstrip() == r"kitcache ls cache a\ tag"


FISH = """
source ./script
complete -c client -f -a 'build bake'
complete -c client -f -l cache-to
for line in $argv
    complete -C $line | string collect -a
    printf '\\036'
end
"""


def test_fish(place: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish on this machine")
    (place / "script").write_text(run(place, "completion", "fish").out)
    cases = [
        ("kitcache comp", ["completion\tprint a completion script for a shell"]),
        ("kitcache ls cache ", ["a tag", "dev", "main"]),
        ("kitcache untag cache main d", ["dev"]),
        ("kitcache ls my-dir ", []),
        ("kitcache reset my-", ["my-dir/\tDirectory"]),
        ("kitcache prune --policy my-f", ["my-file"]),
        ("kitcache prune --policy=my-f", ["--policy=my-file"]),
        ("kitcache exec -- client ba", ["bake"]),
        ("kitcache exec --reset -- client bake --c", ["--cache-to"]),
        ("kitcache xyz", []),
    ]
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(place), "TERM": "dumb"}
    command = ["fish", "--no-config", "-c", FISH, *(line for line, _ in cases)]
    said = subprocess.check_output(command, cwd=place, env=env, text=True, timeout=120)
    answers = [answer.split("\n") for answer in said.split("\x1e")[:-1]]
    assert [[word for word in answer if word] for answer in answers] == [c for _, c in cases]


@pytest.mark.parametrize("name", [*STARTS, "fish"])
def test_the_shell_can_read_it(tmp_path: Path, name: str) -> None:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name} on this machine")
    answer = run(tmp_path, "completion", name)
    assert (answer.code, answer.err) == (0, "")
    (tmp_path / "script").write_text(answer.out)
    check = "-f" if name == "tcsh" else "-n"
    subprocess.run([program, check, "script"], cwd=tmp_path, check=True, timeout=60)


def test_another_shell_is_a_usage_error(tmp_path: Path) -> None:
    answer = run(tmp_path, "completion", "cmd.exe")
    assert (answer.code, answer.out) == (2, "")
    assert sys.executable not in answer.err
    assert all(name in answer.err for name in STARTS)
