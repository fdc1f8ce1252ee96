"""The arguments, the locks and the recorded uses of merge and copy."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from kitcache.errors import Busy, Cancelled, KitcacheError
from kitcache.gc.control import Control
from kitcache.options.renames import Rename
from kitcache.store.ioerrors import describe_unlocked
from kitcache.store.open import StoreAddress
from kitcache.store.protocol import EditableStore
from kitcache.store.values import LockKind, TagUse
from kitcache.upkeep.naming.mergeplan import EntryGroup

_Address = TypeVar("_Address", bound=StoreAddress)


class MergeOptions(NamedTuple):
    """The arguments of a merge.

    Attributes:
        tags: Patterns of the tags to copy; () for all entries.
        lock_timeout_s: For all locks together, since started_s.
    """

    sources: tuple[str, ...]
    target: str
    tags: tuple[str, ...]
    renames: tuple[Rename, ...]
    replaces: bool
    is_dry: bool
    control: Control
    started_s: float
    lock_timeout_s: float

    @property
    def left_s(self) -> float:
        """The remaining time to wait for locks."""
        return max(0.0, self.started_s + self.lock_timeout_s - time.monotonic())


def as_sequence(value: _Address | Sequence[_Address]) -> Sequence[_Address]:
    """Return one address or text as a sequence."""
    # An ObjectCache is a NamedTuple, so a sequence of its fields.
    if isinstance(value, str) or not isinstance(value, Sequence) or hasattr(value, "_fields"):
        return (value,)  # type: ignore[return-value]
    return value


def lock_in_order(
    kinds: Sequence[tuple[EditableStore, LockKind]], options: MergeOptions, stack: ExitStack
) -> tuple[str, ...]:
    """Acquire locks. Return a warning for each source that cannot be locked."""
    warnings = []
    for store, kind in kinds:
        try:
            stack.enter_context(store.lock(kind, options.control.wait_policy(options.left_s)))
        except (Busy, Cancelled):
            raise
        except KitcacheError as error:
            if kind == "exclusive":
                raise
            warnings.append(describe_unlocked(store.path, error))
    return tuple(warnings)


def merge_uses(
    groups: Sequence[EntryGroup],
    target_uses: Mapping[str, TagUse],
    source_uses: Sequence[Mapping[str, TagUse]],
) -> dict[str, TagUse]:
    """Return the new uses of the copied tags: of two uses, the later one."""
    merged: dict[str, TagUse] = {}
    for group in groups:
        target, source, digests = group.tag.target_name, group.tag.source_name, group.tag.digests
        if target is None or source is None:
            continue
        known = target_uses.get(target) if group.tag.state == "unchanged" else None
        use = source_uses[group.source].get(source, TagUse())
        digest = digests[0] if len(digests) == 1 else None
        merged[target] = _later(merged.get(target) or known, use)._replace(digest=digest)
    return merged


def _later(known: TagUse | None, use: TagUse) -> TagUse:
    if known is None:
        return use
    return TagUse(
        max(known.exported_ns or 0, use.exported_ns or 0) or None,
        max(known.imported_ns or 0, use.imported_ns or 0) or None,
    )
