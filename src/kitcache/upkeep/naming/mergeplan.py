"""The merge plan: the entries to copy, and their names in the target. No I/O.

All entries with the same ref name are copied together. If a name has different digests in two
caches, the merge is refused and the user decides.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.oci.index import CopiedEntry, IndexEntry
from kitcache.options.renames import Rename, rename
from kitcache.options.tagpatterns import find_pattern, is_pattern
from kitcache.store.protocol import CacheStore
from kitcache.upkeep.naming.tagnames import check_tag_name, unknown_tag_error
from kitcache.upkeep.results import MergedTag

State = Literal["new", "moved", "unchanged"]

_MAX_LISTED = 5


class MergeCache(NamedTuple):
    """A cache of a merge. name: The last part of its path."""

    path: str
    name: str
    entries: tuple[IndexEntry, ...]


class EntryGroup(NamedTuple):
    """Entries of one source that are copied together, by their positions in its index.json."""

    source: int
    positions: tuple[int, ...]
    tag: MergedTag

    @property
    def copies(self) -> tuple[CopiedEntry, ...]:
        """The entries to add to the target's index.json; () if the target has them."""
        if self.tag.state == "unchanged":
            return ()
        new = None if self.tag.target_name == self.tag.source_name else self.tag.target_name
        return tuple(CopiedEntry(self.source, position, new) for position in self.positions)


def decide(
    target: MergeCache,
    sources: Sequence[MergeCache],
    renames: Sequence[Rename],
    *,
    replaces: bool,
    tags: tuple[str, ...] = (),
) -> tuple[EntryGroup, ...]:
    """Return the entries to copy, in the order of the sources: one group for each tag.

    An entry without a tag is a group of its own.

    Args:
        tags: Patterns of the tags to copy; () for all tags, and all entries without a tag.
        replaces: Move a tag of the target that names another digest.

    Raises:
        KitcacheError: A name has different digests in two caches, and it cannot be moved.
    """
    names = _KnownNames(target, replaces=replaces)
    groups = []
    for n, source in enumerate(sources):
        for old, positions in _by_name(source, tags).items():
            new = _new_name(renames, old, source) if isinstance(old, str) else None
            entries = [source.entries[position] for position in positions]
            named = [_renamed(entry, new) for entry in entries]
            state, previous = names.add(source.path, named)
            digests = tuple(dict.fromkeys(map(_digest_of, entries)))
            tag = MergedTag(source.path, entries[0].ref_name, new, digests, state, previous)
            groups.append(EntryGroup(n, tuple(positions), tag))
    if names.conflicts:
        raise _conflict_error(target.path, names.conflicts)
    return tuple(groups)


def _new_name(renames: Sequence[Rename], old: str, source: MergeCache) -> str:
    new = rename(renames, old, source.name)
    if new != old:
        check_tag_name(new)
    return new


def is_selected(tags: tuple[str, ...], ref_name: str | None) -> bool:
    """Return True if an entry with this ref name is to be copied."""
    return not tags or (ref_name is not None and find_pattern(tags, ref_name) is not None)


def check_patterns(
    store: CacheStore, tags: tuple[str, ...], known_names: Sequence[str | None]
) -> None:
    """Raise NotFound if a name or pattern of tags to copy matches none of these names."""
    for tag in tags:
        if not any(name is not None and find_pattern((tag,), name) for name in known_names):
            problem = f"a tag that matches {tag!r}" if is_pattern(tag) else f"the tag {tag!r}"
            raise unknown_tag_error(store, problem, tag, known_names)


def _by_name(source: MergeCache, tags: tuple[str, ...]) -> dict[str | int, list[int]]:
    """Return the positions of the entries by ref name; an entry without one by its position."""
    positions: dict[str | int, list[int]] = {}
    for position, entry in enumerate(source.entries):
        if not entry.is_subject and is_selected(tags, entry.ref_name):
            name = position if entry.ref_name is None else entry.ref_name
            positions.setdefault(name, []).append(position)
    return positions


def _renamed(entry: IndexEntry, new: str | None) -> IndexEntry:
    """Return the entry with its new ref name, which also replaces its image name."""
    if new == entry.ref_name:
        return entry
    return entry._replace(ref_name=new, image_name=None)


def _digest_of(entry: IndexEntry) -> str:
    return str(entry.descriptor.digest) if entry.descriptor else ""


_Key = tuple[Literal["tag", "image", "entry"], str]


def _claims(entries: Iterable[IndexEntry]) -> dict[_Key, frozenset[str]]:
    """Return the digests of each ref name and image name; an entry without a tag by its digest."""
    claims: dict[_Key, frozenset[str]] = {}
    for entry in entries:
        digest = _digest_of(entry)
        tag = ("tag", entry.ref_name) if entry.ref_name is not None else ("entry", digest)
        image = () if entry.image_name is None else (("image", entry.image_name),)
        for key in (tag, *image):
            claims[key] = claims.get(key, frozenset()) | {digest}
    return claims


class _NameConflict(NamedTuple):
    """A name with different digests in two caches. is_own: The first cache is the target."""

    key: _Key
    first: tuple[str, frozenset[str]]
    second: tuple[str, frozenset[str]]
    is_own: bool

    def __str__(self) -> str:
        sides = (f"{_shown(digests)} in {path}" for path, digests in (self.first, self.second))
        return f"{self.key[0]} {self.key[1]!r} is {' and '.join(sides)}"


def _shown(digests: Iterable[str]) -> str:
    return ", ".join(sorted(digests)) or "unreadable"


class _KnownNames:
    """The digests of each name in the target and in the copied entries."""

    def __init__(self, target: MergeCache, *, replaces: bool) -> None:
        own = _claims(entry for entry in target.entries if not entry.is_subject)
        self._own = {key: (target.path, digests) for key, digests in own.items()}
        self._copied: dict[_Key, tuple[str, frozenset[str]]] = {}
        self._replaces = replaces
        self.conflicts: list[_NameConflict] = []

    def add(self, path: str, entries: Sequence[IndexEntry]) -> tuple[State, tuple[str, ...]]:
        """Return the state of a group, and the digests that its names had before."""
        state: State = "unchanged"
        previous: set[str] = set()
        for key, digests in _claims(entries).items():
            known = self._copied.get(key) or self._own.get(key)
            if known is None:
                state = "new" if state == "unchanged" else state
            elif known[1] != digests:
                state, is_own = "moved", key not in self._copied
                previous |= known[1] - digests
                if not (is_own and self._replaces):
                    self.conflicts.append(_NameConflict(key, known, (path, digests), is_own))
            self._copied.setdefault(key, (path, digests))
        return state, tuple(sorted(previous))


def _conflict_error(path: str, conflicts: Sequence[_NameConflict]) -> KitcacheError:
    also = [f"also: {conflict}" for conflict in conflicts[1 : 1 + _MAX_LISTED]]
    if len(conflicts) > 1 + _MAX_LISTED:
        also.append(f"and {len(conflicts) - 1 - _MAX_LISTED:,} more")
    hints = ["keep both, each by the name of its directory"]
    if all(conflict.is_own for conflict in conflicts):
        hints.append("let the tags of the target move")
    return KitcacheError(
        path,
        str(conflicts[0]),
        details=tuple(also),
        effect=NOTHING_CHANGED,
        hints=tuple(hints),
    )
