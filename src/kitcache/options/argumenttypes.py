"""The types of arguments: a check of a public function's arguments against its annotations.

Python does not check them, and a wrong type would fail later, without the name of the argument.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial, wraps
from io import TextIOBase
from threading import Event
from types import NoneType, UnionType
from typing import Any, BinaryIO, TypeVar, cast, get_args, get_origin, get_type_hints

from kitcache.errors import UsageError
from kitcache.options.attributes import Pairs

F = TypeVar("F", bound=Callable[..., Any])

# Thirty years. A longer time overflows in the clocks of sockets and locks.
_MAX_S = 1e9
_IS_COROUTINE = 0x80  # inspect.CO_COROUTINE: inspect is slow to import
_ADDRESS = 'name a directory, or a bucket as "s3://BUCKET/PREFIX"'
_SIZE = "write kitcache.DiskSpace(bytes=5_000_000_000)"
_POLICY = "write kitcache.read_policy(TEXT, NAME)"
_HINTS = {
    "address": 'write "unix://PATH", or kitcache.find_daemon(os.environ)',
    "cache_from": 'write "type=local,src=DIR", or kitcache.CacheImport("local", src="DIR")',
    "cache_to": 'write "type=local,dest=DIR", or kitcache.CacheExport("local", dest="DIR")',
    "cancel": "write threading.Event()",
    "credentials": "write credentials=lambda host: …",
    "environ": "write environ=os.environ",
    "max_used": _SIZE,
    "max_used_bytes": "write a number of bytes: 5_000_000_000",
    "min_free": _SIZE,
    "outputs": 'write "type=local,dest=DIR", or kitcache.Output("local", "DIR")',
    "path": _ADDRESS,
    "policy": _POLICY,
    "prune_policy": _POLICY,
    "secrets": 'write kitcache.Secret("ID", path="FILE")',
    "sources": _ADDRESS,
    "stdin": "write io.BytesIO(DATA), or open(FILE, 'rb')",
    "tls": 'write kitcache.TlsConfig(ca="FILE")',
}


def checked(function: F) -> F:
    """Return the function with a check of its arguments before each call.

    Lists become tuples, so that an iterator can be read twice.

    Raises:
        UsageError: An argument, or a field of a value, is not of its annotated type.
    """
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        hints = _hints_of(function)

        def convert(name: str, value: object) -> object:
            return _convert(name, value, hints[name]) if name in hints else value

        if len(args) <= len(names):
            args = tuple(map(convert, names, args))
        return function(*args, **{name: convert(name, value) for name, value in kwargs.items()})

    return cast("F", call)


@cache
def _hints_of(subject: object) -> dict[str, Any]:
    return get_type_hints(subject)


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Return the value of an argument as one of the annotated types. Raise UsageError."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kind = next((kind for kind in kinds if _is_of(value, kind)), None)
    if kind is None:
        raise _wrong_type(name, value, kinds)
    origin = get_origin(kind)
    if kind is float:
        return _check_seconds(name, value) if name.endswith("_s") else value
    if kind == Pairs and isinstance(value, Mapping):
        value = tuple(value.items())
    if origin is Mapping:
        _check_pairs(name, value.items(), *get_args(kind))
    elif origin is tuple and get_args(kind)[-1] is not ...:
        if not isinstance(value, tuple) or len(value) != 2:
            raise UsageError(f"{name} is not a pair of a name and a value")
        _check_pairs(name.partition("[")[0], (value,), *get_args(kind))
    elif _is_list(kind):
        item = get_args(kind)[0]
        return tuple(_convert(f"{name}[{n}]", part, item) for n, part in enumerate(value))
    elif hasattr(kind, "_fields"):
        fields = {key: (getattr(value, key), hint) for key, hint in _hints_of(kind).items()}
        return value._replace(**{k: _convert(f"{name}.{k}", *pair) for k, pair in fields.items()})
    return value


def _is_of(value: Any, kind: Any) -> bool:
    """Return True if a value is of a type; its items and fields are not checked."""
    origin = get_origin(kind) or kind
    if _is_list(kind):
        if isinstance(value, Mapping):
            return bool(kind == Pairs)
        is_single = isinstance(value, str | bytes | bytearray) or hasattr(value, "_fields")
        return isinstance(value, Iterable) and not is_single
    if origin in _CHECKS:
        return _CHECKS[origin](value)
    is_bytes = hasattr(value, "__fspath__") and isinstance(value.__fspath__(), bytes)
    return isinstance(value, origin) and not is_bytes


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind)
    is_iterable = isinstance(origin, type) and issubclass(origin, Iterable)
    return is_iterable and not issubclass(origin, Mapping)


def _is_async(function: Any) -> bool:
    """Return True if a call gives a coroutine, which no caller here would await."""
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return bool(code and code.co_flags & _IS_COROUTINE)


def _is_event(value: Any) -> bool:
    """Return True for an event of threads or processes. asyncio's has another `wait`."""
    parts = [getattr(value, word, None) for word in ("is_set", "wait")]
    return all(map(callable, parts)) and not any(map(_is_async, parts))


_CHECKS: dict[Any, Callable[[Any], bool]] = {
    BinaryIO: lambda v: (
        not isinstance(v, TextIOBase) and (hasattr(v, "read") or hasattr(v, "write"))
    ),
    Callable: lambda v: callable(v) and not _is_async(v),
    Event: _is_event,
    float: lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    int: lambda v: isinstance(v, int) and not isinstance(v, bool),
}
"""The types that more than their instances can stand for, or fewer."""


def _check_pairs(name: str, pairs: Iterable[Any], key_kind: Any, kind: Any) -> None:
    for key, value in pairs:
        _convert(f"{name}: the name {key!r}", key, key_kind)
        _convert(f"{name}: the value of {key!r}", value, kind)


def _check_seconds(name: str, seconds: float) -> float:
    """Return the timeout, at most 30 years. Raise UsageError if it is not a timeout."""
    if not seconds >= 0:  # The comparison is false for NaN too.
        raise UsageError(f"{name} is {seconds}, not a number of seconds of at least 0")
    return float(min(seconds, _MAX_S))


def _wrong_type(name: str, value: object, kinds: Iterable[Any]) -> UsageError:
    field = name.rpartition(".")[2].partition("[")[0].partition(":")[0]
    if callable(value) and any(get_origin(kind) is Callable for kind in kinds):
        return UsageError(
            f"{name} is an async function, which nothing would await",
            hints=("write def in place of async def",),
        )
    if BinaryIO in kinds and isinstance(value, TextIOBase):
        return UsageError(
            f"{name} is for bytes, and this is a text file",
            hints=("sys.stdin.buffer", "io.BytesIO(DATA)"),
        )
    words = list(dict.fromkeys(_spell(kind, name) for kind in kinds if kind is not NoneType))
    hint = _HINTS.get(field, "")
    if field.endswith("_ns"):
        hint = "write nanoseconds: an hour is 3600 * 10**9"
    elif not hint and words == ["str"]:
        hint = "give a text"
    elif not hint and words == ["a mapping"]:
        hint = f'write {field}={{"NAME": "VALUE"}}'
    expected = (", ".join(words[:-1]), words[-1])
    return UsageError(
        f"{name} is of type {type(value).__name__}, not {' or '.join(filter(None, expected))}",
        hints=(hint,) if hint else (),
    )


def _spell(kind: Any, name: str) -> str:
    origin = get_origin(kind)
    if origin is Callable:
        return "a function"
    if origin is Mapping:
        return "a mapping"
    if kind is BinaryIO:
        return "a binary file"
    if kind is float and name.endswith("_s"):
        return "a number of seconds"
    if _is_list(kind):
        return "a list"
    return cast("str", (origin or kind).__name__).replace("PathLike", "Path")
