"""The console script, and python -m kitcache."""

import _signal  # type: ignore[import-not-found]  # signal itself imports other modules
import os

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    # While modules are loaded, nothing has begun: Ctrl-C ends the process without a traceback.
    _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))

from typing import NoReturn


def start() -> NoReturn:
    """Run the command line."""
    from kitcache.cli.main import run  # noqa: PLC0415 - it takes half of a start

    run()


if __name__ == "__main__":
    start()
