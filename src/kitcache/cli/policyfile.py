"""The file that --policy names, read."""

from threading import Event

from kitcache.cli.interrupt import unless_cancelled
from kitcache.errors import Cancelled, UsageError
from kitcache.options.policyfile import read_policy
from kitcache.options.retention import Retention
from kitcache.store.layout import io_error

LIMIT_BYTES = 64 * 1024
"""No policy is larger; a hostile one of a MiB would take minutes to judge."""


def read_file(path: str, cancel: Event | None = None) -> Retention:
    """The policy in a file, or in a pipe to its end, which is waited for until cancel is set.

    Raises UsageError for what is wrong in it, Cancelled, KitcacheError.
    """
    try:
        data = unless_cancelled(lambda: _read(path), cancel or Event())
    except Cancelled as error:
        error.path, error.untouched = path, "nothing was done"
        raise
    except OSError as error:
        failure = io_error(path, "cannot read the policy", error)
        failure.untouched = "nothing was done"
        failure.next_steps = ("name the file that holds it",)
        raise failure from None
    if len(data) > LIMIT_BYTES:
        raise UsageError(f"a policy has at most {LIMIT_BYTES:,} bytes", path=path)
    try:
        # Some editors on Windows begin a file with a byte order mark.
        return read_policy(data.decode("utf-8-sig"), path)
    except UnicodeDecodeError:
        raise UsageError("it is not UTF-8: this is not TOML", path=path) from None


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(LIMIT_BYTES + 1)
