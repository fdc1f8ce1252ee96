"""What the tests of verify and repair share: damage, copies, a lock, and short forms of answers."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kitcache.gc.control import Control
from kitcache.store.locks import lock_store
from kitcache.store.open import open_store
from kitcache.store.values import LockKind
from kitcache.upkeep.health.repairplan import RepairPlan
from kitcache.upkeep.results import RepairResult, TagStatus, VerifyResult
from tests.hostile.build import Box


def flip(box: Box, digest: str, at: int = 5) -> None:
    """One bit of a blob, in the byte at that place."""
    data = bytearray(box.path_of(digest).read_bytes())
    data[at] ^= 1
    box.damage(digest, bytes(data))


def copy_of(box: Box, name: str = "copy") -> Path:
    """The cache once more, in a directory beside it."""
    return Path(shutil.copytree(box.dir, box.top / name))


@contextmanager
def locked(path: Path, kind: LockKind) -> Iterator[None]:
    with (
        open_store(path) as layout,
        lock_store(layout, kind, Control(str(path), None, None).wait_policy(0.0)),
    ):
        yield


def words(found: VerifyResult) -> list[tuple[str | None, str, str]]:
    return [(v.ref_name, v.kind, v.importable) for v in found.tags]


def only(found: VerifyResult) -> TagStatus:
    (verdict,) = found.tags
    return verdict


def kinds(done: RepairResult | RepairPlan) -> list[tuple[str, str | None]]:
    return [(step.kind, step.tag) for step in done.actions]
