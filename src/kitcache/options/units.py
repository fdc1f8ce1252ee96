"""Ages, sizes and lists for people: 36h ⇄ nanoseconds, 5 GB ⇄ bytes, "a, b, c and 4 more"."""

import re
from collections.abc import Sequence

_SECOND_NS = 10**9
_AGE_UNITS = {
    "s": _SECOND_NS,
    "m": 60 * _SECOND_NS,
    "h": 3600 * _SECOND_NS,
    "d": 86_400 * _SECOND_NS,
    "w": 604_800 * _SECOND_NS,
}
_UNIT_NAMES = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGE_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_LONGEST_NS = 1000 * 365 * 86_400 * _SECOND_NS
_SIZE = r"(?ai)(\d+|\d{1,3}(?:,\d{3})+)(?:\.(\d{1,9}))? ?(?:([kmgtp]i?)b?|b)?"
_SIZE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_SIZE_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}
_LARGEST = 2**63 - 1
_LEAST_BARE = 10**6
_MAX_NAMED = 3
AGE_FORMS = "90s, 15m, 36h, 7d, 2w, 1h30m"
SIZE_FORMS = "5GB (10^9 bytes each), 5GiB (2^30), 512 MB, 1.5TB, 900kB, 5000000000 (bytes)"


def parse_age(text: str, likely: Sequence[str] = ("h", "s")) -> int:
    """Return the nanoseconds in an age such as 90s, 36h, 7d or 1h30m. Only 0 needs no unit.

    Raise ValueError with the known forms if the text is not an age, or a number without a unit.

    Args:
        likely: The units that a number without a unit most likely has.
    """
    word = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", word, re.ASCII):
        if not word.strip("0."):
            return 0
        forms = " or ".join(f"{word[:40]}{unit} ({_UNIT_NAMES[unit]})" for unit in likely)
        raise ValueError(f"{word[:40]!r} has no unit: write {forms}")
    parts = _AGE_PART.findall(word)
    if not word or "".join(number + unit for number, unit in parts) != word:
        raise ValueError(f"{text[:40]!r} is not an age; known forms: {AGE_FORMS}")
    total = sum(float(number) * _AGE_UNITS[unit] for number, unit in parts)
    if total > _LONGEST_NS:
        raise ValueError(f"{text[:40]!r} is more than a thousand years")
    return round(total)


def format_age(age_ns: int) -> str:
    """Return the age in its largest unit, to display: 3 d, 12 min, 4 s; if negative, 5 h ahead."""
    if age_ns < 0:
        return f"{format_age(-age_ns)} ahead"
    for name, unit_ns in (("d", 86_400), ("h", 3600), ("min", 60)):
        if age_ns >= unit_ns * _SECOND_NS:
            return f"{age_ns // (unit_ns * _SECOND_NS)} {name}"
    return f"{age_ns // _SECOND_NS} s"


def spell_age(age_ns: int) -> str:
    """Return the age in whole seconds as parse_age reads it, in its largest units: 30d, 1h30m."""
    if age_ns < 0:
        return f"-{spell_age(-age_ns)}"
    seconds = age_ns // _SECOND_NS
    parts = []
    for unit in "dhm":
        count, seconds = divmod(seconds, _AGE_UNITS[unit] // _SECOND_NS)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) + (f"{seconds}s" if seconds or not parts else "")


def parse_bytes(text: str) -> int:
    """Return the bytes in a size such as 5GB, 5 GB, 5GiB, 1.5TB, 900kB, 5g or 5000000000.

    GB is 10^9 and GiB is 2^30, in upper or lower case, with or without the B. The function also
    reads the output of format_bytes, and rounds down to whole bytes. Raise ValueError with the
    known forms if the text is not a size, or a small number without a unit: 5 does not mean 5 B.
    """
    # Compiled on use, because a reset reads no size and has to start fast.
    match = re.fullmatch(_SIZE, text.strip())
    # A fraction needs a unit: a fraction of a byte is not a size.
    if match is None or (match[2] and not match[3]):
        raise ValueError(f"{text[:40]!r} is not a size; known forms: {SIZE_FORMS}")
    whole, fraction, unit = match.groups(default="")
    digits = whole.replace(",", "").lstrip("0")
    if len(digits) > len(str(_LARGEST)):
        raise ValueError(f"{text[:40]!r} is more than any disk has")
    scaled = int(digits + fraction or "0") * _SIZE_UNITS[unit.lower()]
    size = scaled // int("1" + "0" * len(fraction))
    if size > _LARGEST:
        raise ValueError(f"{text[:40]!r} is more than any disk has")
    if text.strip()[-1].isdigit() and 0 < size < _LEAST_BARE:
        raise ValueError(
            f"{text[:40]!r} has no unit; known forms: {SIZE_FORMS}; for bytes write 5B"
        )
    return size


def format_bytes(count: int) -> str:
    """Return a size to display, in decimal units: 0 B, 812 B, 1.2 kB, 343 MB, 5.1 GB."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        size /= 1000
        if size < 999.5 or unit == "PB":
            break
    return f"{size:.1f} {unit}" if size < 99.95 else f"{size:,.0f} {unit}"


def format_distinct(first: int, second: int) -> tuple[str, str]:
    """Return both sizes to display, with all digits if they differ but would look the same."""
    short = format_bytes(first), format_bytes(second)
    return short if short[0] != short[1] or first == second else (f"{first:,} B", f"{second:,} B")


def join_first(clauses: Sequence[str]) -> str:
    """Return the first three clauses and the number of the others, "" if there are none."""
    more = len(clauses) - _MAX_NAMED
    return ", ".join(clauses[:_MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
