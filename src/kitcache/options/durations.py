"""Durations as Go reads them: 24h, 1h30m, 1.5s. Source: Go, time.ParseDuration."""

import re

_SECOND_NS = 10**9
_HOUR_NS = 3600 * _SECOND_NS
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6}
_UNITS |= {"s": _SECOND_NS, "m": 60 * _SECOND_NS, "h": _HOUR_NS}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]+)", re.ASCII)
_LONGEST_NS = 2**63 - 1


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration, which may be negative. Raise ValueError."""
    digits = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if digits == "0":
        return 0
    parts = _PART.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        raise ValueError(f"{text[:40]!r} is not a duration such as 24h or 1h30m")
    unknown = [unit for _, unit in parts if unit not in _UNITS]
    if unknown:
        raise ValueError(f"{text[:40]!r} has the unknown unit {unknown[0]!r}; the longest is h")
    total = round(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if total > _LONGEST_NS:
        raise ValueError(f"{text[:40]!r} is more than 292 years")
    return -total if text.startswith("-") else total


def format_duration(duration_ns: int) -> str:
    """Return the duration in one unit, as parse_duration reads it."""
    for unit, unit_ns in (("h", _HOUR_NS), ("s", _SECOND_NS)):
        if duration_ns and duration_ns % unit_ns == 0:
            return f"{duration_ns // unit_ns}{unit}"
    return f"{duration_ns}ns" if duration_ns else "0s"
