"""Limits of a build's containers: the values of --ulimit and --shm-size.

Source: docker/go-units, ulimit.go and size.go.
"""

import re

from kitcache.errors import UsageError
from kitcache.options.attributes import hints_for

_ULIMITS = ("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
            "nproc", "rss", "rtprio", "rttime", "sigpending", "stack")  # fmt: skip
_MEMORY = re.compile(r"(\d{1,19}(?:\.\d{1,9})?) ?(?:([kmgtp])i?)?b?", re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_INT64 = 1 << 63


def parse_ulimit(text: str) -> str:
    """Return NAME=SOFT[:HARD] as NAME=SOFT:HARD. Raise UsageError in Docker's words."""
    name, _, limits = text.partition("=")
    match = re.fullmatch(r"(-?[0-9]{1,18})(?::(-?[0-9]{1,18}))?", limits)
    if match is None:
        raise UsageError(
            f"invalid ulimit argument: {text}", hints=("write nofile=1024:2048, for example",)
        )
    if name not in _ULIMITS:
        raise UsageError(f"invalid ulimit type: {name}", hints=hints_for(name.lower(), _ULIMITS))
    soft = int(match[1])
    hard = soft if match[2] is None else int(match[2])
    if hard != -1 and (soft > hard or soft == -1):
        raise UsageError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return f"{name}={soft}:{hard}"


def parse_memory(text: str) -> int:
    """Return the bytes in 64m, 1.5g or 512MiB. Units are powers of 1024. Raise UsageError."""
    match = _MEMORY.fullmatch(text.strip().lower())
    size = int(float(match[1]) * 1024 ** _POWERS[match[2] or ""]) if match else -1
    if not 0 <= size < _INT64:
        raise UsageError(f"invalid size: '{text}'", hints=("write 64m or 1g, for example",))
    return size
