"""Values of --cache-to and --cache-from in the words of a client's command.

kitcache changes only `dest` of type=local, and removes `reset`. It keeps all other values and
attributes as the user wrote them: order, case, quotes.
"""

import re
from collections.abc import Iterable

from kitcache.errors import UsageError
from kitcache.masking import hide_password
from kitcache.options.attributes import (
    Pairs,
    join_attributes,
    parse_attributes,
    show_pairs,
    split_fields,
)
from kitcache.options.caches import RESET_KINDS, parse_cache_export

_BEFORE_VALUE = re.compile(r"(--?[\w-]+=)?([^=,]*\.cache-(to|from)\+?=)?")


def read_cache(text: str) -> tuple[str | None, Pairs]:
    """Return the type of a cache, and its attributes. Raises UsageError in the client's words."""
    if "=" not in text:
        return "registry", ()  # One or several names, or an empty value, which the client checks.
    pairs = parse_attributes(text)
    return dict(pairs).get("type"), pairs


def asks_for_reset(words: Iterable[str]) -> bool:
    """Return True if a word of a command is, or ends in, an export with reset=true."""
    return any(_has_reset(_split_value(word)[1]) for word in words if "reset" in word.lower())


def _has_reset(value: str) -> bool:
    try:
        kind, pairs = read_cache(value)
        return kind in RESET_KINDS and parse_cache_export(pairs).reset
    except UsageError:
        return False


def _split_value(word: str) -> tuple[str, str]:
    """Split a word into the option, target and field, and the value."""
    match = _BEFORE_VALUE.match(word)
    end = match.end() if match else 0
    return word[:end], word[end:]


def rewrite_export(text: str, dest: str | None = None) -> str:
    """Return the text of an export without `reset`; with `dest` as directory if not None."""
    fields = [(split_fields(raw)[0].partition("=")[0].lower(), raw) for raw in raw_fields(text)]
    field = None if dest is None else join_attributes((("dest", dest),))
    return ",".join(
        field if field and key == "dest" else raw for key, raw in fields if key != "reset"
    )


def drop_reset(text: str) -> str:
    """Return the text of any export, without kitcache's `reset` if it can be parsed."""
    try:
        return rewrite_export(text) if read_cache(text)[0] in RESET_KINDS else text
    except UsageError:
        return text


def show_word(word: str) -> str:
    """Return a word of a command for display: without URL passwords and secrets of a cache."""
    return hide_password(_show_cache(word))


def _show_cache(word: str) -> str:
    before, value = _split_value(word)
    try:
        pairs = parse_attributes(value)
    except UsageError:
        return word
    is_cache = any(key == "type" for key, _ in pairs)
    shown = show_pairs(pairs) if is_cache else value
    return word if shown == join_attributes(pairs) else before + shown


def raw_fields(text: str) -> tuple[str, ...]:
    """Split a valid line of CSV into its fields as they were written."""
    fields = []
    at = 0
    while at <= len(text):
        end = text.find(",", _end_of_quotes(text, at))
        if end < 0:
            end = len(text)
        fields.append(text[at:end])
        at = end + 1
    return tuple(fields)


def _end_of_quotes(text: str, at: int) -> int:
    """Return the position after the quoted part of a field that begins at `at`."""
    if not text.startswith('"', at):
        return at
    at += 1
    while True:
        at = text.index('"', at) + 1
        if not text.startswith('"', at):
            return at
        at += 1
