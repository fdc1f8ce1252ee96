"""Runs a command with the terminal, signals and exit code that it would have without kitcache.

The command is in kitcache's process group, so it gets the terminal's signals itself. A signal
to kitcache alone is forwarded. kitcache never ends before the command.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from kitcache.errors import NotExecutable

Result = TypeVar("Result")

_SHELL = "/bin/sh"
_FROM_THE_TERMINAL = frozenset((signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGHUP))
_FORWARDED = _FROM_THE_TERMINAL | {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
_BLOCKED = _FORWARDED | {signal.SIGCHLD}
_POLL_S = 0.5
_SI_KERNEL = 0x80


def find_program(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the file that a command's first word names: a path, or the first match in PATH."""
    if "/" in name:
        return name if os.path.exists(name) else None
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory or os.curdir, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def start_or_run_script(
    program: str, argv: Sequence[str], start: Callable[[str, Sequence[str]], Result]
) -> Result:
    """Start a command. Like shells and env, use sh for a script without a `#!` line."""
    try:
        return start(program, argv)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return start(_SHELL, (_SHELL, program, *argv[1:]))


def run_child(
    program: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    inherited: Iterable[int] = (),
    stdin_fd: int | None = None,
) -> int:
    """Run a command to its end. Return its exit code, or 128 plus the signal that ended it.

    Args:
        inherited: Fds that the command gets, under the same numbers.
        stdin_fd: Its standard input; None for the stdin of kitcache.

    Raises:
        NotExecutable: It cannot be started.
    """
    for fd in inherited:
        os.set_inheritable(fd, True)
    actions = [] if stdin_fd is None else [(os.POSIX_SPAWN_DUP2, stdin_fd, 0)]
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        try:
            pid = start_or_run_script(
                program,
                argv,
                lambda path, words: os.posix_spawn(
                    path,
                    list(words),
                    environ,
                    file_actions=actions,
                    setsigmask=before,
                    # Python ignores these signals, and the command would inherit this.
                    setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
                ),
            )
        except OSError as error:
            raise NotExecutable(argv[0], error.strerror or str(error)) from None
        return _wait_for(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for(pid: int) -> int:
    while True:
        number, must_forward = _next_signal()
        if must_forward:
            os.kill(pid, number)  # waitpid has not reaped it yet, so the pid is valid.
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _next_signal() -> tuple[int, bool]:
    """Return the next signal, and whether it was sent to kitcache alone.

    Return 0 after half a second: another thread, which does not block SIGCHLD, may receive it.
    """
    if sys.platform == "darwin":  # sigwait does not report the sender.
        number = signal.sigwait(_BLOCKED)
        return number, number in _FORWARDED - _FROM_THE_TERMINAL
    info = signal.sigtimedwait(_BLOCKED, _POLL_S)
    if info is None:
        return 0, False
    return info.si_signo, info.si_signo in _FORWARDED and info.si_code != _SI_KERNEL
