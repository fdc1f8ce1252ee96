"""The du command: the bytes of a cache by their use. It acquires no lock and changes no file."""

from collections import Counter
from itertools import chain
from threading import Event

from kitcache.gc.control import Control, OnProgress
from kitcache.gc.plan import make_plan, raise_min_age
from kitcache.gc.reach import reach
from kitcache.gc.results import DiskUsage, TagUsage
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import dry_run_sweep
from kitcache.gc.values import NodeKey, Survey, Tally, key_of
from kitcache.oci.digest import Digest
from kitcache.options.sweep import SweepOptions
from kitcache.store.open import StoreAddress, open_store
from kitcache.store.protocol import CollectableStore

_DEFAULT_OPTIONS = SweepOptions()


def du(
    path: StoreAddress,
    *,
    options: SweepOptions = _DEFAULT_OPTIONS,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> DiskUsage:
    """Return the live, reclaimable, uploaded and foreign bytes of a cache, and each tag's share.

    Bytes are file sizes. A damaged root does not raise: see DiskUsage.damage. du acquires no lock,
    so an export can change the cache during the count.

    Args:
        options: The ages of blobs that a reset would keep; they do not count as reclaimable.

    Raises:
        NotACache: There is no cache at that path.
        Unsafe: For example, blobs/ is a symlink.
        Damaged: index.json itself is damaged.
        Cancelled: The caller cancelled.
        KitcacheError: An I/O error.

    """
    with open_store(path) as store:
        return measure_usage(store, Control(store.path, on_progress, cancel), options)


def measure_usage(
    store: CollectableStore, control: Control, options: SweepOptions = _DEFAULT_OPTIONS
) -> DiskUsage:
    """Return the disk usage of an open store. Raises as du."""
    survey = take_survey(store, control)
    options = raise_min_age(options, store.min_age_floor_ns)
    plan = make_plan(survey, options, store.now_ns(), store.recall(options.min_age_ns))
    swept = dry_run_sweep(plan, store, control, with_foreign_bytes=True)
    if swept.failure is not None:
        raise swept.failure
    report = store.report()
    return DiskUsage(
        path=store.path,
        live=survey.live_tally,
        reclaimable=swept.deleted,
        ingest=Tally(len(survey.ingests), sum(ingest.bytes for ingest in survey.ingests)),
        foreign=swept.foreign_tally,
        tags=_shares(survey),
        missing_blobs=survey.missing_blobs,
        damage=survey.damage,
        skipped_sweeps=store.read_skipped_sweeps(),
        quarantine=Tally(*store.quarantined()),
        requests=report.requests,
        warnings=report.warnings,
        too_young=swept.too_young,
    )


def _shares(survey: Survey) -> tuple[TagUsage, ...]:
    # Many entries can name one root, so walk each root once.
    roots = {key_of(root.descriptor): root.descriptor for root in survey.roots if root.descriptor}
    # The entries of one tag are removed together, so they count as one.
    keys_of: dict[str | NodeKey, set[NodeKey]] = {}
    for root in survey.roots:
        if root.descriptor:
            key = key_of(root.descriptor)
            keys_of.setdefault(key if root.ref_name is None else root.ref_name, set()).add(key)
    reached = {
        key: [digest for digest in reach(survey, descriptor) if digest in survey.live]
        for key, descriptor in roots.items()
    }
    holders: Counter[Digest] = Counter()
    for keys, tags in Counter(map(frozenset, keys_of.values())).items():
        holders.update(dict.fromkeys(chain.from_iterable(reached[key] for key in keys), tags))
    shares = {
        key: (
            _tally(survey, [d for d in digests if holders[d] == 1]),
            _tally(survey, [d for d in digests if holders[d] > 1]),
        )
        for key, digests in reached.items()
    }
    return tuple(
        TagUsage(root.ref_name, root.descriptor.digest, *shares[key_of(root.descriptor)])
        if root.descriptor
        else TagUsage(root.ref_name, None, Tally(), Tally())
        for root in survey.roots
    )


def _tally(survey: Survey, digests: list[Digest]) -> Tally:
    return Tally(len(digests), sum(survey.live[digest] for digest in digests))
