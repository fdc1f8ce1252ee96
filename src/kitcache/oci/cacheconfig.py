"""BuildKit's cacheconfig: which steps a cache knows, and which layers each of them made.

A record is a cache key: its digest, and for each input of the step the records that its key can be
reached through, of which any will do. A result is what the step made, as a chain of layers. A
record without a result still matters: keys that come after it are found through it.
Sources: BuildKit, cache/remotecache/v1/spec.go (the fields), parse.go (what an import refuses).
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import (
    DocumentError,
    JsonObject,
    describe,
    expect_list,
    expect_object,
    read_document,
    read_plain,
)

IMPORT_LIMIT_BYTES = 1024 * 1024
"""BuildKit imports no manifest and no cacheconfig above this. Source: remotecache/import.go."""

NO_PARENT = -1
_CHAINED_LIMIT = 4_000_000
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)

ResultKey = tuple[int, int]
"""A result of a cacheconfig: the number of its record, and its number there, from 0."""


class Layer(NamedTuple):
    """A layer, and the number of the one below it; NO_PARENT for none."""

    digest: Digest
    parent: int


class Input(NamedTuple):
    """One way to an input of a step: the number of a record, and BuildKit's selector."""

    link: int
    selector: str


class Result(NamedTuple):
    """What a step made: numbers of layers, base first. created_ns: since 1970, None if unknown."""

    chain: tuple[int, ...]
    created_ns: int | None


class Record(NamedTuple):
    """A cache key. inputs: for each input of the step, its alternatives. results: may be empty."""

    digest: str
    inputs: tuple[tuple[Input, ...], ...]
    results: tuple[Result, ...]

    @property
    def sources(self) -> frozenset[int]:
        """The records that this one is reached through, by any alternative."""
        return frozenset(way.link for ways in self.inputs for way in ways)


class CacheConfig(NamedTuple):
    """A cacheconfig that BuildKit would take."""

    layers: tuple[Layer, ...]
    records: tuple[Record, ...]

    def results(self) -> Iterator[tuple[ResultKey, Result]]:
        """Every result with its key, in order."""
        for number, record in enumerate(self.records):
            for at, result in enumerate(record.results):
                yield (number, at), result


def read_cacheconfig(data: bytes) -> CacheConfig:
    """The cacheconfig in these bytes.

    Raises DocumentError (not-json, too-nested, malformed, ambiguous) where BuildKit would not
    import it at all: other types, numbers of layers or records that are not there, loops, an
    input without a way to it.
    """
    document = expect_object(read_document(data), "the cacheconfig")
    _require_exact(document, "layers", "records")
    layers = tuple(
        _layer(item, f"layer {n}") for n, item in enumerate(_list(document, "layers", "the config"))
    )
    chains = _Chains(layers)
    records = tuple(
        _record(item, f"record {n}", chains)
        for n, item in enumerate(_list(document, "records", "the config"))
    )
    _check_links(records)
    return CacheConfig(layers, records)


def _layer(value: Any, what: str) -> Layer:
    fields = expect_object(value, what)
    _require_exact(fields, "blob", "parent")
    try:
        digest = parse_digest(fields.get_only("blob"))
    except ValueError as error:
        raise DocumentError("malformed", f"the blob of {what}: {error}") from None
    return Layer(digest, _number(fields, "parent", what))


def _record(value: Any, what: str, chains: "_Chains") -> Record:
    fields = expect_object(value, what)
    _require_exact(fields, "digest", "inputs", "layers", "chains")
    inputs = tuple(
        tuple(_input(item, what) for item in expect_list(ways, f"an input of {what}"))
        for ways in _list(fields, "inputs", what)
    )
    if not all(inputs):
        raise DocumentError("malformed", f"{what} has an input that nothing leads to")
    results = []
    for item in _list(fields, "layers", what):
        result = expect_object(item, f"a result of {what}")
        _require_exact(result, "layer", "createdAt")
        chain = chains.down_from(_number(result, "layer", what), what)
        results.append(Result(chain, _time(result, what)))
    for item in _list(fields, "chains", what):
        result = expect_object(item, f"a result of {what}")
        _require_exact(result, "layers", "createdAt")
        numbers = tuple(_checked_number(n, what) for n in _list(result, "layers", what))
        results.append(Result(chains.as_given(numbers, what), _time(result, what)))
    return Record(_text(fields, "digest", what), inputs, tuple(results))


def _input(value: Any, what: str) -> Input:
    fields = expect_object(value, f"an input of {what}")
    _require_exact(fields, "link", "selector")
    return Input(_number(fields, "link", what), _text(fields, "selector", what))


class _Chains:
    """The layers below a layer. All chains of a config together have a length that can be held."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers
        self._known: dict[int, tuple[int, ...]] = {}
        # Of each layer that some chain went by: that chain, up to the layer above it.
        self._places: dict[int, tuple[tuple[int, ...], int]] = {}
        self._total = 0

    def down_from(self, top: int, what: str) -> tuple[int, ...]:
        if top not in self._known:
            chain = self._walk(top, what)
            self._count(len(chain))
            self._known[top] = chain
        return self._known[top]

    def _walk(self, top: int, what: str) -> tuple[int, ...]:
        self._check(top, what)
        new: dict[int, None] = {}
        layer = top
        while layer != NO_PARENT and layer not in self._places:
            self._check(layer, what)
            if layer in new:
                raise DocumentError("malformed", f"a result of {what} has layers in a loop")
            new[layer] = None
            layer = self._layers[layer].parent
        below, length = self._places.get(layer, ((), 0))
        chain = (*below[:length], *reversed(new))
        for end, one in enumerate(reversed(new), length + 1):
            self._places[one] = chain, end
        return chain

    def as_given(self, numbers: tuple[int, ...], what: str) -> tuple[int, ...]:
        for number in numbers:
            self._check(number, what)
        self._count(len(numbers))
        return numbers

    def _check(self, number: int, what: str) -> None:
        if not 0 <= number < len(self._layers):
            raise DocumentError(
                "malformed", f"a result of {what} names layer {number} of {len(self._layers)}"
            )

    def _count(self, length: int) -> None:
        self._total += length
        if self._total > _CHAINED_LIMIT:
            raise DocumentError("too-nested", "its chains of layers are longer than any build's")


def _check_links(records: tuple[Record, ...]) -> None:
    for number, record in enumerate(records):
        for link in record.sources:
            if not 0 <= link < len(records):
                raise DocumentError(
                    "malformed", f"record {number} leads to record {link} of {len(records)}"
                )
    if len(sources_first(records)) < len(records):
        raise DocumentError("malformed", "its records lead to each other in a loop")


def sources_first(records: tuple[Record, ...]) -> list[int]:
    """The numbers of records, each after all that it is reached through; those of loops missing."""
    waits = [len(record.sources) for record in records]
    followers: list[list[int]] = [[] for _ in records]
    for number, record in enumerate(records):
        for link in record.sources:
            followers[link].append(number)
    order = [number for number, count in enumerate(waits) if not count]
    for number in order:
        for follower in followers[number]:
            waits[follower] -= 1
            if not waits[follower]:
                order.append(follower)
    return order


class TrimmedConfig(NamedTuple):
    """A cacheconfig made smaller. layers, records: what it still names, and how many it has."""

    data: bytes
    layers: frozenset[Digest]
    records: int


def trim_cacheconfig(data: bytes, keep: Collection[ResultKey]) -> TrimmedConfig:
    """The same document with these results only, and with what they need.

    That is the records that they are reached through, by every alternative, and the layers of
    their chains. All of these keep their order and their unknown fields; numbers are adjusted.
    Raises DocumentError as read_cacheconfig does.
    """
    return CacheConfigEditor(data).trim(keep)


class CacheConfigEditor:
    """A cacheconfig that is read once, to be cut to this and to that. config: what it says.

    Raises DocumentError as read_cacheconfig does.
    """

    def __init__(self, data: bytes) -> None:
        self.config = read_cacheconfig(data)
        self._document = read_plain(data)

    def trim(self, kept: Collection[ResultKey]) -> TrimmedConfig:
        """What cut_cacheconfig says."""
        config, wanted, document = self.config, frozenset(kept), dict(self._document)
        records = _with_sources(config.records, {number for number, _ in wanted})
        layers = sorted({n for key, r in config.results() if key in wanted for n in r.chain})
        new_layer = {old: new for new, old in enumerate(layers)}
        new_record = {old: new for new, old in enumerate(records)}
        given = document.get("layers") or ()
        document["layers"] = [_relink_layer(given[old], new_layer) for old in layers]
        document["records"] = [
            _cut_record(document["records"][old], old, wanted, new_layer, new_record)
            for old in records
        ]
        encoded = json.dumps(document, separators=(",", ":")).encode()
        return TrimmedConfig(
            encoded, frozenset(config.layers[old].digest for old in layers), len(records)
        )


def _with_sources(records: tuple[Record, ...], wanted: Iterable[int]) -> list[int]:
    found = set(wanted)
    todo = list(found)
    while todo:
        for link in records[todo.pop()].sources - found:
            found.add(link)
            todo.append(link)
    return sorted(found)


def _relink_layer(item: dict[str, Any], new_layer: dict[int, int]) -> dict[str, Any]:
    # A layer that only a chain of given layers names can have lost the one below it.
    return {**item, "parent": new_layer.get(item.get("parent") or 0, NO_PARENT)}


def _cut_record(
    item: dict[str, Any],
    number: int,
    wanted: frozenset[ResultKey],
    new_layer: dict[int, int],
    new_record: dict[int, int],
) -> dict[str, Any]:
    record, at = dict(item), 0
    renumber: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("layers", "layer", lambda old: new_layer[old or 0]),
        ("chains", "layers", lambda numbers: [new_layer[old] for old in numbers or ()]),
    )
    for field, name, new in renumber:
        results = item.get(field) or ()
        keys = [(number, at + n) for n in range(len(results))]
        at += len(results)
        left = [r for key, r in zip(keys, results, strict=True) if key in wanted]
        record[field] = [{**result, name: new(result.get(name))} for result in left]
        if not left:
            del record[field]
    if item.get("inputs"):
        record["inputs"] = [
            [{**way, "link": new_record[way.get("link") or 0]} for way in ways]
            for ways in item["inputs"]
        ]
    return record


def _require_exact(fields: JsonObject, *names: str) -> None:
    fields.check_spelling(names)


def _list(fields: JsonObject, name: str, what: str) -> list[Any]:
    return expect_list(fields.get_only(name), f"'{name}' of {what}")


def _number(fields: JsonObject, name: str, what: str) -> int:
    value = fields.get_only(name)
    return 0 if value is None else _checked_number(value, what)


def _checked_number(value: Any, what: str) -> int:
    if type(value) is not int:
        raise DocumentError("malformed", f"a number of {what} is {describe(value)}")
    return value


def _text(fields: JsonObject, name: str, what: str) -> str:
    value = fields.get_only(name)
    if value is not None and not isinstance(value, str):
        raise DocumentError("malformed", f"'{name}' of {what} is {describe(value)}")
    return value or ""


def _time(fields: JsonObject, what: str) -> int | None:
    value = fields.get_only("createdAt")
    if value is None:
        return None
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise DocumentError("malformed", f"a time of {what} is none: {str(value)[:40]!r}")
    return parse_time(value)


def parse_time(text: Any) -> int | None:
    """An RFC 3339 time as ns since 1970; None for no time and for Go's zero time."""
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.year <= 1 else int(moment.timestamp() * 10**6) * 1000
    except (TypeError, ValueError, OverflowError):
        return None
