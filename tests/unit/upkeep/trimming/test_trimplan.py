"""trimming/cutting.py: several roots together, of which some are caches, as prune has them."""

from collections.abc import Collection
from pathlib import Path

import pytest

from kitcache.gc.control import Control
from kitcache.gc.survey import take_survey
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.open import open_store
from kitcache.upkeep.trimming.trimplan import TrimPlan, plan_trims
from tests.hostile import stages
from tests.hostile.stages import LAYER_BYTES, Stages

NOW_NS = 10**18
TAGS = {"main": 0, "dev": 1, "image": 2}


@pytest.fixture
def cache(tmp_path: Path) -> Stages:
    return stages.make_stages(tmp_path)


def cut(
    cache: Stages,
    limit: int,
    tags: Collection[str] = tuple(TAGS),
    of: Collection[str] = ("main", "dev", "image"),
    held: Collection[Digest] = (),
) -> TrimPlan:
    """The roots of these tags below the limit, cut from those of the others."""
    with open_store(cache.dir) as layout:
        survey = take_survey(layout, Control("cache", None, None))
        roots = [root for root in survey.roots if root.ref_name in tags]
        positions = [root.position for root in roots if root.ref_name in of]
        return plan_trims(
            layout, survey, roots, positions, limit, used={}, now_ns=NOW_NS, held=held
        )


def bytes_after(cutting: TrimPlan) -> int:
    return cutting.after.live_tally.bytes


def steps_of(cutting: TrimPlan) -> dict[str | None, int]:
    return {each.ref_name: len(each.kept) for each in cutting.trims}


def test_all_roots_count_each_blob_once(cache: Stages) -> None:
    whole = cache.bytes_of(cache.main, cache.dev, cache.image)
    cutting = cut(cache, 10**9)
    assert (cutting.trims, bytes_after(cutting)) == ((), whole)
    assert set(cutting.caches) == {0, 1}, "an image is no tree"
    assert cut(cache, whole).trims == ()
    assert steps_of(cut(cache, whole - 1)) == {"main": 7}, "the newest step is dev's"


def test_roots_that_do_not_stay_do_not_count(cache: Stages) -> None:
    cutting = cut(cache, 10**9, tags=["dev", "image"])
    assert bytes_after(cutting) == cache.bytes_of(cache.dev, cache.image)


def test_what_is_shared_goes_from_both(cache: Stages) -> None:
    """Not before what only one has: dev's own step is the newest of all, and stands on it."""
    image = cache.bytes_of(cache.image)
    assert steps_of(cut(cache, image + 4 * LAYER_BYTES + 4000)) == {"main": 4, "dev": 4}
    cutting = cut(cache, image + 3 * LAYER_BYTES + 4000)
    assert steps_of(cutting) == {"main": 3, "dev": 3}
    names = {stages.layer_of(name) for name in ("base", "old 1", "old 2")}
    kept = {str(layer) for each in cutting.trims for layer in each.new.layers}
    assert kept == names
    assert set(cutting.moves) == {0, 1}
    written = {data for each in cutting.trims for data in each.new.documents.in_order}
    assert len(written) == 2, "both are the same now, and count once"
    assert bytes_after(cutting) == image + 3 * LAYER_BYTES + sum(map(len, written))


def test_what_another_root_holds_is_no_gain(cache: Stages) -> None:
    """Of main alone, beside dev as it is: layers that dev has weigh nothing in main."""
    dev = cache.bytes_of(cache.dev)
    cutting = cut(cache, dev + LAYER_BYTES + 3500, tags=["main", "dev"], of=["main"])
    (only,) = cutting.trims
    assert (only.ref_name, len(only.kept)) == ("main", 2)
    assert dev < bytes_after(cutting) <= dev + LAYER_BYTES + 3500


def test_a_limit_that_cannot_be_reached_leaves_a_step_of_each(cache: Stages) -> None:
    cutting = cut(cache, 10)
    assert steps_of(cutting) == {"main": 1, "dev": 1}
    assert bytes_after(cutting) > cache.bytes_of(cache.image) + LAYER_BYTES


def test_a_root_that_cannot_be_read_as_a_cache_is_left_as_it_is(cache: Stages) -> None:
    config = cache.box.document(
        stages.cacheconfig_of(stages.MAIN) | {"layers": [], "records": 1}, stages.CACHECONFIG
    )
    layers = [cache.box.blob(b"layer of nobody else " * 300)]
    cache.box.tag("odd", cache.box.manifest(layers, config))
    cutting = cut(cache, 10, tags=["main", "odd"], of=["main", "odd"])
    assert steps_of(cutting) == {"main": 1}
    assert set(cutting.caches) == {0}


def test_two_tags_of_one_root_are_two_cuts_to_the_same(cache: Stages) -> None:
    cache.box.tag("alias", cache.main)
    cutting = cut(cache, 3 * LAYER_BYTES, tags=["main", "alias"], of=["main", "alias"])
    one, other = cutting.trims
    assert (one.ref_name, one.positions) == ("main", (0,))
    assert (other.ref_name, other.positions) == ("alias", (3,))
    assert one.new == other.new
    assert one.after.digest == other.after.digest


def test_a_root_whose_layers_others_hold_is_not_cut_in_vain(cache: Stages) -> None:
    """Its smaller manifest would come on top of the one that stays."""
    cache.box.tag("copy", cache.main)
    cache.box.tag("nested", cache.box.index_of([cache.dev]))
    cutting = cut(cache, 10, tags=["main", "dev", "copy", "nested"], of=["main", "dev"])
    assert cutting.trims == ()
    assert set(cutting.caches) == {0, 1}
    nested = cache.box.entries[-1]
    assert bytes_after(cutting) == cache.bytes_of(cache.main, cache.dev, nested)


def test_what_is_held_anyway_is_no_gain_and_counts(cache: Stages) -> None:
    whole = cache.bytes_of(cache.main, cache.dev)
    every = [Digest("sha256", name) for name in cache.live]
    assert cut(cache, whole - 1, tags=["main", "dev"], held=every).trims == ()
    result = [parse_digest(stages.layer_of("result"))]
    less = whole - LAYER_BYTES + 1000
    assert steps_of(cut(cache, less, tags=["main", "dev"])) == {"main": 7}
    assert steps_of(cut(cache, less, tags=["main", "dev"], held=result)) == {"main": 6}


def test_what_is_left_as_it_is_counts(cache: Stages) -> None:
    """Another form of main holds all of its layers, but not its manifest."""
    form = stages.put_cache(cache.box, stages.MAIN, is_index=True)
    cache.box.tag("form", form)
    limit = cache.bytes_of(cache.main, cache.dev, form) - 1
    cutting = cut(cache, limit, tags=["main", "dev", "form"], of=["main", "dev"])
    assert steps_of(cutting) == {"dev": 4}
    assert bytes_after(cutting) <= limit
