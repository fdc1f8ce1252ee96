"""Limits of a build's containers: the values of --ulimit and --shm-size.

Source: docker/go-units, ulimit.go and size.go.
"""

import re

from kitcache.errors import UsageError
from kitcache.options.attributes import suggest

_ULIMITS = ("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
            "nproc", "rss", "rtprio", "rttime", "sigpending", "stack")  # fmt: skip
_MEMORY = re.compile(r"(\d{1,19}(?:\.\d{1,9})?) ?(?:([kmgtp])i?)?b?", re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_INT64 = 1 << 63


def parse_ulimit(text: str) -> str:
    """The limit as NAME=SOFT:HARD, of NAME=SOFT[:HARD]. Raises UsageError in Docker's words."""
    name, _, limits = text.partition("=")
    found = re.fullmatch(r"(-?[0-9]{1,18})(?::(-?[0-9]{1,18}))?", limits)
    if found is None:
        raise UsageError(
            f"invalid ulimit argument: {text}", hints=("write nofile=1024:2048, for one",)
        )
    if name not in _ULIMITS:
        meant = suggest(name.lower(), _ULIMITS)
        raise UsageError(
            f"invalid ulimit type: {name}",
            hints=(f"did you mean {meant}?" if meant else f"use {', '.join(_ULIMITS)}",),
        )
    soft = int(found[1])
    hard = soft if found[2] is None else int(found[2])
    if hard != -1 and (soft > hard or soft == -1):
        raise UsageError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return f"{name}={soft}:{hard}"


def parse_memory(text: str) -> int:
    """Bytes in 64m, 1.5g, 512MiB or 1073741824: Docker's units are powers of 1024, all of them.

    Raises UsageError.
    """
    found = _MEMORY.fullmatch(text.strip().lower())
    size = int(float(found[1]) * 1024 ** _POWERS[found[2] or ""]) if found else -1
    if not 0 <= size < _INT64:
        raise UsageError(f"invalid size: '{text}'", hints=("write 64m or 1g, for one",))
    return size
