"""cli/main.py: the argument tree, Ctrl-C, and streams that are full, closed or gone."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

import kitcache
from kitcache.cli.main import WINDOWS
from kitcache.cli.parser import COMMANDS, load_command, make_parser, parse_words
from kitcache.cli.signals import Interrupt
from tests.hostile.build import Sample
from tests.hostile.command import run, run_command

KITCACHE = [sys.executable, "-m", "kitcache"]

AS_ON_WINDOWS = """
import sys
sys.platform = "win32"
sys.modules["fcntl"] = None
from kitcache.cli.main import run
sys.argv = ["kitcache", "reset", "cache"]
run()
"""

INTERRUPTED = """
import signal
from kitcache.cli.signals import cancel_on_signals
cancel = cancel_on_signals([signal.SIGINT])
print("ready", flush=True)
cancel.wait()
print("cancelled", flush=True)
signal.pause()
"""

INTERRUPTED_IMPORT = """
import signal, sys
module = sys.argv[1]
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from kitcache.__main__ import start
sys.argv = ["kitcache", "du", "cache"]
start()
print("not reached")
"""

BROKEN = """
import sys
import kitcache.cli.commands.du as du
def fail(*args, **kwargs):
    raise {error}
du.{where} = fail
from kitcache.cli.main import run
sys.argv = ["kitcache", "du", *sys.argv[1:], "cache"]
run()
"""
EVIL = BROKEN.format(error=r'LookupError("a line\nand \x1b[31m another")', where="du")
NO_THREAD = BROKEN.format(error='RuntimeError("can\'t start new thread")', where="du")
STRAY = BROKEN.format(error='PermissionError(13, "Permission denied")', where="run")


def test_the_version(tmp_path: Path) -> None:
    answer = run(tmp_path, "--version")
    assert (answer.code, answer.out, answer.err) == (0, f"kitcache {kitcache.__version__}\n", "")


def test_the_console_script_is_the_same_program(sample: Sample) -> None:
    script = Path(sys.executable).with_name("kitcache")
    answer = run_command([str(script), "reset", "--dry-run", "cache"], sample.box.top)
    assert answer.out.startswith("cache: would delete 4 blobs")


@pytest.mark.parametrize("module", ["typing", "kitcache.cli.main", "kitcache.options.units"])
def test_ctrl_c_while_modules_are_loaded_is_no_traceback(tmp_path: Path, module: str) -> None:
    answer = run_command([sys.executable, "-c", INTERRUPTED_IMPORT, module], tmp_path)
    assert (answer.code, answer.out, answer.err) == (130, "", "")


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS)], ids=" ".join)
def test_help_fits_80_columns(
    tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    answer = run(tmp_path, *words, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(" ".join(("usage: kitcache", *words)))
    assert [line for line in answer.out.splitlines() if len(line) > 80] == []


def test_the_help_lists_every_command(tmp_path: Path) -> None:
    words = " ".join(run(tmp_path, "--help").out.split())
    for command, summary in COMMANDS.items():
        assert f" {command} {summary} " in words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "usage: kitcache"),
        (("rset", "cache"), "'rset'"),
        (("reset",), "DIR"),
        (("reset", "--dry-rum", "cache"), "--dry-rum"),
        (("reset", "--min-age", "soon", "cache"), "'soon' is not an age; known forms: 90"),
        (("reset", "--min-age", "24", "cache"), "write 24h (hours) or 24s (seconds)"),
        (("du", "--export-time", "24", "cache"), "write 24h (hours) or 24s (seconds)"),
        (("tag", "--lock-timeout", "30", "c", "a", "b"), "write 30s (seconds) or 30m (minutes)"),
        (("reset", "--min-age", "9" * 400 + "w", "cache"), "more than a thousand years"),
        (("untag", "cache"), "TAG|GLOB|DIGEST"),
        (("--quiet", "du", "cache"), "--quiet"),
    ],
)
def test_a_command_line_that_cannot_be_understood(
    sample: Sample, words: tuple[str, ...], says: str
) -> None:
    answer = run(sample.box.top, *words)
    assert (answer.code, says in answer.err, answer.out) == (2, True, "")
    assert len(os.listdir(sample.dir / "blobs" / "sha256")) == 11


def test_a_usage_error_in_json(sample: Sample) -> None:
    value = run(sample.box.top, "reset", "--json", "--min-age", "soon", "cache").value
    assert (value["schema"], value["error"]) == ("kitcache.error/1", "UsageError")
    assert value["exit_code"] == 2


def test_an_option_may_not_be_cut_short(sample: Sample) -> None:
    """--dry would be --dry-run today, and something else once there is --dry-fruit."""
    assert run(sample.box.top, "reset", "--dry", "cache").code == 2


def test_the_tree_has_the_options_of_the_command_asked_for() -> None:
    args = parse_words(["du", "a", "b", "--json"])
    assert args is not None
    assert (args.command, args.dirs, args.json) == ("du", ["a", "b"], True)
    assert make_parser("ls", load_command("ls").COMMAND).parse_args(["a"]).dir == "a"


def test_windows_gets_one_clear_sentence(sample: Sample) -> None:
    """Also before anything is imported that Windows lacks."""
    answer = run_command([sys.executable, "-c", AS_ON_WINDOWS], sample.box.top)
    assert (answer.code, answer.out, answer.err) == (1, "", f"{WINDOWS}\n")


def test_no_traceback_reaches_a_user(sample: Sample) -> None:
    with started([sys.executable, "-c", EVIL], sample.box.top) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    first, *lines = err.splitlines()
    assert first.startswith("kitcache: this is a bug in kitcache: LookupError: a line\\nand \\x1b[")
    assert any(line.startswith("  hint: report it") for line in lines)


@pytest.mark.parametrize(
    ("program", "says"), [(NO_THREAD, "can't start new thread"), (STRAY, "Permission denied")]
)
def test_what_was_not_expected_is_told_in_json_too(sample: Sample, program: str, says: str) -> None:
    with started([sys.executable, "-c", program, "--json"], sample.box.top) as process:
        out, err = process.communicate(timeout=20)
    value = json.loads(out)
    assert (process.returncode, value["exit_code"], value["error"]) == (1, 1, "KitcacheError")
    assert value["schema"] == "kitcache.error/1"
    assert says in value["message"]
    assert err == f"kitcache: {value['message']}\n"
    assert "nothing was changed" not in err
    assert "cannot write the result" not in err


@contextmanager
def started(command: list[str], cwd: Path, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=cwd,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_stops_on_request(sample: Sample, as_json: bool) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        command = [*KITCACHE, "reset", "cache", "nowhere", *(["--json"] if as_json else [])]
        with started(command, sample.box.top) as process:
            waiting = line_of(process.stderr)
            assert waiting.startswith("kitcache: cache: waiting up to 30 s for process ")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    if as_json:
        value = json.loads(out)
        assert (value["error"], value["exit_code"], err) == ("Cancelled", 130, "")
        assert value["facts"] == {"deleted_blobs": 0, "deleted_bytes": 0, "timeout_s": None}
    else:
        assert out == ""
        assert err.splitlines() == [
            "kitcache: cache: stopped on request",
            "  nothing was deleted",
            "  hint: run the same command again to finish",
        ]


def test_the_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with started([sys.executable, "-c", INTERRUPTED], tmp_path) as process:
        assert line_of(process.stdout) == "ready\n"
        process.send_signal(signal.SIGINT)
        assert line_of(process.stdout) == "cancelled\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT


# The words after which something is written to stdout.
SPEAKING = [
    ("du", "cache"),
    ("reset", "cache"),
    ("du", "--json", "cache"),
    ("completion", "bash"),
    ("reset", "--json", "nowhere"),
]


@pytest.mark.parametrize("words", SPEAKING, ids=" ".join)
def test_a_full_stdout_is_an_error(sample: Sample, words: tuple[str, ...]) -> None:
    with (
        open("/dev/full", "w") as full,
        started([*KITCACHE, *words], sample.box.top, stdout=full) as process,
    ):
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == "kitcache: cannot write the result: No space left on device\n"


@pytest.mark.parametrize("words", SPEAKING, ids=" ".join)
def test_a_reader_that_has_gone_away_is_told_nothing(
    sample: Sample, words: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with started([*KITCACHE, *words], sample.box.top, stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_do_not_keep_it_from_its_work(sample: Sample, closed: str) -> None:
    script = f'exec "$@" {closed}'
    answer = run_command(["sh", "-c", script, "sh", *KITCACHE, "reset", "cache"], sample.box.top)
    assert set(os.listdir(sample.dir / "blobs" / "sha256")) == sample.live
    assert answer.err == ""


@pytest.mark.parametrize(("words", "code"), [(["reset", "cache"], 0), (["du", "nowhere"], 10)])
def test_a_full_stderr_does_not_either(sample: Sample, words: list[str], code: int) -> None:
    (sample.dir / "notes").touch()  # to have something to say
    script = 'exec "$@" 2>/dev/full'
    answer = run_command(["sh", "-c", script, "sh", *KITCACHE, *words], sample.box.top)
    assert answer.code == code


def test_what_the_encoding_cannot_say_is_escaped(sample: Sample) -> None:
    sample.box.tag("東京", sample.main)
    answer = run_command(
        [*KITCACHE, "ls", "cache"],
        sample.box.top,
        env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert answer.code == 0
    assert "\\u6771\\u4eac" in answer.out


def test_a_signal_in_the_middle_of_a_wait_is_no_deadlock() -> None:
    """The handler runs in the thread that waits: Event's own lock may be had by then."""
    cancel = Interrupt()

    def be_interrupted_in_wait() -> None:
        with cancel._cond:  # type: ignore[attr-defined]
            cancel.set()

    thread = threading.Thread(target=be_interrupted_in_wait, daemon=True)
    thread.start()
    assert cancel.wait(30)
    thread.join(30)
    assert not thread.is_alive()


def test_a_signal_ends_a_wait() -> None:
    cancel = Interrupt()
    before = signal.signal(signal.SIGALRM, lambda *_: cancel.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert cancel.wait(30)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_wait_ends_in_time_where_nothing_comes() -> None:
    assert not Interrupt().wait(0.01)
    assert not Interrupt().wait(0)


NO_CLOCK = """
import sys, time
def time_ns(): raise OverflowError("timestamp too large to convert to C _PyTime_t")
time.time_ns = time_ns
from kitcache.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
SHORTAGES = [
    (BROKEN.format(error="MemoryError()", where="du"), "there is not enough memory"),
    (
        BROKEN.format(error='OSError(24, "Too many open files")', where="run"),
        "too many open files",
    ),
    (NO_CLOCK, "the clock of this machine is beyond the year 2262"),
]


@pytest.mark.parametrize(("program", "says"), SHORTAGES, ids=["memory", "files", "clock"])
def test_what_the_machine_lacks_is_no_bug(sample: Sample, program: str, says: str) -> None:
    with started([sys.executable, "-c", program, "du", "cache"], sample.box.top) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert says in err.splitlines()[0]
    assert "bug" not in err
    assert "hint: " in err
