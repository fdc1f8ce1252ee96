"""BuildKit's cacheconfig: the steps in a cache, and the layers of their results.

A record is a cache key: its digest, and for each input of the step the alternative records that
lead to it. A result is the output of the step, as a chain of layers. A record without a result is
needed too, because BuildKit finds later keys through it.
Sources: BuildKit, cache/remotecache/v1/spec.go (the fields), parse.go (the refusals of an import).
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import (
    DocumentError,
    JsonObject,
    describe,
    encode_plain,
    expect_list,
    expect_object,
    read_document,
    read_plain,
)

IMPORT_LIMIT_BYTES = 1024 * 1024
"""BuildKit does not import a larger manifest or cacheconfig. Source: remotecache/import.go."""

NO_PARENT = -1
_CHAINED_LIMIT = 4_000_000
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)

ResultKey = tuple[int, int]
"""A result of a cacheconfig: the number of its record, and its number in it, from 0."""


class LayerAnnotations(NamedTuple):
    """The facts of a layer in a cacheconfig of an object store. Elsewhere a manifest has them.

    Attributes:
        media_type: "" if absent.
        diff_id: The digest of its uncompressed bytes as text, "" if absent.
    """

    media_type: str
    diff_id: str


class Layer(NamedTuple):
    """A layer, and the number of the layer below it; NO_PARENT for none.

    Attributes:
        annotations: None in a local cache.
    """

    digest: Digest
    parent: int
    annotations: LayerAnnotations | None = None


class Input(NamedTuple):
    """An alternative for an input of a step: the number of a record, and BuildKit's selector."""

    link: int
    selector: str


class Result(NamedTuple):
    """The output of a step: numbers of layers, base first, and its time, None if unknown."""

    chain: tuple[int, ...]
    created_ns: int | None


class Record(NamedTuple):
    """A cache key: the alternatives for each input of the step, and any results."""

    digest: str
    inputs: tuple[tuple[Input, ...], ...]
    results: tuple[Result, ...]

    @property
    def sources(self) -> frozenset[int]:
        """The numbers of the records that lead to this one, by any alternative."""
        return frozenset(each.link for alternatives in self.inputs for each in alternatives)


class CacheConfig(NamedTuple):
    """A cacheconfig that BuildKit can import."""

    layers: tuple[Layer, ...]
    records: tuple[Record, ...]

    def results(self) -> Iterator[tuple[ResultKey, Result]]:
        """Yield each result with its key, in order."""
        for number, record in enumerate(self.records):
            for at, result in enumerate(record.results):
                yield (number, at), result


@lru_cache(maxsize=2)
def read_cacheconfig(data: bytes) -> CacheConfig:
    """Return the cacheconfig in the bytes. The last results are cached.

    Raises DocumentError (not-json, too-nested, malformed, ambiguous) if BuildKit would not import
    it: wrong types, numbers of missing layers or records, cycles, or inputs without records.
    """
    document = expect_object(read_document(data), "the cacheconfig")
    document.check_spelling(("layers", "records"))
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


def _layer(value: Any, label: str) -> Layer:
    fields = expect_object(value, label)
    fields.check_spelling(("blob", "parent", "annotations"))
    try:
        digest = parse_digest(fields.get_only("blob"))
    except ValueError as error:
        raise DocumentError("malformed", f"the blob of {label}: {error}") from None
    stated = fields.get_only("annotations")
    annotations = None if stated is None else _annotations(stated, label)
    return Layer(digest, _number(fields, "parent", label), annotations)


def _annotations(value: Any, label: str) -> LayerAnnotations:
    label = f"the annotations of {label}"
    fields = expect_object(value, label)
    fields.check_spelling(("mediaType", "diffID", "size", "createdAt"))
    _number(fields, "size", label)
    _time(fields, label)
    return LayerAnnotations(_text(fields, "mediaType", label), _text(fields, "diffID", label))


def _record(value: Any, label: str, chains: "_Chains") -> Record:
    fields = expect_object(value, label)
    fields.check_spelling(("digest", "inputs", "layers", "chains"))
    inputs = tuple(
        tuple(_input(item, label) for item in expect_list(alternatives, f"an input of {label}"))
        for alternatives in _list(fields, "inputs", label)
    )
    if not all(inputs):
        raise DocumentError("malformed", f"{label} has an input without records")
    results = []
    for item in _list(fields, "layers", label):
        result = expect_object(item, f"a result of {label}")
        result.check_spelling(("layer", "createdAt"))
        chain = chains.down_from(_number(result, "layer", label), label)
        results.append(Result(chain, _time(result, label)))
    for item in _list(fields, "chains", label):
        result = expect_object(item, f"a result of {label}")
        result.check_spelling(("layers", "createdAt"))
        numbers = tuple(_checked_number(n, label) for n in _list(result, "layers", label))
        results.append(Result(chains.explicit(numbers, label), _time(result, label)))
    return Record(_text(fields, "digest", label), inputs, tuple(results))


def _input(value: Any, label: str) -> Input:
    fields = expect_object(value, f"an input of {label}")
    fields.check_spelling(("link", "selector"))
    return Input(_number(fields, "link", label), _text(fields, "selector", label))


class _Chains:
    """The chains of layers of a config, with a limit for their total length."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers
        self._known: dict[int, tuple[int, ...]] = {}
        # For each layer of a known chain: that chain, and the length up to this layer.
        self._places: dict[int, tuple[tuple[int, ...], int]] = {}
        self._total = 0

    def down_from(self, top: int, label: str) -> tuple[int, ...]:
        if top not in self._known:
            chain = self._walk(top, label)
            self._count(len(chain))
            self._known[top] = chain
        return self._known[top]

    def _walk(self, top: int, label: str) -> tuple[int, ...]:
        self._check(top, label)
        new: dict[int, None] = {}
        layer = top
        while layer != NO_PARENT and layer not in self._places:
            self._check(layer, label)
            if layer in new:
                raise DocumentError("malformed", f"the layers of a result of {label} form a cycle")
            new[layer] = None
            layer = self._layers[layer].parent
        below, length = self._places.get(layer, ((), 0))
        chain = (*below[:length], *reversed(new))
        for end, number in enumerate(reversed(new), length + 1):
            self._places[number] = chain, end
        return chain

    def explicit(self, numbers: tuple[int, ...], label: str) -> tuple[int, ...]:
        for number in numbers:
            self._check(number, label)
        self._count(len(numbers))
        return numbers

    def _check(self, number: int, label: str) -> None:
        if not 0 <= number < len(self._layers):
            raise DocumentError(
                "malformed", f"a result of {label} names layer {number} of {len(self._layers)}"
            )

    def _count(self, length: int) -> None:
        self._total += length
        if self._total > _CHAINED_LIMIT:
            raise DocumentError("too-nested", "its chains of layers are too long")


def _check_links(records: tuple[Record, ...]) -> None:
    for number, record in enumerate(records):
        for link in record.sources:
            if not 0 <= link < len(records):
                raise DocumentError(
                    "malformed", f"record {number} references record {link} of {len(records)}"
                )
    if len(sources_first(records)) < len(records):
        raise DocumentError("malformed", "its records form a cycle")


def sources_first(records: tuple[Record, ...]) -> list[int]:
    """Return the numbers of records, each after its sources; records in cycles are omitted."""
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
    """A smaller cacheconfig: its bytes, the layers that it names, and its number of records."""

    data: bytes
    layers: frozenset[Digest]
    records: int


def trim_cacheconfig(data: bytes, keep: Collection[ResultKey]) -> TrimmedConfig:
    """Return the document with these results, the records that lead to them, and their layers.

    Records of every alternative, the order and unknown fields are kept; numbers are adjusted.
    Raises DocumentError as read_cacheconfig does.
    """
    return CacheConfigEditor(data).trim(keep)


class CacheConfigEditor:
    """A cacheconfig that is read once and trimmed several times.

    Raises DocumentError as read_cacheconfig does.

    Attributes:
        config: The cacheconfig.
    """

    def __init__(self, data: bytes) -> None:
        self.config = read_cacheconfig(data)
        self._document = read_plain(data)

    def trim(self, keep: Collection[ResultKey]) -> TrimmedConfig:
        """Return a trimmed document; see trim_cacheconfig."""
        config, wanted, document = self.config, frozenset(keep), dict(self._document)
        records = _with_sources(config.records, {number for number, _ in wanted})
        layers = sorted({n for key, r in config.results() if key in wanted for n in r.chain})
        new_layer = {old: new for new, old in enumerate(layers)}
        new_record = {old: new for new, old in enumerate(records)}
        layer_items = document.get("layers") or ()
        document["layers"] = [_relink_layer(layer_items[old], new_layer) for old in layers]
        document["records"] = [
            _trim_record(document["records"][old], old, wanted, new_layer, new_record)
            for old in records
        ]
        encoded = encode_plain(document)
        return TrimmedConfig(
            encoded, frozenset(config.layers[old].digest for old in layers), len(records)
        )


def _with_sources(records: tuple[Record, ...], wanted: Iterable[int]) -> list[int]:
    numbers = set(wanted)
    todo = list(numbers)
    while todo:
        new = records[todo.pop()].sources - numbers
        numbers |= new
        todo += new
    return sorted(numbers)


def _relink_layer(item: dict[str, Any], new_layer: dict[int, int]) -> dict[str, Any]:
    # The layer below can be removed if only a chain of explicit layers names this one.
    return {**item, "parent": new_layer.get(item.get("parent") or 0, NO_PARENT)}


def _trim_record(
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
        keep = [r for key, r in zip(keys, results, strict=True) if key in wanted]
        record[field] = [{**result, name: new(result.get(name))} for result in keep]
        if not keep:
            del record[field]
    if item.get("inputs"):
        record["inputs"] = [
            [{**each, "link": new_record[each.get("link") or 0]} for each in alternatives]
            for alternatives in item["inputs"]
        ]
    return record


def _list(fields: JsonObject, name: str, label: str) -> list[Any]:
    return expect_list(fields.get_only(name), f"'{name}' of {label}")


def _number(fields: JsonObject, name: str, label: str) -> int:
    value = fields.get_only(name)
    return 0 if value is None else _checked_number(value, label)


def _checked_number(value: Any, label: str) -> int:
    if type(value) is not int:
        raise DocumentError("malformed", f"a number of {label} is {describe(value)}")
    return value


def _text(fields: JsonObject, name: str, label: str) -> str:
    value = fields.get_only(name)
    if value is not None and not isinstance(value, str):
        raise DocumentError("malformed", f"'{name}' of {label} is {describe(value)}")
    return value or ""


def _time(fields: JsonObject, label: str) -> int | None:
    value = fields.get_only("createdAt")
    if value is None:
        return None
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise DocumentError("malformed", f"a time of {label} is malformed: {str(value)[:40]!r}")
    return parse_time(value)


def parse_time(text: Any) -> int | None:
    """Return an RFC 3339 time as ns since 1970; None for other values and Go's zero time."""
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.year <= 1 else int(moment.timestamp() * 10**6) * 1000
    except (TypeError, ValueError, OverflowError):
        return None
