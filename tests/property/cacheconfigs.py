"""Random caches of BuildKit's: forests of layers, steps made from steps, results as chains.

A Config is drawn from the outside: it knows what it means without reading its own bytes, and
`meaning` reads such bytes with nothing of kitcache.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hypothesis import strategies as st

from kitcache.oci.digest import Digest, parse_digest
from kitcache.upkeep.project import CacheDocuments
from tests.property.model import digest_of

CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BASE_S = 1_700_000_000
OPERATIONS = tuple(digest_of(b"operation %d" % n) for n in range(4))
SELECTORS = ("", digest_of(b"selector"))
POOL = 9

Meaning = tuple[Any, tuple[str, ...], str | None]
"""A result: the step that it is of, with all that leads there; its layers; when it was made."""


def layer_digest(number: int) -> str:
    return digest_of(layer_bytes(number))


def layer_bytes(number: int) -> bytes:
    """The layers of all configs come from one pool, so that they share some."""
    return b"layer %d " % number * (1 + 37 * number % 101)


SIZES: dict[Digest, int] = {parse_digest(layer_digest(n)): len(layer_bytes(n)) for n in range(POOL)}


class Config(NamedTuple):
    """A cacheconfig as JSON, and the numbers of the pool's layers that it lists."""

    document: dict[str, Any]
    layers: tuple[int, ...]

    @property
    def data(self) -> bytes:
        return json.dumps(self.document, separators=(",", ":")).encode()

    def tree(self, *, is_index: bool = False) -> CacheDocuments:
        """With a root of BuildKit's, in either form."""
        config = {"mediaType": CACHECONFIG, "digest": digest_of(self.data), "size": len(self.data)}
        layers = [
            {
                "mediaType": LAYER,
                "digest": layer_digest(number),
                "size": len(layer_bytes(number)),
                "annotations": {"containerd.io/uncompressed": digest_of(b"diff %d" % number)},
            }
            for number in self.layers
        ]
        root: dict[str, Any] = {"schemaVersion": 2, "annotations": {"who": "knows"}}
        if is_index:
            root |= {"mediaType": "application/vnd.oci.image.index.v1+json"}
            root |= {"manifests": [*layers, config]}
        else:
            root |= {"mediaType": "application/vnd.oci.image.manifest.v1+json"}
            root |= {"config": config, "layers": layers}
        return CacheDocuments(json.dumps(root, separators=(",", ":")).encode(), self.data)

    def bare(self) -> CacheDocuments:
        """As an object store has it: the cacheconfig is the root, and describes its layers."""
        numbers = {layer_digest(number): number for number in self.layers}
        layers = [
            {
                **layer,
                "annotations": {
                    "mediaType": LAYER,
                    "diffID": digest_of(b"diff %d" % numbers[layer["blob"]]),
                    "size": len(layer_bytes(numbers[layer["blob"]])),
                },
            }
            for layer in self.document["layers"]
        ]
        return CacheDocuments(None, Config({**self.document, "layers": layers}, self.layers).data)


@st.composite
def configs(draw: st.DrawFn, max_records: int = 7) -> Config:
    """Layers on layers, records reached through records by one way or several, results of both."""
    layers = draw(st.lists(st.integers(0, POOL - 1), unique=True, min_size=1, max_size=6))
    parents = [draw(st.integers(-1, n - 1)) for n in range(len(layers))]
    place = draw(st.permutations(range(len(layers))))
    listed: list[Any] = [None] * len(layers)
    for n, number in enumerate(layers):
        listed[place[n]] = {"blob": layer_digest(number)}
        parent = -1 if parents[n] < 0 else place[parents[n]]
        if parent:  # as Go writes it: 0 is left out
            listed[place[n]]["parent"] = parent
    count = draw(st.integers(0, max_records))
    order = draw(st.permutations(range(count)))
    records: list[Any] = [None] * count
    for n in range(count):
        records[order[n]] = draw(_record(order[:n], len(layers)))
    document = {"layers": listed, "records": records, "version": "of somebody else"}
    return Config(document, tuple(layers[place.index(n)] for n in range(len(layers))))


@st.composite
def _record(draw: st.DrawFn, earlier: list[int], layers: int) -> dict[str, Any]:
    record: dict[str, Any] = {"digest": draw(st.sampled_from(OPERATIONS)), "note": "unknown"}
    if earlier:
        way = st.builds(
            lambda link, selector: {"link": link} | ({"selector": selector} if selector else {}),
            st.sampled_from(earlier),
            st.sampled_from(SELECTORS),
        )
        ways = st.lists(way, min_size=1, max_size=3)
        record["inputs"] = draw(st.lists(ways, max_size=2))
    number = st.integers(0, layers - 1)
    results = draw(st.lists(st.tuples(number, times()), max_size=2))
    if results:
        record["layers"] = [{"layer": n} | when for n, when in results]
    chains = draw(st.lists(st.tuples(st.lists(number, max_size=3), times()), max_size=1))
    if chains:
        record["chains"] = [{"layers": numbers} | when for numbers, when in chains]
    return record


def times() -> st.SearchStrategy[dict[str, str]]:
    """A result's createdAt, from a few; Go's zero time, or none, is rare."""

    def said(second: int) -> dict[str, str]:
        if second < 0:
            return {} if second < -1 else {"createdAt": "0001-01-01T00:00:00Z"}
        return {"createdAt": datetime.fromtimestamp(BASE_S + second, UTC).isoformat()}

    return st.builds(said, st.integers(-2, 9))


def uses() -> st.SearchStrategy[dict[Digest, int]]:
    """When imports read some of the pool's layers."""
    moment = st.integers(-2, 9).map(lambda second: (BASE_S + second) * 10**9)
    return st.dictionaries(st.sampled_from(sorted(SIZES)), moment, max_size=4)


def meaning(data: bytes) -> dict[tuple[int, int], Meaning]:
    """Every result of a cacheconfig by its key, with all that it takes to find and to load it."""
    document = json.loads(data)
    layers = document["layers"] or []
    found: dict[tuple[int, int], Meaning] = {}
    for number, record in enumerate(document["records"] or []):
        identity = _identity(document["records"], number)
        chains = [_chain_below(layers, result["layer"]) for result in record.get("layers") or []]
        chains += [result["layers"] for result in record.get("chains") or []]
        given = (record.get("layers") or []) + (record.get("chains") or [])
        for at, (chain, result) in enumerate(zip(chains, given, strict=True)):
            blobs = tuple(layers[n]["blob"] for n in chain)
            found[number, at] = (identity, blobs, result.get("createdAt"))
    return found


def _identity(records: list[Any], number: int) -> Any:
    record = records[number]
    slots = tuple(
        frozenset((_identity(records, way["link"]), way.get("selector", "")) for way in ways)
        for ways in record.get("inputs") or []
    )
    return record["digest"], slots


def _chain_below(layers: list[Any], top: int) -> list[int]:
    chain = []
    while top >= 0:
        chain.append(top)
        top = layers[top].get("parent", 0)
    return chain[::-1]


def ancestors(data: bytes, number: int) -> frozenset[int]:
    """The records that a record is reached through, however far away."""
    records = json.loads(data)["records"]
    found: set[int] = set()
    todo = [number]
    while todo:
        for ways in records[todo.pop()].get("inputs") or []:
            fresh = {way["link"] for way in ways} - found
            found |= fresh
            todo += fresh
    return frozenset(found)


def bytes_of(trees: Mapping[int, CacheDocuments], sizes: Mapping[Digest, int]) -> int:
    """All that these roots reach, each layer once, as their bytes say it."""
    layers: set[str] = set()
    for tree in trees.values():
        root, config = json.loads(tree.root), json.loads(tree.config)
        listed = root.get("layers") or root.get("manifests") or []
        if tree.manifest is not None:
            layers |= {item["digest"] for item in listed if item["mediaType"] == LAYER}
        layers |= {layer["blob"] for layer in config["layers"]}
    documents = {data for tree in trees.values() for data in tree.in_order}
    size = sum(sizes[parse_digest(layer)] for layer in layers)
    return size + sum(map(len, documents))
