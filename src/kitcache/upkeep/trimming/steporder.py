"""Step order: ranks the steps of caches by last use and selects how many to remove. No I/O.

A result is removed before the results it was built from, so every kept result keeps its inputs and
still hits. A layer is removed once no kept result has it in its chain, so never before a layer
above it. All caches share one order and a selection is a prefix of it: a smaller limit never keeps
more.
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
from kitcache.oci.digest import Digest
from kitcache.upkeep.project import CacheDocuments
from kitcache.upkeep.results import CachedStep

_ANY_DIGEST = Digest("sha256", "0" * 64)


class TrimSelection(NamedTuple):
    """The kept results of each cache (None: all), and the bytes of all kept blobs."""

    kept: tuple[frozenset[ResultKey] | None, ...]
    bytes: int


class RankedResult(NamedTuple):
    """A result in the order of removal.

    Attributes:
        cache: The number of its cache.
        last_used_ns: When it was last used, 0 if unknown.
        layers: Removed together with it, because all other results that have them were removed
            before.
    """

    cache: int
    key: ResultKey
    last_used_ns: int
    layers: tuple[Digest, ...]


def select_steps(
    caches: Sequence[CacheDocuments],
    used: Mapping[Digest, int],
    sizes: Mapping[Digest, int],
    other_bytes: int,
    limit_bytes: int,
    *,
    now_ns: int,
) -> TrimSelection:
    """Select the fewest results to remove from all caches so that everything fits the limit.

    The last result of each cache is kept. If the limit cannot be reached, `bytes` is the smallest
    limit that would be enough. Documents count once per cache, so `bytes` is too large if two
    caches become equal.

    Args:
        used: When an import last read a layer, if known.
        sizes: Of layers, in bytes; 0 for a layer that other_bytes includes.
    """
    numbers = {cache: n for n, cache in enumerate(dict.fromkeys(caches))}
    distinct = list(numbers)
    editors = [CacheConfigEditor(cache.config) for cache in distinct]
    configs = [editor.config for editor in editors]
    order = _rank(distinct, configs, used, now_ns)
    documents = _DocumentSizes(distinct, editors, order)
    most = len(order) - len({ranked.cache for ranked in order})
    layers = {
        digest
        for cache, config in zip(distinct, configs, strict=True)
        for digest in _listed_layers(cache, config)
    }
    held = [other_bytes + _bytes_of(layers, sizes)]
    for ranked in order[:most]:
        held.append(held[-1] - _bytes_of(ranked.layers, sizes))

    # Documents are small: start from the number that is enough for the layers alone.
    low = bisect_left(range(most), True, key=lambda n: held[n] <= limit_bytes)
    removed = _fewest(low, most, lambda n: held[n] + documents.bytes(n) <= limit_bytes)
    kept = documents.kept(removed)
    return TrimSelection(
        tuple(kept[numbers[cache]] for cache in caches), held[removed] + documents.bytes(removed)
    )


def keep_until_fits(
    cache: CacheDocuments,
    used: Mapping[Digest, int],
    fits: Callable[[CacheDocuments], bool],
    *,
    now_ns: int,
) -> frozenset[ResultKey] | None:
    """Return the most results that fit, None if a single result does not fit.

    The least recently used results are removed first.

    Args:
        fits: Called with documents as long as the new ones.
    """
    editor = CacheConfigEditor(cache.config)
    keys = [ranked.key for ranked in _rank([cache], [editor.config], used, now_ns)]

    def fits_without(removed: int) -> bool:
        return fits(_trim(cache, editor, keys[removed:]))

    removed = _fewest(0, max(len(keys) - 1, 0), fits_without)
    return frozenset(keys[removed:]) if fits_without(removed) else None


def rank_steps(
    caches: Sequence[CacheDocuments], used: Mapping[Digest, int], now_ns: int
) -> tuple[RankedResult, ...]:
    """Return every result in the order of removal, the last result of each cache at the end.

    A result can be removed once the results that were built from it are removed. Of the results
    that can be removed, the least recently used is removed first. The last use is the creation or
    the last import of the last layer, whichever is later, and at most now_ns. At equal times the
    result with the longer chain is removed first. A step that several caches have with the same
    layers is removed from all of them at once.
    """
    return _rank(caches, [read_cacheconfig(cache.config) for cache in caches], used, now_ns)


def _rank(
    caches: Sequence[CacheDocuments],
    configs: Sequence[CacheConfig],
    used: Mapping[Digest, int],
    now_ns: int,
) -> tuple[RankedResult, ...]:
    graph = _StepGraph(configs)
    heap: list[tuple[int, int, int, list[_Occurrence]]] = []

    def push(steps: Iterable[int]) -> None:
        for number in steps:
            step = graph.steps[number]
            for chain, results in ((graph.chains[n], step.results[n]) for n in step.results):
                last_read_ns = used.get(chain[-1], 0) if chain else 0
                used_ns = max(last_read_ns, *(result.created_ns for result in results))
                heapq.heappush(heap, (min(used_ns, now_ns), -len(chain), -step.depth, results))

    push(graph.removable())
    order = []
    while heap:
        used_ns, _, _, results = heapq.heappop(heap)
        order += [RankedResult(result.cache, result.key, used_ns, ()) for result in results]
        push(graph.remove(results[0].step))
    last = {ranked.cache: ranked for ranked in order}
    order = [ranked for ranked in order if last[ranked.cache] != ranked] + list(last.values())
    return _with_layers(caches, configs, order)


def describe_steps(
    cache: CacheDocuments,
    kept: Collection[ResultKey] | None,
    used: Mapping[Digest, int],
    sizes: Mapping[Digest, int],
    *,
    elsewhere: Collection[Digest],
    now_ns: int,
) -> tuple[tuple[CachedStep, ...], tuple[CachedStep, ...]]:
    """Return the kept steps and the removed steps, least recently used first.

    A layer counts for the most recently used kept step that has it, else for the most recently used
    removed step.

    Args:
        kept: None if all results are kept.
        elsewhere: The blobs that other entries reach.
    """
    config = read_cacheconfig(cache.config)
    order = [ranked.key for ranked in _rank([cache], [config], used, now_ns)]
    remaining = [key for key in order if kept is None or key in kept]
    removed = [key for key in order if kept is not None and key not in kept]
    seen: set[Digest] = set()
    done: set[int] = set()
    steps: dict[ResultKey, CachedStep] = {}
    for key in (*reversed(remaining), *reversed(removed)):
        record = config.records[key[0]]
        result = record.results[key[1]]
        # Thousands of results may share one long chain object, so read each object once.
        chain = () if id(result.chain) in done else result.chain
        done.add(id(result.chain))
        new = {config.layers[n].digest for n in chain} - seen
        size, unique = _bytes_of(new, sizes), _bytes_of(new - set(elsewhere), sizes)
        seen |= new
        read_ns = used.get(config.layers[result.chain[-1]].digest) if result.chain else None
        steps[key] = CachedStep(record.digest, result.created_ns, read_ns, size, unique)
    return tuple(steps[key] for key in remaining), tuple(steps[key] for key in removed)


class _Occurrence(NamedTuple):
    """A result in one cache. step: The number of its step in the graph."""

    cache: int
    key: ResultKey
    step: int
    created_ns: int


class _Step(NamedTuple):
    """A record with its inputs, in all caches that have it.

    The digest of a record identifies only its operation: two records with the same digest can have
    different inputs.

    Attributes:
        sources: The numbers of the steps that it was built from.
        depth: The length of the longest path to a step without inputs.
        results: By the numbers of their chains in the graph.
    """

    sources: frozenset[int]
    depth: int
    results: dict[int, list[_Occurrence]]


class _StepGraph:
    """The steps of all caches. A step is removed after the steps that were built from it.

    chains: The distinct chains of layers of all results, base first.
    """

    def __init__(self, configs: Sequence[CacheConfig]) -> None:
        self.steps: list[_Step] = []
        self.chains: list[tuple[Digest, ...]] = []
        self._chain_numbers: dict[tuple[Digest, ...], int] = {}
        self._numbers: dict[tuple[str, tuple[frozenset[tuple[int, str]], ...]], int] = {}
        for cache, config in enumerate(configs):
            numbers: dict[int, int] = {}
            chains: dict[int, int] = {}
            for record in sources_first(config.records):
                numbers[record] = self._number_step(config.records[record], numbers)
                self._add_results(cache, config, record, numbers[record], chains)
        self._left = [len(step.results) for step in self.steps]
        self._followers = Counter(link for step in self.steps for link in step.sources)

    def _number_step(self, record: Record, numbers: dict[int, int]) -> int:
        """Return the number of a record's step. numbers: Of the steps that it was built from."""
        ways = [frozenset((numbers[way.link], way.selector) for way in w) for w in record.inputs]
        number = self._numbers.setdefault((record.digest, tuple(ways)), len(self.steps))
        if number == len(self.steps):
            sources = frozenset(numbers[link] for link in record.sources)
            depth = max((self.steps[source].depth + 1 for source in sources), default=0)
            self.steps.append(_Step(sources, depth, {}))
        return number

    def _add_results(
        self, cache: int, config: CacheConfig, record: int, step: int, chains: dict[int, int]
    ) -> None:
        """Add a record's results. chains: The numbers of the config's chains, by object id."""
        for at, result in enumerate(config.records[record].results):
            if id(result.chain) not in chains:
                layers = tuple(config.layers[number].digest for number in result.chain)
                number = self._chain_numbers.setdefault(layers, len(self.chains))
                if number == len(self.chains):
                    self.chains.append(layers)
                chains[id(result.chain)] = number
            occurrence = _Occurrence(cache, (record, at), step, result.created_ns or 0)
            self.steps[step].results.setdefault(chains[id(result.chain)], []).append(occurrence)

    def removable(self) -> Iterator[int]:
        """Yield the steps that have results, and from which no other results were built."""
        return self._with_results([n for n in range(len(self.steps)) if not self._followers[n]])

    def remove(self, number: int) -> Iterator[int]:
        """Remove a result of a step; yield the steps that become removable."""
        self._left[number] -= 1
        return self._with_results([] if self._left[number] else self._release_sources(number))

    def _with_results(self, numbers: list[int]) -> Iterator[int]:
        while numbers:
            number = numbers.pop()
            if self._left[number]:
                yield number
            else:
                numbers += self._release_sources(number)

    def _release_sources(self, number: int) -> list[int]:
        sources = self.steps[number].sources
        self._followers.subtract(sources)
        return [source for source in sources if not self._followers[source]]


def _with_layers(
    caches: Sequence[CacheDocuments],
    configs: Sequence[CacheConfig],
    order: Sequence[RankedResult],
) -> tuple[RankedResult, ...]:
    """Return the results, each with its layers that no later result has."""
    first = {ranked.cache: ranked for ranked in reversed(order)}
    seen: set[Digest] = set()
    for number in set(range(len(caches))) - set(first):
        seen.update(_listed_layers(caches[number], configs[number]))
    complete = []
    done: set[int] = set()
    for ranked in reversed(order):
        number, at = ranked.key
        config = configs[ranked.cache]
        chain = config.records[number].results[at].chain
        listed = [] if id(chain) in done else [config.layers[n].digest for n in chain]
        done.add(id(chain))
        if ranked is first[ranked.cache]:
            # The root may list layers that no result has: the first removal rewrites it.
            listed += _listed_layers(caches[ranked.cache], config)
        own = tuple(dict.fromkeys(digest for digest in listed if digest not in seen))
        seen.update(own)
        complete.append(ranked._replace(layers=own))
    return tuple(reversed(complete))


def _listed_layers(cache: CacheDocuments, config: CacheConfig) -> list[Digest]:
    """Return every layer that the manifest or the cacheconfig lists."""
    root = cache.read_manifest()
    in_root = [layer.descriptor.digest for layer in root.layers] if root else []
    return in_root + [layer.digest for layer in config.layers]


def _bytes_of(layers: Iterable[Digest], sizes: Mapping[Digest, int]) -> int:
    return sum(sizes.get(layer, 0) for layer in layers)


class _DocumentSizes:
    """The sizes of manifests and cacheconfigs after a number of results was removed."""

    def __init__(
        self,
        caches: Sequence[CacheDocuments],
        editors: Sequence[CacheConfigEditor],
        order: Sequence[RankedResult],
    ) -> None:
        self._caches, self._editors, self._order = caches, editors, order
        self._keys: list[list[ResultKey]] = [[] for _ in caches]
        for ranked in order:
            self._keys[ranked.cache].append(ranked.key)
        self._known: dict[tuple[int, int], int] = {}

    def bytes(self, removed: int) -> int:
        counts = Counter(ranked.cache for ranked in self._order[:removed])
        return sum(self._bytes_of(number, counts[number]) for number in range(len(self._caches)))

    def kept(self, removed: int) -> list[frozenset[ResultKey] | None]:
        counts = Counter(ranked.cache for ranked in self._order[:removed])
        return [
            frozenset(keys[counts[number] :]) if counts[number] else None
            for number, keys in enumerate(self._keys)
        ]

    def _bytes_of(self, number: int, removed: int) -> int:
        cache = self._caches[number]
        if not removed:
            return cache.size
        if (number, removed) not in self._known:
            kept = self._keys[number][removed:]
            self._known[number, removed] = _trim(cache, self._editors[number], kept).size
        return self._known[number, removed]


def _trim(
    cache: CacheDocuments, editor: CacheConfigEditor, kept: Collection[ResultKey]
) -> CacheDocuments:
    """Return documents as long as those that keep only these results."""
    # Every digest has the same length.
    return cache.replace_config(editor.trim(kept), _ANY_DIGEST)


def _fewest(low: int, most: int, fits: Callable[[int], bool]) -> int:
    """Return the smallest number from `low` on that fits, else `most`. Search near `low` first."""
    step, high = 1, low
    while high < most and not fits(high):
        low, high, step = high + 1, min(high + step, most), 2 * step
    return low + bisect_left(range(low, high), True, key=fits)
