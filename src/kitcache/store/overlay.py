"""A view of a store: some of its blobs are hidden, and blobs of other stores are added."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence

from kitcache.errors import Damaged
from kitcache.oci.digest import Digest
from kitcache.store.protocol import CacheStore
from kitcache.store.values import Batch, BlobStat, Roots, TagUse, WriterActivity


class Overlay:
    """A read-only store; see the module.

    Args:
        store: The caller has called its refresh(), and that of all sources.
        hidden: Blobs of the store that count as missing.
        sources: If the store has no regular file for a blob, the sources are searched in order.
            A source has a blob until read_blob or `refute` finds that its bytes do not match.

    """

    def __init__(
        self, store: CacheStore, hidden: Collection[Digest], sources: Sequence[CacheStore] = ()
    ) -> None:
        self.path = store.path
        self.blobs_are_leaves = store.blobs_are_leaves
        self.roots_name = store.roots_name
        self._store = store
        self._hidden = frozenset(hidden)
        self._sources = tuple(sources)
        self._refuted: set[tuple[int, Digest]] = set()

    def offer_of(self, digest: Digest) -> int | None:
        """Return the number of a blob's source; None if the store has it, or no source has."""
        if self._is_here(digest):
            return None
        return next(
            (
                number
                for number, source in enumerate(self._sources)
                if (number, digest) not in self._refuted and _has_file(source, digest)
            ),
            None,
        )

    def refute(self, number: int, digest: Digest) -> None:
        """Record that the blob of that source does not match its digest."""
        self._refuted.add((number, digest))

    def stat_blob(self, digest: Digest) -> BlobStat | None:
        number = self.offer_of(digest)
        if number is not None:
            return self._sources[number].stat_blob(digest)
        return None if digest in self._hidden else self._store.stat_blob(digest)

    def stat_blobs(self, digests: Collection[Digest]) -> Iterator[tuple[Digest, BlobStat]]:
        for digest in digests:
            stat = self.stat_blob(digest)
            if stat is not None:
                yield digest, stat

    def read_blob(
        self, digest: Digest, size: int | None, *, unless_binary: bool = False
    ) -> bytes | None:
        while (number := self.offer_of(digest)) is not None:
            try:
                return self._sources[number].read_blob(digest, size, unless_binary=unless_binary)
            except Damaged:
                self.refute(number, digest)
        if digest in self._hidden:
            raise Damaged(self.path, "is missing", kind="missing")
        return self._store.read_blob(digest, size, unless_binary=unless_binary)

    def refresh(self) -> None:
        """Do nothing: the store was refreshed before."""

    def now_ns(self) -> int:
        return self._store.now_ns()

    def roots_stamp(self) -> Hashable | None:
        return self._store.roots_stamp()

    def read_roots(self, pause: Callable[[float], None]) -> Roots:
        return self._store.read_roots(pause)

    def follow_symlink(self, digest: Digest) -> tuple[BlobStat | None, Digest | None]:
        return self._store.follow_symlink(digest)

    def scan_blobs(self) -> Iterator[Batch]:
        return self._store.scan_blobs()

    def writer_activity(self) -> WriterActivity:
        return self._store.writer_activity()

    def read_tag_uses(self) -> Mapping[str, TagUse]:
        return self._store.read_tag_uses()

    def read_layer_uses(self) -> Mapping[str, int]:
        return self._store.read_layer_uses()

    def _is_here(self, digest: Digest) -> bool:
        return digest not in self._hidden and _has_file(self._store, digest)


def _has_file(store: CacheStore, digest: Digest) -> bool:
    stat = store.stat_blob(digest)
    return stat is not None and stat.kind == "file"
