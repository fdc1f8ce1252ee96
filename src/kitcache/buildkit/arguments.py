"""The arguments of Client.build as the values of a BuildRequest, and the checks of these values.

A UsageError names the argument, which is also the field of BuildRequest.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import UnionType
from typing import TypeVar, cast, get_args, get_origin, get_type_hints

from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.inputs import check_build_context
from kitcache.buildkit.limit import check_seconds
from kitcache.errors import UsageError
from kitcache.options.attests import parse_attests, spell_attest
from kitcache.options.attributes import Pairs
from kitcache.options.build import BuildRequest
from kitcache.options.caches import (
    CacheExport,
    CacheImport,
    check_cache_export,
    check_cache_import,
    parse_cache_export,
    parse_cache_import,
)
from kitcache.options.imagenames import normalize_tag
from kitcache.options.outputs import Output, check_output, parse_output
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.options.secrets import Secret

StrPath = str | os.PathLike[str]
Item = TypeVar("Item")


def as_tuple(name: str, values: Item | Iterable[Item]) -> tuple[Item, ...]:
    """Return the values as a tuple. A single string or value becomes a tuple of one item."""
    if isinstance(values, (str, Output, CacheExport, CacheImport, Secret)):
        return (cast("Item", values),)
    try:
        return tuple(cast("Iterable[Item]", values))
    except TypeError:
        raise UsageError(f"{name} is of type {_kind(values)}, not a list") from None


def as_pairs(name: str, mapping: Mapping[str, Item] | None) -> tuple[tuple[str, Item], ...]:
    """Return the items of a mapping. Raise UsageError if it is not a mapping."""
    if mapping is None:
        return ()
    if not isinstance(mapping, Mapping):
        raise UsageError(
            f"{name} is of type {_kind(mapping)}, not a mapping",
            hints=(f'write {name}={{"NAME": "VALUE"}}',),
        )
    return tuple(mapping.items())


def as_path(name: str, path: StrPath) -> str:
    """Return the path or URL as a text. Raise UsageError if it is of another type."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    _expect(name, text, str)
    return text


def split_platforms(platforms: str | Iterable[str]) -> tuple[str, ...]:
    """Return the platforms; one text may name several with commas, as on the command line."""
    texts: tuple[str, ...] = as_tuple("platforms", platforms)
    for n, text in enumerate(texts):
        _expect(f"platforms[{n}]", text, str)
    return tuple(dict.fromkeys(part.strip() for text in texts for part in text.split(",")))


def spell_attests(attests: Mapping[str, str | bool] | None) -> Pairs:
    """Return the attestations as pairs of texts, True and False as on the command line."""
    pairs = as_pairs("attests", attests)
    return tuple((k, str(v).lower() if isinstance(v, bool) else v) for k, v in pairs)


def check_options(options: BuildOptions) -> None:
    """Raise UsageError for a type that would only fail during the build."""
    stdin, credentials, prune_policy = options.stdin, options.credentials, options.prune_policy
    check_seconds("lock_timeout_s", options.lock_timeout_s)
    if isinstance(stdin, io.TextIOBase):
        raise UsageError(
            "stdin gives text, not bytes", hints=("sys.stdin.buffer", "io.BytesIO(DATA)")
        )
    if not callable(credentials):
        raise UsageError(
            f"credentials is of type {_kind(credentials)}, not a function of a host",
            hints=("write credentials=lambda host: …",),
        )
    if not isinstance(prune_policy, PrunePolicy | None):
        raise UsageError(
            f"prune_policy is of type {_kind(prune_policy)}, not PrunePolicy",
            hints=("kitcache.read_policy(TEXT, NAME)",),
        )


def check_values(request: BuildRequest, *, may_have_texts: bool = False) -> BuildRequest:
    """Return the request with checked values and defaults, without disabled attestations.

    Args:
        may_have_texts: True if outputs and caches may be texts in place of values. They are parsed.

    Raises:
        UsageError: A value is of a wrong type, or invalid. The error names the field.
    """
    _check_types(request, may_have_texts=may_have_texts)
    for name in ("build_args", "labels", "build_contexts", "attests"):
        for key, _ in getattr(request, name):
            if not key or "=" in key:
                problem = f"the name {key!r} has an equals sign" if key else "a name is empty"
                raise UsageError(f"{name}: {problem}", hints=('write "NAME": "VALUE"',))
    with _naming("tags"):
        for tag in request.tags:
            normalize_tag(tag)
    with _naming("build_contexts"):
        contexts = tuple(check_build_context(*pair) for pair in request.build_contexts)
    with _naming("outputs"):
        outputs = tuple(map(_check_output, request.outputs))
    with _naming("cache_to"):
        cache_to = tuple(map(_check_export, request.cache_to))
    with _naming("cache_from"):
        cache_from = tuple(map(_check_import, request.cache_from))
    with _naming("attests"):
        attests = parse_attests(spell_attest(kind, value) for kind, value in request.attests)
    return request._replace(
        build_contexts=contexts,
        outputs=outputs,
        cache_to=cache_to,
        cache_from=cache_from,
        attests=attests,
    )


def _check_output(output: Output | str) -> Output:
    if isinstance(output, str):
        return parse_output(output)
    if output.dest is not None:
        output = output._replace(dest=as_path("dest", output.dest))
    _check_types(output)
    return check_output(output)


def _check_export(export: CacheExport | str) -> CacheExport:
    if isinstance(export, str):
        return parse_cache_export(export)
    export = export._replace(dest=as_path("dest", export.dest))
    _check_types(export)
    return check_cache_export(export)


def _check_import(source: CacheImport | str) -> CacheImport:
    if isinstance(source, str):
        return parse_cache_import(source)
    source = source._replace(src=as_path("src", source.src))
    _check_types(source)
    return check_cache_import(source)


def _check_types(
    value: BuildRequest | Output | CacheExport | CacheImport, *, may_have_texts: bool = False
) -> None:
    """Raise UsageError for a field whose value is not of the annotated type."""
    for name, hint in get_type_hints(type(value)).items():
        field = getattr(value, name)
        if get_origin(hint) is not tuple:
            _expect(name, field, hint)
            continue
        _expect(name, field, tuple)
        kind = get_args(hint)[0]
        if may_have_texts and kind in (Output, CacheExport, CacheImport):
            kind |= str
        for n, item in enumerate(field):
            if hint == Pairs:
                _check_pair(name, n, item)
            else:
                _expect(f"{name}[{n}]", item, kind)


def _check_pair(name: str, n: int, pair: object) -> None:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise UsageError(f"{name}[{n}] is not a pair of a name and a value")
    key, value = pair
    _expect(f"{name}: the name {key!r}", key, str)
    _expect(f"{name}: the value of {key!r}", value, str)


def _expect(name: str, value: object, kind: type | UnionType) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        expected = kind.__name__ if isinstance(kind, type) else get_args(kind)[0].__name__
        raise UsageError(
            f"{name} is of type {_kind(value)}, not {expected}",
            hints=("give a text",) if expected == "str" else (),
        )


def _kind(value: object) -> str:
    return type(value).__name__


@contextmanager
def _naming(argument: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{argument}: {error.problem}", hints=error.hints) from None
