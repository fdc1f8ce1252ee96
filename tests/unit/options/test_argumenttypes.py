"""options/argumenttypes.py: no argument of the library fails later, without its name."""

import asyncio
import functools
import io
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

import kitcache
from kitcache.errors import UsageError
from kitcache.options.argumenttypes import checked
from tests.hostile.fake_daemon import FakeDaemon


async def later(_value: object) -> None:
    pass


class Later:
    async def __call__(self, _value: object) -> None:
        pass


FUNCTIONS = [n for n in kitcache.__all__ if n.islower() and n != "__version__"]
# No argument accepts them, except where `accepts` says so.
WRONG: list[object] = [
    b"x", 5, None, object(), {"type": "local"}, True, [5], 1.5, "1h", [b"x"],
    kitcache.CacheExport("s3", {"bucket": "b"}), later, asyncio.Event(),
]  # fmt: skip


def accepts(name: str, value: object) -> bool:
    """True if the value is what this argument takes."""
    if value is None:
        return name in ("on_progress", "cancel", "addr", "builder", "tls")
    if isinstance(value, bool):
        return name in ("dry_run", "read", "replace", "trim")
    if isinstance(value, int | float):
        return name == "lock_timeout_s" or (name == "max_used_bytes" and value == 5)
    texts = "path sources target tags rename names blob tag source text name addr builder"
    return isinstance(value, str) and name in texts.split()


def cases() -> list[tuple[str, str, object]]:
    return [
        (function, name, value)
        for function in FUNCTIONS
        for name in signature(getattr(kitcache, function)).parameters
        for value in WRONG
        if not accepts(name, value)
        if not (name == "environ" and isinstance(value, dict))
    ]


def call(function: str, directory: Path, **wrong: object) -> None:
    """Call a function with good arguments, but for one."""
    good = {
        "path": directory, "sources": (directory,), "target": str(directory / "new"), "names": "t",
        "blob": "abcd", "tag": "t", "source": "t", "text": "", "name": "n", "max_used_bytes": 1,
        "policy": kitcache.PrunePolicy(), "environ": {},
    }  # fmt: skip
    parameters = signature(getattr(kitcache, function)).parameters.values()
    needed = {p.name: good[p.name] for p in parameters if p.default is p.empty}
    getattr(kitcache, function)(**{**needed, **wrong})


def test_a_wrong_type_is_named_by_every_function(tmp_path: Path) -> None:
    assert len(cases()) > 900
    for function, name, value in cases():
        with pytest.raises(UsageError) as caught:
            call(function, tmp_path, **{name: value})
        assert str(caught.value).startswith(name), (function, name, value)
        assert "\n  hint: " in str(caught.value) or name not in ("path", "cancel", "policy")
    assert not (tmp_path / "new").exists()


def test_a_wrong_field_of_a_value_is_named(tmp_path: Path) -> None:
    options: Any = kitcache.SweepOptions
    policy: Any = kitcache.PrunePolicy
    rule: Any = kitcache.PruneRule
    for says, value in {
        "policy.max_used is of type str, not DiskSpace\n  hint: write kitcache.DiskSpace": policy(
            max_used="5GB"
        ),
        "policy.max_used.bytes is of type str, not int": policy(max_used=kitcache.DiskSpace("5")),
        "policy.keep_tags is of type str, not a list": policy(keep_tags="main"),
        "policy.rules[0].unused_for_ns is of type str, not int\n  hint: write nanoseconds": policy(
            rules=[rule(unused_for_ns="30d")]
        ),
    }.items():
        with pytest.raises(UsageError) as caught:
            kitcache.prune(tmp_path, value)
        assert str(caught.value).startswith(says)
    with pytest.raises(UsageError, match=r"^options\.min_age_ns is of type str, not int"):
        kitcache.reset(tmp_path, options=options(min_age_ns="1h"))


ASYNC: list[Callable[..., object]] = [
    later, functools.partial(later), Later(), functools.partial(Later())
]  # fmt: skip


def test_a_client_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    client_of: Any = kitcache.Client
    for address in (None, 5, b"unix:///x", Path("/x")):
        with pytest.raises(UsageError, match=r"^address is of type"):
            client_of(address)
    with FakeDaemon() as daemon, client_of(daemon.address) as client:
        for name, value in [
            ("stdin", b""), ("stdin", "FROM scratch"), ("cancel", True), ("on_update", 1),
            ("cancel", asyncio.Event()), ("environ", 5), ("credentials", 5),
        ]:  # fmt: skip
            with pytest.raises(UsageError, match=f"^{name} is of type"):
                client.build(tmp_path, **{name: value})
        for function in ASYNC:
            for name in ("on_update", "on_notice", "credentials"):
                with pytest.raises(UsageError, match=f"^{name} is an async function"):
                    client.build(tmp_path, **{name: function})
        assert not daemon.solves
        for name, value in [
            ("stdin", io.BytesIO()), ("cancel", multiprocessing.Event()),
            ("cancel", threading.Event()), ("on_update", functools.partial(print, end="")),
            ("on_update", MagicMock()), ("tags", {"app"}),
            ("tags", (name for name in ["app"])), ("outputs", [tmp_path / "o"]),
        ]:  # fmt: skip
            client.build(tmp_path, **{name: value})


def test_an_iterator_is_read_once_and_the_rest_is_python_s_own_error() -> None:
    @checked
    def twice(names: str | list[str], *, count: int = 1) -> object:
        return [*names, *names] * count

    assert twice(iter(["a"]), count=2) == ["a"] * 4  # type: ignore[arg-type]
    for wrong in ((), ("a", 1), ("a", "b", "c")):
        with pytest.raises(TypeError):
            twice(*wrong)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        twice("a", other=1)  # type: ignore[call-arg]


def test_a_function_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(kitcache.reset)) is kitcache.reset
