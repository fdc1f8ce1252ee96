"""Every blob rehashed, every tag judged: what no build could import, and why.

Nothing is changed. A lost or torn index.json is a finding like others; the blobs are rehashed then
as well.
"""

import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from threading import Event
from typing import Literal, NamedTuple

from kitcache.errors import Busy, Cancelled, Damaged, KitcacheError, Unreadable, Unsafe
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.ls import kind_below
from kitcache.gc.reach import first_links, links_below
from kitcache.gc.refusals import IS_SYMLINK, recovery_hints
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.gc.survey import take_survey
from kitcache.gc.values import DamagedPath, Root, Survey, Tally
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES
from kitcache.oci.cachemanifest import CacheManifest, read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import CACHECONFIG, Link
from kitcache.store.directory import DirectoryStore
from kitcache.store.files import INDEX
from kitcache.store.index import read_index
from kitcache.store.locks import lock_store
from kitcache.store.open import open_published_store
from kitcache.upkeep.health.faults import Faults, describe_faults
from kitcache.upkeep.health.hash import HashResult, rehash, rehash_some
from kitcache.upkeep.health.importrules import BlobHealth, ImportCheck, judge_cache
from kitcache.upkeep.results import TagStatus, VerifyResult

_MAX_RETRIES = 8


def verify(
    path: str | os.PathLike[str],
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> VerifyResult:
    """Rehash every blob, walk every tag, and say of each what an import would come to.

    Holds kitcache.lock shared, so that no reset runs meanwhile; where it can be neither opened nor
    made, as in a read-only cache, goes on without and says so. What was published while it ran is
    looked at as well. on_progress is called from this thread with Progress and Waiting. Of a
    directory in which no export was published yet, `why` says so.

    Raises NotACache, Busy (a reset holds the lock), Unsafe, Cancelled, and KitcacheError where a
    directory cannot be listed. Damage is what it finds, never what it raises.
    """
    name = os.fspath(path)
    started = time.monotonic()
    control = Control(name, on_progress, cancel)
    layout = open_published_store(name)
    if layout is None:
        return nothing_published(name)
    with layout, ExitStack() as stack:
        warnings = []
        try:
            stack.enter_context(lock_store(layout, "shared", control.wait_policy(lock_timeout_s)))
        except (Busy, Cancelled):
            raise
        except KitcacheError as error:
            warnings.append(f"the cache is not protected from a concurrent reset: {error.problem}")
        verified = verify_held(layout, control)
    return verified._replace(
        warnings=(*warnings, *verified.warnings), seconds=round(time.monotonic() - started, 3)
    )


def nothing_published(path: str) -> VerifyResult:
    """Return what verify finds in a directory in which no export was published yet: nothing."""
    why = "nothing to verify: no export was published here yet"
    return VerifyResult(path, Tally(), (), "", (), (), (), 0.0, why)


def verify_held(layout: DirectoryStore, control: Control) -> VerifyResult:
    """What verify finds, for a caller who holds kitcache.lock, shared or exclusive."""
    started = time.monotonic()
    picture = _look(layout, control)
    hashed = rehash(layout, control)
    bad = hashed.bad
    warnings = []
    for _ in range(_MAX_RETRIES):
        if read_index(layout).digest == picture.index_digest:
            break
        newer = _look(layout, control)
        # What came since may not have been hashed; what was bad may have been replaced.
        doubtful = {*newer.live - picture.live, *(one.digest for one in bad)}
        bad = rehash_some(layout, doubtful, control).bad
        picture = newer
    else:
        warnings.append(f"{INDEX} kept changing: the last one that was read is judged")
    if picture.survey is None:
        found = VerifyResult(layout.path, hashed.blobs, bad, picture.problem, (), (), (), 0.0)
    else:
        found = _judge(layout, picture.survey, hashed._replace(bad=bad), control)
    return found._replace(
        warnings=(*warnings, *found.warnings), seconds=round(time.monotonic() - started, 3)
    )


class _IndexView(NamedTuple):
    """What index.json reaches. survey: None where it says nothing; then problem says why."""

    index_digest: Digest
    survey: Survey | None
    problem: str = ""

    @property
    def live(self) -> frozenset[Digest]:
        return frozenset(self.survey.live) if self.survey else frozenset()


def _look(layout: DirectoryStore, control: Control) -> _IndexView:
    before = read_index(layout).digest
    try:
        survey = take_survey(layout, control)
    except Damaged as error:
        return _IndexView(before, None, error.problem)
    return _IndexView(survey.index_digest, survey)


def _judge(
    layout: DirectoryStore, survey: Survey, hashed: HashResult, control: Control
) -> VerifyResult:
    told = _told_by_survey(survey)
    bad = tuple(one._replace(problem=told.get(one.digest, one.problem)) for one in hashed.bad)
    faults = Faults(survey, {one.digest: one.problem for one in bad})
    verdicts, warnings, known = [], [], {one.digest for one in bad}
    for root, judged in _judge_roots(layout, survey, faults, control):
        verdicts.append(_verdict_on(root, judged))
        warnings += [f"{root.label}: {warning}" for warning in judged.judgement.warnings]
        known |= judged.damaged
    damage = tuple(_other_damage(survey, known))
    links = [digest for digest in hashed.links if digest in survey.live]
    return VerifyResult(
        path=layout.path,
        blobs=hashed.blobs,
        bad_blobs=bad,
        index_problem="",
        tags=tuple(verdicts),
        damage=damage,
        warnings=(
            *warnings,
            *(f"blob {d.short} {IS_SYMLINK}: replace the symlink by its file" for d in links),
            *_steps_by_hand(layout.path, damage),
        ),
        seconds=0.0,
    )


def _told_by_survey(survey: Survey) -> dict[Digest, str]:
    """Of blobs that are longer or shorter than somebody says: that, since it says more."""
    leaves = {leaf.digest: leaf.problem for leaf in survey.missing_blobs}
    leaves = {digest: problem for digest, problem in leaves.items() if digest in survey.live}
    torn = {d.chain[-1].digest: d.problem for d in survey.damage if d.kind == "wrong-size"}
    return leaves | torn


class _Judged(NamedTuple):
    """What is said of a root by whatever name. damaged: blobs with damage that it needs."""

    kind: Literal["cache", "image", "artifact", "unknown"]
    judgement: ImportCheck
    damaged: frozenset[Digest] = frozenset()


def _verdict_on(root: Root, judged: _Judged) -> TagStatus:
    digest = root.descriptor.digest if root.descriptor else None
    imports, why, steps, misses, _ = judged.judgement
    return TagStatus(root.position, root.ref_name, digest, judged.kind, imports, why, steps, misses)


def _judge_roots(
    layout: DirectoryStore, survey: Survey, faults: Faults, control: Control
) -> Iterator[tuple[Root, _Judged]]:
    """Each entry of index.json; a root that many of them name is judged once."""
    known: dict[Descriptor, _Judged] = {}
    for root in survey.roots:
        if root.position < 0:
            continue
        control.check()
        if root.descriptor is None:
            fault = next(d.problem for d in survey.damage if d.root == root and not d.chain)
            yield root, _Judged("unknown", ImportCheck("none", fault))
            continue
        nameless = root.descriptor._replace(ref_name=None)
        if nameless not in known:
            known[nameless] = _judge_root(layout, survey, faults, nameless)
        yield root, known[nameless]


def _judge_root(
    layout: DirectoryStore, survey: Survey, faults: Faults, descriptor: Descriptor
) -> _Judged:
    links = tuple(links_below(survey, descriptor, with_subjects=False, with_hints=False))
    needed, found = first_links(links), faults.below(links)
    damaged = frozenset(faults.damaged.keys() & needed.keys())
    try:
        cache = None if descriptor.digest in found else _read_cache(layout, descriptor, found)
    except Unreadable as error:
        return _Judged("unknown", ImportCheck("none", error.problem), damaged)
    if cache is None:
        kind = _kind_of_another(survey, descriptor, needed)
        # All of it has to be there.
        judgement = (
            ImportCheck("none", describe_faults(found.values())) if found else ImportCheck("full")
        )
        return _Judged(kind, judgement, damaged)
    store = BlobHealth(survey.live, {digest: fault.problem for digest, fault in found.items()})
    judgement = judge_cache(cache.manifest, cache.config, store, cache.root)
    return _Judged("cache", judgement, damaged)


def _kind_of_another(
    survey: Survey, descriptor: Descriptor, needed: dict[Digest, Link]
) -> Literal["image", "artifact", "unknown"]:
    """What a root is that is no cache: one that only holds caches is none that can be imported."""
    kind = kind_below(survey, descriptor, needed)
    return "artifact" if kind == "cache" else kind


class _Cache(NamedTuple):
    """A cache's documents; config: None where it cannot be had. root: what the manifest says."""

    manifest: bytes
    config: bytes | None
    root: CacheManifest | None = None


def _read_cache(
    layout: DirectoryStore, descriptor: Descriptor, faults: Collection[Digest]
) -> _Cache | None:
    """The cache of which this is the root; None for what is no cache.

    A manifest that BuildKit could not read counts as a cache's where it names a cacheconfig, and so
    does one that was whole in the survey and is not any more. Raises Unreadable.
    """
    try:
        data = layout.read_blob(descriptor.digest, descriptor.size, unless_binary=True) or b""
    except Damaged:
        return _Cache(b"", None)
    except Unsafe:
        # Above a cap, and no damage to the survey: a leaf that is an entry.
        return None
    try:
        root = read_cache_manifest(data)
    except Damaged:
        return _Cache(data, None) if CACHECONFIG.encode() in data else None
    return None if root is None else _Cache(data, _read_config(layout, root.config, faults), root)


def _read_config(
    layout: DirectoryStore, config: Descriptor, faults: Collection[Digest]
) -> bytes | None:
    if config.digest in faults or (config.size or 0) > IMPORT_LIMIT_BYTES:
        return None
    try:
        return layout.read_blob(config.digest, config.size)
    except (Damaged, Unsafe):
        return None


def _other_damage(survey: Survey, told: Collection[Digest]) -> Iterator[DamagedPath]:
    """What no verdict and no bad blob tells of: it is a subject, or lies below one."""
    for damage in survey.damage:
        is_told = damage.chain[-1].digest in told if damage.chain else damage.root.position >= 0
        if not is_told:
            yield damage


def _steps_by_hand(path: str, damage: Iterable[DamagedPath]) -> Iterator[str]:
    """What to do where no repair does it: it takes out entries alone."""
    roots = dict.fromkeys(one.root for one in damage if one.root.position < 0)
    for root in roots:
        yield from (f"hint: {step}" for step in recovery_hints(path, root))
