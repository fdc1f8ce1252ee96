"""The dictionary keeps the laws of all stores; and those that an object store adds to them."""

import time
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import NamedTuple

import pytest

from kitcache.gc.collect import collect
from kitcache.gc.du import measure_usage
from kitcache.gc.sweep import apply
from kitcache.oci.digest import parse_digest
from kitcache.options.sweep import SweepOptions
from kitcache.store.protocol import CollectableStore
from tests.contract.loading import load
from tests.contract.memory import MemoryStore
from tests.contract.suite import CONTROL, HOUR_NS, NO_WAIT, IndexLaws, StoreLaws, names_of, plan_of
from tests.hostile.build import Sample, make_sample


class Memory(NamedTuple):
    sample: Sample
    store: MemoryStore

    def sync(self) -> None:
        load(self.sample.dir, self.store)


@pytest.fixture
def cache(tmp_path: Path) -> Memory:
    sample = make_sample(tmp_path)
    sample.box.ingest("unfinished")
    memory = Memory(sample, MemoryStore(clock_ns=time.time_ns()))
    memory.sync()
    return memory


class TestMemory(StoreLaws, IndexLaws):
    @pytest.fixture
    def cache(self, cache: Memory) -> Memory:
        return cache

    @pytest.fixture
    def other(self) -> CollectableStore:
        return MemoryStore()


def test_no_blob_below_the_stores_minimum_age_is_deleted(cache: Memory) -> None:
    """An object store has no lock, so this is all that protects an export."""
    cache.store.min_age_floor_ns = 2 * HOUR_NS
    before = names_of(cache.store)
    assert measure_usage(cache.store, CONTROL).reclaimable.blobs == 0
    with cache.store.lock("exclusive", NO_WAIT) as lock:
        collect(lock, SweepOptions(), CONTROL)
    assert names_of(cache.store) == before


def test_a_root_that_is_not_a_blob_is_read_and_keeps_what_it_names(cache: Memory) -> None:
    """As S3 has them: the object of a name is the document itself, below another prefix."""
    main = parse_digest(cache.sample.main["digest"])
    cache.store.inline[main] = cache.store.blobs.pop(main)
    with cache.store.lock("exclusive", NO_WAIT) as lock:
        surveyed, swept = collect(lock, SweepOptions(), CONTROL)
    assert swept.deleted.blobs == len(cache.sample.garbage)
    assert surveyed.survey.damage == ()
    assert {digest.hex for digest in names_of(cache.store)} | {main.hex} == cache.sample.live


def test_a_blob_that_cannot_be_deleted_does_not_stop_the_others(cache: Memory) -> None:
    stays = min(cache.sample.garbage)
    cache.store.undeletable[stays] = "AccessDenied"
    with cache.store.lock("exclusive", NO_WAIT) as lock:
        _, swept = collect(lock, SweepOptions(), CONTROL)
    assert swept.not_deleted == ((f"blobs/sha256/{stays}", "AccessDenied"),)
    assert (swept.deleted.blobs, swept.not_deleted_count) == (3, 1)


def test_a_thread_that_finds_other_roots_stops_the_sweep_of_all_threads(cache: Memory) -> None:
    """The other thread has asked before, and gets its answer after that."""
    cache.store.delete_threads = 2
    entered, refused = Event(), Event()

    def is_current() -> bool:
        if current_thread() is main_thread():
            # The first batch has no names, and one thread.
            if not entered.wait(0.3):
                return True
            refused.set()
            return False
        entered.set()
        refused.wait(5)
        time.sleep(0.2)
        return True

    plan = plan_of(cache.store)
    with cache.store.lock("exclusive", NO_WAIT) as lock:
        swept = apply(plan, lock, CONTROL, is_current)
    assert entered.is_set()
    assert swept.stopped
