"""One value of --cache-to or --cache-from: what it means here, and the same text without reset.

Only type=local is anybody's business here. Everything else, and what is kept of a local one,
stays as it was written: order, case, quotes.
"""

import re
from collections.abc import Iterable

from kitcache.errors import UsageError
from kitcache.masking import hide_password
from kitcache.options.attributes import join_attributes, parse_attributes, show_pairs, split_fields
from kitcache.options.caches import CacheExport, CacheImport, parse_cache_export, parse_cache_import

_ANSWERS_NOTHING = ("inline", "gha", "s3", "azblob")
_BEFORE_VALUE = re.compile(r"(--?[\w-]+=)?([^=,]*\.cache-(to|from)\+?=)?")


def read_export(text: str) -> CacheExport | None:
    """A local export; None for any other. Raises UsageError in the client's words."""
    return parse_cache_export(text) if _is_local(text) else None


def read_import(text: str) -> CacheImport | None:
    """A local import; None for any other. Raises UsageError in the client's words."""
    return parse_cache_import(text) if _is_local(text) else None


def asks_for_reset(words: Iterable[str]) -> bool:
    """Whether one of a command's words is, or ends in, a local export that says reset=true."""
    return any(_says_reset(_split_value(word)[1]) for word in words)


def _says_reset(value: str) -> bool:
    try:
        export = read_export(value)
    except UsageError:
        return False
    return export is not None and export.reset


def _split_value(word: str) -> tuple[str, str]:
    """The option, target and field before a value in a word, and the value."""
    found = _BEFORE_VALUE.match(word)
    end = found.end() if found else 0
    return word[:end], word[end:]


def returns_digest(text: str) -> bool:
    """Whether the daemon tells the client of a root once such an export is made.

    Source: BuildKit cache/remotecache, Finalize of each.
    """
    return bool(text) and _kind(text) not in _ANSWERS_NOTHING


def _is_local(text: str) -> bool:
    return _kind(text) == "local"


def _kind(text: str) -> str | None:
    if "=" not in text:
        return "registry"  # its name, or several; or empty, which the client judges
    return dict(parse_attributes(text)).get("type")


def without_reset(text: str) -> str:
    """The text of a local export without its attribute reset."""
    return ",".join(raw for raw in raw_fields(text) if _key(raw) != "reset")


def drop_reset(text: str) -> str:
    """The text of any export, without `reset` where it is a local one that can be read."""
    try:
        return without_reset(text) if _is_local(text) else text
    except UsageError:
        return text


def show_word(word: str) -> str:
    """A word of a command for people to read: without passwords in URLs, or secrets of a cache."""
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


def with_dest(text: str, dest: str) -> str:
    """The text of a local export that goes to another directory."""
    field = join_attributes((("dest", dest),))
    return ",".join(field if _key(raw) == "dest" else raw for raw in raw_fields(text))


def raw_fields(text: str) -> tuple[str, ...]:
    """The fields of a line of CSV that parses, each as it was written."""
    fields = []
    at = 0
    while at <= len(text):
        end = text.find(",", _behind_quotes(text, at))
        if end < 0:
            end = len(text)
        fields.append(text[at:end])
        at = end + 1
    return tuple(fields)


def _behind_quotes(text: str, at: int) -> int:
    """Where the quoted part of a field that begins here has ended; here if there is none."""
    if not text.startswith('"', at):
        return at
    at += 1
    while True:
        at = text.index('"', at) + 1
        if not text.startswith('"', at):
            return at
        at += 1


def _key(raw: str) -> str:
    (field,) = split_fields(raw)
    return field.partition("=")[0].lower()
