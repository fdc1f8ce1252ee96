"""Passwords and tokens in URLs, taken out of what people are to read.

Source of the rule: BuildKit, util/urlutil. As there, a user name alone goes too where it may be a
token; one of ssh stays.
"""

import re

HIDDEN = "…"

# Compiled on first use. Up to the last @ before the path. The second form is a password with an
# unescaped slash: what is before it is no port. What stands before the @ of an image's digest is
# no user.
_USER = (
    r"""://([^/?#\s"'<>]+|[^/?#\s"'<>:]*:(?!\d*(?:[/?#\s"'<>]|$))[^\s"'<>]{1,256})@(?!sha\d+:)"""
)
_TOKEN_SCHEMES = ("http", "https")


def hide_password(text: str) -> str:
    """The text without the user's part of each URL in it: https://…@host/path."""
    if "://" not in text:
        return text
    return re.sub(_USER, _hide, text)


def find_users(text: str) -> list[str]:
    """What hide_password hides: the user's part of each URL, such as user:password."""
    return [found[1] for found in re.finditer(_USER, text) if _is_secret(found)]


def _hide(found: re.Match[str]) -> str:
    return f"://{HIDDEN}@" if _is_secret(found) else found[0]


def _is_secret(found: re.Match[str]) -> bool:
    before = found.string[max(0, found.start() - 5) : found.start()].lower()
    return ":" in found[1] or before.endswith(_TOKEN_SCHEMES)
