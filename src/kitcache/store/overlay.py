"""A layout as it would be without some of its blobs, and with what other copies have of them."""

from collections.abc import Collection, Sequence
from types import TracebackType

from kitcache.errors import Damaged
from kitcache.oci.digest import Digest
from kitcache.store.layout import BlobStat, Layout


class Overlay(Layout):
    """Reads like a layout, and changes nothing. It outlives neither the layout nor the sources.

    hidden: blobs of the layout that count as missing. sources: layouts whose directories have been
    opened; what is no regular file in the layout is looked for there, in order. What a source has
    is believed as far as a layout's own blobs are: by length, unless it is read, until `refute`
    says otherwise.
    """

    def __init__(
        self, layout: Layout, hidden: Collection[Digest], sources: Sequence[Layout] = ()
    ) -> None:
        super().__init__(layout.path, layout.root_fd)
        self.blobs, self.blobs_fd = layout.blobs, layout.blobs_fd
        self.ingest_fd = layout.ingest_fd
        self._layout = layout
        self._hidden = frozenset(hidden)
        self._sources = tuple(sources)
        self._refuted: set[tuple[int, Digest]] = set()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing here is its own."""

    def open_directories(self) -> None:
        """They are those of the layout."""

    def offer_of(self, digest: Digest) -> int | None:
        """The number of the source that would give this blob; None for one that need not come."""
        if self._is_here(digest):
            return None
        return next(
            (
                number
                for number, source in enumerate(self._sources)
                if (number, digest) not in self._refuted and _has(source, digest)
            ),
            None,
        )

    def refute(self, number: int, digest: Digest) -> None:
        """That source has other bytes under this name."""
        self._refuted.add((number, digest))

    def stat_blob(self, digest: Digest) -> BlobStat | None:
        number = self.offer_of(digest)
        if number is not None:
            return self._sources[number].stat_blob(digest)
        return None if digest in self._hidden else self._layout.stat_blob(digest)

    def open_blob(self, digest: Digest) -> int | None:
        number = self.offer_of(digest)
        if number is not None:
            return self._sources[number].open_blob(digest)
        return self._layout.open_blob(digest) if self._is_here(digest) else None

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
        return self._layout.read_blob(digest, size, unless_binary=unless_binary)

    def _is_here(self, digest: Digest) -> bool:
        return digest not in self._hidden and _has(self._layout, digest)


def _has(layout: Layout, digest: Digest) -> bool:
    found = layout.stat_blob(digest)
    return found is not None and found.kind == "file"
