"""The JSON of what several answers have in them."""

import time
from typing import Any

from kitcache.gc.refusals import chain_of, describe_damage
from kitcache.gc.values import DamagedPath, MissingBlob, ResetResult, Tally


def shape_tally(tally: Tally) -> dict[str, int]:
    """A count of blobs, and their bytes."""
    return {"blobs": tally.blobs, "bytes": tally.bytes}


def shape_report(report: ResetResult) -> dict[str, Any]:
    """What a reset did."""
    return {
        "schema": "kitcache.reset/1",
        "path": report.path,
        "outcome": report.outcome,
        "exit_code": report.exit_code,
        "entry_count": report.entry_count,
        "kept": shape_tally(report.kept),
        "too_young": shape_tally(report.too_young),
        "deleted": shape_tally(report.deleted),
        "ingests_deleted": shape_tally(report.ingests_deleted),
        "ingests_kept": report.ingests_kept,
        "not_deleted": report.not_deleted,
        "not_deleted_count": report.not_deleted_count,
        "foreign": report.foreign,
        "foreign_count": report.foreign_count,
        "missing_blobs": [shape_missing(leaf) for leaf in report.missing_blobs],
        "seconds": report.seconds,
        "reason": report.reason,
    }


def shape_missing(leaf: MissingBlob) -> dict[str, Any]:
    """A blob that a tag names and that is not there."""
    return {"digest": str(leaf.digest), "ref_name": leaf.ref_name, "problem": leaf.problem}


def shape_damage(damage: DamagedPath) -> dict[str, Any]:
    """What makes the picture incomplete."""
    return {
        "ref_name": damage.root.ref_name,
        "position": damage.root.position,
        "kind": damage.kind,
        "problem": describe_damage(damage),
        "chain": chain_of(damage),
    }


def shape_time(ns: int | None) -> str | None:
    """A moment in ISO 8601, None where there is none, or none that can be written."""
    if ns is None:
        return None
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 10**9))
    except (ValueError, OverflowError, OSError):
        return None
