"""JSON as BuildKit reads it: Go's decoder takes keys in any case, and the last duplicate wins.

An object comes out as Members, which forgets nothing: each folded name with every spelling and
value that was given. So the reader of a blob can keep what *any* reading would reach, and the
reader of index.json can refuse where two readings differ.
Source: Go's encoding/json, "Unmarshal" and its case folding.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from kitcache.errors import Damaged, _field, _fixed

_DIGITS = 4000
_BLANK = " \t\r\n"
_TYPE_NAMES = {list: "a list", str: "text", bool: "a boolean"}


class DocumentError(Damaged):
    """Bytes are not the JSON document that they should be.

    A parser knows no path: the store adds it where index.json is read or replaced, and a survey
    names the blob.

    Attributes:
        kind: not-json, too-nested, ambiguous, malformed or unwritable.
        reason: A sentence about the document.
    """

    path: str = _fixed()
    problem: str = _fixed()
    effect: str = _fixed()
    kind: str = _field(kw_only=False)
    reason: str = _field(kw_only=False)

    def _complete(self) -> None:
        self.problem = f"cannot be parsed: {self.reason}"


class JsonObject(dict[str, Sequence[tuple[str, Any]]]):
    """A JSON object: folded name → every (spelling, value) given under it, in order."""

    def all_values(self, name: str) -> list[Any]:
        """Each value that some reader would take for this field."""
        return [value for _, value in self.get(name.casefold(), ())]

    def get_only(self, name: str) -> Any:
        """The value of a field, None where it is absent or null; ambiguous if given twice."""
        given = self.get(name.casefold(), ())
        if len(given) > 1:
            raise DocumentError("ambiguous", f"the field {name!r} is given {len(given)} times")
        return given[0][1] if given else None

    def get_exact(self, name: str) -> Any:
        """The value in a *map* (annotations): keys are exact there, the last one counts."""
        exact = [value for spelling, value in self.get(name.casefold(), ()) if spelling == name]
        return exact[-1] if exact else None

    def check_spelling(self, names: tuple[str, ...]) -> None:
        """Refuse where a reader that minds the case of these names would read something else."""
        for name in names:
            given = self.get(name.casefold(), ())
            for spelling, _ in given:
                if spelling != name:
                    raise DocumentError(
                        "ambiguous", f"{spelling!r} stands for {name!r} to some readers only"
                    )
            if len(given) > 1:
                self.get_only(name)


def count_values(data: bytes) -> int:
    """Return how many values this JSON can have at most, without making one of them.

    Marks within texts count too.
    """
    return sum(map(data.count, (b",", b"[", b"{")))


def _members(pairs: list[tuple[str, Any]]) -> JsonObject:
    # A tuple, as most names are given once: lists would be half of what the garbage collector sees.
    found = JsonObject()
    for pair in pairs:
        found[pair[0].casefold()] = (pair,)
    return found if len(found) == len(pairs) else _repeated_members(pairs)


def _repeated_members(pairs: list[tuple[str, Any]]) -> JsonObject:
    given: dict[str, list[tuple[str, Any]]] = {}
    for pair in pairs:
        given.setdefault(pair[0].casefold(), []).append(pair)
    return JsonObject(given)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def read_document(data: bytes, *, strict_utf8: bool = False, allow_trailing: bool = False) -> Any:
    """The JSON value in these bytes, each object as Members.

    strict_utf8: refuse bytes that are no UTF-8, where Go would put U+FFFD in their place.
    may_go_on: whatever follows the value is passed over, as a reader of streams does.
    Raises DocumentError (not-json, too-nested).
    """
    try:
        text = data.decode("utf-8", "strict" if strict_utf8 else "replace")
        try:
            return _decode(text, allow_trailing, None)
        except json.JSONDecodeError:
            raise
        except ValueError:
            # Python takes no integer of 4,300 digits; Go passes over any in an unknown field.
            return _decode(text, allow_trailing, _integer)
    except RecursionError:
        raise DocumentError("too-nested", "its JSON is nested too deeply") from None
    except ValueError as error:
        raise DocumentError("not-json", f"not JSON: {error}") from None


def _decode(text: str, may_go_on: bool, parse_int: Callable[[str], float] | None) -> Any:
    decoder = json.JSONDecoder(
        object_pairs_hook=_members, parse_constant=_no_constant, parse_int=parse_int
    )
    return decoder.raw_decode(text.lstrip(_BLANK))[0] if may_go_on else decoder.decode(text)


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _DIGITS else math.inf


def read_plain(data: bytes) -> Any:
    """The JSON value as Python's own, to be changed and written back.

    Of a key that is given several times the last value counts. The others are written back too:
    their keys are RepeatedKeys. Raises DocumentError (unwritable) for a number that could not
    be written back.
    """
    return json.loads(
        data, parse_float=_finite, parse_int=_writable, object_pairs_hook=keep_repeated
    )


class RepeatedKey(str):
    """A key that the same object gives again later. It equals nothing but itself."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


def keep_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dictionary that has each pair, in order."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    last = {key: n for n, (key, _) in enumerate(pairs)}
    return {
        key if last[key] == n else RepeatedKey(key): value for n, (key, value) in enumerate(pairs)
    }


def drop_field(item: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a JSON object without a field, however often and in whatever case it is given."""
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


def expect_object(value: Any, what: str) -> JsonObject:
    """The value, which has to be an object. Raises DocumentError (malformed)."""
    if not isinstance(value, JsonObject):
        raise DocumentError("malformed", f"{what} is {describe(value)}, not an object")
    return value


def expect_list(value: Any, what: str) -> list[Any]:
    """The value, which has to be a list; null counts as an empty one, as in Go."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise DocumentError("malformed", f"{what} is {describe(value)}, not a list")
    return value


def describe(value: Any) -> str:
    """What kind of JSON value this is, for a message."""
    if value is None:
        return "null"
    if isinstance(value, JsonObject):
        return "an object"
    return _TYPE_NAMES.get(type(value), "a number")
