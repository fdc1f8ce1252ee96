"""Which steps of a cache are the coldest, and how many have to go. Pure: bytes in, choices out.

A step's result goes before the results of the steps that it was made from: what is left is closed,
and hits as far as it goes. A layer goes once no result that is left has it in its chain, so never
before one above it. All trees are cut in one order, and a cut is a beginning of it: a tighter limit
never keeps more.
"""

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kitcache.oci.cacheconfig import (
    CacheConfig,
    CacheConfigEditor,
    Record,
    ResultKey,
    read_cacheconfig,
    sources_first,
)
from kitcache.oci.cachemanifest import read_cache_manifest, trim_manifest
from kitcache.oci.digest import Digest
from kitcache.upkeep.results import CachedStep

_ANY = Digest("sha256", "0" * 64)


class CacheDocuments(NamedTuple):
    """The root of a cache and its cacheconfig: proven, and known to be readable."""

    tag: str
    manifest: bytes
    config: bytes


class TrimSelection(NamedTuple):
    """For each tree the results that stay, None where all do; and how many bytes that comes to."""

    kept: tuple[frozenset[ResultKey] | None, ...]
    bytes: int


class Ranked(NamedTuple):
    """A result in the order in which results go. tree: the number of its tree.

    warm_ns: when it was of use last, as far as that is known; 0 if it is not. layers: that go with
    it, since whatever else names them went before.
    """

    tree: int
    key: ResultKey
    warm_ns: int
    layers: tuple[Digest, ...]


def cut_trees(
    trees: Sequence[CacheDocuments],
    used: Mapping[Digest, int],
    sizes: Mapping[Digest, int],
    other_bytes: int,
    limit_bytes: int,
    *,
    now_ns: int,
) -> TrimSelection:
    """The fewest results to go, coldest first over all trees, so that everything fits the limit.

    used: when a layer was last read, where that is known. sizes: of layers, in bytes; 0 for one
    that is counted in other_bytes already. Of each tree its last result stays. Where the limit
    cannot be reached, bytes is above it: the least that would do. Documents count for each tree, so
    bytes is more than it comes to where two trees have been cut to the same.
    """
    numbers = {pair: n for n, pair in enumerate(dict.fromkeys(tree[1:] for tree in trees))}
    distinct = [CacheDocuments("", *pair) for pair in numbers]
    shears = [CacheConfigEditor(tree.config) for tree in distinct]
    configs = [each.config for each in shears]
    order = _rank(distinct, configs, used, now_ns)
    documents = _Documents(distinct, shears, order)
    most = len(order) - len({ranked.tree for ranked in order})
    layers = {
        digest
        for tree, config in zip(distinct, configs, strict=True)
        for digest in _listed_layers(tree, config)
    }
    held = [other_bytes + _bytes_of(layers, sizes)]
    for ranked in order[:most]:
        held.append(held[-1] - _bytes_of(ranked.layers, sizes))

    # Documents weigh little: the answer is near where the layers alone would fit.
    low = bisect_left(range(most), True, key=lambda n: held[n] <= limit_bytes)
    dropped = _fewest(low, most, lambda n: held[n] + documents.bytes(n) <= limit_bytes)
    kept = documents.kept(dropped)
    return TrimSelection(
        tuple(kept[numbers[tree[1:]]] for tree in trees), held[dropped] + documents.bytes(dropped)
    )


def cut_until(
    tree: CacheDocuments,
    used: Mapping[Digest, int],
    fits: Callable[[int, int], bool],
    *,
    now_ns: int,
) -> frozenset[ResultKey] | None:
    """The results that stay where the coldest go until it fits; None where the last does not fit.

    fits: is asked with the bytes of the new manifest and of the new cacheconfig.
    """
    shears = CacheConfigEditor(tree.config)
    keys = [ranked.key for ranked in _rank([tree], [shears.config], used, now_ns)]

    def is_small(dropped: int) -> bool:
        return fits(*_weigh(tree, shears, keys[dropped:]))

    dropped = _fewest(0, max(len(keys) - 1, 0), is_small)
    return frozenset(keys[dropped:]) if is_small(dropped) else None


def rank(
    trees: Sequence[CacheDocuments], used: Mapping[Digest, int], now_ns: int
) -> tuple[Ranked, ...]:
    """Every result of these trees in the order in which they go; the last of each tree at the end.

    Free to go is a result once all those are gone that were made from it. Of these the one goes
    that was of use the longest ago: made, or its last layer read by an import, whichever came
    later. At the same time the one with more below it goes first. What several trees have, the same
    step with the same layers, goes from all at once. Times after now_ns count as now.
    """
    return _rank(trees, [read_cacheconfig(tree.config) for tree in trees], used, now_ns)


def _rank(
    trees: Sequence[CacheDocuments],
    configs: Sequence[CacheConfig],
    used: Mapping[Digest, int],
    now_ns: int,
) -> tuple[Ranked, ...]:
    forest = _Forest(configs)
    heap: list[tuple[int, int, int, list[_Place]]] = []

    def offer(steps: Iterable[int]) -> None:
        for number in steps:
            step = forest.steps[number]
            for chain, places in ((forest.chains[n], step.results[n]) for n in step.results):
                read_ns = used.get(chain[-1], 0) if chain else 0
                warm_ns = min(max(read_ns, *(place.created_ns for place in places)), now_ns)
                heapq.heappush(heap, (warm_ns, -len(chain), -step.depth, places))

    offer(forest.begin())
    order = []
    while heap:
        warm_ns, _, _, places = heapq.heappop(heap)
        order += [Ranked(place.tree, place.key, warm_ns, ()) for place in places]
        offer(forest.take(places[0].step))
    last = {ranked.tree: ranked for ranked in order}
    order = [ranked for ranked in order if last[ranked.tree] != ranked] + list(last.values())
    return _with_layers(trees, configs, order)


def weigh_steps(
    tree: CacheDocuments,
    kept: Collection[ResultKey] | None,
    used: Mapping[Digest, int],
    sizes: Mapping[Digest, int],
    now_ns: int,
) -> tuple[tuple[CachedStep, ...], tuple[CachedStep, ...]]:
    """The steps that stay (None: all) and those that go, coldest first, with their layers' bytes.

    A layer counts for the warmest step that has it, of those that stay if one of them does.
    """
    config = read_cacheconfig(tree.config)
    order = [ranked.key for ranked in _rank([tree], [config], used, now_ns)]
    staying = [key for key in order if kept is None or key in kept]
    going = [key for key in order if kept is not None and key not in kept]
    seen: set[Digest] = set()
    weighed: set[int] = set()
    steps: dict[ResultKey, CachedStep] = {}
    for key in (*reversed(staying), *reversed(going)):
        record = config.records[key[0]]
        result = record.results[key[1]]
        # Thousands of results may have one long chain, the very same object: it is looked at once.
        chain = () if id(result.chain) in weighed else result.chain
        weighed.add(id(result.chain))
        new = {config.layers[n].digest for n in chain} - seen
        size = sum(sizes.get(layer, 0) for layer in new)
        seen |= new
        read_ns = used.get(config.layers[result.chain[-1]].digest) if result.chain else None
        steps[key] = CachedStep(record.digest, result.created_ns, read_ns, size)
    return tuple(steps[key] for key in staying), tuple(steps[key] for key in going)


class _Place(NamedTuple):
    """Where a result stands. step: the number of its step in the forest."""

    tree: int
    key: ResultKey
    step: int
    created_ns: int


class _Step(NamedTuple):
    """A record together with all that it is reached through, in whichever trees it stands.

    The digest of a record is that of its operation alone: the same one may stand on other ground.
    sources: numbers of steps. depth: how many are below each other at most down to one without
    inputs. results: by the numbers of their chains in the forest, in which places they are.
    """

    sources: frozenset[int]
    depth: int
    results: dict[int, list[_Place]]


class _Forest:
    """The steps of all trees, taken off from the outside: which are free to lose their results.

    chains: the layers of results, base first, each combination once.
    """

    def __init__(self, configs: Sequence[CacheConfig]) -> None:
        self.steps: list[_Step] = []
        self.chains: list[tuple[Digest, ...]] = []
        self._chain_numbers: dict[tuple[Digest, ...], int] = {}
        self._numbers: dict[tuple[str, tuple[frozenset[tuple[int, str]], ...]], int] = {}
        for tree, config in enumerate(configs):
            numbers: dict[int, int] = {}
            chains: dict[int, int] = {}
            for record in sources_first(config.records):
                numbers[record] = self._number(config.records[record], numbers)
                self._add_results(tree, config, record, numbers[record], chains)
        self._left = [len(step.results) for step in self.steps]
        self._followers = Counter(link for step in self.steps for link in step.sources)

    def _number(self, record: Record, numbers: dict[int, int]) -> int:
        """The number of a record's step. numbers: of the records that it is reached through."""
        ways = [frozenset((numbers[way.link], way.selector) for way in w) for w in record.inputs]
        number = self._numbers.setdefault((record.digest, tuple(ways)), len(self.steps))
        if number == len(self.steps):
            sources = frozenset(numbers[link] for link in record.sources)
            depth = max((self.steps[source].depth + 1 for source in sources), default=0)
            self.steps.append(_Step(sources, depth, {}))
        return number

    def _add_results(
        self, tree: int, config: CacheConfig, record: int, step: int, chains: dict[int, int]
    ) -> None:
        """chains: the numbers of the config's chains that were met already, each by its id."""
        for at, result in enumerate(config.records[record].results):
            if id(result.chain) not in chains:
                layers = tuple(config.layers[number].digest for number in result.chain)
                chains[id(result.chain)] = self._chain_number(layers)
            place = _Place(tree, (record, at), step, result.created_ns or 0)
            self.steps[step].results.setdefault(chains[id(result.chain)], []).append(place)

    def _chain_number(self, layers: tuple[Digest, ...]) -> int:
        number = self._chain_numbers.setdefault(layers, len(self.chains))
        if number == len(self.chains):
            self.chains.append(layers)
        return number

    def begin(self) -> Iterator[int]:
        """The steps that have results, and that nothing with results was made from."""
        return self._free([n for n in range(len(self.steps)) if not self._followers[n]])

    def take(self, number: int) -> Iterator[int]:
        """Take a result from a step: the steps that become free by that."""
        self._left[number] -= 1
        return self._free([] if self._left[number] else self._let_go(number))

    def _free(self, numbers: list[int]) -> Iterator[int]:
        while numbers:
            number = numbers.pop()
            if self._left[number]:
                yield number
            else:
                numbers += self._let_go(number)

    def _let_go(self, number: int) -> list[int]:
        sources = self.steps[number].sources
        self._followers.subtract(sources)
        return [source for source in sources if not self._followers[source]]


def _with_layers(
    trees: Sequence[CacheDocuments], configs: Sequence[CacheConfig], order: Sequence[Ranked]
) -> tuple[Ranked, ...]:
    """The layers that go with each: from the end, those that none after it holds."""
    first = {ranked.tree: ranked for ranked in reversed(order)}
    seen: set[Digest] = set()
    for number in set(range(len(trees))) - set(first):
        seen.update(_listed_layers(trees[number], configs[number]))
    ranked_anew = []
    done: set[int] = set()
    for ranked in reversed(order):
        number, at = ranked.key
        config = configs[ranked.tree]
        chain = config.records[number].results[at].chain
        named = [] if id(chain) in done else [config.layers[n].digest for n in chain]
        done.add(id(chain))
        if ranked is first[ranked.tree]:
            # Its root as it is may list layers that no result has: they go with the first cut.
            named += _listed_layers(trees[ranked.tree], config)
        own = tuple(dict.fromkeys(digest for digest in named if digest not in seen))
        seen.update(own)
        ranked_anew.append(ranked._replace(layers=own))
    return tuple(reversed(ranked_anew))


def _listed_layers(tree: CacheDocuments, config: CacheConfig) -> list[Digest]:
    """Every layer that a root names as it is, in its manifest or in its cacheconfig."""
    root = read_cache_manifest(tree.manifest)
    in_root = [layer.descriptor.digest for layer in root.layers] if root else []
    return in_root + [layer.digest for layer in config.layers]


def _bytes_of(layers: Iterable[Digest], sizes: Mapping[Digest, int]) -> int:
    return sum(sizes.get(layer, 0) for layer in layers)


class _Documents:
    """Manifests and cacheconfigs, once so many results have been dropped."""

    def __init__(
        self,
        trees: Sequence[CacheDocuments],
        shears: Sequence[CacheConfigEditor],
        order: Sequence[Ranked],
    ) -> None:
        self._trees, self._shears, self._order = trees, shears, order
        self._keys: list[list[ResultKey]] = [[] for _ in trees]
        for ranked in order:
            self._keys[ranked.tree].append(ranked.key)
        self._known: dict[tuple[int, int], int] = {}

    def bytes(self, dropped: int) -> int:
        gone = Counter(ranked.tree for ranked in self._order[:dropped])
        return sum(self._bytes_of(tree, gone[tree]) for tree in range(len(self._trees)))

    def kept(self, dropped: int) -> list[frozenset[ResultKey] | None]:
        gone = Counter(ranked.tree for ranked in self._order[:dropped])
        return [
            frozenset(keys[gone[tree] :]) if gone[tree] else None
            for tree, keys in enumerate(self._keys)
        ]

    def _bytes_of(self, number: int, gone: int) -> int:
        tree = self._trees[number]
        if not gone:
            return len(tree.manifest) + len(tree.config)
        if (number, gone) not in self._known:
            kept = self._keys[number][gone:]
            self._known[number, gone] = sum(_weigh(tree, self._shears[number], kept))
        return self._known[number, gone]


def _weigh(
    tree: CacheDocuments, shears: CacheConfigEditor, kept: Collection[ResultKey]
) -> tuple[int, int]:
    """The bytes of the manifest and of the cacheconfig that keep these results only."""
    cut = shears.trim(kept)
    # Every digest is as long.
    return len(trim_manifest(tree.manifest, cut.layers, _ANY, len(cut.data))), len(cut.data)


def _fewest(low: int, most: int, fits: Callable[[int], bool]) -> int:
    """The smallest number from low on that fits, or else `most`; looked for near low first."""
    step, high = 1, low
    while high < most and not fits(high):
        low, high, step = high + 1, min(high + step, most), 2 * step
    return low + bisect_left(range(low, high), True, key=fits)
