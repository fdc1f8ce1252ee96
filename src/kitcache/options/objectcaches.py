"""ObjectCache: a cache in an object store, as `type=s3,…`, `type=azblob,…` or `s3://…` names it.

Attributes, defaults, the environment and the keys of objects are BuildKit's.
Sources: BuildKit, cache/remotecache/s3/s3.go and cache/remotecache/azblob/utils.go; Go, path.Join.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from operator import add
from posixpath import normpath
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from kitcache.errors import UsageError, printable
from kitcache.options.attributes import (
    Pairs,
    hints_for,
    is_false,
    is_true,
    parse_attributes,
    quote_go,
    warn_unknown,
)
from kitcache.options.caches import CACHE_TYPES, export_attributes
from kitcache.options.durations import format_duration, parse_duration

Kind = Literal["s3", "azblob"]

DAY_NS = 24 * 3600 * 10**9
_KINDS: dict[str, Kind] = {"s3": "s3", "azblob": "azblob"}
_PLAIN = "/:@!$'()*,;"
_BUCKETS = {"s3": "bucket", "azblob": "container"}
_PREFIXES = {"s3": ("blobs/", "manifests/"), "azblob": ("blobs", "manifests")}
_KEY_PAIR = ("access_key_id", "secret_access_key")


class ObjectCache(NamedTuple):
    """A cache in a bucket of S3, or in a container of Azure Blob Storage.

    Attributes:
        bucket: The bucket, or the container.
        prefix: The beginning of all keys of the cache. Of Azure it is empty or ends in a slash.
        blobs_key: The key of a blob without its digest, such as `ci/blobs/`.
        manifests_keys: The keys of roots without their names. The first is BuildKit's; more are
            other manifests_prefixes of exporters that share the same blobs.
        touch_refresh_ns: The longest age at which an exporter uses a blob without a renewed date.
        endpoint_url: "" for AWS itself; of Azure the account_url, perhaps with a SAS in its query.
        secret_access_key: No message contains it.
        warnings: A sentence for each attribute that is unknown or has no effect.
    """

    kind: Kind
    bucket: str
    prefix: str = ""
    blobs_key: str = "blobs/"
    manifests_keys: tuple[str, ...] = ("manifests/",)
    touch_refresh_ns: int = DAY_NS
    region: str = ""
    endpoint_url: str = ""
    use_path_style: bool = False
    account_name: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    retry_mode: str = ""
    retry_max_attempts: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def state_key(self) -> str:
        """The beginning of the keys of kitcache's own objects."""
        return f"{self.prefix}kitcache/"

    @property
    def address(self) -> str:
        """The short form without secrets, such as s3://bucket/ci/?region=eu-west-1."""
        place = f"{quote(self.bucket, safe=':')}/{quote(self.prefix, safe=_PLAIN)}"
        query = urlencode((*self._attributes(), *self._prefixes()), quote_via=quote, safe=_PLAIN)
        return f"{self.kind}://{place}" + (f"?{query}" if query else "")

    def _attributes(self) -> Iterator[tuple[str, str]]:
        """Yield the attributes that are neither secret nor the default."""
        is_azure = self.kind == "azblob"
        is_same_account = is_azure and self.account_name == _account(self.endpoint_url)
        has_refresh = self.touch_refresh_ns != DAY_NS
        for key, value in (
            ("region", self.region),
            ("account_url" if is_azure else "endpoint_url", _bare_url(self.endpoint_url)),
            ("use_path_style", "true" if self.use_path_style else ""),
            ("account_name", "" if is_same_account else self.account_name),
            ("touch_refresh", format_duration(self.touch_refresh_ns) if has_refresh else ""),
            ("retry_mode", self.retry_mode),
            ("retry_max_attempts", str(self.retry_max_attempts or "")),
        ):
            if value:
                yield key, value

    def _prefixes(self) -> Pairs:
        """Return the attributes of the keys, if one of them is not the default."""
        blobs, *roots = (self._relative(key) for key in (self.blobs_key, *self.manifests_keys))
        if (blobs, *roots) == _PREFIXES[self.kind]:
            return ()
        return ("blobs_prefix", blobs), *(("manifests_prefix", root) for root in roots)

    def _relative(self, key: str) -> str:
        """Return the prefix attribute that makes this beginning of a key."""
        rest = key.removeprefix(self.prefix)
        return rest if self.kind == "s3" or rest == "/" else rest.removesuffix("/")

    def __str__(self) -> str:
        return self.address

    def __repr__(self) -> str:
        return f"ObjectCache({self.address!r})"


def parse_object_cache(text: str, environ: Mapping[str, str]) -> ObjectCache | None:
    """Return the cache that a text names; None if the text is the path of a directory.

    A directory whose name begins with `type=` is named `./type=…`.

    Args:
        text: `type=s3,…` and `type=azblob,…` as `--cache-to` has them, or the short form.
        environ: Has the values that BuildKit reads if attributes are missing.

    Raises:
        UsageError: BuildKit would refuse the value, or it is another kind of cache.
    """
    if text.startswith("type="):
        pairs = parse_attributes(text)
        kind = _check_kind(dict(pairs))
        return _make(kind, tuple(pair for pair in pairs if pair[0] != "type"), environ)
    scheme, _, rest = text.partition("://")
    short_kind = _KINDS.get(scheme) if "://" in text else None
    return short_kind and _make(short_kind, _split_short(short_kind, rest), environ)


def unknown_url_error(text: str, scheme: str) -> UsageError:
    """Return the error for a URL that names no cache, such as gs://bucket. copy would create it."""
    (hint,) = hints_for(scheme.lower(), _KINDS)
    hints = (f"{hint.removesuffix('?')}://…?",) if hint.endswith("?") else ()
    return UsageError(
        f"{printable(_bare_url(text))} looks like a URL, and is not the address of a cache",
        hints=(*hints, "name a cache in a bucket as an export does: type=s3,… or type=azblob,…"),
    )


def secrets_of(cache: ObjectCache) -> tuple[str, ...]:
    """Return the names of the secrets that the value has."""
    has_secret_url = cache.endpoint_url != _bare_url(cache.endpoint_url)
    in_url = "the SAS in account_url" if cache.kind == "azblob" else "the password in endpoint_url"
    names = [name for name in ("secret_access_key", "session_token") if getattr(cache, name)]
    return (*names, *((in_url,) if has_secret_url else ()))


def _check_kind(attrs: Mapping[str, str]) -> Kind:
    """Return the type of a cache in an object store. Raise UsageError for another type."""
    kind = attrs["type"]
    if kind in _KINDS:
        return _KINDS[kind]
    as_path = "for a directory of this name, write ./type=…"
    if kind == "local":
        directory = attrs.get("dest") or attrs.get("src")
        hint = f"name the directory: {directory or 'DIR'}"
        raise UsageError("type=local: a local cache is named by its directory", hints=(hint,))
    if kind in CACHE_TYPES:
        raise UsageError(
            f"type={kind}: only caches in directories, on S3 and on Azure Blob can be named here",
            hints=("name a directory, type=s3,… or type=azblob,…", as_path),
        )
    raise UsageError(
        f"unknown cache type {quote_go(kind)}", hints=(*hints_for(kind.lower(), _KINDS), as_path)
    )


def _split_short(kind: Kind, text: str) -> Pairs:
    """Return the attributes of bucket/prefix?key=value&…, the part of a short form after ://."""
    place, _, query = text.partition("?")
    bucket, _, prefix = (unquote(part, errors="surrogateescape") for part in place.partition("/"))
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    named = [(_BUCKETS[kind], bucket), ("prefix", prefix)]
    return (*named, *((key.lower(), value) for key, value in pairs))


def _make(kind: Kind, pairs: Pairs, environ: Mapping[str, str]) -> ObjectCache:
    attrs = dict(pairs)
    for key, value in pairs:
        _check_text(key, value)
    cache = (_make_s3 if kind == "s3" else _make_azure)(attrs, environ)
    blobs, manifests = _PREFIXES[kind]
    roots = [part for key, value in pairs if key == "manifests_prefix" for part in value.split(";")]
    join = _join if kind == "azblob" else add
    cache = cache._replace(
        blobs_key=join(cache.prefix, attrs.get("blobs_prefix", blobs)),
        manifests_keys=_drop_nested([join(cache.prefix, root) for root in roots or [manifests]]),
        warnings=tuple(_warn(kind, pairs)),
    )
    _check_keys(cache)
    return cache


def _warn(kind: Kind, pairs: Pairs) -> Iterator[str]:
    """Yield a sentence for each attribute that is unknown or has no effect."""
    attrs = dict(pairs)
    owner = f"{kind} cache"
    single = tuple(pair for pair in pairs if pair[0] != "manifests_prefix")
    yield from warn_unknown(single, export_attributes(kind), owner)
    if "name" in attrs:
        yield f"{owner}: name={attrs['name']} has no effect here, because all names count"
    if kind == "s3":
        yield from (f"{owner}: {sentence}" for sentence in _warn_s3(attrs))


def _make_s3(attrs: Mapping[str, str], environ: Mapping[str, str]) -> ObjectCache:
    bucket = _find("bucket", "AWS_BUCKET", attrs, environ)
    if "/" in bucket and not bucket.startswith("arn:"):
        name, _, rest = bucket.partition("/")
        raise UsageError(
            f"bucket={bucket} is not the name of a bucket: it contains a slash",
            hints=(f"write bucket={name},prefix={rest.rstrip('/')}/",),
        )
    endpoint_url = _check_url("endpoint_url", attrs.get("endpoint_url", ""))
    has_keys = all(attrs.get(key) for key in _KEY_PAIR)
    retry_mode = attrs.get("retry_mode", "")
    if "retry_mode" in attrs and retry_mode not in ("standard", "adaptive"):
        raise UsageError('retry_mode must be "standard" or "adaptive"')
    _parse_positive("upload_parallelism", attrs)
    return ObjectCache(
        "s3",
        bucket,
        attrs.get("prefix", ""),
        touch_refresh_ns=_read_touch_refresh(attrs)[0],
        region=_find("region", "AWS_REGION", attrs, environ),
        endpoint_url=endpoint_url,
        use_path_style=bool(endpoint_url) and is_true(attrs.get("use_path_style", "")),
        access_key_id=attrs["access_key_id"] if has_keys else "",
        secret_access_key=attrs["secret_access_key"] if has_keys else "",
        session_token=attrs.get("session_token", "") if has_keys else "",
        retry_mode=retry_mode,
        retry_max_attempts=_parse_positive("retry_max_attempts", attrs),
    )


def _warn_s3(attrs: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each value that BuildKit ignores, and for a surprising prefix."""
    if problem := _read_touch_refresh(attrs)[1]:
        yield f"touch_refresh means 24h, because {problem}"
    style = attrs.get("use_path_style", "false")
    if not is_true(style) and not is_false(style):
        yield f"use_path_style={style} is neither true nor false and means false"
    elif is_true(style) and not attrs.get("endpoint_url"):
        yield "use_path_style has no effect without endpoint_url"
    attributes = [key for key in (*_KEY_PAIR, "session_token") if attrs.get(key)]
    if attributes and not all(attrs.get(key) for key in _KEY_PAIR):
        yield f"{', '.join(attributes)} has no effect without both {' and '.join(_KEY_PAIR)}"
    prefix = attrs.get("prefix", "")
    if prefix and not prefix.endswith("/"):
        key = prefix + attrs.get("blobs_prefix", "blobs/")
        yield f"prefix={prefix} does not end in a slash, so blobs are {key}sha256:…"


def _read_touch_refresh(attrs: Mapping[str, str]) -> tuple[int, str]:
    """Return the value in ns, and its problem or "". BuildKit replaces a bad value by 24h."""
    try:
        # With a negative duration, BuildKit renews every blob that it uses.
        return max(0, parse_duration(attrs.get("touch_refresh", "24h"))), ""
    except ValueError as error:
        return DAY_NS, str(error)


def _make_azure(attrs: Mapping[str, str], environ: Mapping[str, str]) -> ObjectCache:
    variable = "BUILDKIT_AZURE_STORAGE_"
    url = attrs.get("account_url", environ.get(f"{variable}ACCOUNT_URL", ""))
    if not url:
        raise UsageError(
            f"either ${{{variable}ACCOUNT_URL}} or account_url attribute is required for azblob"
            " cache",
            hints=("add account_url=https://ACCOUNT.blob.core.windows.net",),
        )
    account = _account(_check_url("account_url", url))
    account = attrs.get("account_name", environ.get(f"{variable}ACCOUNT_NAME", account))
    if not account:
        raise UsageError(
            "unable to retrieve account name from account url or"
            f" ${{{variable}ACCOUNT_NAME}} or account_name attribute for azblob cache",
            hints=("write account_url=https://ACCOUNT.blob.core.windows.net",),
        )
    return ObjectCache(
        "azblob",
        attrs.get("container", environ.get(f"{variable}CONTAINER", "")) or "buildkit-cache",
        _join("", attrs.get("prefix", environ.get(f"{variable}PREFIX", ""))),
        endpoint_url=url,
        account_name=account,
        secret_access_key=attrs.get("secret_access_key", ""),
    )


def _find(key: str, variable: str, attrs: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Return an attribute that S3 needs, or the value of its environment variable."""
    value = attrs.get(key, environ.get(variable, ""))
    if not value:
        raise UsageError(
            f"{key} (${variable}) not set for s3 cache",
            hints=(f"add {key}={key.upper()}", f"set {variable}"),
        )
    return value


def _check_url(key: str, url: str) -> str:
    """Return the URL, which may be empty. Raise UsageError if no request can be sent to it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if url and not (parts.scheme in ("http", "https") and parts.hostname):
        raise UsageError(
            f"{key} is not a URL that begins with http:// or https://",
            hints=(f"write {key}=https://HOST",),
        )
    return url


def _parse_positive(key: str, attrs: Mapping[str, str]) -> int:
    """Return a positive number, 0 if the attribute is not given."""
    text = attrs.get(key)
    if text is None:
        return 0
    if not re.fullmatch(r"\+?0*[1-9][0-9]{0,8}", text, re.ASCII):
        raise UsageError(f"{key} must be a positive integer")
    return int(text)


def _check_text(key: str, value: str) -> None:
    """Raise UsageError for a value that cannot be in a request."""
    if not value.isascii() and re.search("[\ud800-\udfff]", value):
        raise UsageError(f"{printable(key)} is not UTF-8")
    if "\0" in value:
        raise UsageError(f"{printable(key)} has a NUL in it")


def _join(prefix: str, name: str) -> str:
    """Return the beginning of a key as Azure's exporter joins it: a path, "" or with a slash."""
    path = re.sub("^/+", "/", normpath(f"{prefix}/{name}" if prefix else name or "."))
    if not f"{path}/".startswith(prefix) or path.split("/")[0] == "..":
        raise UsageError(
            f"prefix {quote_go(name)} leaves {quote_go(prefix) if prefix else 'the container'}",
            hints=("leave out the ..",),
        )
    return "" if path == "." else path if path.endswith("/") else f"{path}/"


def _drop_nested(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys without those that another one contains, in order."""
    distinct = tuple(dict.fromkeys(keys))
    return tuple(
        key
        for key in distinct
        if not any(key != other and key.startswith(other) for other in distinct)
    )


def _check_keys(cache: ObjectCache) -> None:
    """Raise UsageError if a listing of the roots would list blobs or kitcache's own objects."""
    for key in cache.manifests_keys:
        if cache.blobs_key.startswith(key):
            raise UsageError(
                f"blobs_prefix and manifests_prefix overlap: the blobs {cache.blobs_key}sha256:…"
                f" would be roots too, as all keys that begin with {quote_go(key)}",
                hints=("give each a prefix of its own, such as blobs/ and manifests/",),
            )
        if cache.state_key.startswith(key):
            raise UsageError(
                f"all keys that begin with {quote_go(key)} would be roots, also kitcache's own"
                f" objects {cache.state_key}…",
                hints=("write a manifests_prefix that ends in a slash, such as manifests/",),
            )


def _account(url: str) -> str:
    """Return the account in the host name of an account_url, "" if it has none; ValueError."""
    return (urlsplit(url).hostname or "").split(".")[0]


def _bare_url(url: str) -> str:
    """Return a URL without user, password and query, which can be secret."""
    if not re.search("[?#@]", url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
