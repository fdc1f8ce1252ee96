"""36h ⇄ nanoseconds, bytes → 5 GB. One parser, one printer."""

import re

_SECOND_NS = 10**9
_AGE_UNITS = {
    "s": _SECOND_NS,
    "m": 60 * _SECOND_NS,
    "h": 3600 * _SECOND_NS,
    "d": 86_400 * _SECOND_NS,
    "w": 604_800 * _SECOND_NS,
}
_AGE_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_LONGEST_NS = 1000 * 365 * 86_400 * _SECOND_NS


def parse_age(text: str) -> int:
    """Nanoseconds in an age such as 90, 90s, 15m, 36h, 7d, 2w, 1h30m; a bare number is seconds.

    Raises ValueError, which says what forms are known.
    """
    word = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", word, re.ASCII):
        word += "s"
    parts = _AGE_PART.findall(word)
    if not word or "".join(number + unit for number, unit in parts) != word:
        raise ValueError(
            f"{text!r} is no age; known forms: 90 (seconds), 90s, 15m, 36h, 7d, 2w, 1h30m"
        )
    total = sum(float(number) * _AGE_UNITS[unit] for number, unit in parts)
    if total > _LONGEST_NS:
        raise ValueError(f"{text[:40]!r} is more than a thousand years")
    return round(total)


def format_age(age_ns: int) -> str:
    """The age in its largest whole unit, for eyes: 3 d, 5 h, 12 min, 4 s; a future time says so."""
    if age_ns < 0:
        return f"{format_age(-age_ns)} ahead"
    for name, unit_ns in (("d", 86_400), ("h", 3600), ("min", 60)):
        if age_ns >= unit_ns * _SECOND_NS:
            return f"{age_ns // (unit_ns * _SECOND_NS)} {name}"
    return f"{age_ns // _SECOND_NS} s"


def format_bytes(count: int) -> str:
    """A size for eyes, decimal: 0 B, 812 B, 1.2 kB, 343 MB, 5.1 GB."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        size /= 1000
        if size < 999.5 or unit == "PB":
            break
    return f"{size:.1f} {unit}" if size < 99.95 else f"{size:,.0f} {unit}"
