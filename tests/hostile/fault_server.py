"""Runs commands in children that have all modules already; in each one call of the C library fails.

Started by `faulty.Server` with the library of faults.c loaded before the C library. It reads one
job per line from stdin, and writes its exit code to stdout. A job is a JSON object. argv: words of
kitcache, or `export` and its arguments. root: only calls about files below it count. at, errno:
which one fails, 0 for none. log: gets a line per call. out: gets stdout and stderr.
"""

import ctypes
import importlib
import json
import os
import pkgutil
import random
import signal
import sys
import traceback
from typing import Any

import kitcache
from kitcache.cli.main import main
from kitcache.errors import KitcacheError
from tests.hostile import exporting

LIMIT_S = 30
_LIBRARY = ctypes.CDLL(None)


def import_all() -> None:
    """A lazy import is no call about the cache, but it takes its time."""
    for module in pkgutil.walk_packages(kitcache.__path__, "kitcache."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def export(path: str, tag: str, seed: str) -> int:
    """What a build does with its cache, without a daemon: its exit code."""
    try:
        results = exporting.export(path, tag, exporting.make_blobs(random.Random(int(seed))))
    except KitcacheError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stderr.write("".join(f"{result.problem}\n" for result in results))
    return max(result.exit_code for result in results)


def run(job: dict[str, Any]) -> int:
    """In a child: the exit code."""
    signal.alarm(LIMIT_S)
    for fd, name in ((1, job["out"]), (2, job["out"])):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), fd)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    _LIBRARY.fault_arm(job["root"].encode(), log, ctypes.c_long(job["at"]), job["errno"])
    first, *rest = job["argv"]
    code = export(*rest) if first == "export" else main(job["argv"])
    _LIBRARY.fault_disarm()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve() -> None:
    import_all()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 99
            try:
                code = run(json.loads(line))
            except BaseException:  # noqa: BLE001 - the parent goes on
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
