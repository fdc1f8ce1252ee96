"""The rules by which BuildKit imports a cache. No I/O.

An import reads the root and its cacheconfig completely or not at all. A layer is read when a step
needs it. If it is faulty, the steps that were built from it do not hit, or the build fails.

Source: BuildKit, cache/remotecache/import.go (the caps, the two forms of a root),
util/imageutil/config.go (the form follows from the fields), cache/remotecache/v1/parse.go (a layer
that the root does not list makes a result absent; before 2020 it made the import fail),
cache/manager.go (the annotation without which no layer is loaded), util/compression (media types),
cache/remotecache/s3/s3.go and azblob/importer.go (a cacheconfig that is the root itself).
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Literal, NamedTuple

from kitcache.errors import Damaged
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES, CacheConfig, read_cacheconfig
from kitcache.oci.cachemanifest import (
    UNCOMPRESSED,
    CachedLayer,
    CacheManifest,
    read_cache_manifest,
)
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import DocumentError, JsonObject, expect_object, read_document
from kitcache.upkeep.results import UnusableStep

_WARN_ABOVE = 0.8
_MAX_NAMED = 3
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
    """The health of a cache's blobs.

    Attributes:
        live: The blobs that exist and that a root reaches.
        faults: The problem of each faulty blob, a clause such as "is missing".
    """

    live: Collection[Digest]
    faults: Mapping[Digest, str]


class ImportCheck(NamedTuple):
    """The result that an import of one root would have.

    Attributes:
        reason: Why the root is not fully importable, a clause.
        steps: The number of results in its cacheconfig.
        unusable_steps: The results that BuildKit cannot load.
        warnings: Clauses.
    """

    importable: Literal["full", "partial", "none"]
    reason: str = ""
    steps: int = 0
    unusable_steps: tuple[UnusableStep, ...] = ()
    warnings: tuple[str, ...] = ()


class _RefusedError(Exception):
    """BuildKit would import nothing of the cache; the message is a clause that states why."""


def check_import(
    manifest: bytes, config: bytes | None, health: BlobHealth, root: CacheManifest | None = None
) -> ImportCheck:
    """Return the result of an import of a cache by BuildKit.

    Args:
        manifest: Verified bytes of its root, which read_cache_manifest accepts.
        config: Verified bytes of its cacheconfig; None if it cannot be read or is too large.
        root: The parsed manifest, if the caller has it.
    """
    try:
        root = _check_root(manifest, root)
        parsed = _read_config(root, config, health)
    except _RefusedError as refusal:
        return ImportCheck("none", str(refusal))
    check = _check_steps(_list_layers(root, parsed), parsed, health)
    sizes = (("manifest", len(manifest)), ("cacheconfig", root.config.size or 0))
    return check._replace(warnings=tuple(_size_warnings(sizes)))


def check_bare_import(config: bytes, health: BlobHealth) -> ImportCheck:
    """Return the result of an import from an object store, which has no limit for its size.

    Args:
        config: Verified bytes of the cacheconfig that is the root.
    """
    try:
        parsed = read_cacheconfig(config)
    except Damaged as error:
        return ImportCheck("none", f"BuildKit does not accept its cacheconfig: it {error.problem}")
    undescribed = undescribed_layers(parsed)
    if undescribed:
        fault = "has no annotations with its diffID"
        reason = f"BuildKit imports none of it: layer {undescribed[0].short} {fault}"
        return ImportCheck("none", reason, sum(1 for _ in parsed.results()))
    check = _check_steps(_list_layers(None, parsed), parsed, health)
    if check.steps:
        return check
    return check._replace(warnings=("it is empty: its last export had nothing to cache",))


def undescribed_layers(config: CacheConfig) -> tuple[Digest, ...]:
    """Return the layers without which BuildKit refuses a cacheconfig that is the root itself."""
    return tuple(
        layer.digest
        for layer in config.layers
        if layer.annotations is None or not layer.annotations.diff_id
    )


def is_too_large(size: int) -> bool:
    """Return True if BuildKit does not import a manifest or cacheconfig of that many bytes."""
    return size > IMPORT_LIMIT_BYTES


def _check_root(manifest: bytes, root: CacheManifest | None) -> CacheManifest:
    _check_size("manifest", len(manifest))
    try:
        if root is not None:
            check_form(root.document)
            return root
        check_form(expect_object(read_document(manifest), "the manifest"))
        root = read_cache_manifest(manifest)
    except Damaged as error:
        raise _RefusedError(f"BuildKit does not accept its manifest: it {error.problem}") from None
    if root is None:
        raise _RefusedError("its manifest names no cacheconfig")
    return root


def _read_config(root: CacheManifest, config: bytes | None, health: BlobHealth) -> CacheConfig:
    digest = root.config.digest
    _check_size("cacheconfig", root.config.size or 0)
    if config is None:
        fault = health.faults.get(digest, "is missing")
        raise _RefusedError(f"its cacheconfig {digest.short} {fault}")
    try:
        return read_cacheconfig(config)
    except Damaged as error:
        problem = f"BuildKit does not accept its cacheconfig {digest.short}: it {error.problem}"
        raise _RefusedError(problem) from None


def _check_size(name: str, size: int) -> None:
    if is_too_large(size):
        limit = f"BuildKit imports at most {IMPORT_LIMIT_BYTES:,}"
        raise _RefusedError(f"its {name} has {size:,} bytes, and {limit}")


def _size_warnings(sizes: Collection[tuple[str, int]]) -> Iterator[str]:
    for name, size in sizes:
        if size > _WARN_ABOVE * IMPORT_LIMIT_BYTES:
            limit = f"{IMPORT_LIMIT_BYTES:,} bytes that BuildKit imports"
            yield f"its {name} has {size:,} of the {limit}"


class _ListedLayers(NamedTuple):
    """The layers that BuildKit knows, from a manifest or from a cacheconfig's annotations.

    Attributes:
        unlisted: The fault of every other layer.
        annotation: What names the digest of a layer's uncompressed bytes.
    """

    layers: Mapping[Digest, CachedLayer]
    unlisted: str
    annotation: str


def _list_layers(root: CacheManifest | None, config: CacheConfig) -> _ListedLayers:
    # If a layer is listed twice, the last entry applies.
    if root is not None:
        listed = {layer.descriptor.digest: layer for layer in root.layers}
        return _ListedLayers(listed, "is not listed in the manifest", UNCOMPRESSED)
    listed = {
        layer.digest: CachedLayer(
            Descriptor(layer.annotations.media_type, layer.digest, None),
            layer.annotations.diff_id or None,
        )
        for layer in config.layers
        if layer.annotations is not None
    }
    return _ListedLayers(listed, "has no annotations", "diffID")


def _check_steps(listed: _ListedLayers, config: CacheConfig, health: BlobHealth) -> ImportCheck:
    marks = _layer_faults(listed, config, health)
    faults = {number: fault for number, fault in enumerate(marks) if fault}
    unusable = []
    steps = 0
    # Thousands of results may share one long chain object, so check each object once.
    known: dict[int, tuple[tuple[Digest, ...], str]] = {}
    for key, result in config.results():
        steps += 1
        if id(result.chain) not in known:
            known[id(result.chain)] = _faulty_layers(config, result.chain, faults)
        layers, reason = known[id(result.chain)]
        if layers:
            cache_key = config.records[key[0]].digest
            unusable.append(UnusableStep(key, cache_key, result.created_ns, layers, reason))
    if unusable and len(unusable) == steps:
        reason = f"no usable step is left: {unusable[0].reason}"
        return ImportCheck("none", reason, steps, tuple(unusable))
    if unusable:
        reason = f"{len(unusable):,} of {steps:,} steps cannot be loaded"
        return ImportCheck("partial", reason, steps, tuple(unusable))
    unused = [digest for digest in listed.layers if digest in health.faults]
    if unused:
        clauses = [f"{digest.short} {health.faults[digest]}" for digest in unused[:_MAX_NAMED]]
        reason = f"no step needs it, but layer {', '.join(clauses)}"
        return ImportCheck("partial", reason, steps)
    return ImportCheck("full", "", steps)


def _faulty_layers(
    config: CacheConfig, chain: tuple[int, ...], faults: Mapping[int, str]
) -> tuple[tuple[Digest, ...], str]:
    """Return the faulty layers of a chain, each once, and a clause about the first."""
    faulty = (
        [] if not faults or faults.keys().isdisjoint(chain) else [n for n in chain if n in faults]
    )
    layers = tuple(dict.fromkeys(config.layers[n].digest for n in faulty))
    return layers, f"layer {layers[0].short} {faults[faulty[0]]}" if layers else ""


def layer_faults(
    root: CacheManifest | None, config: CacheConfig, health: BlobHealth
) -> tuple[str, ...]:
    """Return for each layer of the cacheconfig why BuildKit cannot load it; "" if it is intact.

    Args:
        root: None if the cacheconfig is the root itself.
    """
    return _layer_faults(_list_layers(root, config), config, health)


def _layer_faults(
    listed: _ListedLayers, config: CacheConfig, health: BlobHealth
) -> tuple[str, ...]:
    known: dict[Digest, str] = {}
    for layer in config.layers:
        if layer.digest not in known:
            known[layer.digest] = _layer_fault(layer.digest, listed, health)
    return tuple(known[layer.digest] for layer in config.layers)


def _layer_fault(digest: Digest, listed: _ListedLayers, health: BlobHealth) -> str:
    layer = listed.layers.get(digest)
    if layer is None:
        return listed.unlisted
    if digest in health.faults:
        return health.faults[digest]
    if digest not in health.live:
        return "is missing" if digest.is_known else f"has a digest of the kind {digest.algorithm}"
    if layer.descriptor.media_type not in _LAYER_TYPES:
        return f"has a media type that BuildKit cannot unpack: {layer.descriptor.media_type!r}"
    return _annotation_fault(layer.diff_id, listed.annotation)


def _annotation_fault(diff_id: str | None, annotation: str) -> str:
    if diff_id is None:
        return f"has no annotation {annotation}"
    try:
        parse_digest(diff_id)
    except ValueError:
        return f"has an annotation {annotation} that is not a digest"
    return ""


def check_form(document: JsonObject) -> None:
    """Raise DocumentError if it is ambiguous whether BuildKit reads a manifest or an index."""
    document.check_spelling(("mediaType", "config", "layers", "manifests"))
    is_manifest = "config" in document or "layers" in document
    if is_manifest and "manifests" in document:
        raise DocumentError("ambiguous", "it is a manifest and an index at once")
    media_type = document.get_only("mediaType")
    if media_type is not None and not isinstance(media_type, str):
        raise DocumentError("malformed", "its media type is not text")
    if media_type in (_INDEX_TYPES if is_manifest else _MANIFEST_TYPES):
        raise DocumentError("ambiguous", f"its media type is {media_type!r}, its content is not")
