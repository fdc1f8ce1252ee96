"""gc/unpublished.py: what was written just now and is named by nothing."""

import os
import time

import pytest

from kitcache.gc.control import Control
from kitcache.gc.reset import reset
from kitcache.gc.survey import take_survey
from kitcache.gc.unpublished import newest_unpublished_ns
from kitcache.store.layout import Layout
from kitcache.store.values import Waiting
from tests.hostile.build import Json, Sample

S = 10**9
TODAY = 1_700_000_000 * S


def date(sample: Sample, age_s: float, *descriptors: Json, now_ns: int = TODAY) -> None:
    ns = now_ns - int(age_s * S)
    for descriptor in descriptors:
        os.utime(sample.box.path_of(descriptor["digest"]), ns=(ns, ns))


@pytest.fixture
def old(sample: Sample) -> Sample:
    """All that is in it was written long before TODAY."""
    for path in sample.dir.glob("blobs/*/*"):
        os.utime(path, (0, 0))
    return sample


def age_of_orphan(layout: Layout, control: Control) -> float | None:
    """In seconds; None where there is none."""
    survey = take_survey(layout, control)
    found = newest_unpublished_ns(layout, control, survey, TODAY - 5 * S)
    return (TODAY - found) / S if found else None


def test_an_old_store_has_none(old: Sample, layout: Layout, control: Control) -> None:
    assert age_of_orphan(layout, control) is None


def test_a_layer_that_was_just_sent_is_one_and_the_newest_counts(
    old: Sample, layout: Layout, control: Control
) -> None:
    date(old, 3, old.box.blob(b"a layer"))
    date(old, 2, old.box.blob(b"another layer"))
    date(old, 5.1, old.box.blob(b"an older layer"))
    assert age_of_orphan(layout, control) == 2


def test_so_is_a_cacheconfig_whose_manifest_is_yet_to_come(
    old: Sample, layout: Layout, control: Control
) -> None:
    layer = old.box.blob(b"a layer")
    date(old, 4, layer)
    date(old, 3, old.box.cacheconfig([layer]))
    assert age_of_orphan(layout, control) == 3


def test_what_an_export_was_replaced_by_another_is_none(
    old: Sample, layout: Layout, control: Control
) -> None:
    """Its manifest names all of it, as with any export that has been published."""
    layer = old.box.blob(b"a layer")
    config = old.box.cacheconfig([layer])
    date(old, 2, layer, config, old.box.manifest([layer], config))
    assert age_of_orphan(layout, control) is None


def test_nor_is_an_index_nor_what_a_tag_reaches(
    old: Sample, layout: Layout, control: Control
) -> None:
    layer = old.box.blob(b"a layer")
    config = old.box.cacheconfig([layer])
    manifest = old.box.manifest([layer], config)
    index = old.box.index_of([manifest])
    date(old, 2, *old.layers, old.main, layer, config, manifest, index)
    assert age_of_orphan(layout, control) is None


def test_what_is_dated_ahead_does_not_hide_one(sample: Sample, layout: Layout) -> None:
    now_ns = time.time_ns()
    date(sample, 2, sample.box.blob(b"a layer"), now_ns=now_ns)
    date(sample, -600, sample.box.blob(b"from tomorrow"), now_ns=now_ns)
    control = Control("cache", None, None)
    found = newest_unpublished_ns(layout, control, take_survey(layout, control), now_ns - 5 * S)
    assert found == now_ns - 2 * S


class FoundWaitingError(Exception):
    """It would have waited."""


def reset_at_once(sample: Sample) -> int:
    """How many blobs went. Raises FoundWaitingError."""

    def refuse(event: object) -> None:
        if isinstance(event, Waiting):
            raise FoundWaitingError

    return reset(sample.dir, on_progress=refuse).deleted.blobs


def act(sample: Sample, *, ingest_age_s: float, now_ns: int) -> None:
    """An upload ended so long ago; somebody has published since."""
    for name, age_s in (("ingest", ingest_age_s), ("index.json", 1)):
        ns = now_ns - int(age_s * S)
        os.utime(sample.dir / name, ns=(ns, ns))


def test_it_is_waited_for_although_somebody_else_has_published(sample: Sample) -> None:
    """Two builds without a lock: the tag of one says nothing of what the other is sending."""
    now_ns = time.time_ns()
    date(sample, 2, sample.box.blob(b"the one's layer"), now_ns=now_ns)
    act(sample, ingest_age_s=2, now_ns=now_ns)
    with pytest.raises(FoundWaitingError):
        reset_at_once(sample)


def test_nobody_is_waited_for_where_all_is_named(sample: Sample) -> None:
    now_ns = time.time_ns()
    layer = sample.box.blob(b"a layer")
    config = sample.box.cacheconfig([layer])
    date(sample, 2, layer, config, sample.box.manifest([layer], config), now_ns=now_ns)
    act(sample, ingest_age_s=2, now_ns=now_ns)
    assert reset_at_once(sample) == 7


def test_nor_where_nothing_was_sent(sample: Sample) -> None:
    """A copy, say: it goes by other ways than ingest/."""
    now_ns = time.time_ns()
    date(sample, 2, sample.box.blob(b"brought by a copy"), now_ns=now_ns)
    act(sample, ingest_age_s=6, now_ns=now_ns)
    assert reset_at_once(sample) == 5
