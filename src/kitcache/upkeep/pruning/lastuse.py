"""When each tag was last used, and what it reaches: the facts that a policy decides by."""

from collections.abc import Mapping
from functools import partial

from kitcache.gc.lastuse import Use, last_use, made_uses, recorded_uses
from kitcache.gc.ls import read_object, result_times
from kitcache.gc.reach import reach
from kitcache.gc.values import NodeKey, Root, Survey, key_of
from kitcache.oci.descriptor import Descriptor
from kitcache.store.directory import DirectoryStore
from kitcache.store.state import TagUse, read_tag_uses
from kitcache.upkeep.pruning.decisions import Blobs, TagFacts


def read_uses(layout: DirectoryStore, survey: Survey, now_ns: int) -> tuple[TagFacts, ...]:
    """The facts of each tag, in the order of index.json; each entry without a tag has its own.

    Last used: the newest of what is noted of its exports and imports, and of the age that `ls`
    shows. The survey is without damage. Raises Unreadable, and KitcacheError for other I/O errors:
    no decision rests on a time that was guessed.
    """
    notes = read_tag_uses(layout)
    entries: dict[str | int, list[Root]] = {}
    for number, root in enumerate(survey.roots):
        entries.setdefault(number if root.ref_name is None else root.ref_name, []).append(root)
    reached = _Reached(layout, survey, now_ns)
    return tuple(_facts(reached, roots, notes, now_ns) for roots in entries.values())


class _Reached:
    """What a root reaches, and when it was made; of one that many entries name found out once."""

    def __init__(self, layout: DirectoryStore, survey: Survey, now_ns: int) -> None:
        self._layout = layout
        self._survey = survey
        self._now_ns = now_ns
        self._known: dict[NodeKey, tuple[Blobs, list[Use]]] = {}

    def below(self, descriptor: Descriptor) -> tuple[Blobs, list[Use]]:
        key = key_of(descriptor)
        if key not in self._known:
            found = reach(self._survey, descriptor)
            blobs = frozenset(digest for digest in found if digest in self._survey.live)
            if any(link.role == "subject" for link in found.values()):
                found = reach(self._survey, descriptor, with_subjects=False)
            made = result_times(partial(read_object, self._layout), found)
            uses = list(made_uses(self._layout, descriptor.digest, made, self._now_ns))
            self._known[key] = blobs, uses
        return self._known[key]


def _facts(
    reached: _Reached, roots: list[Root], notes: Mapping[str, TagUse], now_ns: int
) -> TagFacts:
    ref_name = roots[0].ref_name
    uses = [] if ref_name is None else list(recorded_uses(notes.get(ref_name, TagUse())))
    blobs: Blobs = frozenset()
    for root in roots:
        if root.descriptor is not None:
            more, made = reached.below(root.descriptor)
            # The very same set, where it is the only one: a thousand tags may share it.
            blobs = blobs | more if blobs else more
            uses += made
    used_ns, used_from = last_use(uses, now_ns)
    return TagFacts(
        ref_name=ref_name,
        digest=next((root.descriptor.digest for root in roots if root.descriptor), None),
        positions=tuple(root.position for root in roots),
        used_ns=used_ns,
        used_from=used_from,
        blobs=blobs,
    )
