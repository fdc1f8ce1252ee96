"""Every blob rehashed, every tag judged: what no build could import, and why.

Nothing is changed. A lost or torn index.json is a finding like others; the blobs are rehashed then
as well.
"""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from threading import Event
from typing import Literal, NamedTuple

from kitcache.errors import Busy, Cancelled, Damaged, KitcacheError, Unsafe
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.reach import links_below, reach
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.gc.survey import take_survey
from kitcache.gc.tags import kind_below
from kitcache.gc.values import Damage, Root, Survey, key_of
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from kitcache.oci.links import CACHECONFIG, Link, kind_of
from kitcache.store.index import INDEX, read_index
from kitcache.store.layout import Layout, open_layout
from kitcache.store.locks import hold_store
from kitcache.upkeep.answers import BadBlob, Verdict, Verified
from kitcache.upkeep.health.importing import Judgement, Store, judge_cache
from kitcache.upkeep.health.rehash import Rehashed, rehash, rehash_some

_CHANGES = 8
_NAMED = 3


def verify(
    path: str | os.PathLike[str],
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> Verified:
    """Rehash every blob, walk every tag, and say of each what an import would come to.

    Holds kitcache.lock shared, so that no reset runs meanwhile; where it can be neither opened nor
    made, as in a read-only cache, goes on without and says so. What was published while it ran is
    looked at as well. on_progress is called from this thread with Progress and Waiting.

    Raises NotACache, Busy (a reset holds the lock), Unsafe, Cancelled, and KitcacheError where a
    directory cannot be listed. Damage is what it finds, never what it raises.
    """
    name = os.fspath(path)
    started = time.monotonic()
    control = Control(name, on_progress, cancel)
    with open_layout(name) as layout, ExitStack() as stack:
        warnings = []
        try:
            stack.enter_context(hold_store(layout, "shared", control.patience(lock_timeout_s)))
        except (Busy, Cancelled):
            raise
        except KitcacheError as error:
            warnings.append(f"not protected from a reset that runs meanwhile: {error.problem}")
        verified = verify_held(layout, control)
    return verified._replace(
        warnings=(*warnings, *verified.warnings), seconds=round(time.monotonic() - started, 3)
    )


def verify_held(layout: Layout, control: Control) -> Verified:
    """What verify finds, for a caller who holds kitcache.lock, shared or exclusive."""
    started = time.monotonic()
    picture = _look(layout, control)
    hashed = rehash(layout, control)
    bad = hashed.bad
    warnings = []
    for _ in range(_CHANGES):
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
        found = Verified(layout.path, hashed.blobs, bad, picture.problem, (), (), (), 0.0)
    else:
        found = _judge(layout, picture.survey, hashed._replace(bad=bad), control)
    return found._replace(
        warnings=(*warnings, *found.warnings), seconds=round(time.monotonic() - started, 3)
    )


class _Picture(NamedTuple):
    """What index.json reaches. survey: None where it says nothing; then problem says why."""

    index_digest: Digest
    survey: Survey | None
    problem: str = ""

    @property
    def live(self) -> frozenset[Digest]:
        return frozenset(self.survey.live) if self.survey else frozenset()


def _look(layout: Layout, control: Control) -> _Picture:
    before = read_index(layout).digest
    try:
        survey = take_survey(layout, control)
    except Damaged as error:
        return _Picture(before, None, error.problem)
    return _Picture(survey.index_digest, survey)


def _judge(layout: Layout, survey: Survey, hashed: Rehashed, control: Control) -> Verified:
    told = _told_by_survey(survey)
    bad = tuple(one._replace(problem=told.get(one.digest, one.problem)) for one in hashed.bad)
    faults = _Faults(survey, bad)
    judged = []
    for root in survey.roots:
        if root.position >= 0:
            control.check()
            judged.append(_judge_root(layout, survey, faults, root))
    needed = {digest for one in judged for digest in one.needed}
    links = [digest for digest in hashed.odd if digest in survey.live and digest not in faults.flat]
    return Verified(
        path=layout.path,
        blobs=hashed.blobs,
        bad=bad,
        index_problem="",
        verdicts=tuple(one.verdict for one in judged),
        damage=tuple(_other_damage(survey, {*needed, *(one.digest for one in bad)})),
        warnings=(
            *(warning for one in judged for warning in one.warnings),
            *(f"blob {digest.short} is a link, which is not followed" for digest in links),
        ),
        seconds=0.0,
    )


def _told_by_survey(survey: Survey) -> dict[Digest, str]:
    """Of blobs that are longer or shorter than somebody says: that, since it says more."""
    leaves = {leaf.digest: leaf.problem for leaf in survey.missing_leaves}
    torn = {d.chain[-1].digest: d.detail for d in survey.damage if d.kind == "torn"}
    return leaves | torn


class _Faults:
    """What is wrong with what a root reaches. flat: with blobs whatever is said of them."""

    def __init__(self, survey: Survey, bad: tuple[BadBlob, ...]) -> None:
        self.flat = {one.digest: one.problem for one in bad}
        self.flat |= {leaf.digest: leaf.problem for leaf in survey.missing_leaves}
        # A manifest that is gone is no missing leaf, also where somebody calls it a layer.
        ends = {d.chain[-1].digest: d.detail for d in survey.damage if d.chain}
        self.flat |= {d: t for d, t in ends.items() if d.is_known and d not in survey.live}
        self._damaged = {key_of(d.chain[-1]): d.detail for d in survey.damage if d.chain}

    def below(self, links: Iterable[Link]) -> dict[Digest, str]:
        """The faults of these blobs: that one entry lies about a size is no other's."""
        found: dict[Digest, str] = {}
        for link in links:
            digest = link.descriptor.digest
            fault = self._damaged.get(key_of(link.descriptor)) or self.flat.get(digest)
            if fault:
                found.setdefault(digest, fault)
        return found


class _Judged(NamedTuple):
    verdict: Verdict
    needed: Collection[Digest] = ()
    warnings: tuple[str, ...] = ()


def _judge_root(layout: Layout, survey: Survey, faults: _Faults, root: Root) -> _Judged:
    descriptor = root.descriptor
    if descriptor is None:
        fault = next(d.detail for d in survey.damage if d.root == root and not d.chain)
        return _Judged(Verdict(root.position, root.ref_name, None, "unknown", "not", fault))
    needed = reach(survey, descriptor, with_subjects=False, with_hints=False)
    links = links_below(survey, descriptor, with_subjects=False, with_hints=False)
    found = faults.below(links)
    cache = None if descriptor.digest in found else _read_cache(layout, descriptor, found)
    if cache is not None:
        judgement = judge_cache(*cache, Store(survey.live, found))
    else:
        judgement = _judge_whole(needed, found)
    verdict = Verdict(
        root.position,
        root.ref_name,
        descriptor.digest,
        "cache" if cache else _kind_of_another(survey, descriptor, needed),
        judgement.imports,
        judgement.why,
        judgement.steps,
        judgement.misses,
    )
    return _Judged(verdict, needed, tuple(f"{root.label}: {w}" for w in judgement.warnings))


def _kind_of_another(
    survey: Survey, descriptor: Descriptor, needed: dict[Digest, Link]
) -> Literal["image", "artifact", "unknown"]:
    """What a root is that is no cache: one that only holds caches is none that can be imported."""
    kind = kind_below(survey, descriptor, needed)
    return "artifact" if kind == "cache" else kind


def _judge_whole(needed: Mapping[Digest, Link], faults: Mapping[Digest, str]) -> Judgement:
    """What is no cache, or has no root that can be read: all of it has to be there."""
    if not faults:
        return Judgement("fully")
    told = [f"{_what(needed[d])} {d.short} {fault}" for d, fault in faults.items()]
    more = f" and {len(told) - _NAMED:,} more" if len(told) > _NAMED else ""
    return Judgement("not", ", ".join(told[:_NAMED]) + more)


def _what(link: Link) -> str:
    kind = kind_of(link.descriptor.media_type)
    return link.role if kind in ("leaf", None) else kind


def _read_cache(
    layout: Layout, root: Descriptor, faults: Mapping[Digest, str]
) -> tuple[bytes, bytes | None] | None:
    """The manifest and the cacheconfig, None where that cannot be had; None for what is no cache.

    A manifest that BuildKit could not read counts as a cache's where it names a cacheconfig.
    """
    try:
        data = layout.read_blob(root.digest, root.size, unless_binary=True) or b""
        cache = read_cache_manifest(data)
    except (Damaged, Unsafe):
        return None
    except DocumentError:
        return (data, None) if CACHECONFIG.encode() in data else None
    if cache is None:
        return None
    return data, _read_config(layout, cache.config, faults)


def _read_config(layout: Layout, config: Descriptor, faults: Mapping[Digest, str]) -> bytes | None:
    if config.digest in faults or (config.size or 0) > IMPORT_LIMIT_BYTES:
        return None
    try:
        return layout.read_blob(config.digest, config.size)
    except (Damaged, Unsafe):
        return None


def _other_damage(survey: Survey, told: Collection[Digest]) -> Iterator[Damage]:
    """What no verdict and no bad blob tells of: it lies below a subject."""
    for damage in survey.damage:
        if damage.chain and damage.chain[-1].digest not in told:
            yield damage
