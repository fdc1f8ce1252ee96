"""The leaves that a survey has to look up, in little memory: a cache can have a million.

A leaf is a blob that references no other blob. The survey asks the store for all leaves at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from kitcache.gc.values import Root
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link


class LeafBatch(NamedTuple):
    """Leaves that are not marked yet.

    Attributes:
        owners: Roots, each with the number of the first digest that it was the first to name.
        others: Further links to marked or added leaves, of another size or media type.
    """

    digests: list[Digest]
    owners: list[tuple[int, Root]]
    others: list[tuple[Link, Root]]

    def unmarked(self, links: Mapping[Digest, Link], present: Mapping[Digest, int]) -> "_Unmarked":
        """Return the digests that are not present yet. links: Of all leaves."""
        return _Unmarked(self.digests, links, present)

    def owned(self) -> Iterator[tuple[Digest, Root]]:
        """Yield each digest with the first root that names it."""
        ends = [start for start, _ in self.owners[1:]] + [len(self.digests)]
        for (start, root), end in zip(self.owners, ends, strict=bool(self.owners)):
            for number in range(start, end):
                yield self.digests[number], root


class Leaves:
    """The leaves that were named. A million take less memory than as visits.

    Attributes:
        links: The first link to each.
    """

    def __init__(self, present: Mapping[Digest, int]) -> None:
        self._present = present
        self._other_links: set[Link] = set()
        self._batch = LeafBatch([], [], [])
        self.links: dict[Digest, Link] = {}

    def add(self, link: Link, root: Root) -> bool:
        """Add a leaf. Return True if no other link to it was added before."""
        digest, count = link.descriptor.digest, len(self.links)
        known = self.links.setdefault(digest, link)
        is_new = len(self.links) > count
        if is_new and digest not in self._present:
            batch = self._batch
            if not batch.owners or batch.owners[-1][1] is not root:
                batch.owners.append((len(batch.digests), root))
            batch.digests.append(digest)
        elif (is_new or known != link) and link not in self._other_links:
            self._other_links.add(link)
            self._batch.others.append((link, root))
        return is_new

    def take_batch(self) -> LeafBatch:
        """Return the leaves that were added since the last call."""
        batch, self._batch = self._batch, LeafBatch([], [], [])
        return batch


class _Unmarked(AbstractSet[Digest]):
    """The digests of a batch that are not present yet, as a set without memory of its own."""

    def __init__(
        self,
        digests: Sequence[Digest],
        links: Mapping[Digest, Link],
        present: Mapping[Digest, int],
    ) -> None:
        self._digests, self._links, self._present = digests, links, present

    def __contains__(self, digest: object) -> bool:
        return digest in self._links and digest not in self._present

    def __iter__(self) -> Iterator[Digest]:
        return (digest for digest in self._digests if digest not in self._present)

    def __len__(self) -> int:
        return sum(1 for _ in self)
