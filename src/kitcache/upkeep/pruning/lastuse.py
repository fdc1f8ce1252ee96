"""The facts that a policy needs: the last use of each tag, and the blobs that it reaches."""

from functools import partial

from kitcache.gc.lastuse import Use, last_use, made_uses, recorded_uses
from kitcache.gc.ls import read_object, result_times
from kitcache.gc.reach import reach
from kitcache.gc.values import NodeKey, Root, Survey, key_of
from kitcache.oci.descriptor import Descriptor
from kitcache.store.protocol import CacheStore
from kitcache.store.values import TagUse
from kitcache.upkeep.pruning.decisions import Blobs, TagFacts


def read_uses(store: CacheStore, survey: Survey, now_ns: int) -> tuple[TagFacts, ...]:
    """Return the facts of each tag in the order of index.json, and of each entry without a tag.

    The last use is the newest of the recorded exports and imports and of the age that `ls` shows.

    Args:
        survey: Of this store, without damage.

    Raises:
        Unreadable: A blob cannot be read, so the last use of a tag is unknown.
        KitcacheError: Another I/O error.
    """
    records = store.read_tag_uses()
    entries: dict[str | int, list[Root]] = {}
    for number, root in enumerate(survey.roots):
        entries.setdefault(number if root.ref_name is None else root.ref_name, []).append(root)
    known: dict[NodeKey, tuple[Blobs, list[Use]]] = {}

    def facts_of(roots: list[Root]) -> TagFacts:
        ref_name = roots[0].ref_name
        record = TagUse() if ref_name is None else records.get(ref_name, TagUse())
        uses = list(recorded_uses(record))
        blobs: Blobs = frozenset()
        for descriptor in (root.descriptor for root in roots if root.descriptor is not None):
            key = key_of(descriptor)
            if key not in known:
                known[key] = _read_root(store, survey, descriptor, now_ns)
            own, made = known[key]
            # A thousand tags may have equal sets: share one object to save memory.
            blobs = blobs | own if blobs else own
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

    return tuple(map(facts_of, entries.values()))


def _read_root(
    store: CacheStore, survey: Survey, descriptor: Descriptor, now_ns: int
) -> tuple[Blobs, list[Use]]:
    """Return the existing blobs that a root reaches, and the times its results were created."""
    links = reach(survey, descriptor)
    blobs = frozenset(digest for digest in links if digest in survey.live)
    if any(link.role == "subject" for link in links.values()):
        links = reach(survey, descriptor, with_subjects=False)
    created = result_times(partial(read_object, store), links)
    return blobs, list(made_uses(store, descriptor.digest, created, now_ns))
