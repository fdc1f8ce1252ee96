"""The JSON of every value, with its schema name. Fields are added, never renamed.

The shapes are documented in docs/json.md and held by golden files.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kitcache.cli.jsonparts import (
    shape_damage,
    shape_missing,
    shape_report,
    shape_tally,
    shape_time,
)
from kitcache.cli.jsonupkeep import UPKEEP_SHAPES, shape_pruned
from kitcache.errors import KitcacheError
from kitcache.gc.results import BlobReferences, DiskUsage, TagInfo, TagList, TagUsage
from kitcache.gc.values import ResetResult

if TYPE_CHECKING:  # du, ls and the others need no client
    from kitcache.buildkit.publish import CacheResult
    from kitcache.buildkit.result import BuildResult


def encode_value(value: object) -> str:
    """One line of JSON for an answer. Everything beyond ASCII is escaped: safe on any terminal."""
    shape = _SHAPES.get(type(value))
    if shape is None:
        raise TypeError(f"no JSON shape for {type(value).__name__}")
    return json.dumps(shape(value))


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
        "written": shape_tally(cache.written),
        "reused": shape_tally(cache.reused),
        "problem": cache.problem,
        "reset": shape_report(cache.reset) if cache.reset else None,
        "prune": shape_pruned(cache.prune) if cache.prune else None,
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
            "hints": list(error.hints),
        }
    )


def _usage(usage: DiskUsage) -> dict[str, Any]:
    return {
        "schema": "kitcache.du/1",
        "path": usage.path,
        "exit_code": usage.exit_code,
        "live": shape_tally(usage.live),
        "reclaimable": shape_tally(usage.reclaimable),
        "ingest": shape_tally(usage.ingest),
        "foreign": shape_tally(usage.foreign),
        "tags": [_share(tag) for tag in usage.tags],
        "missing_blobs": [shape_missing(leaf) for leaf in usage.missing_blobs],
        "damage": [shape_damage(damage) for damage in usage.damage],
        "skipped_sweeps": usage.skipped_sweeps,
        "quarantine": shape_tally(usage.quarantine),
    }


def _share(tag: TagUsage) -> dict[str, Any]:
    return {
        "ref_name": tag.ref_name,
        "digest": str(tag.digest) if tag.digest else None,
        "unique": shape_tally(tag.unique),
        "shared": shape_tally(tag.shared),
    }


def _listing(listing: TagList) -> dict[str, Any]:
    return {
        "schema": "kitcache.ls/1",
        "path": listing.path,
        "exit_code": listing.exit_code,
        "tags": [_tag(tag) for tag in listing.tags],
        "damage": [shape_damage(damage) for damage in listing.damage],
    }


def _tag(tag: TagInfo) -> dict[str, Any]:
    return {
        "ref_name": tag.ref_name,
        "digest": str(tag.digest) if tag.digest else None,
        "kind": tag.kind,
        "created": shape_time(tag.created_ns),
        "created_from": tag.created_from,
        "blobs": tag.size.blobs,
        "bytes": tag.size.bytes,
        "layers": tag.layers,
        "platforms": tag.platforms,
        "missing": tag.missing,
        "problem": tag.problem,
        "last_used": shape_time(tag.last_used_ns),
        "last_used_from": tag.last_used_from,
    }


def _why(why: BlobReferences) -> dict[str, Any]:
    return {
        "schema": "kitcache.why/1",
        "path": why.path,
        "digest": str(why.digest),
        "present": why.size is not None,
        "bytes": why.size,
        "written": shape_time(why.written_ns),
        "unreachable": why.is_unreachable,
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
        "has_more_paths": why.has_more_paths,
        "damage": [shape_damage(damage) for damage in why.damage],
    }


_SHAPES: dict[type, Callable[[Any], dict[str, Any]]] = {
    ResetResult: shape_report,
    DiskUsage: _usage,
    TagList: _listing,
    BlobReferences: _why,
    **UPKEEP_SHAPES,
}
