r"""The texts of steps, for the plain and the live display.

Daemons and programs in a build can print any bytes. Escape sequences and control characters are
removed or escaped. Text and tabs are kept, and colours on request.
"""

import re
import unicodedata

from kitcache.errors import printable

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, modes
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC: titles, links, settings
    r"|[ -/]*[0-~])"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_RESET = "\x1b[0m"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def wants_colour(environ_no_color: str | None) -> bool:
    """Return True unless NO_COLOR is set and not empty. Source: no-color.org."""
    return not environ_no_color


def clean(text: str) -> str:
    """Return the text on one line, without escape sequences and control characters."""
    return _escape(_SEQUENCE.sub("", text))


def clean_log(text: str, *, colour: bool) -> str:
    """Return a line of a log: as `clean`, but with tabs, and with colours on request.

    A colour that is still on is turned off at the end.
    """
    if text.isprintable():
        return text
    parts, at, is_coloured = [], 0, False
    for match in _SEQUENCE.finditer(text):
        parts.append(_escape(text[at : match.start()]))
        at = match.end()
        if colour and _COLOUR.fullmatch(match[0]):
            parts.append(match[0])
            is_coloured = match[0] not in ("\x1b[m", _RESET)
    parts.append(_escape(text[at:]))
    return "".join(parts) + (_RESET if is_coloured else "")


def bytes_text(number: int) -> str:
    """Return a number of bytes as buildx prints it: 60B, 1.05MB."""
    if abs(number) < 1000:
        return f"{number}B"
    value, unit = float(number), 0
    while abs(value) >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.2f}{_UNITS[unit]}"


def amount_text(current: int, total: int) -> str:
    """Return the progress of a transfer: 1.05MB / 3.00MB; without a total 1.05MB, or ""."""
    if total:
        return f"{bytes_text(current)} / {bytes_text(total)}"
    return bytes_text(current) if current else ""


def log_time(seconds: float) -> str:
    """Return the time of a line of a log in seconds: 0.123, 12.34, 123.4."""
    return f"{seconds:.{3 if seconds < 10 else 2 if seconds < 100 else 1}f}"


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c == "\t" or unicodedata.category(c) == "Zs" else printable(c) for c in text
    )
