"""The console script, and python -m kitcache."""

import sys
from typing import NoReturn


def start() -> NoReturn:
    """Run the command line. Ctrl-C while its modules are loaded ends it without a traceback."""
    try:
        from kitcache.cli.main import run  # noqa: PLC0415 - it takes half of a start
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    start()
