"""The files of a build's secrets, looked at before anything is built."""

import os
import stat
from collections.abc import Callable

from kitcache.buildkit.session.secrets import MOST_BYTES
from kitcache.errors import KitcacheError
from kitcache.options.secrets import Secret
from kitcache.store.ioerrors import io_error
from kitcache.store.userfiles import read_to_end


def prepare_secrets(named: tuple[Secret, ...], pause: Callable[[str], None]) -> tuple[Secret, ...]:
    """Return the secrets, with the data of those that are in a pipe or a device.

    A regular file is read when a step asks for it; that it is there is found out now. A pipe, such
    as bash's <(COMMAND), can be read only once, and a step may ask twice. pause: called with
    the path again and again while a pipe gives nothing; it may raise. Raises KitcacheError.
    """
    return tuple(_prepare(secret, pause) for secret in named)


def _prepare(secret: Secret, pause: Callable[[str], None]) -> Secret:
    path = secret.path
    if path is None:
        return secret
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return secret
        return Secret(secret.id, data=read_to_end(path, MOST_BYTES, lambda: pause(path)))
    except (OSError, ValueError) as error:
        raise _unreadable(secret.id, path, error) from None


def _unreadable(name: str, path: str, error: OSError | ValueError) -> KitcacheError:
    reason = error if isinstance(error, OSError) else OSError(0, str(error))
    failure = io_error(
        path, f"the file of the secret {name} cannot be read", reason, effect="nothing was built"
    )
    if isinstance(error, FileNotFoundError):
        failure.hints = ("name a file that is there: --secret id=ID,src=FILE",)
    return failure
