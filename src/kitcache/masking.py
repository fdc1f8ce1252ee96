"""Passwords and tokens in URLs and attributes: find and hide them in texts that people read.

As in BuildKit, a user name without a password is hidden too, unless the scheme is ssh, because it
can be a token. Source: BuildKit, util/urlutil.
"""

import re

HIDDEN = "…"

# Compiled on first use, for a fast start. The user's part ends at the last @ before the path. The
# second form is a password with an unescaped slash; digits and a slash are a port instead. The @
# of an image's digest does not end a user's part.
_USER = (
    r"""://([^/?#\s"'<>]+|[^/?#\s"'<>:]*:(?!\d*(?:[/?#\s"'<>]|$))[^\s"'<>]{1,256})@(?!sha\d+:)"""
)
# Attributes of caches in object stores, the signature of a SAS, and the header Authorization.
_ATTRIBUTE = (
    r"""\b(access_key_id|secret_access_key|session_token|sig|Credential|SignedHeaders|Signature)"""
    r"""=[^,&\s"'<>]+"""
)
_SCHEME = r"""\b(SharedKey(?:Lite)?|Bearer) +[^\s,"'<>]+"""
_TOKEN_SCHEMES = ("http", "https")


def hide_password(text: str) -> str:
    """Return the text without secret attributes and the user's part of URLs: https://…@host."""
    if "=" in text:
        text = re.sub(_ATTRIBUTE, rf"\1={HIDDEN}", text)
    if "SharedKey" in text or "Bearer" in text:
        text = re.sub(_SCHEME, rf"\1 {HIDDEN}", text)
    if "://" not in text:
        return text
    return re.sub(_USER, _hide, text)


def find_users(text: str) -> list[str]:
    """Return the texts that hide_password hides: user:password of each URL."""
    return [match[1] for match in re.finditer(_USER, text) if _is_secret(match)]


def _hide(match: re.Match[str]) -> str:
    return f"://{HIDDEN}@" if _is_secret(match) else match[0]


def _is_secret(match: re.Match[str]) -> bool:
    scheme = match.string[max(0, match.start() - 5) : match.start()].lower()
    return ":" in match[1] or scheme.endswith(_TOKEN_SCHEMES)
