"""Runs the real command line on a hostile directory, and checks what every answer owes a person.

Always: it ends, no traceback, no character on stdout or stderr that a terminal acts on, and
nothing beside the cache is touched.
"""

import json
import os
import re
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from tests.caches.snapshot import Tree, differences, take_snapshot

OURS = {"cache/kitcache.lock", "cache/.kitcache", "cache/index.json.lock"}
LOCK = "cache/kitcache.lock"
LIMIT_S = 20.0


class Answer(NamedTuple):
    """What a command said and how it ended. Streams are decoded leniently."""

    code: int
    out: str
    err: str

    @property
    def values(self) -> list[dict[str, Any]]:
        """The JSON objects of stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def value(self) -> dict[str, Any]:
        (value,) = self.values
        return value


def run(
    cwd: Path, *args: str | bytes, env: dict[str, str] | None = None, limit_s: float = LIMIT_S
) -> Answer:
    """`kitcache ARGS` in a process of its own."""
    return run_command([sys.executable, "-m", "kitcache", *args], cwd, env=env, limit_s=limit_s)


def run_command(
    command: list[Any],
    cwd: Path,
    *,
    env: dict[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> Answer:
    """Any command under the same checks. Fails the test where it hangs."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "HOME": str(cwd), "LC_ALL": "C.UTF-8", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        raise AssertionError(f"does not end: {command}") from None
    codec = (env or {}).get("PYTHONIOENCODING", "utf-8").partition(":")[0]
    answer = Answer(
        process.returncode,
        out.decode(codec, errors="surrogateescape"),
        err.decode(codec, errors="surrogateescape"),
    )
    assert_civil(answer)
    return answer


def assert_civil(answer: Answer) -> None:
    """No traceback, no raw control or invisible formatting character, no broken UTF-8."""
    both = answer.out + answer.err
    assert "Traceback" not in both, both
    assert "Warning:" not in both, both
    # How a traceback is dressed up for people.
    assert "this is a bug" not in both, both
    raw = {c for c in both if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert raw <= {"\n"}, f"raw characters {raw!r} in {both!r}"


def unchanged(before: Tree, after: Tree) -> list[str]:
    """What changed, beyond the new names that a command may leave, and the date of its lock."""
    now = {n: e for n, e in after.items() if n in before or n not in OURS}
    if LOCK in before and LOCK in now:
        now[LOCK] = now[LOCK]._replace(mtime_ns=before[LOCK].mtime_ns)
    return differences(before, now)


def assert_refused(
    top: Path,
    code: int,
    *says: str,
    tag: str | None = None,
    chain: tuple[str, ...] | None = None,
    directory: str = "cache",
    kind: str | None = None,
) -> Answer:
    """`reset` refuses in words, a dry run in JSON, and both say the same and change nothing.

    The message names the directory, the tag, the chain of digests down to the damage, says that
    nothing was deleted and what to do next. Gives the JSON answer.
    """
    before = take_snapshot(top)
    text = run(top, "reset", directory)
    in_json = run(top, "reset", "--dry-run", "--json", directory)
    assert unchanged(before, take_snapshot(top)) == []
    assert (text.code, in_json.code) == (code, code), text.err
    assert text.out == ""
    assert_message(text.err, directory, says, tag, chain)
    value = in_json.value
    assert value["schema"] == "kitcache.error/1"
    assert (value["exit_code"], value["path"]) == (code, directory)
    assert timeless(text.err) == timeless(f"kitcache: {value['message']}\n")
    assert value["hints"]
    if tag is not None:
        assert value["facts"]["tag"] == tag
    if kind is not None:
        assert (value["error"], value["facts"]["kind"]) == ("Damaged", kind)
    return in_json


def timeless(message: str) -> str:
    """A message without the seconds to wait, which go by between two runs."""
    return re.sub(r"in \d+ s", "in N s", message)


def assert_message(
    message: str,
    directory: str,
    says: tuple[str, ...],
    tag: str | None = None,
    chain: tuple[str, ...] | None = None,
) -> None:
    """The four things a refusal says: what and where, what was left alone, what to do next."""
    headline, *lines = message.splitlines()
    assert headline.startswith("kitcache: ")
    assert directory in headline
    for words in says:
        assert words in message, message
    assert {"  nothing was deleted", "  nothing was changed"} & set(lines), message
    assert any(line.startswith("  hint: ") for line in lines), message
    if tag is not None:
        assert f"'{tag}'" in headline, message
    if chain is not None:
        (path,) = [line for line in lines if line.startswith("  path: index.json > ")]
        places = [path.find(digest.partition(":")[2][:12]) for digest in chain]
        assert -1 not in places, message
        assert places == sorted(places), message
