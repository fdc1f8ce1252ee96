"""(target, sources, renames) → which entries come, under which names. Pure.

All entries of one ref name go together. A name means one thing: where two caches disagree about
what it stands for, nothing is decided for the user.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.oci.index import CopiedEntry, IndexEntry
from kitcache.options.renames import Rename, rename
from kitcache.upkeep.naming.tagnames import check_tag_name
from kitcache.upkeep.results import MergedTag

State = Literal["new", "moved", "unchanged"]

_ALSO = 5


class MergeCache(NamedTuple):
    """A cache of a merge: its path, the name of its directory, the entries of its index.json."""

    path: str
    name: str
    entries: tuple[IndexEntry, ...]


class EntryGroup(NamedTuple):
    """Entries of one source that go together. source: which; positions: in its index.json."""

    source: int
    positions: tuple[int, ...]
    tag: MergedTag

    @property
    def copies(self) -> tuple[CopiedEntry, ...]:
        """What is to be put into the target's index.json for them: nothing where they are there."""
        if self.tag.state == "unchanged":
            return ()
        new = None if self.tag.target_name == self.tag.source_name else self.tag.target_name
        return tuple(CopiedEntry(self.source, position, new) for position in self.positions)


def decide(
    target: MergeCache, sources: Sequence[MergeCache], renames: Sequence[Rename], *, replaces: bool
) -> tuple[EntryGroup, ...]:
    """What becomes of each tag of the sources, and of each entry without one; in their order.

    replaces: a tag of the target that stands for something else moves. Raises KitcacheError where
    two caches disagree about a name, unless it is one of the target's and moves.
    """
    ledger = _KnownNames(target, replaces=replaces)
    groups = []
    for n, source in enumerate(sources):
        for old, positions in _by_name(source).items():
            new = _new_name(renames, old, source) if isinstance(old, str) else None
            entries = [source.entries[position] for position in positions]
            named = [_renamed(entry, new) for entry in entries]
            state, moved_from = ledger.add(source.path, named)
            digests = tuple(dict.fromkeys(map(_digest_of, entries)))
            tag = MergedTag(source.path, entries[0].ref_name, new, digests, state, moved_from)
            groups.append(EntryGroup(n, tuple(positions), tag))
    if ledger.clashes:
        raise _clash_error(target.path, ledger.clashes)
    return tuple(groups)


def _new_name(renames: Sequence[Rename], old: str, source: MergeCache) -> str:
    new = rename(renames, old, source.name)
    if new != old:
        check_tag_name(new)
    return new


def _by_name(source: MergeCache) -> dict[str | int, list[int]]:
    """The positions of the entries by their ref name; of one without by its own position."""
    found: dict[str | int, list[int]] = {}
    for position, entry in enumerate(source.entries):
        if not entry.is_subject:
            name = position if entry.ref_name is None else entry.ref_name
            found.setdefault(name, []).append(position)
    return found


def _renamed(entry: IndexEntry, new: str | None) -> IndexEntry:
    """The entry as it will go by its names: a new one takes the image name's place too."""
    if new == entry.ref_name:
        return entry
    return entry._replace(ref_name=new, image_name=None)


def _digest_of(entry: IndexEntry) -> str:
    return str(entry.descriptor.digest) if entry.descriptor else ""


_Key = tuple[Literal["tag", "image", "entry"], str]


def _claims(entries: Iterable[IndexEntry]) -> dict[_Key, frozenset[str]]:
    """What these go by, ref names, image names, else digests; each with all that it stands for."""
    found: dict[_Key, frozenset[str]] = {}
    for entry in entries:
        digest = _digest_of(entry)
        tag = ("tag", entry.ref_name) if entry.ref_name is not None else ("entry", digest)
        image = () if entry.image_name is None else (("image", entry.image_name),)
        for key in (tag, *image):
            found[key] = found.get(key, frozenset()) | {digest}
    return found


class _NameConflict(NamedTuple):
    """Two caches that disagree about a name. is_own: the first one is the target."""

    key: _Key
    first: tuple[str, frozenset[str]]
    second: tuple[str, frozenset[str]]
    is_own: bool

    def __str__(self) -> str:
        sides = (f"{_shown(digests)} in {path}" for path, digests in (self.first, self.second))
        return f"{self.key[0]} {self.key[1]!r} is {' and '.join(sides)}"


def _shown(digests: Iterable[str]) -> str:
    return ", ".join(sorted(digests)) or "nothing that can be read"


class _KnownNames:
    """What each name stands for: in the target, then in what comes. clashes: what cannot be."""

    def __init__(self, target: MergeCache, *, replaces: bool) -> None:
        own = _claims(entry for entry in target.entries if not entry.is_subject)
        self._own = {key: (target.path, digests) for key, digests in own.items()}
        self._come: dict[_Key, tuple[str, frozenset[str]]] = {}
        self._replaces = replaces
        self.clashes: list[_NameConflict] = []

    def add(self, path: str, entries: Sequence[IndexEntry]) -> tuple[State, tuple[str, ...]]:
        """How entries that go together come, and the digests that their names stood for before."""
        state: State = "unchanged"
        moved_from: set[str] = set()
        for key, digests in _claims(entries).items():
            known = self._come.get(key) or self._own.get(key)
            if known is None:
                state = "new" if state == "unchanged" else state
            elif known[1] != digests:
                state, is_own = "moved", key not in self._come
                moved_from |= known[1] - digests
                if not (is_own and self._replaces):
                    self.clashes.append(_NameConflict(key, known, (path, digests), is_own))
            self._come.setdefault(key, (path, digests))
        return state, tuple(sorted(moved_from))


def _clash_error(path: str, clashes: Sequence[_NameConflict]) -> KitcacheError:
    also = [f"also: {clash}" for clash in clashes[1 : 1 + _ALSO]]
    if len(clashes) > 1 + _ALSO:
        also.append(f"and {len(clashes) - 1 - _ALSO:,} more")
    steps = ["--rename '{dir}-{tag}' keeps both, each by the name of its directory"]
    if all(clash.is_own for clash in clashes):
        steps.append(f"--replace lets the tags of {path} move")
    return KitcacheError(
        path,
        str(clashes[0]),
        details=tuple(also),
        effect=NOTHING_CHANGED,
        hints=tuple(steps),
    )
