"""JSON as BuildKit reads it: Go's decoder accepts keys in any case, and the last duplicate wins.

A JsonObject keeps every spelling and every value of each key. So a reader of blobs can follow each
possible reading, and the reader of index.json can refuse if two readings differ.
Source: Go's encoding/json, "Unmarshal" and its case folding.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from kitcache.errors import Damaged, field, fixed_field

_DIGITS = 4000
_BLANK = " \t\r\n"
_TYPE_NAMES = {list: "a list", str: "text", bool: "a boolean"}


class DocumentError(Damaged):
    """Bytes are not the JSON document that they should be.

    A parser does not know the path. The store adds it for index.json; a survey names the blob.

    Attributes:
        kind: not-json, too-nested, ambiguous, malformed or unwritable.
        reason: A sentence about the document.
    """

    path: str = fixed_field()
    problem: str = fixed_field()
    effect: str = fixed_field()
    kind: str = field(kw_only=False)
    reason: str = field(kw_only=False)

    def _complete(self) -> None:
        self.problem = f"cannot be parsed: {self.reason}"


class JsonObject(dict[str, Sequence[tuple[str, Any]]]):
    """A JSON object: case-folded name → all pairs (spelling, value) of that name, in order."""

    def all_values(self, name: str) -> list[Any]:
        """Return each value that a reader could use for this field."""
        return [value for _, value in self.get(name.casefold(), ())]

    def get_only(self, name: str) -> Any:
        """Return the value of a field, None if it is absent or null.

        Raises DocumentError (ambiguous) if it is repeated.
        """
        values = self.all_values(name)
        if len(values) > 1:
            raise DocumentError("ambiguous", f"the field {name!r} occurs {len(values)} times")
        return values[0] if values else None

    def get_exact(self, name: str) -> Any:
        """Return the value of a key in a map (annotations): the last one with that spelling."""
        exact = [value for spelling, value in self.get(name.casefold(), ()) if spelling == name]
        return exact[-1] if exact else None

    def check_spelling(self, names: tuple[str, ...]) -> None:
        """Raise DocumentError (ambiguous) if a case-sensitive reader would read other values."""
        for name in names:
            for spelling, _ in self.get(name.casefold(), ()):
                if spelling != name:
                    raise DocumentError(
                        "ambiguous", f"only some readers read {spelling!r} as {name!r}"
                    )
            self.get_only(name)


def count_values(data: bytes) -> int:
    """Return the largest number of values that the JSON can have, without parsing it.

    Punctuation inside texts counts too.
    """
    return sum(map(data.count, (b",", b"[", b"{")))


def _make_object(pairs: list[tuple[str, Any]]) -> JsonObject:
    # Most names occur once, and the garbage collector tracks lists for longer than such tuples.
    value = JsonObject()
    for pair in pairs:
        value[pair[0].casefold()] = (pair,)
    if len(value) == len(pairs):
        return value
    lists: dict[str, list[tuple[str, Any]]] = {}
    for pair in pairs:
        lists.setdefault(pair[0].casefold(), []).append(pair)
    return JsonObject(lists)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def read_document(data: bytes, *, strict_utf8: bool = False, allow_trailing: bool = False) -> Any:
    """Return the JSON value in the bytes, with each object as a JsonObject.

    Raises DocumentError (not-json, too-nested).

    Args:
        data: The complete document.
        strict_utf8: Refuse bytes that are not UTF-8; Go replaces them by U+FFFD.
        allow_trailing: Ignore bytes after the value, as a reader of streams does.
    """
    try:
        text = data.decode("utf-8", "strict" if strict_utf8 else "replace")
        try:
            return _decode(text, allow_trailing, None)
        except json.JSONDecodeError:
            raise
        except ValueError:
            # Python refuses integers of 4,300 digits; Go ignores them in an unknown field.
            return _decode(text, allow_trailing, _integer)
    except RecursionError:
        raise DocumentError("too-nested", "its JSON is nested too deeply") from None
    except ValueError as error:
        raise DocumentError("not-json", f"not JSON: {error}") from None


def _decode(text: str, allow_trailing: bool, parse_int: Callable[[str], float] | None) -> Any:
    decoder = json.JSONDecoder(
        object_pairs_hook=_make_object, parse_constant=_no_constant, parse_int=parse_int
    )
    return decoder.raw_decode(text.lstrip(_BLANK))[0] if allow_trailing else decoder.decode(text)


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _DIGITS else math.inf


def encode_plain(value: Any) -> bytes:
    """Return the JSON of a value that read_plain returned, without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


_GO_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
_GO_ESCAPES |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # half of a surrogate pair


def encode_like_go(value: Any) -> bytes:
    """Return the bytes that Go's json.Marshal writes for a value that read_plain returned."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.translate(_GO_ESCAPES).encode()


def read_plain(data: bytes) -> Any:
    """Return the JSON value as Python's own, for an edit that is written back.

    If a key is repeated, the last value counts; the others have RepeatedKeys, so they are written
    back too. Raises DocumentError (unwritable) for a number that cannot be written back.
    """
    return json.loads(
        data.decode("utf-8", "replace"),
        parse_float=_finite,
        parse_int=_writable,
        object_pairs_hook=keep_repeated,
    )


class RepeatedKey(str):
    """A key that occurs again later in the same object. It is equal only to itself."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


def keep_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dictionary with every pair of a JSON object, in order."""
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    last = {key: n for n, (key, _) in enumerate(pairs)}
    return {
        key if last[key] == n else RepeatedKey(key): value for n, (key, value) in enumerate(pairs)
    }


def drop_field(item: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a JSON object without a field, in any case and however often it occurs."""
    return {key: value for key, value in item.items() if key.casefold() != name.casefold()}


def _writable(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise DocumentError("unwritable", f"the number {digits[:40]}… cannot be written back")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise DocumentError("unwritable", f"the number {text[:40]} cannot be written back")
    return number


def expect_object(value: Any, label: str) -> JsonObject:
    """Return the value. Raises DocumentError (malformed) if it is not an object."""
    if not isinstance(value, JsonObject):
        raise DocumentError("malformed", f"{label} is {describe(value)}, not an object")
    return value


def expect_list(value: Any, label: str) -> list[Any]:
    """Return the value, [] for null as in Go.

    Raises DocumentError (malformed) if it is not a list.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise DocumentError("malformed", f"{label} is {describe(value)}, not a list")
    return value


def describe(value: Any) -> str:
    """Return the kind of a JSON value, for a message."""
    if value is None:
        return "null"
    if isinstance(value, JsonObject):
        return "an object"
    return _TYPE_NAMES.get(type(value), "a number")
