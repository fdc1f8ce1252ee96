"""CacheExport and CacheImport: the values of --cache-to and --cache-from.

Names, defaults and error texts are BuildKit's, and what the daemon would find out after the build
is found out before it. Unknown and mistyped attributes, silent there, warn.
Sources: buildx util/buildflags/cache.go and build/opt.go, BuildKit client/solve.go,
cache/remotecache/*, util/compression/attrs.go.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from kitcache.errors import UsageError
from kitcache.options.attributes import (
    Pairs,
    is_true,
    parse_attributes,
    parse_bool,
    quote_go,
    show_pairs,
    split_fields,
    suggest,
    warn_unknown,
)

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
    "registry": (*_SHARED["registry"], *_TO_ANYWHERE, *_COMPRESSION, *_MANIFEST),
    "inline": ("type", "mode"),
}
_IMPORTS = {"local": ("type", "src", "tag", "digest"), **_SHARED}
_MODES = ("min", "max")
_COMPRESSIONS = ("uncompressed", "gzip", "estargz", "zstd")
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_GUESS = "; did you mean "
_DAEMON = "failed to configure local cache exporter: "


class CacheExport(NamedTuple):
    """Where a build's cache goes.

    kind: local, registry, inline, gha, s3, azblob. sent: what the daemon is to see; of a local
    export all but dest, tag and reset, which are the client's business. dest: its directory as
    the user wrote it. tag: its name in index.json. reset: remove afterwards what no tag reaches.
    warnings: what looked mistyped, a sentence each.
    """

    kind: str
    attrs: Pairs = ()
    dest: str = ""
    tag: str = "latest"
    reset: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def ignore_error(self) -> bool:
        """True if the build is to survive when this export fails."""
        return is_true(dict(self.attrs).get("ignore-error", ""))

    @property
    def is_active(self) -> bool:
        """False for GitHub's cache outside of GitHub: it is left out, as buildx does."""
        return _is_active(self.kind, dict(self.attrs))

    def __repr__(self) -> str:
        place = f", dest={self.dest!r}, tag={self.tag!r}, reset={self.reset}"
        return f"CacheExport({self.kind!r}, sent={show_pairs(self.attrs)!r}{place})"


class CacheImport(NamedTuple):
    """Where a build's cache comes from.

    kind, sent, warnings: as in CacheExport. src: the directory of a local import as the user wrote
    it. tag: its name in index.json; digest wins over it.
    """

    kind: str
    attrs: Pairs = ()
    src: str = ""
    tag: str = "latest"
    digest: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """False for GitHub's cache outside of GitHub: it is left out, as buildx does."""
        return _is_active(self.kind, dict(self.attrs))

    def __repr__(self) -> str:
        place = f", src={self.src!r}, tag={self.tag!r}, digest={self.digest!r}"
        return f"CacheImport({self.kind!r}, sent={show_pairs(self.attrs)!r}{place})"


Cache = TypeVar("Cache", CacheExport, CacheImport)


def parse_cache_export(text: str) -> CacheExport:
    """The value of --cache-to; a bare name such as user/app:cache is a registry's.

    Raises UsageError with what BuildKit would say, before or after the build.
    """
    kind, pairs = _read(text)
    what = f"{kind} cache export"
    attrs = dict(pairs)  # of a key given twice the last
    warnings = _warn(kind, pairs, _EXPORTS, what) + _warn_values(attrs, what)
    if kind != "local":
        return CacheExport(kind, tuple(attrs.items()), warnings=tuple(warnings))
    dest = attrs.pop("dest", "")
    if not dest:
        raise _missing("local cache exporter requires dest", pairs, "dest")
    tag = attrs.pop("tag", "latest")
    reset = parse_bool(attrs.pop("reset", "false"), "failed to parse reset attribute")
    return check_cache_export(
        CacheExport(kind, tuple(attrs.items()), dest, tag, reset, tuple(warnings))
    )


def check_cache_export(export: CacheExport) -> CacheExport:
    """Return the export with warnings for what looks mistyped and is not among them yet.

    Raises UsageError for what the daemon would refuse, and, of a value that is not a text's, for an
    attribute or a kind that is nearly a known one.
    """
    what = f"{export.kind} cache export"
    seen = [*_warn(export.kind, export.attrs, _EXPORTS, what)]
    seen += _warn_values(dict(export.attrs), what)
    if export.kind == "local":
        if not export.dest:
            raise UsageError("local cache exporter requires dest", hints=("add dest=DIR",))
        if "\0" in export.dest:
            raise UsageError(f"dest={export.dest!r} is not a name: it has a NUL in it")
        _check_tag(export.tag)
        _check_compression(dict(export.attrs))
        _check_manifest(dict(export.attrs))
    return export._replace(warnings=_add_warnings(export.warnings, seen))


def parse_cache_import(text: str) -> CacheImport:
    """The value of --cache-from; a bare name such as user/app:cache is a registry's.

    Raises UsageError.
    """
    kind, pairs = _read(text)
    attrs = dict(pairs)
    warnings = tuple(_warn(kind, pairs, _IMPORTS, f"{kind} cache import"))
    if kind != "local":
        return CacheImport(kind, tuple(attrs.items()), warnings=warnings)
    src = attrs.pop("src", "")
    if not src:
        raise _missing("local cache importer requires src", pairs, "src")
    tag = attrs.pop("tag", "latest")
    digest = attrs.pop("digest", "") or None
    return check_cache_import(CacheImport(kind, tuple(attrs.items()), src, tag, digest, warnings))


def check_cache_import(source: CacheImport) -> CacheImport:
    """Return the import with warnings, and raise UsageError, as check_cache_export does."""
    seen = _warn(source.kind, source.attrs, _IMPORTS, f"{source.kind} cache import")
    if source.kind == "local":
        if not source.src:
            raise UsageError("local cache importer requires src", hints=("add src=DIR",))
        _check_tag(source.tag)
        if source.digest is not None:
            _check_digest(source.digest)
    return source._replace(warnings=_add_warnings(source.warnings, seen))


def complete_cache(entry: Cache, environ: Mapping[str, str]) -> Cache:
    """Return the cache with the credentials of GitHub or Amazon that were not given."""
    attrs = dict(entry.attrs)
    if entry.kind == "gha":
        _add_github(attrs, environ)
    elif entry.kind == "s3":
        _add_amazon(attrs, environ)
    return entry._replace(attrs=tuple(attrs.items()))


def left_out_warning(entry: "CacheExport | CacheImport", *, has_environ: bool) -> str:
    """Return why a cache of GitHub's is left out: there are no credentials."""
    what = f"{entry.kind} cache {'export' if isinstance(entry, CacheExport) else 'import'}"
    where = (
        " nor ACTIONS_RUNTIME_TOKEN with ACTIONS_CACHE_URL or ACTIONS_RESULTS_URL"
        if has_environ
        else ", and no environ= to find ACTIONS_RUNTIME_TOKEN in"
    )
    return f"{what}: left out, for there is neither token= with url={where}"


def _add_warnings(told: tuple[str, ...], seen: Iterable[str]) -> tuple[str, ...]:
    """Return all warnings. Raises UsageError for a typo that no warning tells of."""
    new = tuple(warning for warning in seen if warning not in told)
    for warning in new:
        if _GUESS in warning:
            raise UsageError(warning)
    return (*told, *new)


def _check_tag(tag: str) -> None:
    if not tag:
        raise UsageError(
            "the tag is empty: was a variable not set?", hints=("write tag=NAME, or no tag=",)
        )


def _read(text: str) -> tuple[str, Pairs]:
    """The type, and all other attributes."""
    fields = split_fields(text)
    if len(fields) == 1 and "=" not in fields[0]:
        return "registry", (("ref", fields[0]),)
    pairs = parse_attributes(text)
    kind = dict(pairs).get("type", "")
    if not kind:
        raise UsageError(
            f"{quote_go(show_pairs(pairs))} does not say which type of cache it is",
            hints=("name one: type=local, registry, inline, gha, s3 or azblob",),
        )
    return kind, tuple(pair for pair in pairs if pair[0] != "type")


def _missing(problem: str, pairs: Pairs, wanted: str) -> UsageError:
    other = {"dest": "src", "src": "dest"}[wanted]
    keys = [key for key, _ in pairs]
    typo = next((key for key in keys if key != wanted and suggest(key, (wanted,))), None)
    if other in keys:
        flag = {"dest": "--cache-to", "src": "--cache-from"}[wanted]
        return UsageError(problem, hints=(f"{flag} says {wanted}=DIR, not {other}=DIR",))
    if typo is not None:
        return UsageError(problem, hints=(f"write {wanted}=DIR, not {quote_go(typo)}",))
    return UsageError(problem, hints=(f"add {wanted}=DIR",))


def _warn(
    kind: str,
    pairs: Pairs,
    known: Mapping[str, tuple[str, ...]],
    what: str,
) -> list[str]:
    """What looks mistyped."""
    if kind not in known:  # some daemon may know it; ours are BuildKit's
        meant = suggest(kind.lower(), known)
        return [f"unknown cache type {quote_go(kind)}; did you mean {meant}?"] if meant else []
    return list(warn_unknown(pairs, known[kind], what))


def _warn_values(attrs: Mapping[str, str], what: str) -> list[str]:
    """What the daemon takes for the default without a word."""
    warnings = []
    mode = attrs.get("mode", "min")
    if mode not in _MODES:
        meant = suggest(mode.lower(), _MODES)
        hint = f"; did you mean {meant}?" if meant else ""
        warnings.append(f"{what}: mode={mode} is neither min nor max and means min{hint}")
    try:
        parse_bool(attrs.get("ignore-error", "false"), "ignore-error")
    except UsageError:
        given = attrs["ignore-error"]
        warnings.append(f"{what}: ignore-error={given} is neither true nor false and means false")
    return warnings


def _check_compression(attrs: Mapping[str, str]) -> None:
    kind = attrs.get("compression", "gzip")
    if kind not in _COMPRESSIONS:
        meant = suggest(kind, _COMPRESSIONS)
        raise UsageError(
            f"{_DAEMON}unsupported compression type {kind}",
            hints=(f"did you mean {meant}?" if meant else f"use {', '.join(_COMPRESSIONS)}",),
        )
    if force := attrs.get("force-compression", ""):
        parse_bool(force, f"{_DAEMON}force-compression")
    level = attrs.get("compression-level", "0")
    if not re.fullmatch(r"[+-]?[0-9]+", level):
        raise UsageError(f"{_DAEMON}compression-level: {quote_go(level)} is not a whole number")


def _check_manifest(attrs: Mapping[str, str]) -> None:
    oci, image = (
        parse_bool(attrs.get(key, "true"), f"{_DAEMON}failed to parse {key}") for key in _MANIFEST
    )
    if image and not oci and "image-manifest" in attrs:
        raise UsageError(
            "invalid configuration for remote cache, OCI mediatypes are required for"
            " image-manifest cache format",
            hints=("leave out oci-mediatypes=false", "image-manifest=true"),
        )


def _check_digest(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        problem = "invalid checksum digest format"
    else:
        algorithm, _, name = digest.partition(":")
        length = _HEX_LENGTHS.get(algorithm)
        if length is None:
            problem = "unsupported digest algorithm"
        elif len(name) != length:
            problem = "invalid checksum digest length"
        elif not re.fullmatch("[a-f0-9]+", name):
            problem = "invalid checksum digest format"
        else:
            return
    raise UsageError(f"invalid digest {quote_go(digest)}: {problem}")


def _add_github(attrs: dict[str, str], environ: Mapping[str, str]) -> None:
    is_second = is_true(environ.get("ACTIONS_CACHE_SERVICE_V2", ""))
    version = attrs.get("version", "2" if is_second else "")
    results = environ.get("ACTIONS_RESULTS_URL")
    found = {
        "token": environ.get("ACTIONS_RUNTIME_TOKEN"),
        "url_v2": results if version == "2" else None,
        "url": environ.get("ACTIONS_CACHE_URL", results),
    }
    for key, value in found.items():
        if value is not None:
            attrs.setdefault(key, value)


def _add_amazon(attrs: dict[str, str], environ: Mapping[str, str]) -> None:
    if "access_key_id" in attrs and "secret_access_key" in attrs:
        return  # with a pair of the user's own goes no session token of the environment's
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not key_id or not secret:
        return
    attrs.setdefault("access_key_id", key_id)
    attrs.setdefault("secret_access_key", secret)
    if session := environ.get("AWS_SESSION_TOKEN"):
        attrs.setdefault("session_token", session)


def _is_active(kind: str, attrs: Mapping[str, str]) -> bool:
    has_url = attrs.get("url") or attrs.get("url_v2")
    return kind != "gha" or bool(attrs.get("token") and has_url)
