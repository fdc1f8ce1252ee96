import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from kitcache.errors import NotExecutable
from kitcache.wrap import child
from kitcache.wrap.child import find_program, run_child


def python(code: str, **more: object) -> int:
    return run_child(sys.executable, ["py", "-c", code], dict(os.environ), **more)  # type: ignore[arg-type]


def test_the_exit_code_or_the_signal() -> None:
    assert python("import sys; sys.exit(7)") == 7
    assert python("import os; os.kill(os.getpid(), 15)") == 128 + 15


def test_signals_are_as_they_were_before_and_after() -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    code = "import signal as s, sys; sys.exit(len(s.pthread_sigmask(s.SIG_BLOCK, ())))"
    assert python(code) == len(mask)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    # Python ignores SIGPIPE; the command is not to inherit that.
    assert run_child("/bin/sh", ["sh", "-c", "kill -PIPE $$"], {}) == 128 + signal.SIGPIPE


def test_another_thread_may_be_given_the_signal_of_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that does not block it, as a library's caller may have, while this one is not waiting."""
    wait, over = child._wait_for, threading.Event()

    def wait_late(pid: int) -> int:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return wait(pid)

    monkeypatch.setattr(child, "_wait_for", wait_late)
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        assert python("") == 0
    finally:
        over.set()
        other.join()


def test_an_inherited_fd_and_its_own_stdin(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    with (tmp_path / "in").open() as file, (tmp_path / "other").open("w") as other:
        code = f"import os, sys; os.write({other.fileno()}, sys.stdin.read().encode())"
        assert python(code, inherited=[other.fileno()], stdin_fd=file.fileno()) == 0
    assert (tmp_path / "other").read_text() == "hello"


def test_what_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("#!/no/such/program\n")
    (tmp_path / "broken").chmod(0o755)
    with pytest.raises(NotExecutable, match="cannot be run"):
        run_child(str(tmp_path / "broken"), ["broken"], {})


def test_a_script_whose_first_line_names_no_shell_is_run_by_sh(tmp_path: Path) -> None:
    (tmp_path / "script").write_text('test "$*" = "build ." && exit 5\n')
    (tmp_path / "script").chmod(0o755)
    assert run_child(str(tmp_path / "script"), ["script", "build", "."], {}) == 5


def test_a_program_is_looked_for_as_shells_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "docker").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "docker").write_text("")
    environ = {"PATH": f"{tmp_path}/a:{tmp_path}/c"}
    assert find_program("docker", environ) is None
    (tmp_path / "c" / "docker").chmod(0o755)
    assert find_program("docker", environ) == f"{tmp_path}/c/docker"
    monkeypatch.chdir(tmp_path / "c")
    assert find_program("./docker", {}) == "./docker"
    assert find_program("./nothing", environ) is None
