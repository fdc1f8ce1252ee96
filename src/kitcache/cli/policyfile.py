"""The file that --policy names, read."""

from kitcache.errors import UsageError
from kitcache.options.policyfile import read_policy
from kitcache.options.retention import Retention
from kitcache.store.layout import io_error

LIMIT_BYTES = 64 * 1024
"""No policy is larger; a hostile one of a MiB would take minutes to judge."""


def read_file(path: str) -> Retention:
    """The policy in a file. Raises UsageError for what is wrong in it, KitcacheError."""
    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT_BYTES + 1)
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
