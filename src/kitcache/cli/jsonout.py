"""The JSON of results and errors: one object per value, one key per field of the NamedTuple.

docs/json.md documents the objects and golden files hold them. Keys are added, never renamed.
"""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kitcache import __version__
from kitcache.errors import KitcacheError
from kitcache.gc.refusals import chain_of, describe_damage
from kitcache.gc.values import MAX_LISTED
from kitcache.oci.digest import Digest

if TYPE_CHECKING:  # other commands than build need no client
    from kitcache.buildkit.result import BuildResult

Json = dict[str, Any]

# The tables are keyed by class name, so they import no module that defines the classes.
_SCHEMAS = {
    "BlobReferences": "why",
    "CacheResult": "export",
    "CopyResult": "copy",
    "DiskUsage": "du",
    "ExecResult": "exec",
    "MergeResult": "merge",
    "PruneResult": "prune",
    "RepairResult": "repair",
    "ResetResult": "reset",
    "TagContents": "contents",
    "TagList": "ls",
    "TagResult": "tag",
    "TrimResult": "trim",
    "UntagResult": "untag",
    "VerifyResult": "verify",
}
# The keys of objects whose keys are not the fields of their class; some are properties.
_FIELDS = {
    "BlobReferences": "path digest size written_ns is_unreachable paths has_more_paths damage",
    "CacheResult": "path tag outcome exit_code digest written reused problem reset prune",
    "ExecCacheResult": "path tags is_staged linked reused exit_code problems reset prune",
    "ExecResult": "command command_exit_code exit_code caches",
    "PruneResult": "path outcome exit_code tags trimmed limit_bytes needed_bytes reason reset",
    "TagDecision": "ref_name digest keep reason last_used_ns last_used_from size unique",
    "TagStatus": "ref_name position digest kind importable reason steps unusable_steps",
    "TrimResult": "path outcome exit_code ref_name limit_bytes before after removed_steps"
    " kept_steps reset",
    "UnusableStep": "cache_key created_ns layers reason",
}


def _shape_root(value: Any) -> Json:
    return {"ref_name": value.root.ref_name, "position": value.root.position}


# The keys that replace a field.
_REPLACED: dict[tuple[str, str], Callable[[Any], Json]] = {
    ("BadBlob", "size"): lambda bad: {"bytes": bad.size},
    ("BlobReferences", "is_unreachable"): lambda why: {"unreachable": why.is_unreachable},
    ("BlobReferences", "size"): lambda why: {"present": why.size is not None, "bytes": why.size},
    ("DamagedPath", "chain"): lambda _: {},
    ("DamagedPath", "problem"): lambda damage: {
        "problem": describe_damage(damage),
        "chain": chain_of(damage),
    },
    ("DamagedPath", "root"): _shape_root,
    ("ExecCacheResult", "is_staged"): lambda cache: {"staged": cache.is_staged},
    ("Link", "descriptor"): lambda link: {
        "digest": str(link.descriptor.digest),
        "media_type": link.descriptor.media_type,
    },
    ("ReferencePath", "links"): lambda path: {"chain": list(map(shape_value, path.links))},
    ("ReferencePath", "root"): _shape_root,
    ("ResetResult", "freed"): lambda reset: {
        "freed": shape_value(reset.freed),
        "unreachable_before": shape_value(reset.unreachable_before),
    },
    ("TagInfo", "size"): lambda tag: shape_value(tag.size),
    ("TagStatus", "unusable_steps"): lambda tag: _shape_list("unusable_step", tag.unusable_steps),
    ("TrimResult", "after"): lambda trim: {
        "after": {"digest": str(trim.after), **shape_value(trim.after_size)}
    },
    ("TrimResult", "before"): lambda trim: {
        "before": {"digest": str(trim.before), **shape_value(trim.before_size)}
    },
    ("UntagResult", "entries"): lambda result: {
        "entries": [{"ref_name": name, "digest": digest} for name, digest in result.entries]
    },
    ("VerifyResult", "bad_blobs"): lambda result: _shape_list("bad_blob", result.bad_blobs),
}


def encode_value(value: Any) -> str:
    """Return one line of ASCII JSON for a result.

    Raises:
        TypeError: The value has no schema.
    """
    return json.dumps(shape_document(value))


def shape_document(value: Any) -> Json:
    """Return the object for a result, with the time and the version of kitcache.

    Raises:
        TypeError: The value has no schema.
    """
    if type(value).__name__ not in _SCHEMAS:
        raise TypeError(f"no JSON schema for {type(value).__name__}")
    return {**shape_value(value), **_origin()}


def encode_error(error: KitcacheError) -> str:
    """Return one line of ASCII JSON for an error, with the name of its public class."""
    public = (c.__name__ for c in type(error).__mro__ if c.__module__ == KitcacheError.__module__)
    return json.dumps(
        {
            "schema": "kitcache.error/1",
            "error": next(public),
            "exit_code": error.exit_code,
            "path": error.path,
            "message": str(error),
            "facts": error.facts,
            "hints": error.hints,
            **_origin(),
        }
    )


def shape_metadata(result: "BuildResult") -> Json:
    """Return the object for --metadata-file: the keys of buildx, and the results of the caches."""
    return {
        **result.metadata,
        "buildx.build.ref": result.ref,
        **{
            "/".join(filter(None, ("buildx.build.provenance", platform))): predicate
            for platform, predicate in result.provenance.items()
        },
        "kitcache.caches": shape_value(result.caches),
        "kitcache.notices": result.notices,
        "kitcache.logins": result.logins,
        **{f"kitcache.{key}": text for key, text in _origin().items()},
    }


def _origin() -> Json:
    """Return the keys that each document has: when it was made, and the version of kitcache."""
    try:
        now = _format_time(time.time_ns())
    except OverflowError:  # Python counts nanoseconds in 64 bits.
        now = None
    return {"time": now, "version": __version__}


def shape_value(value: Any) -> Any:
    """Return a value for JSON: an object for a NamedTuple, text for a digest or a time."""
    if isinstance(value, Digest):
        return str(value)
    if not isinstance(value, tuple):
        return value
    name = type(value).__name__
    if not hasattr(value, "_fields"):
        return list(map(shape_value, value))
    schema = _SCHEMAS.get(name)
    shape: Json = {"schema": f"kitcache.{schema}/1"} if schema else {}
    for field in _FIELDS[name].split() if name in _FIELDS else _fields_of(value, schema):
        if (name, field) in _REPLACED:
            shape |= _REPLACED[name, field](value)
        elif field.endswith("_ns"):
            shape[field.removesuffix("_ns")] = _format_time(getattr(value, field))
        else:
            shape[field] = shape_value(
                getattr(value, field, 0)
            )  # A result without exit_code has 0.
    return shape


def _fields_of(value: Any, schema: str | None) -> list[str]:
    """Return the fields of a NamedTuple, with exit_code after the outcome if it is a result."""
    fields = list(value._fields)
    if schema:
        fields.insert(fields.index("outcome" if "outcome" in fields else "path") + 1, "exit_code")
    return fields


def _shape_list(name: str, values: tuple[Any, ...]) -> Json:
    """Return the first hundred values, and their number."""
    return {f"{name}s": shape_value(values[:MAX_LISTED]), f"{name}_count": len(values)}


def _format_time(time_ns: int | None) -> str | None:
    """Return a time in ISO 8601; None if it is not known or has no such form."""
    if time_ns is None:
        return None
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 10**9))
    except (ValueError, OverflowError, OSError):
        return None
