"""BuildKit's comma-separated k=v format: parser, writer and errors.

A text is one line of CSV, and each field is a key and a value. A field that begins with a double
quote ends with a double quote and may contain commas; a quote inside it is doubled. In other
fields a quote is an error. Sources: Go encoding/csv and strconv, tonistiigi/go-csvvalue, buildx
util/buildflags.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from kitcache.errors import UsageError
from kitcache.masking import HIDDEN, hide_password

Pairs = tuple[tuple[str, str], ...]
Attributes = Pairs | Mapping[str, str]
"""Names and values as the caller wrote them; checked values have Pairs."""

SECRETS = frozenset(("token", "ghtoken", "secret_access_key", "session_token"))
"""Attributes whose values are secret."""

_MAX_SUGGESTED = 60
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_FIELD = r'"([^"]*(?:""[^"]*)*)("?)|([^,]*)'


@runtime_checkable
class PathLike(Protocol):
    """A path as os.fspath takes it, declared here because this package does not import os."""

    def __fspath__(self) -> str:
        """Return the path as a text."""


def path_text(path: str | PathLike) -> str:
    """Return a path as a text."""
    return path if isinstance(path, str) else path.__fspath__()


def split_fields(text: str) -> tuple[str, ...]:
    """Return the unquoted fields of one line of CSV. One newline at its end is ignored.

    Raise UsageError if Go's reader refuses the line; the column counts bytes, from 1.
    """
    line = text.removesuffix("\n") if not text.endswith("\r\n") else text[:-2]
    if not line:
        raise UsageError("the value is empty")
    fields = []
    start = 0
    pattern = re.compile(_FIELD)
    while start <= len(line):
        match = pattern.match(line, start)
        quoted, closing, bare = match.groups() if match else (None, "", "")
        end = match.end() if match else start
        if quoted is None and (quote := bare.find('"')) >= 0:
            problem = 'a " inside of a field that does not begin with one'
            raise _parse_error(line, start + quote, problem)
        if quoted is not None and not closing:
            raise _parse_error(line, end, 'the " that ends the field is missing')
        if quoted is not None and line[end : end + 1] not in ("", ","):
            raise _parse_error(line, end - 1, 'text follows the " that ends the field')
        fields.append(bare if quoted is None else quoted.replace('""', '"'))
        start = end + 1
    return tuple(fields)


def _parse_error(line: str, at: int, problem: str) -> UsageError:
    column = len(line[:at].encode(errors="surrogatepass")) + 1
    return UsageError(f"cannot be read at column {column}: {problem}")


def parse_attributes(text: str) -> Pairs:
    """Return the pairs of a text k=v,k=v. Raise UsageError."""
    return parse_pairs(split_fields(text))


def parse_pairs(fields: Iterable[str]) -> Pairs:
    """Return the keys, in lower case, and the values of k=v fields, with repeated keys.

    Raise UsageError for another field, without repeating a possible secret.
    """
    pairs: list[tuple[str, str]] = []
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            # The field can be the second half of a secret that contains an unquoted comma.
            is_secret = bool(pairs) and pairs[-1][0] in SECRETS
            raise UsageError(f"invalid value {HIDDEN if is_secret else field}")
        pairs.append((key.lower(), value))
    return tuple(pairs)


def join_attributes(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the line that parse_attributes reads as these pairs. Keys have no equals sign."""
    fields = [f"{key}={value}" for key, value in pairs]
    return ",".join(
        '"' + field.replace('"', '""') + '"' if re.search(r'[,"\n\r]', field) else field
        for field in fields
    )


def as_pairs(attributes: Attributes) -> Pairs:
    """Return the names and values as pairs."""
    return tuple(attributes.items()) if isinstance(attributes, Mapping) else attributes


def parse_bool(text: str, action: str) -> bool:
    """Return the truth value of a text as Go's ParseBool does, or raise UsageError.

    Args:
        action: Beginning of the error's sentence, such as "failed to parse reset attribute".
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise UsageError(
        f"{action}: {quote_go(text)} is neither true nor false", hints=("write true or false",)
    )


def is_true(text: str) -> bool:
    """Return True if Go's ParseBool reads the text as true."""
    return text in _TRUE


def is_false(text: str) -> bool:
    """Return True if Go's ParseBool reads the text as false."""
    return text in _FALSE


def quote_go(text: str) -> str:
    """Return the text in double quotes, as Go's %q writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def suggest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most similar to this word; None if no word is similar."""
    from difflib import get_close_matches  # noqa: PLC0415 - rarely needed, and slow to import

    return next(iter(get_close_matches(word.strip()[:_MAX_SUGGESTED], list(known), n=1)), None)


def hints_for(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the hint for an unknown word: a similar known word, or all known words."""
    words = tuple(known)
    similar = suggest(word, words)
    return (f"did you mean {similar}?" if similar else f"use {', '.join(words)}",)


def warn_unknown(pairs: Pairs, known: Iterable[str], owner: str) -> tuple[str, ...]:
    """Return a sentence for each unknown key and for each repeated key.

    Args:
        owner: The owner of the attributes for the message, such as "local cache export".
    """
    words = tuple(known)
    seen: set[str] = set()
    warnings = []
    for key, _ in pairs:
        if key in seen:
            warnings.append(f"{owner}: attribute {key} is given twice, the last one counts")
        elif key not in words:
            similar = suggest(key, words)
            hint = f"did you mean {similar}?" if similar else f"known: {', '.join(words)}"
            warnings.append(f"{owner}: unknown attribute {quote_go(key)}; {hint}")
        seen.add(key)
    return tuple(warnings)


def show_pairs(pairs: Pairs) -> str:
    """Return the pairs for a repr or a message, without secret values and passwords in URLs."""
    shown = ((k, HIDDEN if k in SECRETS and v else hide_password(v)) for k, v in pairs)
    return join_attributes(shown)
