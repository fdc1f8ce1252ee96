"""trimming/branches.py: which step is colder, where a cut ends; laws are in tests/property."""

import json
from typing import Any

from kitcache.oci.digest import Digest
from kitcache.upkeep.project import CacheDocuments
from kitcache.upkeep.trimming.steporder import (
    TrimSelection,
    keep_until_fits,
    rank_steps,
    select_steps,
)
from tests.unit.gc.surveys import digest

CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DAY_NS = 86_400 * 10**9
NOW_NS = 1000 * DAY_NS
SIZE = 100_000


class Cache:
    """Steps, each made from others, with a layer of its own on the first one's."""

    def __init__(self) -> None:
        self.layers: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self.names: list[str] = []

    def step(self, name: str, day: int | None, *sources: str, operation: str = "") -> None:
        """day: when its result was made; None for a step without a result."""
        record: dict[str, Any] = {"digest": str(digest(operation or name))}
        if sources:
            record["inputs"] = [[{"link": self.names.index(source)}] for source in sources]
        if day is not None:
            below = self.layer_of(sources[0]) if sources else -1
            record["layers"] = [{"layer": len(self.layers), "createdAt": said(day)}]
            self.layers.append({"blob": str(digest(f"layer {name}")), "parent": below})
        self.names.append(name)
        self.records.append(record)

    def layer_of(self, name: str) -> int:
        results = self.records[self.names.index(name)].get("layers")
        return results[0]["layer"] if results else -1

    def tree(self, *more_layers: str) -> CacheDocuments:
        listed = [layer["blob"] for layer in self.layers] + list(more_layers)
        config = json.dumps({"layers": self.layers, "records": self.records}).encode()
        root = {
            "config": {"mediaType": CACHECONFIG, "digest": str(digest("x")), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": blob, "size": SIZE} for blob in listed],
        }
        return CacheDocuments(json.dumps(root).encode(), config)

    def sizes(self) -> dict[Digest, int]:
        return {digest(f"layer {name}"): SIZE for name in self.names}

    def order(self, used: dict[str, int] | None = None) -> list[str]:
        """The names of the steps as they go."""
        read = {digest(f"layer {name}"): day * DAY_NS for name, day in (used or {}).items()}
        return [self.names[r.key[0]] for r in rank_steps([self.tree()], read, NOW_NS)]


def said(day: int) -> str:
    return f"1970-01-01T00:00:{day:02}Z" if day < 60 else f"{1970 + day // 365}-06-01T00:00:00Z"


def two_stages() -> Cache:
    """A stage that was built long ago, one of today, and what copies from both."""
    cache = Cache()
    cache.step("base", 1)
    cache.step("cold 1", 2, "base")
    cache.step("cold 2", 3, "cold 1")
    cache.step("hot 1", 40, "base")
    cache.step("hot 2", 41, "hot 1")
    cache.step("copy cold", 4, "base", "cold 2")
    cache.step("copy hot", 42, "copy cold", "hot 2")
    cache.step("result", 43, "copy hot")
    return cache


def test_the_branch_that_was_made_the_longest_ago_goes_first() -> None:
    """Once what was made from it is gone: the newest steps stand on old ones."""
    assert two_stages().order() == [
        "result",
        "copy hot",
        "copy cold",
        "cold 2",
        "cold 1",
        "hot 2",
        "hot 1",
        "base",
    ]


def test_a_layer_that_an_import_read_keeps_its_step_warm() -> None:
    order = two_stages().order({"cold 2": 900, "hot 1": 30})
    assert order == [
        "result",
        "copy hot",
        "copy cold",
        "hot 2",
        "hot 1",
        "cold 2",
        "cold 1",
        "base",
    ]


def test_times_ahead_count_as_now() -> None:
    cache = Cache()
    cache.step("base", 1)
    cache.step("from tomorrow", 50_000, "base")
    cache.step("of today", 2, "base")
    assert cache.order({"of today": 2000})[0] == "from tomorrow"
    ranked = rank_steps([cache.tree()], {}, NOW_NS)
    assert max(r.last_used_ns for r in ranked) == NOW_NS


def test_without_any_time_the_one_with_more_below_it_goes_first() -> None:
    cache = Cache()
    for name, source in (("a", ""), ("b", "a"), ("c", "b"), ("d", "a")):
        cache.step(name, 7, *([source] if source else []))
    assert cache.order() == ["c", "b", "d", "a"]


def test_a_step_without_a_result_is_only_a_way() -> None:
    cache = Cache()
    cache.step("base", 1)
    cache.step("content", None, "base")
    cache.step("far", 9, "content")
    cache.step("near", 2, "base")
    assert cache.order() == ["near", "far", "base"]
    kept = select_steps([cache.tree()], {}, cache.sizes(), 0, 2 * SIZE + 1500, now_ns=NOW_NS).kept
    assert kept == (frozenset({(0, 0), (2, 0)}),)


def test_the_same_operation_on_other_ground_is_another_step() -> None:
    cache = Cache()
    cache.step("base", 1)
    cache.step("once", 9, "base", operation="RUN true")
    cache.step("twice", 9, "once", operation="RUN true")
    assert cache.order() == ["twice", "once", "base"]


def test_two_tags_lose_what_they_share_when_neither_needs_it() -> None:
    """Gone from the colder tag alone it would free nothing."""
    cold, warm = Cache(), Cache()
    for cache in (cold, warm):
        cache.step("base", 1)
        cache.step("shared", 2, "base")
    cold.step("old", 3, "shared")
    warm.step("new", 40, "shared")
    trees = [cold.tree(), warm.tree()]
    order = [
        (r.cache, (cold, warm)[r.cache].names[r.key[0]]) for r in rank_steps(trees, {}, NOW_NS)
    ]
    assert order == [
        (0, "old"),
        (1, "new"),
        (0, "shared"),
        (1, "shared"),
        (0, "base"),
        (1, "base"),
    ]


def test_a_cut_ends_as_soon_as_it_fits() -> None:
    cache = two_stages()
    tree, sizes = cache.tree(), cache.sizes()
    whole = select_steps([tree], {}, sizes, 0, 10**9, now_ns=NOW_NS)
    assert whole == TrimSelection((None,), 8 * SIZE + tree.size)
    assert select_steps([tree], {}, sizes, 0, whole.bytes, now_ns=NOW_NS) == whole
    for dropped in range(1, 8):
        limit = (8 - dropped) * SIZE + 10_000
        cuts = select_steps([tree], {}, sizes, 0, limit, now_ns=NOW_NS)
        (kept,) = cuts.kept
        assert kept is not None
        assert (len(kept), cuts.bytes <= limit) == (8 - dropped, True)


def test_other_bytes_count_and_layers_of_others_do_not() -> None:
    cache = two_stages()
    sizes = cache.sizes()
    other = {digest("layer base"): 0}
    limit = 6 * SIZE
    alone = select_steps([cache.tree()], {}, sizes, 0, limit, now_ns=NOW_NS)
    beside = select_steps([cache.tree()], {}, sizes | other, SIZE, limit, now_ns=NOW_NS)
    assert alone == beside


def test_the_last_step_stays_and_what_it_takes_is_said() -> None:
    cache = two_stages()
    cuts = select_steps([cache.tree()], {}, cache.sizes(), 7, 10, now_ns=NOW_NS)
    assert cuts.kept == (frozenset({(0, 0)}),)
    assert SIZE < cuts.bytes < SIZE + 1000
    assert select_steps([cache.tree()], {}, cache.sizes(), 7, cuts.bytes, now_ns=NOW_NS) == cuts


def test_a_layer_that_no_step_has_goes_with_the_first_cut() -> None:
    cache = two_stages()
    stray = digest("stray")
    tree, sizes = cache.tree(str(stray)), cache.sizes() | {stray: 5 * SIZE}
    whole = select_steps([tree], {}, sizes, 0, 10**9, now_ns=NOW_NS)
    assert whole.bytes > 13 * SIZE
    (kept,) = select_steps([tree], {}, sizes, 0, 9 * SIZE, now_ns=NOW_NS).kept
    assert kept is not None
    assert len(kept) == 7


def test_a_cache_without_steps_has_nothing_to_cut() -> None:
    cache = Cache()
    cache.step("content", None)
    cuts = select_steps([cache.tree()], {}, {}, 0, 5, now_ns=NOW_NS)
    assert (cuts.kept, cuts.bytes > 5) == ((None,), True)
    assert select_steps([], {}, {}, 3, 2, now_ns=NOW_NS) == TrimSelection((), 3)


def test_the_same_root_twice_is_cut_once() -> None:
    tree, sizes = two_stages().tree(), two_stages().sizes()
    one = select_steps([tree], {}, sizes, 0, 5 * SIZE, now_ns=NOW_NS)
    both = select_steps([tree, tree], {}, sizes, 0, 5 * SIZE, now_ns=NOW_NS)
    assert both == TrimSelection(one.kept * 2, one.bytes)


def test_until_the_documents_fit() -> None:
    tree = two_stages().tree()
    full = keep_until_fits(tree, {}, lambda documents: True, now_ns=NOW_NS)
    assert full is not None
    assert len(full) == 8
    half = keep_until_fits(
        tree, {}, lambda documents: len(documents.config) < len(tree.config) // 2, now_ns=NOW_NS
    )
    assert half is not None
    assert half < full
    assert (
        keep_until_fits(tree, {}, lambda documents: len(documents.root) < 10, now_ns=NOW_NS) is None
    )
