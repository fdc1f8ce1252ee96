"""The JSON of every value, with its schema name. Fields are added, never renamed.

The shapes are documented in docs/json.md and held by golden files.
"""

import json
import time
from typing import TYPE_CHECKING, Any

from kitcache.errors import KitcacheError
from kitcache.gc.answers import Listing, Tag, TagUsage, Untagged, Usage, Why
from kitcache.gc.refusals import chain_of, describe_damage
from kitcache.gc.values import Damage, MissingLeaf, Report, Tally

if TYPE_CHECKING:  # du, ls and the others need no client
    from kitcache.buildkit.publish import CacheResult
    from kitcache.buildkit.result import BuildResult


def encode_value(value: object) -> str:
    """One line of JSON for an answer. Everything beyond ASCII is escaped: safe on any terminal."""
    match value:
        case Report():
            return json.dumps(_report(value))
        case Usage():
            return json.dumps(_usage(value))
        case Listing():
            return json.dumps(_listing(value))
        case Why():
            return json.dumps(_why(value))
        case Untagged():
            return json.dumps(_untagged(value))
    raise TypeError(f"no JSON shape for {type(value).__name__}")


def shape_metadata(result: "BuildResult") -> dict[str, Any]:
    """What --metadata-file holds: what buildx writes there, and what became of the caches."""
    return {
        **result.metadata,
        "buildx.build.ref": result.ref,
        **{
            "/".join(filter(None, ("buildx.build.provenance", platform))): predicate
            for platform, predicate in result.provenance.items()
        },
        "kitcache.caches": [_cache(cache) for cache in result.caches],
        "kitcache.notices": list(result.notices),
        "kitcache.logins": list(result.logins),
    }


def _cache(cache: "CacheResult") -> dict[str, Any]:
    return {
        "schema": "kitcache.export/1",
        "path": cache.path,
        "tag": cache.tag,
        "outcome": cache.outcome,
        "exit_code": cache.exit_code,
        "digest": cache.digest,
        "written": _tally(cache.written),
        "reused": _tally(cache.reused),
        "problem": cache.problem,
        "reset": _report(cache.report) if cache.report else None,
    }


def encode_error(error: KitcacheError) -> str:
    """One line of JSON for a failure."""
    return json.dumps(
        {
            "schema": "kitcache.error/1",
            "error": type(error).__name__,
            "exit_code": error.exit_code,
            "path": error.path,
            "message": str(error),
            "facts": error.facts,
            "next": list(error.next_steps),
        }
    )


def _tally(tally: Tally) -> dict[str, int]:
    return {"blobs": tally.blobs, "bytes": tally.bytes}


def _report(report: Report) -> dict[str, Any]:
    return {
        "schema": "kitcache.report/1",
        "path": report.path,
        "outcome": report.outcome,
        "exit_code": report.exit_code,
        "tags": report.tags,
        "kept": _tally(report.kept),
        "spared": _tally(report.spared),
        "removed": _tally(report.removed),
        "ingests_removed": _tally(report.ingests_removed),
        "ingests_kept": report.ingests_kept,
        "left": report.left,
        "left_count": report.left_count,
        "foreign": report.foreign,
        "foreign_count": report.foreign_count,
        "missing_leaves": [_missing(leaf) for leaf in report.missing_leaves],
        "seconds": report.seconds,
        "why": report.why,
    }


def _missing(leaf: MissingLeaf) -> dict[str, Any]:
    return {"digest": str(leaf.digest), "ref_name": leaf.ref_name, "problem": leaf.problem}


def _damage(damage: Damage) -> dict[str, Any]:
    return {
        "ref_name": damage.root.ref_name,
        "position": damage.root.position,
        "kind": damage.kind,
        "problem": describe_damage(damage),
        "chain": chain_of(damage),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "schema": "kitcache.usage/1",
        "path": usage.path,
        "exit_code": usage.exit_code,
        "live": _tally(usage.live),
        "reclaimable": _tally(usage.reclaimable),
        "ingest": _tally(usage.ingest),
        "foreign": _tally(usage.foreign),
        "tags": [_share(tag) for tag in usage.tags],
        "missing_leaves": [_missing(leaf) for leaf in usage.missing_leaves],
        "damage": [_damage(damage) for damage in usage.damage],
        "skips": usage.skips,
    }


def _share(tag: TagUsage) -> dict[str, Any]:
    return {
        "ref_name": tag.ref_name,
        "digest": str(tag.digest) if tag.digest else None,
        "unique": _tally(tag.unique),
        "shared": _tally(tag.shared),
    }


def _listing(listing: Listing) -> dict[str, Any]:
    return {
        "schema": "kitcache.listing/1",
        "path": listing.path,
        "exit_code": listing.exit_code,
        "tags": [_tag(tag) for tag in listing.tags],
        "damage": [_damage(damage) for damage in listing.damage],
    }


def _tag(tag: Tag) -> dict[str, Any]:
    return {
        "ref_name": tag.ref_name,
        "digest": str(tag.digest) if tag.digest else None,
        "kind": tag.kind,
        "created": _time(tag.created_ns),
        "created_from": tag.created_from,
        "blobs": tag.size.blobs,
        "bytes": tag.size.bytes,
        "layers": tag.layers,
        "platforms": tag.platforms,
        "missing": tag.missing,
        "problem": tag.problem,
    }


def _why(why: Why) -> dict[str, Any]:
    return {
        "schema": "kitcache.why/1",
        "path": why.path,
        "digest": str(why.digest),
        "present": why.size is not None,
        "bytes": why.size,
        "written": _time(why.written_ns),
        "garbage": why.is_garbage,
        "paths": [
            {
                "ref_name": path.root.ref_name,
                "position": path.root.position,
                "chain": [
                    {
                        "digest": str(link.descriptor.digest),
                        "media_type": link.descriptor.media_type,
                        "role": link.role,
                    }
                    for link in path.links
                ],
            }
            for path in why.paths
        ],
        "more_paths": why.more_paths,
        "damage": [_damage(damage) for damage in why.damage],
    }


def _untagged(untagged: Untagged) -> dict[str, Any]:
    return {
        "schema": "kitcache.untagged/1",
        "path": untagged.path,
        "outcome": untagged.outcome,
        "exit_code": 0,
        "entries": [
            {"ref_name": ref_name, "digest": digest} for ref_name, digest in untagged.entries
        ],
    }


def _time(ns: int | None) -> str | None:
    if ns is None:
        return None
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 10**9))
    except (ValueError, OverflowError, OSError):
        return None
