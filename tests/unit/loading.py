"""Runs a program in a bare interpreter, says what it loaded, and what none of ours may load."""

import subprocess
import sys
from pathlib import Path

# Said aloud, since each of these would cost more than all that is allowed.
NEVER = {
    "asyncio",
    "azure",
    "boto3",
    "botocore",
    "concurrent.futures",
    "dataclasses",
    "google",
    "hpack",
    "importlib.metadata",
    "inspect",
    "logging",
    "pathlib",
    "rich",
    "shutil",
    "subprocess",
    "tempfile",
    "traceback",
    "unittest",
}
# A build needs protobuf and hpack, and gets what those bring along.
NEVER_IN_BUILD = NEVER - {"google", "hpack", "logging", "traceback"} | {
    "difflib",
    "email",
    "grpc",
    "hmac",
    "http",
    "kitcache.buildkit.daemon.child",
    "kitcache.buildkit.daemon.tlstransport",
    "kitcache.cli.live",
    "multiprocessing",
    "random",
    "requests",
    "secrets",
    "ssl",
}

CHILD = """
import sys
before = set(sys.modules)
from kitcache.cli.main import main
code = main(sys.argv[1:])
print(code, *(set(sys.modules) - before), file=sys.stderr)
"""

IMPORT_ALONE = """
import sys
before = set(sys.modules)
import kitcache
dir(kitcache), kitcache.__all__, kitcache.__version__
print(0, *(set(sys.modules) - before), file=sys.stderr)
"""


def loaded(program: str, *words: str, cwd: Path, code: int = 0) -> set[str]:
    """What that program loads that a bare interpreter does not."""
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    found, *modules = done.stderr.splitlines()[-1].split()
    assert int(found) == code, done.stderr
    return set(modules)


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] == "kitcache"}
