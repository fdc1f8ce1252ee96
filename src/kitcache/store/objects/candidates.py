"""The blobs that a sweep may delete: their listing, the pages of it, and the objects of a name."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from kitcache.oci.digest import Digest
from kitcache.store.objects.client import ObjectClient, Target
from kitcache.store.objects.listing import ALGORITHM, BlobFacts, ListedPage, Listing, look_again
from kitcache.store.objects.ranges import list_ranges
from kitcache.store.values import Batch, BlobStat, StoredTimes

_MAX_OPEN_PAGES = 32
"""Each thread of a sweep has at most one page, so older pages are done."""


class Candidates:
    """The listing of one cache, and which of its pages a sweep has looked at again.

    Attributes:
        is_kept: True during a sweep: the listing is kept, and pages that were looked at are not
            yielded again.
        found: The blobs that roots reached when the listing was taken in a sweep; else empty.
    """

    def __init__(self, client: ObjectClient, blobs_key: str) -> None:
        self._client = client
        self._blobs_key = blobs_key
        self._listing: Listing | None = None
        self._open_pages: list[ListedPage] = []
        self._done: set[int] = set()
        self._foreign_bytes: dict[str, int] = {}
        self.is_kept = False

    @property
    def is_listed(self) -> bool:
        """True if there is a listing."""
        return self._listing is not None

    @property
    def found(self) -> Mapping[Digest, BlobStat]:
        """The wanted blobs of the listing; see Listing.found."""
        return self._listing.found if self._listing is not None else {}

    def drop(self) -> None:
        """Delete the listing."""
        if self._listing is not None:
            self._listing.close()
        self._listing = None
        self._open_pages.clear()
        self._done.clear()

    def take(
        self, wanted: Collection[Digest], check: Callable[[], None]
    ) -> Iterator[tuple[Digest, BlobStat]]:
        """List all blobs anew. Yield those that are wanted; see Listing.take."""
        self.drop()
        abilities = self._client.abilities()
        pages = list_ranges(self._client, self._blobs_key, versions=abilities.has_versions)
        listing = Listing(
            self._client.address,
            self._client.delete_batch_size,
            has_targets=abilities.deletes_exactly,
            keeps_found=self.is_kept,
        )
        try:
            yield from listing.take(pages, self._blobs_key, wanted, check)
        except BaseException:
            listing.close()
            raise
        self._listing = listing

    def scan(self, check: Callable[[], None]) -> Iterator[Batch]:
        """Yield all blobs of the listing; take one if there is none."""
        if self._listing is None:
            for _ in self.take(frozenset(), check):
                pass
        self._open_pages.clear()
        for page in self._listing.pages(self._done) if self._listing is not None else ():
            sizes = {f"{self._blobs_key}{key}": size for key, size in page.foreign}
            self._foreign_bytes |= sizes
            if self.is_kept and page.names:
                self._open_pages = [*self._open_pages[1 - _MAX_OPEN_PAGES :], page]
            yield Batch(ALGORITHM, page.names, list(sizes), page.facts)

    def foreign_bytes(self, path: str) -> int:
        """Return the size of a foreign key of the scan."""
        return self._foreign_bytes.get(path, 0)

    def look_again(self, names: Sequence[str]) -> Sequence[BlobFacts]:
        """Return the facts of names of one page, as they are now.

        Where a deletion by ETag is exact, the facts of the listing are enough.
        """
        first = names[0][:64]
        near = (p for p in self._open_pages if p.names[0][:64] <= first <= p.names[-1][:64])
        # The versions of one blob can be on two pages.
        page = next((p for p in near if names[0] in p.names), None)
        if page is not None:
            self._done.add(page.number)
            if self._is_exact_by_etag:
                facts = dict(zip(page.names, page.facts, strict=True))
                return [facts[name] for name in names]
        versions = self._client.abilities().has_versions
        return look_again(self._client, self._blobs_key, names, versions=versions)

    @property
    def _is_exact_by_etag(self) -> bool:
        abilities = self._client.abilities()
        # S3 deletes either by version or by ETag.
        has_only_versions = abilities.has_versions and abilities.renews
        return abilities.deletes_exactly and not has_only_versions

    def targets(self, names: Sequence[str], stats: Sequence[StoredTimes]) -> dict[Target, str]:
        """Return the objects to delete, each with its name."""
        by_etag = self._is_exact_by_etag
        return {
            Target(
                f"{self._blobs_key}{ALGORITHM}:{name[:64]}", version, etag if by_etag else ""
            ): name
            for name, facts in zip(names, stats, strict=True)
            if isinstance(facts, BlobFacts)
            for version, etag in facts.targets
        }
