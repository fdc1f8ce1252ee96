"""What BuildKit would make of a cache that is imported, step by step. Pure.

An import reads the root and its cacheconfig, whole or not at all. A layer is looked at when a step
comes that needs it: what is wrong with one costs the steps that were made of it, or the build.
Sources: BuildKit, cache/remotecache/import.go (the caps, the two forms of a root),
util/imageutil/config.go (what counts as which form), cache/remotecache/v1/parse.go (a layer that
the root does not list makes a result absent; before 2020 it stopped the whole import),
cache/manager.go (the annotation without which no layer is loaded), util/compression (media types).
"""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from kitcache.errors import Damaged
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES, CacheConfig, read_cacheconfig
from kitcache.oci.cachemanifest import (
    UNCOMPRESSED,
    CachedLayer,
    CacheManifest,
    read_cache_manifest,
)
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import DocumentError, JsonObject, expect_object, read_document
from kitcache.upkeep.results import UnusableStep

Imports = Literal["full", "partial", "none"]

_NEAR_LIMIT = 0.8
_NAMED = 3
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LAYER_TYPES = frozenset(
    f"application/vnd.{kind}.tar{packed}"
    for kind, packings in (
        ("oci.image.layer.v1", ("", "+gzip", "+zstd")),
        ("oci.image.layer.nondistributable.v1", ("", "+gzip", "+zstd")),
        ("docker.image.rootfs.diff", ("", ".gzip", ".zstd")),
        ("docker.image.rootfs.foreign.diff", ("", ".gzip")),
    )
    for packed in packings
)


class BlobHealth(NamedTuple):
    """What is known of a cache's blobs. live: whose files are there, reached by some root.

    faults: what is wrong with a blob, a clause such as "is missing".
    """

    live: Collection[Digest]
    faults: Mapping[Digest, str]


class ImportCheck(NamedTuple):
    """What an import of one cache comes to. why: a clause where it is not fully.

    steps: results in its cacheconfig. misses: those that would not be had. warnings: clauses.
    """

    imports: Imports
    why: str = ""
    steps: int = 0
    misses: tuple[UnusableStep, ...] = ()
    warnings: tuple[str, ...] = ()


def judge_cache(
    manifest: bytes, config: bytes | None, store: BlobHealth, root: CacheManifest | None = None
) -> ImportCheck:
    """What BuildKit would make of this cache.

    manifest, config: proven bytes of its root and its cacheconfig; config None where that cannot be
    had, or is above the cap. The root is one that read_cache_manifest knows for a cache's.
    root: what that made of it, where the caller has it.
    """
    try:
        root = _check_root(manifest, root)
        parsed = _read_config(root, config, store)
    except _RefusedError as refusal:
        return ImportCheck("none", str(refusal))
    near = (
        *_near_limit("manifest", len(manifest)),
        *_near_limit("cacheconfig", root.config.size or 0),
    )
    return _judge_steps(root, parsed, store)._replace(warnings=near)


class _RefusedError(Exception):
    """Why BuildKit imports nothing at all of it, a clause."""


def _check_root(manifest: bytes, root: CacheManifest | None) -> CacheManifest:
    _check_size("manifest", len(manifest))
    try:
        if root is not None:
            check_form(root.document)
            return root
        check_form(expect_object(read_document(manifest), "the manifest"))
        root = read_cache_manifest(manifest)
    except Damaged as error:
        raise _RefusedError(f"BuildKit would not take its manifest: it {error.problem}") from None
    if root is None:
        raise _RefusedError("its manifest names no cacheconfig")
    return root


def _read_config(root: CacheManifest, config: bytes | None, store: BlobHealth) -> CacheConfig:
    digest = root.config.digest
    _check_size("cacheconfig", root.config.size or 0)
    if config is None:
        fault = store.faults.get(digest, "is missing")
        raise _RefusedError(f"its cacheconfig {digest.short} {fault}")
    try:
        return read_cacheconfig(config)
    except Damaged as error:
        problem = f"BuildKit would not take its cacheconfig {digest.short}: it {error.problem}"
        raise _RefusedError(problem) from None


def _judge_steps(root: CacheManifest, config: CacheConfig, store: BlobHealth) -> ImportCheck:
    found = layer_faults(root, config, store)
    faults = {number: fault for number, fault in enumerate(found) if fault}
    misses = []
    steps = 0
    # Thousands of results may have one long chain, the very same object: it is looked at once.
    lost_of: dict[int, tuple[tuple[Digest, ...], str]] = {}
    for (number, at), result in config.results():
        steps += 1
        if id(result.chain) not in lost_of:
            lost_of[id(result.chain)] = _lost_layers(config, result.chain, faults)
        layers, why = lost_of[id(result.chain)]
        if layers:
            record = config.records[number].digest
            misses.append(UnusableStep((number, at), record, result.created_ns, layers, why))
    if misses and len(misses) == steps:
        return ImportCheck(
            "none", f"none of its steps is left: {misses[0].reason}", steps, tuple(misses)
        )
    if misses:
        why = f"{len(misses):,} of {steps:,} steps cannot be loaded"
        return ImportCheck("partial", why, steps, tuple(misses))
    idle = [d.digest for d, _ in root.layers if d.digest in store.faults]
    if idle:
        told = ", ".join(f"{digest.short} {store.faults[digest]}" for digest in idle[:_NAMED])
        return ImportCheck("partial", f"no step needs it, but layer {told}", steps)
    return ImportCheck("full", "", steps)


def _lost_layers(
    config: CacheConfig, chain: tuple[int, ...], faults: Mapping[int, str]
) -> tuple[tuple[Digest, ...], str]:
    """The layers of a chain that are at fault, each once, and a clause about the first."""
    is_sound = not faults or faults.keys().isdisjoint(chain)
    lost = [] if is_sound else [n for n in chain if n in faults]
    layers = tuple(dict.fromkeys(config.layers[n].digest for n in lost))
    return layers, f"layer {layers[0].short} {faults[lost[0]]}" if lost else ""


def layer_faults(root: CacheManifest, config: CacheConfig, store: BlobHealth) -> tuple[str, ...]:
    """Of each layer of the cacheconfig why BuildKit could not load it: a clause, "" if it could."""
    # Of one that is listed twice the last counts.
    listed = {layer.descriptor.digest: layer for layer in root.layers}
    known: dict[Digest, str] = {}
    for layer in config.layers:
        if layer.digest not in known:
            known[layer.digest] = _layer_fault(layer.digest, listed.get(layer.digest), store)
    return tuple(known[layer.digest] for layer in config.layers)


def _layer_fault(digest: Digest, listed: CachedLayer | None, store: BlobHealth) -> str:
    if listed is None:
        return "is not listed in the manifest"
    if digest in store.faults:
        return store.faults[digest]
    if digest not in store.live:
        return "is missing" if digest.is_known else f"has a digest of the kind {digest.algorithm}"
    if listed.descriptor.media_type not in _LAYER_TYPES:
        return f"has a media type that BuildKit cannot unpack: {listed.descriptor.media_type!r}"
    return _annotation_fault(listed.diff_id)


def _annotation_fault(diff_id: str | None) -> str:
    if diff_id is None:
        return f"has no annotation {UNCOMPRESSED}"
    try:
        parse_digest(diff_id)
    except ValueError:
        return f"has an annotation {UNCOMPRESSED} that is no digest"
    return ""


def check_form(document: JsonObject) -> None:
    """Raises DocumentError where BuildKit cannot tell a manifest from an index."""
    document.check_spelling(("mediaType", "config", "layers", "manifests"))
    is_manifest = "config" in document or "layers" in document
    if is_manifest and "manifests" in document:
        raise DocumentError("ambiguous", "it is a manifest and an index at once")
    told = document.get_only("mediaType")
    if told is not None and not isinstance(told, str):
        raise DocumentError("malformed", "its media type is no text")
    if told in (_INDEX_TYPES if is_manifest else _MANIFEST_TYPES):
        raise DocumentError("ambiguous", f"it says that it is {told!r}, and is not")


def _check_size(what: str, size: int) -> None:
    if size > IMPORT_LIMIT_BYTES:
        limit = f"BuildKit imports none above {IMPORT_LIMIT_BYTES:,}"
        raise _RefusedError(f"its {what} has {size:,} bytes, and {limit}")


def _near_limit(what: str, size: int) -> list[str]:
    if size <= _NEAR_LIMIT * IMPORT_LIMIT_BYTES:
        return []
    return [f"its {what} has {size:,} of the {IMPORT_LIMIT_BYTES:,} bytes that BuildKit imports"]
