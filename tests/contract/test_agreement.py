"""The same cache in both stores gives the same survey, plan and result."""

import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from kitcache.errors import KitcacheError
from kitcache.gc.collect import collect
from kitcache.gc.control import Control
from kitcache.gc.plan import make_plan
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import dry_run_sweep
from kitcache.gc.values import Survey, SweepResult
from kitcache.options.sweep import SweepOptions
from kitcache.store.open import open_store
from kitcache.store.protocol import CollectableStore
from tests.contract.loading import load
from tests.contract.memory import MemoryStore
from tests.contract.suite import NO_WAIT, names_of
from tests.property.disk import on_disk
from tests.property.model import Cache
from tests.property.strategies import caches

CONTROL = Control("cache", None, None)


def outcome(store: CollectableStore) -> list[object]:
    """All that a reset of this store finds and does; of a refusal its kind."""
    survey = take_survey(store, CONTROL)
    plan = make_plan(survey, SweepOptions(), survey.began_ns)
    seen: list[object] = [comparable(survey), plan.keep, plan.kept_ingests, plan.refusal]
    seen.append(sorted_result(dry_run_sweep(plan, store, CONTROL, with_foreign_bytes=True)))
    try:
        with store.lock("exclusive", NO_WAIT) as lock:
            seen.append(sorted_result(collect(lock, SweepOptions(), CONTROL)[1]))
    except KitcacheError as error:
        seen.append((type(error), error.problem))
    return [*seen, names_of(store)]


def comparable(survey: Survey) -> Survey:
    return survey._replace(began_ns=0, links=dict(survey.links))


def sorted_result(swept: SweepResult) -> SweepResult:
    return swept._replace(foreign=tuple(sorted(swept.foreign)))


def compare(root: Path) -> None:
    memory = MemoryStore(str(root), clock_ns=time.time_ns())
    load(root, memory)
    with open_store(root) as directory:
        directory.refresh()
        assert outcome(directory) == outcome(memory)


# How long an example takes on a loaded machine says nothing about the law.
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(caches())
def test_both_stores_agree(cache: Cache) -> None:
    with on_disk(cache) as root:
        compare(root)
