"""The JSON of what prune, trim, verify, repair, tag, untag and merge answer."""

from collections.abc import Callable
from typing import Any

from kitcache.cli.jsonparts import shape_damage, shape_report, shape_tally, shape_time
from kitcache.gc.values import MAX_LISTED
from kitcache.upkeep.results import (
    CachedStep,
    MergedTag,
    MergeResult,
    PruneResult,
    RepairResult,
    TagContents,
    TagDecision,
    TagResult,
    TagStatus,
    TrimResult,
    UntagResult,
    UnusableStep,
    VerifyResult,
)


def _untagged(untagged: UntagResult) -> dict[str, Any]:
    return {
        "schema": "kitcache.untag/1",
        "path": untagged.path,
        "outcome": untagged.outcome,
        "exit_code": 0,
        "entries": [
            {"ref_name": ref_name, "digest": digest} for ref_name, digest in untagged.entries
        ],
    }


def _tagged(tagged: TagResult) -> dict[str, Any]:
    return {
        "schema": "kitcache.tag/1",
        "path": tagged.path,
        "outcome": tagged.outcome,
        "exit_code": 0,
        "source": tagged.source,
        "target": tagged.target,
        "digest": tagged.digest,
        "previous_digests": tagged.previous_digests,
    }


def _merged(merged: MergeResult) -> dict[str, Any]:
    return {
        "schema": "kitcache.merge/1",
        "path": merged.path,
        "outcome": merged.outcome,
        "exit_code": 0,
        "sources": merged.sources,
        "tags": [_merged_tag(tag) for tag in merged.tags],
        "linked": shape_tally(merged.linked),
        "copied": shape_tally(merged.copied),
        "reused": shape_tally(merged.reused),
        "warnings": merged.warnings,
        "seconds": merged.seconds,
    }


def _merged_tag(tag: MergedTag) -> dict[str, Any]:
    return {
        "source": tag.source,
        "source_name": tag.source_name,
        "target_name": tag.target_name,
        "digests": tag.digests,
        "state": tag.state,
        "previous_digests": tag.previous_digests,
    }


def _trimmed(trimmed: TrimResult) -> dict[str, Any]:
    return {
        "schema": "kitcache.trim/1",
        "path": trimmed.path,
        "outcome": trimmed.outcome,
        "exit_code": trimmed.exit_code,
        "ref_name": trimmed.ref_name,
        "limit_bytes": trimmed.limit_bytes,
        "before": {"digest": str(trimmed.before), **shape_tally(trimmed.before_size)},
        "after": {"digest": str(trimmed.after), **shape_tally(trimmed.after_size)},
        "removed_steps": [_step(step) for step in trimmed.removed_steps],
        "kept_steps": [_step(step) for step in trimmed.kept_steps],
        "reset": shape_report(trimmed.reset) if trimmed.reset else None,
    }


def _step(step: CachedStep) -> dict[str, Any]:
    return {
        "cache_key": step.cache_key,
        "created": shape_time(step.created_ns),
        "last_read": shape_time(step.last_read_ns),
        "bytes": step.bytes,
    }


def _contents(contents: TagContents) -> dict[str, Any]:
    return {
        "schema": "kitcache.contents/1",
        "path": contents.path,
        "exit_code": contents.exit_code,
        "ref_name": contents.ref_name,
        "digests": [str(digest) for digest in contents.digests],
        "kind": contents.kind,
        "size": shape_tally(contents.size),
        "unique": shape_tally(contents.unique),
        "blobs": [
            {
                "digest": str(blob.digest),
                "bytes": blob.bytes,
                "unique_bytes": blob.unique_bytes,
                "role": blob.role,
                "media_type": blob.media_type,
                "platform": blob.platform,
                "created_by": blob.created_by,
                "step": _step(blob.step) if blob.step else None,
            }
            for blob in contents.blobs
        ],
        "damage": [shape_damage(damage) for damage in contents.damage],
    }


def shape_pruned(pruned: PruneResult) -> dict[str, Any]:
    """What a policy did."""
    return {
        "schema": "kitcache.prune/1",
        "path": pruned.path,
        "outcome": pruned.outcome,
        "exit_code": pruned.exit_code,
        "tags": [_decision(decision) for decision in pruned.tags],
        "trimmed": [_trimmed(trimmed) for trimmed in pruned.trimmed],
        "limit_bytes": pruned.limit_bytes,
        "needed_bytes": pruned.needed_bytes,
        "reason": pruned.reason,
        "reset": shape_report(pruned.reset),
    }


def _decision(decision: TagDecision) -> dict[str, Any]:
    return {
        "ref_name": decision.ref_name,
        "digest": str(decision.digest) if decision.digest else None,
        "keep": decision.keep,
        "reason": decision.reason,
        "last_used": shape_time(decision.last_used_ns),
        "last_used_from": decision.last_used_from,
        "size": shape_tally(decision.size),
        "unique": shape_tally(decision.unique),
    }


def _verified(found: VerifyResult) -> dict[str, Any]:
    return {
        "schema": "kitcache.verify/1",
        "path": found.path,
        "exit_code": found.exit_code,
        "blobs": shape_tally(found.blobs),
        "bad_blobs": [
            {"digest": str(one.digest), "problem": one.problem, "bytes": one.size}
            for one in found.bad_blobs[:MAX_LISTED]
        ],
        "bad_blob_count": len(found.bad_blobs),
        "index_problem": found.index_problem,
        "tags": [_verdict(verdict) for verdict in found.tags],
        "damage": [shape_damage(damage) for damage in found.damage],
        "warnings": found.warnings,
        "seconds": found.seconds,
        "reason": found.reason,
    }


def _verdict(verdict: TagStatus) -> dict[str, Any]:
    return {
        "ref_name": verdict.ref_name,
        "position": verdict.position,
        "digest": str(verdict.digest) if verdict.digest else None,
        "kind": verdict.kind,
        "importable": verdict.importable,
        "reason": verdict.reason,
        "steps": verdict.steps,
        "unusable_steps": [_miss(miss) for miss in verdict.unusable_steps[:MAX_LISTED]],
        "unusable_step_count": len(verdict.unusable_steps),
    }


def _miss(miss: UnusableStep) -> dict[str, Any]:
    return {
        "cache_key": miss.cache_key,
        "created": shape_time(miss.created_ns),
        "layers": [str(digest) for digest in miss.layers],
        "reason": miss.reason,
    }


def _repaired(repaired: RepairResult) -> dict[str, Any]:
    return {
        "schema": "kitcache.repair/1",
        "path": repaired.path,
        "outcome": repaired.outcome,
        "exit_code": repaired.exit_code,
        "actions": [
            {
                "kind": step.kind,
                "tag": step.tag,
                "digest": str(step.digest) if step.digest else None,
                "description": step.description,
            }
            for step in repaired.actions
        ],
        "verification": _verified(repaired.verification),
    }


UPKEEP_SHAPES: dict[type, Callable[[Any], dict[str, Any]]] = {
    UntagResult: _untagged,
    TagResult: _tagged,
    MergeResult: _merged,
    TrimResult: _trimmed,
    TagContents: _contents,
    PruneResult: shape_pruned,
    VerifyResult: _verified,
    RepairResult: _repaired,
}
