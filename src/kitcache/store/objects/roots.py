"""The roots of a cache in an object store, as an OCI index document.

Each root is an object: a cacheconfig without a manifest. Its bytes are kept in a temporary file,
and it is read again only if it has changed.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kitcache.oci.descriptor import REF_NAME, Descriptor
from kitcache.oci.digest import Digest, sha256_of
from kitcache.oci.document import (
    DocumentError,
    encode_plain,
    expect_list,
    expect_object,
    read_document,
)
from kitcache.oci.index import INDEX_TYPE, IndexEntry
from kitcache.oci.links import CACHECONFIG
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.ioerrors import io_error
from kitcache.store.objects.client import ObjectClient, ObjectInfo
from kitcache.store.objects.parallel import map_in_threads
from kitcache.store.values import STRUCTURAL_LIMIT_BYTES, Roots

_ATTEMPTS = 3
_PAUSE_S = 0.2
_FIELDS = ("layers", "records")


class RootObject(NamedTuple):
    """A root: its object, and the digest of its bytes.

    Attributes:
        digest: None if the object was not read.
        problem: Why its references are unknown, "" if they are known.
    """

    name: str
    info: ObjectInfo
    digest: Digest | None
    problem: str

    @property
    def entry_digest(self) -> Digest:
        """The digest in the root's entry of the index document."""
        return self.digest or _digest_of(self.name)


def _digest_of(name: str) -> Digest:
    """Return a digest that stands for a root whose bytes were not read."""
    return sha256_of(name.encode("utf-8", "surrogatepass"))


class RootReader:
    """Reads the roots of one cache. `close` deletes its file.

    Attributes:
        roots: The roots as they were read last, by name.
    """

    def __init__(self, client: ObjectClient, cache: ObjectCache) -> None:
        self._client = client
        self._cache = cache
        self._file = tempfile.TemporaryFile(prefix="kitcache-")  # noqa: SIM115 - see close
        self._documents: dict[Digest, tuple[int, int]] = {}
        self._stamp_lock = threading.Lock()
        self._listings_begun = self._stamp_number = 0
        self._stamp: Digest | None = None
        self.roots: dict[str, RootObject] = {}

    def list_objects(self) -> Iterator[tuple[str, ObjectInfo]]:
        """Yield the name and the object of each root, in the order of the prefixes.

        Each name is different: `manifests/other/main` and `other/main` would both be other/main.
        """
        names: set[str] = set()
        for number, prefix in enumerate(self._cache.manifests_keys):
            for page in self._client.list_pages(prefix):
                for info in page.objects:
                    name = info.key[len(prefix if number == 0 else self._cache.prefix) :]
                    # A console creates such an object for a "directory".
                    if not name or (name.endswith("/") and not info.size):
                        continue
                    while name in names:
                        name = f"/{name}"
                    names.add(name)
                    yield name, info

    def key_of(self, name: str) -> str:
        """Return the key of a root. A new root has the first prefix."""
        known = self.roots.get(name)
        return known.info.key if known else self._cache.manifests_keys[0] + name

    def stamp(self) -> Digest | None:
        """Return a value that changes if a root does, None without roots. Lists the roots.

        Threads that ask at the same time share a listing that begins after they have asked.
        """
        asked = self._listings_begun
        with self._stamp_lock:
            if self._stamp_number <= asked:
                self._listings_begun += 1
                lines = [repr(info) for _, info in self.list_objects()]
                text = "\n".join(lines).encode("utf-8", "surrogatepass")
                self._stamp = sha256_of(text) if lines else None
                self._stamp_number = self._listings_begun
            return self._stamp

    def read(self, pause: Callable[[float], None]) -> Roots:
        """List the roots, and read those that have changed."""
        for attempt in range(1, _ATTEMPTS + 1):
            listed = dict(self.list_objects())
            roots = self._read_all(listed, pause)
            if all(root.digest for root in roots.values()) or attempt == _ATTEMPTS:
                break
            pause(_PAUSE_S)
        self.roots = roots
        return self._make_roots()

    def _read_all(
        self, listed: Mapping[str, ObjectInfo], pause: Callable[[float], None]
    ) -> dict[str, RootObject]:
        roots = {
            name: known
            for name, info in listed.items()
            if (known := self.roots.get(name)) and known.info == info and known.digest is not None
        }
        changed = [item for item in listed.items() if item[0] not in roots]
        for (name, info), answer in map_in_threads(self._fetch, changed, lambda: pause(0.0)):
            roots[name] = self._make_root(name, info, answer)
        return {name: roots[name] for name in listed}

    def _fetch(self, root: tuple[str, ObjectInfo]) -> tuple[bytes, ObjectInfo] | None:
        _, info = root
        if info.size > STRUCTURAL_LIMIT_BYTES:
            return b"", info
        return self._client.read(info.key, STRUCTURAL_LIMIT_BYTES + 1)

    def _make_root(
        self, name: str, info: ObjectInfo, answer: tuple[bytes, ObjectInfo] | None
    ) -> RootObject:
        if answer is None:
            return RootObject(name, info, None, "is in a listing and is missing")
        data, actual = answer
        if actual.etag != info.etag:
            info = actual
        if info.size > STRUCTURAL_LIMIT_BYTES:
            limit = f"{info.size:,} of at most {STRUCTURAL_LIMIT_BYTES:,} bytes"
            return RootObject(name, info, _digest_of(name), f"is too large ({limit})")
        if len(data) != info.size:
            problem = f"was read incompletely ({len(data):,} of {info.size:,} bytes)"
            return RootObject(name, info, None, problem)
        return RootObject(name, info, self.add(data), _problem_of(data))

    def add(self, data: bytes) -> Digest:
        """Keep the bytes of a document. Return their digest."""
        digest = sha256_of(data)
        if digest not in self._documents:
            try:
                self._documents[digest] = (self._file.seek(0, 2), len(data))
                self._file.write(data)
            except OSError as error:
                problem = "cannot write a root to a temporary file"
                raise io_error(self._client.address, problem, error) from None
        return digest

    def document(self, digest: Digest) -> bytes | None:
        """Return the bytes of a root, or of a document that was added; None if unknown."""
        if digest not in self._documents:
            return None
        offset, size = self._documents[digest]
        self._file.seek(offset)
        return self._file.read(size)

    @property
    def digests(self) -> frozenset[Digest]:
        """The digests of all roots."""
        return frozenset(root.digest for root in self.roots.values() if root.digest)

    def find(self, digest: Digest) -> ObjectInfo | None:
        """Return the newest object with the bytes of a root, None if no root has them."""
        infos = [root.info for root in self.roots.values() if root.digest == digest]
        return max(infos, key=lambda info: info.modified_ns, default=None)

    def _make_roots(self) -> Roots:
        roots = self.roots.values()
        items, entries = [], []
        for root in roots:
            descriptor = Descriptor(CACHECONFIG, root.entry_digest, root.info.size, root.name)
            items.append(_entry(descriptor))
            known = None if root.problem else descriptor
            entries.append(IndexEntry(root.name, known, root.problem and f"it {root.problem}"))
        document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": items}
        data = encode_plain(document) if items else None
        changed_ns = max((root.info.modified_ns for root in roots), default=0)
        return Roots(data, sha256_of(data or b""), changed_ns, tuple(entries))

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


def _entry(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "annotations": {REF_NAME: descriptor.ref_name},
    }


def _problem_of(data: bytes) -> str:
    """Return why a document is not a cacheconfig, "" if it is one. `{}` is an empty one."""
    try:
        document = expect_object(read_document(data), "the document")
        document.check_spelling(_FIELDS)
        for field in _FIELDS:
            expect_list(document.get_only(field), f"'{field}'")
    except DocumentError as error:
        return f"is not a cacheconfig: {error.reason}"
    if document and not any(field in document for field in _FIELDS):
        return "is not a cacheconfig: it has neither layers nor records"
    return ""
