"""The check of blobs: a directory's are hashed, an object store's are listed or hashed."""

from collections.abc import Collection

from kitcache.gc.control import Control
from kitcache.oci.digest import Digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.protocol import EditableStore
from kitcache.upkeep.health.hash import HashResult, hash_all, hash_some
from kitcache.upkeep.results import BadBlob


class BlobCheck:
    """Checks blobs: those of a directory by their bytes, those of an object store as asked.

    Attributes:
        reads: The bytes of blobs are read.
    """

    def __init__(self, store: EditableStore, control: Control, *, read: bool) -> None:
        self._store = store
        self._control = control
        self.reads = read or isinstance(store, DirectoryStore)

    def all(self, before: HashResult | None, began_ns: int) -> HashResult:
        """Check all blobs. The arguments are those of hash_all."""
        if isinstance(self._store, DirectoryStore):
            return hash_all(self._store, self._control, before=before, began_ns=began_ns)
        from kitcache.upkeep.health.listed import check_listed  # noqa: PLC0415 - object stores

        return check_listed(self._store, self._control, read=self.reads)

    def some(self, digests: Collection[Digest]) -> tuple[BadBlob, ...]:
        """Return those of the blobs that are bad."""
        if isinstance(self._store, DirectoryStore):
            return hash_some(self._store, digests, self._control).bad_blobs
        if not self.reads:
            return ()
        from kitcache.upkeep.health.listed import read_some  # noqa: PLC0415

        return read_some(self._store, digests, self._control).bad_blobs
