"""The plan: decides from a survey, options and the time which blobs to keep. No I/O."""

import math
from itertools import chain

from kitcache.errors import UsageError
from kitcache.gc.values import Plan, Refusal, Survey
from kitcache.oci.digest import HEX_LENGTHS
from kitcache.options.sweep import SweepOptions
from kitcache.options.units import format_age
from kitcache.store.values import NOTHING_REMEMBERED, Ingest, Remembered

ACTIVE_UPLOAD_NS = 60 * 10**9
"""If an upload was written within this time, an export is running."""
PUBLISH_GRACE_NS = 5 * 10**9
"""BuildKit publishes about 50 ms after its last upload. After this time a sweep does not wait."""
SWEEP_NS = 3600 * 10**9
"""No sweep takes longer, so a blob that is dated later was not written during the sweep."""
_UNSAFE_KINDS = ("over-cap", "too-deep")


def raise_min_age(options: SweepOptions, floor_ns: int) -> SweepOptions:
    """Return the options with the minimum age that the store requires; see SweepOptions.

    Args:
        floor_ns: The store's min_age_floor_ns.

    Raises:
        UsageError: The caller asked for a minimum age below the floor.
    """
    if not floor_ns:
        return options
    if 0 < options.min_age_ns < floor_ns:
        raise UsageError(
            f"a minimum age of {format_age(options.min_age_ns)} is less than touch_refresh,"
            f" {format_age(floor_ns)}: exporters use blobs of that age without a new date",
            hints=("leave the minimum age out", "export with a shorter touch_refresh"),
        )
    grace_ns = max(options.min_age_ns, floor_ns + options.export_time_ns)
    return options._replace(min_age_ns=grace_ns, ingest_age_ns=max(options.ingest_age_ns, grace_ns))


def young_since_ns(options: SweepOptions, now_ns: int) -> int | None:
    """Return the earliest time of a blob that is too young; None without a minimum age."""
    return now_ns - options.min_age_ns if options.min_age_ns else None


def settling_ns(changed_ns: int, now_ns: int) -> int:
    """Return how long to wait after a change by an export that may be about to publish."""
    age_ns = _age_ns(changed_ns, now_ns)
    return PUBLISH_GRACE_NS - age_ns if 0 <= age_ns < PUBLISH_GRACE_NS else 0


def make_plan(
    survey: Survey,
    options: SweepOptions,
    now_ns: int,
    remembered: Remembered = NOTHING_REMEMBERED,
) -> Plan:
    """Return the plan for a survey.

    The plan refuses if an upload is running or if there is damage. An upload is deleted if its last
    write is older than the ingest age, or if a killed reset began to delete it. An upload that is
    dated more than a minute in the future does not count as running.
    """
    since_ns: float | None = young_since_ns(options, now_ns)
    if remembered.keeps_all:
        since_ns = -math.inf
    old, kept = [], []
    for ingest in survey.ingests:
        reason = _why_kept(ingest, options, now_ns)
        if reason is None:
            old.append(ingest)
        else:
            kept.append((ingest.name, reason))
    reached = _names_by_algorithm(survey)
    recent = {name: frozenset(names) - reached[name] for name, names in remembered.names.items()}
    keep = {name: names.union(recent.get(name, ())) for name, names in reached.items()}
    return Plan(
        index_digest=survey.index_digest,
        keep=keep,
        young_since_ns=math.inf if since_ns is None else since_ns,
        changed_from_ns=survey.began_ns,
        changed_until_ns=survey.began_ns + SWEEP_NS,
        valid_until_ns=now_ns + SWEEP_NS,
        # Delete marked uploads first: an unmarked upload may get the same marked name.
        drop_ingests=tuple(sorted(old, key=lambda ingest: not ingest.is_marked)),
        kept_ingests=tuple(kept),
        refusal=_refusal(survey, now_ns),
        remembered=remembered,
        recent=recent,
    )


def _names_by_algorithm(survey: Survey) -> dict[str, frozenset[str]]:
    return {
        algorithm: frozenset(
            digest.hex
            for digests in (survey.live, survey.young)
            for digest in digests
            if digest.algorithm == algorithm
        )
        for algorithm in HEX_LENGTHS
    }


def _refusal(survey: Survey, now_ns: int) -> Refusal | None:
    uploads = (
        ingest.writes_ns
        for ingest in survey.ingests
        if not (ingest.is_marked or ingest.is_protected)
    )
    ages_ns = (_age_ns(ns, now_ns) for ns in chain(survey.other_writes_ns, *uploads))
    waits = [ACTIVE_UPLOAD_NS - age_ns for age_ns in ages_ns if 0 <= age_ns < ACTIVE_UPLOAD_NS]
    if waits:
        return Refusal("busy", retry_after_s=max(waits) / 10**9)
    if not survey.damage:
        return None
    first = survey.damage[0]
    return Refusal("unsafe" if first.kind in _UNSAFE_KINDS else "damaged", survey.damage)


def _why_kept(ingest: Ingest, options: SweepOptions, now_ns: int) -> str | None:
    if ingest.is_marked:
        return None
    age_ns = min(_age_ns(written, now_ns) for written in ingest.writes_ns)
    if age_ns < 0:
        return f"dated {format_age(-age_ns)} in the future"
    if age_ns < options.ingest_age_ns:
        return f"last written {format_age(age_ns)} ago"
    return None


def _age_ns(written_ns: int, now_ns: int) -> int:
    """Return the age. A time up to a minute in the future counts as now."""
    age_ns = now_ns - written_ns
    return 0 if -ACTIVE_UPLOAD_NS <= age_ns < 0 else age_ns
