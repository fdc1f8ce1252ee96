"""The file that --policy or --prune-policy names, read."""

from threading import Event

from kitcache.cli.interrupt import open_stdin, unless_cancelled
from kitcache.errors import Cancelled, UsageError
from kitcache.options.policyfile import read_policy
from kitcache.options.retention import Retention
from kitcache.store.layout import io_error

STDIN = "-"
LIMIT_BYTES = 64 * 1024
"""No policy is larger; a hostile one of a MiB would take minutes to judge."""


def read_file(path: str, cancel: Event | None = None) -> Retention:
    """Return the policy in a file or pipe, read to its end; "-" is stdin.

    Raises UsageError for what is wrong in it, Cancelled once cancel is set, KitcacheError.
    """
    cancel = cancel or Event()
    name = "stdin" if path == STDIN else path
    try:
        data = unless_cancelled(lambda: _read(path, cancel), cancel)
    except Cancelled as error:
        error.path, error.untouched = name, "nothing was done"
        raise
    except OSError as error:
        failure = io_error(name, "cannot read the policy", error)
        failure.untouched = "nothing was done"
        failure.next_steps = ("name the file that holds it",)
        raise failure from None
    if len(data) > LIMIT_BYTES:
        raise UsageError(f"a policy has at most {LIMIT_BYTES:,} bytes", path=name)
    try:
        # Some editors on Windows begin a file with a byte order mark.
        return read_policy(data.decode("utf-8-sig"), name)
    except UnicodeDecodeError:
        raise UsageError("it is not UTF-8: this is not TOML", path=name) from None


def _read(path: str, cancel: Event) -> bytes:
    if path == STDIN:
        stdin = open_stdin(cancel)
        if stdin is None:
            raise UsageError("it is closed: no policy can be read from it", path="stdin")
        return stdin.read(LIMIT_BYTES + 1)
    with open(path, "rb") as file:
        return file.read(LIMIT_BYTES + 1)
