"""The arguments of Client.build as the values of a BuildRequest, and the checks of these values.

Their types are checked already (options/argumenttypes.py). A UsageError names the argument, which
is also the field of BuildRequest.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar, cast

from kitcache.buildkit.inputs import check_build_context
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

StrPath = str | os.PathLike[str]
Item = TypeVar("Item")


def as_tuple(values: Item | Iterable[Item]) -> tuple[Item, ...]:
    """Return the values as a tuple. A single value, which is not a plain tuple, is its one item."""
    is_list = type(values) is tuple  # the check of the types makes lists tuples
    return cast("tuple[Item, ...]", values if is_list else (values,))


def split_platforms(platforms: str | Iterable[str]) -> tuple[str, ...]:
    """Return the platforms; one text may name several with commas, as on the command line."""
    texts: tuple[str, ...] = as_tuple(platforms)
    return tuple(dict.fromkeys(part.strip() for text in texts for part in text.split(",")))


def spell_attests(attests: Mapping[str, str | bool]) -> Pairs:
    """Return the attestations as pairs of texts, True and False as on the command line."""
    return tuple((k, str(v).lower() if isinstance(v, bool) else v) for k, v in attests.items())


def check_values(request: BuildRequest) -> BuildRequest:
    """Return the request with checked values and defaults, without disabled attestations.

    Outputs and caches may be texts in place of values, as arguments of Client.build. They are
    parsed.

    Raises:
        UsageError: A value is invalid. The error names the field.
    """
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


def _check_output(output: Output | StrPath) -> Output:
    if isinstance(output, str):
        return parse_output(output)
    return check_output(
        output if isinstance(output, Output) else Output("local", os.fspath(output))
    )


def _check_export(export: CacheExport | str) -> CacheExport:
    return parse_cache_export(export) if isinstance(export, str) else check_cache_export(export)


def _check_import(source: CacheImport | str) -> CacheImport:
    return parse_cache_import(source) if isinstance(source, str) else check_cache_import(source)


@contextmanager
def _naming(argument: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{argument}: {error.problem}", hints=error.hints) from None
