"""cli/plugincall.py: docker's words, what they mean, and what the answer costs."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import kitcache
from kitcache.cli.parser import COMMANDS
from kitcache.cli.plugincall import Changes, answer, read_call
from kitcache.errors import UsageError
from tests.hostile.build import Sample
from tests.hostile.command import Answer, run

ENVIRON = {
    "DOCKER_HOST": "tcp://env:1",
    "DOCKER_CONTEXT": "env",
    "BUILDKIT_HOST": "tcp://buildkit:1",
    "DOCKER_TLS_VERIFY": "1",
}

LOADED = """
import sys
before = set(sys.modules)
from kitcache.cli.main import main
code = main(sys.argv[1:])
print(code, *(set(sys.modules) - before), file=sys.stderr)
"""


def call(cwd: Path, *words: str, env: dict[str, str] | None = None) -> Answer:
    """What the launcher runs when docker calls it with these words."""
    return run(cwd, "docker-cli-plugin", *words, env=env)


def loaded(*words: str) -> set[str]:
    command = [sys.executable, "-c", LOADED, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0"
    return set(modules)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kitcache ls DIR", "ls DIR"),
        ("kitcache", ""),
        ("kitcache --help", "--help"),
        ("kitcache -- ls", "-- ls"),
        ("kitcache kitcache", "kitcache"),
        ("kitcache exec -- docker -H x ps", "exec -- docker -H x ps"),
        ("help kitcache", "--help"),
        ("help kitcache reset", "reset --help"),
        ("--help kitcache reset", "--help"),
        ("-v kitcache reset", "--version"),
        ("-D -l debug --log-level=info --debug=false kitcache ls", "ls"),
        ("reset DIR", "reset DIR"),
    ],
)
def test_the_words_that_are_ours(line: str, words: str) -> None:
    assert read_call(line.split(), ENVIRON) == (tuple(words.split()), {})


HOST: Changes = {"DOCKER_HOST": "tcp://h:1", "DOCKER_CONTEXT": None, "BUILDKIT_HOST": None}
CONTEXT: Changes = {"DOCKER_CONTEXT": "x", "DOCKER_HOST": None, "BUILDKIT_HOST": None}


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("-H tcp://h:1", HOST),
        ("-Htcp://h:1", HOST),
        ("-H=tcp://h:1", HOST),
        ("--host tcp://h:1", HOST),
        ("--host=tcp://h:1", HOST),
        ("-DH tcp://h:1", HOST),
        ("-H tcp://other -H tcp://h:1", HOST),
        ("-c x", CONTEXT),
        ("--context x", CONTEXT),
        ("--context=x", CONTEXT),
        # The default context is what DOCKER_HOST says.
        ("--context default", {"DOCKER_CONTEXT": "default", "BUILDKIT_HOST": None}),
        ("--tls", {"DOCKER_TLS": "1"}),
        ("--tlsverify", {}),
        ("--tlsverify=false", {"DOCKER_TLS_VERIFY": None}),
        ("--config /d", {"DOCKER_CONFIG": "/d"}),
    ],
)
def test_docker_s_options_choose_our_daemon(line: str, changes: Changes) -> None:
    assert read_call([*line.split(), "kitcache", "ls"], ENVIRON) == (("ls",), changes)


def test_a_relative_configuration_is_where_docker_took_it_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = read_call(["--config", "d", "kitcache"], {}).changes
    assert changes == {"DOCKER_CONFIG": str(tmp_path / "d")}


@pytest.mark.parametrize("name", ["tlscacert", "tlscert", "tlskey"])
def test_certificates_that_cannot_be_passed_on_are_not_left_out_silently(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match=f"--{name}"):
        read_call([f"--{name}", "x.pem", "kitcache", "build"], {})
    said = call(tmp_path, f"--{name}=x.pem", "kitcache", "build", ".")
    assert (said.code, said.out) == (2, "")
    assert "DOCKER_CERT_PATH" in said.err


def test_metadata_as_docker_wants_them(tmp_path: Path) -> None:
    said = call(tmp_path, "docker-cli-plugin-metadata")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert (found["SchemaVersion"], found["Version"]) == ("0.1.0", kitcache.__version__)
    assert found["Vendor"]
    assert found["ShortDescription"]


def test_metadata_load_nothing_that_the_version_does_not() -> None:
    modules = loaded("docker-cli-plugin", "docker-cli-plugin-metadata")
    ours = {name for name in modules if name.startswith("kitcache")}
    assert ours == {
        "kitcache",
        "kitcache.cli",
        "kitcache.cli.plugincall",
        "kitcache.cli.main",
        "kitcache.cli.terminal",
        "kitcache.errors",
        "kitcache.masking",
    }
    assert "argparse" not in modules
    assert modules <= loaded("--version") | {"kitcache.cli.plugincall"}


def test_hooks_add_nothing(tmp_path: Path) -> None:
    words = ("kitcache", "docker-cli-plugin-hooks", '{"RootCmd":"build"}')
    assert call(tmp_path, *words) == call(tmp_path, *words[1:]) == (0, "", "")


def test_a_command_is_the_same_through_docker(sample: Sample) -> None:
    assert call(sample.box.top, "kitcache", "ls", "cache") == run(sample.box.top, "ls", "cache")
    wrong = call(sample.box.top, "kitcache", "ls", "nowhere")
    assert wrong == run(sample.box.top, "ls", "nowhere")
    assert wrong.code == 10


@pytest.mark.parametrize("words", [["--help"], ["reset", "--help"], ["plugin", "--help"]])
def test_help_shows_what_is_to_be_typed(tmp_path: Path, words: list[str]) -> None:
    text = call(tmp_path, "kitcache", *words).out
    assert text.startswith("usage: docker kitcache ")
    assert not re.search(r"^  kitcache ", text, re.MULTILINE)
    assert re.search(r"^  docker kitcache ", text, re.MULTILINE)


def test_a_usage_error_shows_what_is_to_be_typed(tmp_path: Path) -> None:
    assert "hint: docker kitcache reset --help" in call(tmp_path, "kitcache", "reset").err
    assert "hint: docker kitcache --help" in call(tmp_path, "kitcache", "rest").err


@pytest.mark.parametrize(
    ("line", "directive", "offers"),
    [
        ("kitcache ", ":4", set(COMMANDS)),
        ("kitcache un", ":4", {"untag"}),
        ("--context x kitcache un", ":4", {"untag"}),
        ("kitcache zzz", ":4", set()),
        ("kitcache reset --m", ":4", {"--min-age"}),
        ("kitcache reset --q", ":4", {"--quiet"}),
        ("kitcache reset ca", ":16", set()),
        ("kitcache zzz --m", ":4", set()),
        ("kitcache reset -- --m", ":16", set()),
        ("kitcache exec -- docker b", ":0", set()),
        ("kitcache why c x", ":0", set()),
    ],
)
def test_completion(
    capsys: pytest.CaptureFixture[str], line: str, directive: str, offers: set[str]
) -> None:
    assert answer(["__complete", *line.split(" ")]) is None
    *words, last = capsys.readouterr().out.splitlines()
    assert last == directive
    assert {word.partition("\t")[0] for word in words} == offers


def test_every_option_is_offered_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the help's words only those that name an option, not those that mention one."""
    answer(["__complete", "kitcache", "untag", "--"])
    *lines, _ = capsys.readouterr().out.splitlines()
    words = sorted(line.partition("\t")[0] for line in lines)
    assert words == ["--dry-run", "--help", "--json", "--lock-timeout", "--quiet"]


def test_tags_of_a_cache_are_offered(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    answer(["__complete", "kitcache", "ls", str(sample.dir), "d"])
    assert capsys.readouterr().out.splitlines() == ["dev", ":4"]


SHOW = """
import os, sys
from kitcache.cli import main
main.run_words = lambda *_: print(sorted(n for n in os.environ if n.startswith("DOCKER_CLI")))
sys.exit(main.main(["docker-cli-plugin", "kitcache", "ls"]))
"""


def test_programs_that_we_run_do_not_take_themselves_for_plugins() -> None:
    ours = {"DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND": "docker", "DOCKER_CLI_PLUGIN_SOCKET": "@no"}
    env = {**os.environ, **ours}
    assert subprocess.check_output([sys.executable, "-c", SHOW], env=env, text=True) == "[]\n"


FOLLOWING = """
import os, signal, sys
from kitcache.cli.plugincall import follow_docker
from kitcache.cli.signals import cancel_on_signals
cancel = cancel_on_signals([signal.SIGINT])
if sys.argv[2] == "interrupted":
    os.kill(os.getpid(), signal.SIGINT)
follow_docker(sys.argv[1])
print("ready", flush=True)
cancel.wait()
print("cancelled", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("before", ["running", "interrupted"])
@pytest.mark.parametrize("kind", ["abstract", "path"])
def test_we_are_interrupted_once_when_docker_hangs_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, before: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"kitcache-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}" if kind == "abstract" else name)
        listener.listen()
        address = f"@{name}" if kind == "abstract" else name
        child = subprocess.Popen(
            [sys.executable, "-c", FOLLOWING, address, before],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout
        line, _ = listener.accept()
        assert child.stdout.readline() == "ready\n"
        line.close()
        assert child.stdout.readline() == "cancelled\n"
        out, _ = child.communicate("", timeout=20)
    assert (out, child.returncode) == ("", 0)


def test_a_docker_without_a_socket_is_no_trouble(sample: Sample) -> None:
    """docker before version 25 has none; another may be gone already."""
    for env in ({}, {"DOCKER_CLI_PLUGIN_SOCKET": "@kitcache-nobody"}):
        assert call(sample.box.top, "kitcache", "ls", "cache", env=env).code == 0


def test_a_signal_is_left_to_the_main_thread(tmp_path: Path) -> None:
    """One that the main thread holds back is there for it later: our thread does not take it."""
    program = """
import os, signal, socket, sys
from kitcache.cli.plugincall import follow_docker
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
follow_docker(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.kill(os.getpid(), signal.SIGTERM)
print(signal.sigwait({signal.SIGTERM}).name)
"""
    command = [sys.executable, "-c", program, tmp_path / "s"]
    assert subprocess.check_output(command, text=True, timeout=20) == "SIGTERM\n"
