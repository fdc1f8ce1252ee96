"""A command runs as if it had been started without us: terminal, signals, exit code.

It stays in our process group, so that what a terminal sends reaches it by itself; what was sent to
us alone is passed on. We never end before it does.
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
_PASSED_ON = frozenset(
    (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    )
)
_OURS = _PASSED_ON | {signal.SIGCHLD}
_FROM_THE_TERMINAL = frozenset((signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGHUP))
_GLANCE_S = 0.5
_SI_KERNEL = 0x80


def find_program(name: str, environ: Mapping[str, str]) -> str | None:
    """The file that a command's first word names, None where there is none.

    Of those in PATH one that can be run.
    """
    if "/" in name:
        return name if os.path.exists(name) else None
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory or os.curdir, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def run_script_too(
    program: str, argv: Sequence[str], start: Callable[[str, Sequence[str]], Result]
) -> Result:
    """Start a command; a script whose first line names no shell by sh, as shells and env do it."""
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
    """Run a command to its end: its exit code, or 128 and the signal that ended it.

    inherited: fds that it has open, under the same numbers. stdin_fd: its standard input, None:
    ours. Raises NotExecutable.
    """
    for fd in inherited:
        os.set_inheritable(fd, True)
    actions = [] if stdin_fd is None else [(os.POSIX_SPAWN_DUP2, stdin_fd, 0)]
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    try:
        try:
            pid = run_script_too(
                program,
                argv,
                lambda path, words: os.posix_spawn(
                    path,
                    list(words),
                    environ,
                    file_actions=actions,
                    setsigmask=before,
                    # Python ignores them, and exec keeps that.
                    setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
                ),
            )
        except OSError as error:
            raise NotExecutable(argv[0], error.strerror or str(error)) from None
        return _attend(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _attend(pid: int) -> int:
    while True:
        number, is_for_us = _next_signal()
        if is_for_us:
            os.kill(pid, number)  # it is not waited for yet, so the number is still its own
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _next_signal() -> tuple[int, bool]:
    """The next signal, and whether it was sent to us alone, so that it has to be passed on.

    Or 0 after half a second: SIGCHLD may have gone to another thread, which does not block it.
    """
    if sys.platform == "darwin":  # there nobody says who sent it
        number = signal.sigwait(_OURS)
        return number, number in _PASSED_ON - _FROM_THE_TERMINAL
    found = signal.sigtimedwait(_OURS, _GLANCE_S)
    if found is None:
        return 0, False
    return found.si_signo, found.si_signo in _PASSED_ON and found.si_code != _SI_KERNEL
