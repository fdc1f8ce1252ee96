"""What a cut leaves is closed, means what it meant, fits where it can, and is no less than needed.

Over random cacheconfigs, alone and two together that share layers.
"""

import json
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from kitcache.oci.cacheconfig import read_cacheconfig
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.digest import Digest
from kitcache.upkeep.project import CacheDocuments, make_root
from kitcache.upkeep.trimming.steporder import (
    TrimSelection,
    keep_until_fits,
    rank_steps,
    select_steps,
)
from tests.property.cacheconfigs import (
    BASE_S,
    SIZES,
    Config,
    ancestors,
    bytes_of,
    configs,
    meaning,
    uses,
)

NOW_NS = (BASE_S + 100) * 10**9


class Case(NamedTuple):
    trees: tuple[CacheDocuments, ...]
    used: dict[Digest, int]
    other_bytes: int

    def cut(self, limit_bytes: int) -> TrimSelection:
        return select_steps(
            self.trees, self.used, SIZES, self.other_bytes, limit_bytes, now_ns=NOW_NS
        )

    @property
    def whole(self) -> int:
        return bytes_of(dict(enumerate(self.trees)), SIZES) + self.other_bytes


def trees_of(config: Config) -> st.SearchStrategy[CacheDocuments]:
    """In each of the three forms of a root."""
    return st.sampled_from([config.tree(), config.tree(is_index=True), config.bare()])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    trees = tuple(draw(trees_of(draw(configs()))) for _ in range(draw(st.integers(1, 3))))
    return Case(trees, draw(uses()), draw(st.sampled_from([0, 1234])))


def limits(case: Case) -> st.SearchStrategy[int]:
    return st.integers(0, case.whole + 10)


limited = cases().flatmap(lambda case: st.tuples(st.just(case), limits(case)))


def after(case: Case, cuts: TrimSelection) -> dict[int, CacheDocuments]:
    """The trees once they have been cut, as they are written."""
    found = {}
    for number, (tree, kept) in enumerate(zip(case.trees, cuts.kept, strict=True)):
        found[number] = tree
        if kept is not None:
            root = make_root(tree, kept)
            found[number] = root.documents
    return found


@given(limited)
def test_what_is_left_means_what_it_meant(given: tuple[Case, int]) -> None:
    """The same steps, found through all the same steps, with just the same layers below."""
    case, limit = given
    cuts = case.cut(limit)
    for number, tree in after(case, cuts).items():
        before, kept = meaning(case.trees[number].config), cuts.kept[number]
        expected = [m for key, m in before.items() if kept is None or key in kept]
        read_cacheconfig(tree.config)
        assert sorted(meaning(tree.config).values(), key=repr) == sorted(expected, key=repr)
        named = {layer for _, chain, _ in expected for layer in chain}
        if tree.manifest is None:
            layers = json.loads(tree.config)["layers"]
            assert named <= {layer["blob"] for layer in layers}
            assert all(layer["annotations"]["size"] for layer in layers)
            continue
        root = read_cache_manifest(tree.manifest)
        assert root is not None
        assert (root.config.size, root.config.digest.matches(tree.config)) == (
            len(tree.config),
            True,
        )
        assert named <= {str(layer.descriptor.digest) for layer in root.layers}


@given(limited)
def test_children_go_before_parents(given: tuple[Case, int]) -> None:
    case, limit = given
    for tree, kept in zip(case.trees, case.cut(limit).kept, strict=True):
        everything = meaning(tree.config)
        for number, _ in kept or ():
            above = ancestors(tree.config, number)
            assert {key for key in everything if key[0] in above} <= (kept or set())


@given(limited)
def test_the_limit_is_kept_where_it_can_be(given: tuple[Case, int]) -> None:
    case, limit = given
    cuts = case.cut(limit)
    if cuts.bytes > limit:
        for tree, kept in zip(case.trees, cuts.kept, strict=True):
            left = set(meaning(tree.config)) if kept is None else kept
            assert len(left) == min(1, len(meaning(tree.config)))
    # A document that several trees have is one blob.
    written = bytes_of(after(case, cuts), SIZES) + case.other_bytes
    assert written <= cuts.bytes
    if len(case.trees) == 1:
        assert written == cuts.bytes


@given(cases().flatmap(lambda case: st.tuples(st.just(case), limits(case), limits(case))))
def test_a_tighter_limit_never_keeps_more(given: tuple[Case, int, int]) -> None:
    case, *both = given
    tight, wide = (case.cut(limit).kept for limit in sorted(both))
    for one, other in zip(tight, wide, strict=True):
        assert other is None or (one is not None and one <= other)


@given(limited)
def test_no_more_goes_than_has_to(given: tuple[Case, int]) -> None:
    """A limit of just what is left asks for the same cut; one byte less for another."""
    case, limit = given
    cuts = case.cut(limit)
    if cuts.bytes <= limit:
        assert case.cut(cuts.bytes) == cuts
        tighter = case.cut(cuts.bytes - 1)
        assert tighter.kept != cuts.kept or tighter.bytes > cuts.bytes - 1


@given(cases())
def test_what_fits_is_left_alone(case: Case) -> None:
    assert case.cut(case.cut(10**9).bytes) == TrimSelection(
        (None,) * len(case.trees), case.cut(10**9).bytes
    )


@given(configs().flatmap(trees_of))
def test_a_cut_that_keeps_everything_means_the_same(tree: CacheDocuments) -> None:
    root = make_root(tree, list(meaning(tree.config)))
    assert sorted(meaning(root.documents.config).values(), key=repr) == sorted(
        meaning(tree.config).values(), key=repr
    )


@given(cases())
def test_the_order_names_each_result_once_and_each_layer_once(case: Case) -> None:
    order = rank_steps(case.trees, case.used, NOW_NS)
    assert sorted((r.cache, r.key) for r in order) == sorted(
        (n, key) for n, tree in enumerate(case.trees) for key in meaning(tree.config)
    )
    going = [layer for ranked in order for layer in ranked.layers]
    assert len(going) == len(set(going))


@given(cases())
def test_what_two_trees_share_goes_from_both_at_once(case: Case) -> None:
    """The same step with the same layers: apart, the first to lose it would free nothing."""
    order = rank_steps(case.trees, case.used, NOW_NS)
    lasts = {ranked.cache: n for n, ranked in enumerate(order)}
    found: dict[object, list[int]] = {}
    for n, ranked in enumerate(order):
        if n not in lasts.values():
            identity, chain, _ = meaning(case.trees[ranked.cache].config)[ranked.key]
            found.setdefault((identity, chain), []).append(n)
    for places in found.values():
        between = {order[n].last_used_ns for n in range(places[0], places[-1] + 1)}
        assert len(between) == 1


@given(configs(), uses(), st.integers(0, 4000))
def test_a_cut_until_it_fits(config: Config, used: dict[Digest, int], most: int) -> None:
    """By the size of the cacheconfig alone, as BuildKit's import has it."""
    tree = config.tree()
    kept = keep_until_fits(
        tree, used, lambda documents: len(documents.config) <= most, now_ns=NOW_NS
    )
    keys = [ranked.key for ranked in rank_steps([tree], used, NOW_NS)]
    sizes = [len(make_root(tree, keys[n:]).documents.config) for n in range(max(1, len(keys)))]
    fitting = [n for n, size in enumerate(sizes) if size <= most]
    assert kept == (frozenset(keys[fitting[0] :]) if fitting else None)
