"""The files of a build's secrets, checked before anything is built."""

import os
import stat
from collections.abc import Callable

from kitcache.buildkit.session.secrets import MAX_SECRET_BYTES
from kitcache.options.secrets import Secret
from kitcache.store.ioerrors import io_error
from kitcache.store.userfiles import read_to_end


def prepare_secret(secret: Secret, pause: Callable[[str], None]) -> Secret:
    """Return the secret, with its data if it is in a pipe or a device. Raise KitcacheError.

    A regular file is read when a step asks for it; here its existence is checked. A pipe, such as
    bash's <(COMMAND), can be read only once, and a step may ask twice.

    Args:
        pause: Called with the path repeatedly while a pipe has no data. It may raise.
    """
    path = secret.path
    if path is None:
        return secret
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return secret
        return Secret(secret.id, data=read_to_end(path, MAX_SECRET_BYTES, lambda: pause(path)))
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, OSError) else OSError(0, str(error))
        problem = f"the file of the secret {secret.id} cannot be read"
        failure = io_error(path, problem, cause, effect="nothing was built")
        if isinstance(error, FileNotFoundError):
            failure.hints = ("name a file that exists",)
        raise failure from None
