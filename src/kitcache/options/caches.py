"""CacheExport and CacheImport: the values of --cache-to and --cache-from.

Names, defaults and error texts are BuildKit's. Errors that the daemon reports after the build are
raised before it, and unknown attributes, which BuildKit ignores, are warnings.
Sources: buildx util/buildflags/cache.go and build/opt.go, BuildKit client/solve.go,
cache/remotecache/*, util/compression/attrs.go.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from kitcache.errors import UsageError
from kitcache.options.attributes import (
    Attributes,
    Pairs,
    PathLike,
    as_pairs,
    hints_for,
    is_false,
    is_true,
    parse_bool,
    parse_pairs,
    path_text,
    quote_go,
    show_pairs,
    split_fields,
    suggest,
    warn_unknown,
)

OBJECT_KINDS = ("s3", "azblob")
"""The kinds of caches in object stores."""
RESET_KINDS = ("local", *OBJECT_KINDS)
"""The kinds of exports after which kitcache can reset the cache."""
NOTHING_TO_SWEEP = "nothing is exported to type=local, s3 or azblob"

_COMPRESSION = ("compression", "compression-level", "force-compression")
_MANIFEST = ("oci-mediatypes", "image-manifest")
_OBJECTS = ("prefix", "manifests_prefix", "blobs_prefix", "name", "secret_access_key")
_SHARED = {
    "registry": ("type", "ref", "registry.insecure"),
    "inline": ("type",),
    "gha": ("type", "scope", "token", "url", "url_v2", "version", "timeout", "repository",
            "ghtoken"),
    "s3": ("type", "bucket", "region", "endpoint_url", "use_path_style", "access_key_id",
           "session_token", "touch_refresh", "upload_parallelism", "disable_accept_encoding",
           "retry_mode", "retry_max_attempts", *_OBJECTS),
    "azblob": ("type", "account_url", "account_name", "container", *_OBJECTS),
}  # fmt: skip
_TO_ANYWHERE = ("mode", "ignore-error")
_EXPORTS = {
    "local": ("type", "dest", "tag", "reset", *_TO_ANYWHERE, *_COMPRESSION, *_MANIFEST),
    **{kind: (*words, *_TO_ANYWHERE) for kind, words in _SHARED.items()},
    **{kind: (*_SHARED[kind], "reset", *_TO_ANYWHERE) for kind in OBJECT_KINDS},
    "registry": (*_SHARED["registry"], *_TO_ANYWHERE, *_COMPRESSION, *_MANIFEST),
    "inline": ("type", "mode"),
}
_IMPORTS = {"local": ("type", "src", "tag", "digest"), **_SHARED}
CACHE_TYPES = tuple(_EXPORTS)
_MODES = ("min", "max")
_COMPRESSIONS = ("uncompressed", "gzip", "estargz", "zstd")
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_GUESS = "; did you mean "
_DAEMON = "failed to configure local cache exporter: "


class CacheExport(NamedTuple):
    """A cache that a build exports to.

    Attributes:
        kind: local, registry, inline, gha, s3, azblob.
        attrs: The attributes that the daemon gets: all but reset; of a local export also without
            dest and tag.
        dest: Directory of a local export, as the user wrote it.
        tag: Name of a local export in index.json.
        reset: Delete, after a local, s3 or azblob export, every blob that no tag reaches.
        warnings: A sentence for each attribute that looks mistyped.
    """

    kind: str
    attrs: Attributes = ()
    dest: str | PathLike = ""
    tag: str = "latest"
    reset: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        """The directory of a local export as a text."""
        return path_text(self.dest)

    @property
    def ignore_error(self) -> bool:
        """True if the build succeeds although this export fails."""
        return is_true(dict(self.attrs).get("ignore-error", ""))

    @property
    def names(self) -> tuple[str, ...]:
        """The names that an export to an object store writes, as BuildKit splits them."""
        return tuple(dict(self.attrs).get("name", "buildkit").split(";"))

    @property
    def is_active(self) -> bool:
        """False for GitHub's cache without credentials, which is left out as in buildx."""
        return _is_active(self.kind, dict(self.attrs))

    def __repr__(self) -> str:
        place = f", dest={self.dest!r}, tag={self.tag!r}, reset={self.reset}"
        return f"CacheExport({self.kind!r}, attrs={show_pairs(as_pairs(self.attrs))!r}{place})"


class CacheImport(NamedTuple):
    """A cache that a build imports from.

    Attributes:
        kind: local, registry, inline, gha, s3, azblob.
        attrs: The attributes that the daemon gets; of a local import all but src, tag and digest.
        src: Directory of a local import, as the user wrote it.
        tag: Name in index.json; ignored if there is a digest.
        digest: Digest of the cache's root, or None.
        warnings: A sentence for each attribute that looks mistyped.
    """

    kind: str
    attrs: Attributes = ()
    src: str | PathLike = ""
    tag: str = "latest"
    digest: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        """The directory of a local import as a text."""
        return path_text(self.src)

    @property
    def is_active(self) -> bool:
        """False for GitHub's cache without credentials, which is left out as in buildx."""
        return _is_active(self.kind, dict(self.attrs))

    def __repr__(self) -> str:
        place = f", src={self.src!r}, tag={self.tag!r}, digest={self.digest!r}"
        return f"CacheImport({self.kind!r}, attrs={show_pairs(as_pairs(self.attrs))!r}{place})"


Cache = TypeVar("Cache", CacheExport, CacheImport)


def parse_cache_export(text: str | Pairs) -> CacheExport:
    """Return the checked value of --cache-to, or of its attributes. A name alone means a registry.

    Raise UsageError if BuildKit would refuse the export, before or after the build.
    """
    kind, pairs = _split_type(text)
    attrs = dict(pairs)  # BuildKit uses the last value of a repeated key.
    warnings = _export_warnings(kind, pairs)
    reset = False
    if kind in RESET_KINDS:
        reset = parse_bool(attrs.pop("reset", "false"), "failed to parse reset attribute")
    if kind != "local":
        return CacheExport(kind, tuple(attrs.items()), reset=reset, warnings=warnings)
    dest = attrs.pop("dest", "")
    if not dest:
        raise _missing("local cache exporter requires dest", pairs, "dest", "src")
    tag = attrs.pop("tag", "latest")
    export = CacheExport(kind, tuple(attrs.items()), dest, tag, reset, warnings)
    _check_local_export(export)
    return export


def check_cache_export(export: CacheExport) -> CacheExport:
    """Return a value that is not from parse_cache_export, checked and with warnings.

    Raise UsageError also for a kind or an attribute that is similar to a known name.
    """
    attrs = as_pairs(export.attrs)
    if export.kind == "local":
        _check_local_export(export)
    warnings = _merge_warnings(export.warnings, _export_warnings(export.kind, attrs))
    return export._replace(attrs=attrs, dest=export.directory, warnings=warnings)


def parse_cache_import(text: str | Pairs) -> CacheImport:
    """Return the checked value of --cache-from, or of its attributes; a bare name is a registry's.

    Raise UsageError if BuildKit would refuse the import.
    """
    kind, pairs = _split_type(text)
    attrs = dict(pairs)
    warnings = _find_typos(kind, pairs, _IMPORTS, f"{kind} cache import")
    if kind != "local":
        return CacheImport(kind, tuple(attrs.items()), warnings=warnings)
    src = attrs.pop("src", "")
    if not src:
        raise _missing("local cache importer requires src", pairs, "src", "dest")
    tag = attrs.pop("tag", "latest")
    digest = attrs.pop("digest", "") or None
    source = CacheImport(kind, tuple(attrs.items()), src, tag, digest, warnings)
    _check_local_import(source)
    return source


def check_cache_import(source: CacheImport) -> CacheImport:
    """Return the import, checked and with warnings, as check_cache_export does."""
    attrs = as_pairs(source.attrs)
    if source.kind == "local":
        _check_local_import(source)
    warnings = _find_typos(source.kind, attrs, _IMPORTS, f"{source.kind} cache import")
    warnings = _merge_warnings(source.warnings, warnings)
    return source._replace(attrs=attrs, src=source.directory, warnings=warnings)


def export_attributes(kind: str) -> tuple[str, ...]:
    """Return the names of the attributes that an export of this kind has."""
    return _EXPORTS[kind]


def complete_cache(entry: Cache, environ: Mapping[str, str]) -> Cache:
    """Return the cache; if it lacks GitHub's or Amazon's credentials, with those in environ."""
    attrs = dict(entry.attrs)
    defaults: dict[str, str | None] = {}
    if entry.kind == "gha":
        is_second = is_true(environ.get("ACTIONS_CACHE_SERVICE_V2", ""))
        version = attrs.get("version", "2" if is_second else "")
        results = environ.get("ACTIONS_RESULTS_URL")
        defaults = {
            "token": environ.get("ACTIONS_RUNTIME_TOKEN"),
            "url_v2": results if version == "2" else None,
            "url": environ.get("ACTIONS_CACHE_URL", results),
        }
    # A session token of the environment does not match a key pair that the user wrote.
    elif entry.kind == "s3" and not attrs.keys() >= {"access_key_id", "secret_access_key"}:
        key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if key_id and secret:
            session = environ.get("AWS_SESSION_TOKEN") or None
            defaults = {
                "access_key_id": key_id,
                "secret_access_key": secret,
                "session_token": session,
            }
    for key, value in defaults.items():
        if value is not None:
            attrs.setdefault(key, value)
    return entry._replace(attrs=tuple(attrs.items()))


def left_out_warning(entry: "CacheExport | CacheImport", *, has_environ: bool) -> str:
    """Return the warning for a GitHub cache that is omitted because it has no credentials."""
    direction = "export" if isinstance(entry, CacheExport) else "import"
    reason = (
        "neither token= with url= nor ACTIONS_RUNTIME_TOKEN with ACTIONS_CACHE_URL or"
        " ACTIONS_RESULTS_URL is set"
        if has_environ
        else "token= with url= is not set, and no environ= to find ACTIONS_RUNTIME_TOKEN in"
    )
    return f"{entry.kind} cache {direction}: skipped, because {reason}"


def _merge_warnings(known: tuple[str, ...], warnings: tuple[str, ...]) -> tuple[str, ...]:
    """Return all warnings. Raise UsageError for a typo that was not a warning before."""
    new = tuple(warning for warning in warnings if warning not in known)
    for warning in new:
        if _GUESS in warning:
            raise UsageError(warning)
    return (*known, *new)


def _split_type(text: str | Pairs) -> tuple[str, Pairs]:
    """Return the type, and the other attributes."""
    if isinstance(text, str):
        fields = split_fields(text)
        if len(fields) == 1 and "=" not in fields[0]:
            return "registry", (("ref", fields[0]),)
        text = parse_pairs(fields)
    pairs = text
    kind = dict(pairs).get("type", "")
    if not kind:
        raise UsageError(
            f"{quote_go(show_pairs(pairs))} does not name the type of the cache",
            hints=("name one: type=local, registry, inline, gha, s3 or azblob",),
        )
    return kind, tuple(pair for pair in pairs if pair[0] != "type")


def _missing(problem: str, pairs: Pairs, wanted: str, opposite: str) -> UsageError:
    keys = [key for key, _ in pairs]
    typo = next((key for key in keys if key != wanted and suggest(key, (wanted,))), None)
    if opposite in keys:
        return UsageError(problem, hints=(f"write {wanted}=DIR, not {opposite}=DIR",))
    if typo is not None:
        return UsageError(problem, hints=(f"write {wanted}=DIR, not {quote_go(typo)}",))
    return UsageError(problem, hints=(f"add {wanted}=DIR",))


def _find_typos(
    kind: str, pairs: Pairs, known: Mapping[str, tuple[str, ...]], owner: str
) -> tuple[str, ...]:
    if kind in known:
        return warn_unknown(pairs, known[kind], owner)
    similar = suggest(
        kind.lower(), known
    )  # If no kind is similar, the daemon may support this kind.
    return (f"unknown cache type {quote_go(kind)}; did you mean {similar}?",) if similar else ()


def _export_warnings(kind: str, pairs: Pairs) -> tuple[str, ...]:
    """Return warnings for typos, and for invalid values that the daemon treats as the default."""
    owner = f"{kind} cache export"
    attrs = dict(pairs)
    warnings = [*_find_typos(kind, pairs, _EXPORTS, owner)]
    mode = attrs.get("mode", "min")
    if mode not in _MODES:
        similar = suggest(mode.lower(), _MODES)
        hint = f"; did you mean {similar}?" if similar else ""
        warnings.append(f"{owner}: mode={mode} is neither min nor max and means min{hint}")
    ignored = attrs.get("ignore-error", "false")
    if not is_true(ignored) and not is_false(ignored):
        warnings.append(
            f"{owner}: ignore-error={ignored} is neither true nor false and means false"
        )
    return tuple(warnings)


def _check_tag(tag: str) -> None:
    if not tag:
        raise UsageError(
            "the tag is empty: was a variable not set?", hints=("write tag=NAME, or no tag=",)
        )


def _check_local_export(export: CacheExport) -> None:
    attrs = dict(export.attrs)
    if not export.dest:
        raise UsageError("local cache exporter requires dest", hints=("add dest=DIR",))
    if "\0" in export.directory:
        raise UsageError(f"dest={export.dest!r} is not a name: it has a NUL in it")
    _check_tag(export.tag)
    compression = attrs.get("compression", "gzip")
    if compression not in _COMPRESSIONS:
        raise UsageError(
            f"{_DAEMON}unsupported compression type {compression}",
            hints=hints_for(compression, _COMPRESSIONS),
        )
    if force := attrs.get("force-compression", ""):
        parse_bool(force, f"{_DAEMON}force-compression")
    level = attrs.get("compression-level", "0")
    if not re.fullmatch(r"[+-]?[0-9]+", level):
        raise UsageError(f"{_DAEMON}compression-level: {quote_go(level)} is not a whole number")
    is_oci, is_manifest = (
        parse_bool(attrs.get(key, "true"), f"{_DAEMON}failed to parse {key}") for key in _MANIFEST
    )
    if is_manifest and not is_oci and "image-manifest" in attrs:
        raise UsageError(
            "invalid configuration for remote cache, OCI mediatypes are required for"
            " image-manifest cache format",
            hints=("leave out oci-mediatypes=false", "image-manifest=true"),
        )


def _check_local_import(source: CacheImport) -> None:
    if not source.src:
        raise UsageError("local cache importer requires src", hints=("add src=DIR",))
    _check_tag(source.tag)
    if source.digest is None:
        return
    algorithm, _, name = source.digest.partition(":")
    length = _HEX_LENGTHS.get(algorithm)
    if not _DIGEST.fullmatch(source.digest):
        problem = "invalid checksum digest format"
    elif length is None:
        problem = "unsupported digest algorithm"
    elif len(name) != length:
        problem = "invalid checksum digest length"
    elif not re.fullmatch("[a-f0-9]+", name):
        problem = "invalid checksum digest format"
    else:
        return
    raise UsageError(f"invalid digest {quote_go(source.digest)}: {problem}")


def _is_active(kind: str, attrs: Mapping[str, str]) -> bool:
    has_url = attrs.get("url") or attrs.get("url_v2")
    return kind != "gha" or bool(attrs.get("token") and has_url)
