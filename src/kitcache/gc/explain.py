"""du and why: a Survey turned to answers. Nothing here takes a lock or changes a file."""

import os
import time
from collections import Counter
from itertools import islice
from threading import Event

from kitcache.errors import NotFound, UsageError
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.plan import make_plan
from kitcache.gc.reach import paths_to, reach
from kitcache.gc.results import BlobReferences, DiskUsage, TagUsage
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import dry_run_sweep
from kitcache.gc.values import Survey, Tally, key_of
from kitcache.oci.digest import LOWER_HEX, Digest, is_blob_name, parse_digest
from kitcache.options.sweep import SweepOptions
from kitcache.store.ioerrors import command_line
from kitcache.store.layout import Layout, open_layout
from kitcache.store.scan import scan_blobs, weigh_quarantine

PATHS_SHOWN = 100
_SHORTEST_PREFIX = 4
_CANDIDATES_SHOWN = 10


def du(
    path: str | os.PathLike[str],
    *,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> DiskUsage:
    """Where a cache's bytes are: live, reclaimable, uploads, foreign; and each tag's share.

    Bytes are file sizes. A damaged root does not stop it: see Usage.damage. Takes no lock, so
    beside a running export the figures are of one moment. Raises NotACache, Unsafe, Damaged
    (index.json itself), Cancelled, KitcacheError for I/O errors.
    """
    from kitcache.store.state import read_skipped_sweeps  # noqa: PLC0415 - why has no use for it

    control = Control(os.fspath(path), on_progress, cancel)
    with open_layout(path) as layout:
        survey = take_survey(layout, control)
        plan = make_plan(survey, SweepOptions(), time.time_ns())
        swept = dry_run_sweep(plan, layout, control, weigh_foreign=True)
        skips = read_skipped_sweeps(layout)
        quarantine = Tally(*weigh_quarantine(layout))
    if swept.failure is not None:
        raise swept.failure
    return DiskUsage(
        path=control.path,
        live=survey.live_tally,
        reclaimable=swept.deleted,
        ingest=Tally(len(survey.ingests), sum(i.bytes for i in survey.ingests)),
        foreign=swept.foreign_tally,
        tags=_shares(survey),
        missing_blobs=survey.missing_blobs,
        damage=survey.damage,
        skipped_sweeps=skips,
        quarantine=quarantine,
    )


def _shares(survey: Survey) -> tuple[TagUsage, ...]:
    # Many entries may name one root: it is walked and weighed once.
    roots = {key_of(root.descriptor): root.descriptor for root in survey.roots if root.descriptor}
    entries = Counter(key_of(root.descriptor) for root in survey.roots if root.descriptor)
    reached = {
        key: [digest for digest in reach(survey, descriptor) if digest in survey.live]
        for key, descriptor in roots.items()
    }
    holders: Counter[Digest] = Counter()
    for key, digests in reached.items():
        holders.update(dict.fromkeys(digests, entries[key]))
    shares = {
        key: (
            _weigh(survey, [d for d in digests if holders[d] == 1]),
            _weigh(survey, [d for d in digests if holders[d] > 1]),
        )
        for key, digests in reached.items()
    }
    return tuple(
        TagUsage(root.ref_name, root.descriptor.digest, *shares[key_of(root.descriptor)])
        if root.descriptor
        else TagUsage(root.ref_name, None, Tally(), Tally())
        for root in survey.roots
    )


def _weigh(survey: Survey, digests: list[Digest]) -> Tally:
    return Tally(len(digests), sum(survey.live[digest] for digest in digests))


def why(
    path: str | os.PathLike[str],
    blob: str,
    *,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> BlobReferences:
    """Why a blob is kept: each path from an entry of index.json to it, or that it is garbage.

    blob: a digest, the beginning of one (four digits or more, with or without its algorithm), or
    the path of a blob's file. At most a hundred paths are given. Takes no lock. Raises UsageError
    (no such form, or several blobs begin so), NotFound, and what du raises.
    """
    control = Control(os.fspath(path), on_progress, cancel)
    with open_layout(path) as layout:
        survey = take_survey(layout, control)
        digest = _find_blob(layout, survey, blob)
        found = layout.stat_blob(digest)
    paths = tuple(islice(paths_to(survey, digest, control.check), PATHS_SHOWN + 1))
    return BlobReferences(
        path=control.path,
        digest=digest,
        size=found.size if found else None,
        written_ns=found.mtime_ns if found else None,
        paths=paths[:PATHS_SHOWN],
        has_more_paths=len(paths) > PATHS_SHOWN,
        damage=survey.damage,
    )


def _find_blob(layout: Layout, survey: Survey, text: str) -> Digest:
    algorithm, prefix = _split_blob(layout.path, text)
    known = {digest for digest, _, _ in survey.links} | set(survey.live)
    known |= {link.descriptor.digest for links in survey.links.values() for link in links}
    known |= {root.descriptor.digest for root in survey.roots if root.descriptor}
    named = {d for d in known if _begins(d, algorithm, prefix)}
    for name in layout.blobs:
        if algorithm in (None, name):
            for batch in scan_blobs(layout, name):
                named |= {Digest(name, n) for n in batch.names if n.startswith(prefix)}
    if len(named) == 1:
        return named.pop()
    if not named:
        raise NotFound(
            layout.path,
            f"no blob here is called {text!r}, and no tag names one",
            effect="",
            hints=(f"see what there is: {command_line('ls', layout.path)}, or in blobs/",),
        )
    shown = sorted(map(str, named))[:_CANDIDATES_SHOWN]
    raise UsageError(
        f"{len(named):,} blobs begin with {text!r}: {', '.join(shown)}"
        + (", …" if len(named) > len(shown) else ""),
        path=layout.path,
        hints=("give more digits",),
    )


def _split_blob(path: str, text: str) -> tuple[str | None, str]:
    try:
        return parse_digest(text)
    except ValueError:
        pass
    parts = text.rstrip("/").split("/")
    if len(parts) > 1 and is_blob_name(parts[-2], parts[-1]):
        return parts[-2], parts[-1]
    algorithm, colon, prefix = text.rpartition(":")
    if len(prefix) < _SHORTEST_PREFIX or prefix.strip(LOWER_HEX):
        raise UsageError(
            f"{text!r} is no digest, no beginning of one and no path of a blob",
            path=path,
            hints=(
                "give sha256:9c1e…, at least four digits of it, or a file below blobs/",
                f"see the tags: {command_line('ls', path)}",
            ),
        )
    return (algorithm if colon else None), prefix


def _begins(digest: Digest, algorithm: str | None, prefix: str) -> bool:
    return algorithm in (None, digest.algorithm) and digest.hex.startswith(prefix)
