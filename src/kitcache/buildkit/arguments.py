"""The arguments of Client.build as a BuildRequest, and the checks of a request's types.

A text is read as the command line reads it. A UsageError names the argument, which is also the
field of BuildRequest.
"""

import io
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar, cast

from kitcache.buildkit.inputs import parse_build_context
from kitcache.buildkit.limit import check_seconds
from kitcache.buildkit.wishes import BuildOptions
from kitcache.errors import UsageError
from kitcache.options.attests import parse_attests, spell_attest
from kitcache.options.attributes import Pairs, check_sent
from kitcache.options.build import BuildRequest
from kitcache.options.caches import (
    CacheExport,
    CacheImport,
    check_cache_export,
    check_cache_import,
    complete_cache,
    left_out_warning,
)
from kitcache.options.imagenames import normalize_tag
from kitcache.options.outputs import Output, check_output
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.options.secrets import Secret

StrPath = str | os.PathLike[str]
Item = TypeVar("Item")
Other = TypeVar("Other")

_SCALARS = {
    "context": str,
    "target": str,
    "network": str,
    "no_cache": bool,
    "pull": bool,
    "shm_size": int,
}
_LISTS: dict[str, type] = {
    "platforms": str,
    "no_cache_filter": str,
    "add_hosts": str,
    "tags": str,
    "allow": str,
    "ulimits": str,
    "secrets": Secret,
    "outputs": Output,
    "cache_to": CacheExport,
    "cache_from": CacheImport,
}
_PAIRS = ("build_args", "labels", "build_contexts", "attests")


def several(name: str, given: Item | Iterable[Item]) -> tuple[Item, ...]:
    """Return what was given as a tuple; one text or one value alone is not its parts."""
    if isinstance(given, (str, Output, CacheExport, CacheImport, Secret)):
        return (cast("Item", given),)
    try:
        return tuple(cast("Iterable[Item]", given))
    except TypeError:
        raise UsageError(f"{name} is of type {_kind(given)}, not a list") from None


def parsed(
    name: str, given: Item | str | Iterable[Item | str], parse: Callable[[str], Item]
) -> tuple[Item, ...]:
    """Return the values, each text parsed. Raises UsageError, which names the argument."""

    def read(one: Item | str) -> Item:
        return parse(one) if isinstance(one, str) else one

    found: tuple[Item | str, ...] = several(name, given)
    return _each(name, found, read)


def pairs(name: str, given: Mapping[str, Item] | None) -> tuple[tuple[str, Item], ...]:
    """Return the items of a mapping. Raises UsageError where it is something else."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{name} is of type {_kind(given)}, not a mapping",
            hints=(f'write {name}={{"NAME": "VALUE"}}',),
        )
    return tuple(given.items())


def path(name: str, given: StrPath) -> str:
    """Return the path or URL as a text. Raises UsageError where it is something else."""
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    _expect(name, text, str)
    return text


def split_platforms(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the platforms; one text may name several with commas, as on the command line."""
    texts: tuple[str, ...] = several("platforms", given)
    found = _each("platforms", texts, _split)
    return tuple(dict.fromkeys(part for parts in found for part in parts))


def _split(text: str) -> tuple[str, ...]:
    _expect("one of them", text, str)
    return tuple(part.strip() for part in text.split(","))


def check_wishes(wishes: BuildOptions) -> None:
    """Raise UsageError for what would be found to be something else in the middle of a build."""
    stdin, credentials, prune_policy = wishes.stdin, wishes.credentials, wishes.prune_policy
    check_seconds("lock_timeout_s", wishes.lock_timeout_s)
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
            f"prune_policy is of type {_kind(prune_policy)}, not Retention",
            hints=("kitcache.read_policy(TEXT, NAME)",),
        )


def spell_attests(given: Mapping[str, str | bool] | None) -> Pairs:
    """Return the attestations as pairs of texts, True and False as on the command line."""
    found = pairs("attests", given)
    return tuple((k, str(v).lower() if isinstance(v, bool) else v) for k, v in found)


def settle(request: BuildRequest) -> BuildRequest:
    """Return the request as it is to be sent: checked, and with defaults filled in.

    Attestations that are switched off are gone. Raises UsageError, which names the field.
    """
    _check_types(request)
    spelled = [spell_attest(kind, value) for kind, value in request.attests]
    _each("tags", request.tags, normalize_tag)  # a check: each exporter spells them on its own
    return request._replace(
        build_contexts=_each("build_contexts", request.build_contexts, _settle_context),
        outputs=_each("outputs", request.outputs, _settle_output),
        cache_to=_each("cache_to", request.cache_to, _settle_export),
        cache_from=_each("cache_from", request.cache_from, _settle_import),
        attests=_named("attests", lambda: parse_attests(spelled)),
    )


def _settle_context(pair: tuple[str, str]) -> tuple[str, str]:
    return parse_build_context("=".join(pair))


def _settle_output(output: Output) -> Output:
    _expect("kind", output.kind, str)
    dest = None if output.dest is None else path("dest", output.dest)
    check_sent(output.attrs)
    return check_output(output._replace(dest=dest))


def _settle_export(export: CacheExport) -> CacheExport:
    _expect("kind", export.kind, str)
    _expect("reset", export.reset, bool)
    _expect("tag", export.tag, str)
    check_sent(export.attrs)
    return check_cache_export(export._replace(dest=path("dest", export.dest)))


def _settle_import(source: CacheImport) -> CacheImport:
    _expect("kind", source.kind, str)
    _expect("tag", source.tag, str)
    if source.digest is not None:
        _expect("digest", source.digest, str)
    check_sent(source.attrs)
    return check_cache_import(source._replace(src=path("src", source.src)))


def complete_request(request: BuildRequest, environ: Mapping[str, str] | None) -> BuildRequest:
    """Return the request with the credentials of GitHub's and Amazon's caches from an environment.

    A cache of GitHub's without credentials is left out, as buildx does it, with a warning.
    """
    exports = [complete_cache(entry, environ or {}) for entry in request.cache_to]
    imports = [complete_cache(entry, environ or {}) for entry in request.cache_from]
    entries: list[CacheExport | CacheImport] = [*exports, *imports]
    lost = [
        left_out_warning(entry, has_environ=environ is not None)
        for entry in entries
        if not entry.is_active
    ]
    return request._replace(
        cache_to=tuple(entry for entry in exports if entry.is_active),
        cache_from=tuple(entry for entry in imports if entry.is_active),
        warnings=(*request.warnings, *lost),
    )


def _check_types(request: BuildRequest) -> None:
    for name, kind in _SCALARS.items():
        _expect(name, getattr(request, name), kind)
    if request.dockerfile is not None:
        _expect("dockerfile", request.dockerfile, str)
    for name, kind in _LISTS.items():
        given = getattr(request, name)
        _expect(name, given, tuple)
        for n, one in enumerate(given):
            _expect(f"{name}[{n}]", one, kind)
    for name in _PAIRS:
        _check_pairs(name, getattr(request, name))


def _check_pairs(name: str, given: object) -> None:
    _expect(name, given, tuple)
    for n, pair in enumerate(cast("tuple[object, ...]", given)):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise UsageError(f"{name}[{n}] is not a pair of a name and a value")
        key, value = pair
        _expect(f"{name}: the name {key!r}", key, str)
        _expect(f"{name}: the value of {key!r}", value, str)
        if not key or "=" in cast("str", key):
            problem = "a name is empty" if not key else f"the name {key!r} has an equals sign"
            raise UsageError(f"{name}: {problem}", hints=('write "NAME": "VALUE"',))


def _expect(what: str, given: object, kind: type) -> None:
    if not isinstance(given, kind) or (kind is int and isinstance(given, bool)):
        raise UsageError(
            f"{what} is of type {_kind(given)}, not {kind.__name__}",
            hints=("give a text",) if kind is str else (),
        )


def _kind(given: object) -> str:
    return type(given).__name__


def _each(name: str, given: Iterable[Item], work: Callable[[Item], Other]) -> tuple[Other, ...]:
    return tuple(_named(name, partial(work, one)) for one in given)


def _named(name: str, work: Callable[[], Item]) -> Item:
    try:
        return work()
    except UsageError as error:
        raise UsageError(f"{name}: {error.problem}", hints=error.hints) from None
