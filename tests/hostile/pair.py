"""What the tests with two actors share: a cache, and a way to act at an exact moment."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import strangers
from tests.property import make
from tests.property.disk import blob_path
from tests.property.model import HOUR_S, Cache, Node

ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "20"))


def old_export(count: int) -> tuple[Node, list[Node]]:
    """An export that no tag names any more: (its manifest, all its blobs)."""
    layers = [make.leaf(b"old layer %d" % n) for n in range(count)]
    config = make.cacheconfig(layers, 7)
    manifest = make.manifest(make.honest(config), [make.honest(layer) for layer in layers])
    return manifest, [*layers, config, manifest]


OLD, OLD_BLOBS = old_export(6)
OLD_DIGESTS = frozenset(node.digest for node in OLD_BLOBS)


def two_tags(garbage_blobs: int = 10) -> Cache:
    """Tags main and pr that share layers, the old export, and loose garbage."""
    shared = [make.leaf(b"layer %d" % n) for n in range(3)]
    own = [make.leaf(b"only main's")]
    main_config, pr_config = make.cacheconfig([*shared, *own]), make.cacheconfig(shared, 1)
    main = make.manifest(make.honest(main_config), [make.honest(n) for n in [*shared, *own]])
    pr = make.manifest(make.honest(pr_config), [make.honest(n) for n in shared])
    loose = [make.leaf(b"garbage %d" % n) for n in range(garbage_blobs)]
    nodes = make.by_digest([*shared, *own, main_config, pr_config, main, pr, *OLD_BLOBS, *loose])
    ages_s = dict.fromkeys(nodes, 3 * HOUR_S)
    entries = (make.entry(main, "main"), make.entry(pr, "pr"))
    return Cache(nodes, entries, frozenset(), ages_s, (), ())


def publish_old(root: Path, tag: str = "again") -> None:
    """A stranger publishes the old export: when it looked every blob was there, none was sent."""
    assert strangers.publish(root, tag, OLD.digest, len(OLD.data))


def remove(root: Path, digests: list[str]) -> None:
    for digest in digests:
        blob_path(root, digest).unlink()


def before(monkeypatch: pytest.MonkeyPatch, target: str, step: Callable[[], object]) -> None:
    """Run `step` once, right before the first call of that function, which stays the real one."""
    _hook(monkeypatch, target, step, lambda: None)


def after(monkeypatch: pytest.MonkeyPatch, target: str, step: Callable[[], object]) -> None:
    """Run `step` once, right after the first call of that function, which stays the real one."""
    _hook(monkeypatch, target, lambda: None, step)


def real(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def _hook(
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    first: Callable[[], object],
    then: Callable[[], object],
) -> None:
    function = real(target)

    def hooked(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(target, function)
        first()
        answer = function(*args, **kwargs)
        then()
        return answer

    monkeypatch.setattr(target, hooked)
