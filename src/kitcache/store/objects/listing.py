"""One listing of the blobs of a cache, kept in a temporary file.

The listing is taken once per command. Memory grows with the blobs that roots reach. The names and
facts of all blobs are in the file, which a sweep reads page by page.
"""

import marshal
import tempfile
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import attrgetter
from typing import NamedTuple

from kitcache.oci.digest import Digest, are_blob_names, is_blob_name
from kitcache.store.ioerrors import io_error
from kitcache.store.objects.client import ObjectClient, ObjectInfo
from kitcache.store.values import BlobStat

ALGORITHM = "sha256"
"""BuildKit names blobs by no other algorithm. Any other key is foreign."""
_HEX_DIGITS = 64
_PLAIN = (("", ""),)
_NEVER_NS = 2**63 - 1


class BlobFacts(NamedTuple):
    """The facts of a name in a listing, and the versions to delete with it.

    Attributes:
        targets: The version and the ETag of each object to delete.
        is_hidden: A delete marker hides the blob, so readers do not get it.
    """

    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_nlink: int
    targets: tuple[tuple[str, str], ...]
    is_hidden: bool = False


MISSING = BlobFacts(0, 0, _NEVER_NS, 0, ())


class ListedPage(NamedTuple):
    """Some blobs that follow each other in the order of their keys.

    Attributes:
        foreign: Keys after the blobs' prefix that are not a digest, with their sizes.
    """

    number: int
    names: list[str]
    facts: list[BlobFacts]
    foreign: list[tuple[str, int]]


class Listing:
    """The listing of one cache. `close` deletes its file.

    Args:
        page_names: How many names a page has at most.
        has_targets: Keep the version and the ETag of each object.
        keeps_found: Keep the facts of the wanted blobs.

    Attributes:
        found: The wanted blobs that exist, if they are kept.
    """

    def __init__(
        self, address: str, page_names: int, *, has_targets: bool, keeps_found: bool
    ) -> None:
        self._address = address
        self._page_names = page_names
        self._has_targets = has_targets
        self._keeps_found = keeps_found
        self._file = tempfile.TemporaryFile(prefix="kitcache-")  # noqa: SIM115 - see close
        self._count = 0
        self.found: dict[Digest, BlobStat] = {}

    def take(
        self,
        pages: Iterable[list[ObjectInfo]],
        blobs_key: str,
        wanted: Collection[Digest],
        check: Callable[[], None],
    ) -> Iterator[tuple[Digest, BlobStat]]:
        """Write all names to the file. Yield the blobs that are wanted.

        Args:
            pages: Of a listing below blobs_key.
            check: Called after each page; it may raise to end the listing.
        """
        for objects in pages:
            check()
            names, facts, foreign = read_page(objects, blobs_key)
            for number, name in enumerate(names):
                # The caller no longer wants a blob after it was yielded.
                if (digest := Digest(ALGORITHM, name[:_HEX_DIGITS])) not in wanted:
                    continue
                fact = facts[number]
                if fact.is_hidden or len(name) > _HEX_DIGITS:
                    # Without a current version, the blob is missing. A delete marker over a blob
                    # that a root names may be a mistake, so the older versions are kept.
                    names[number], facts[number] = "", MISSING
                    continue
                stat = BlobStat(fact.st_size, fact.st_mtime_ns, fact.st_mtime_ns, "file", 1)
                if self._keeps_found:
                    self.found[digest] = stat
                yield digest, stat
            self._write(names, facts, foreign)

    def _write(
        self, names: list[str], facts: list[BlobFacts], foreign: list[tuple[str, int]]
    ) -> None:
        try:
            for start in range(0, max(len(names), 1), self._page_names):
                part = facts[start : start + self._page_names]
                record = (
                    "\n".join(names[start : start + self._page_names]),
                    array("q", [fact.st_size for fact in part]).tobytes(),
                    array("q", [fact.st_mtime_ns for fact in part]).tobytes(),
                    [fact.targets for fact in part] if self._has_targets else None,
                    foreign,
                )
                marshal.dump(record, self._file)
                self._count, foreign = self._count + 1, []
        except OSError as error:
            problem = "cannot write the listing to a temporary file"
            raise io_error(self._address, problem, error) from None

    def pages(self, skip: Collection[int]) -> Iterator[ListedPage]:
        """Yield the pages as they were listed, but not those with these numbers."""
        self._file.seek(0)
        for number in range(self._count):
            text, sizes, times, targets, foreign = marshal.load(self._file)  # noqa: S302 - its own
            if number in skip:
                continue
            rows = zip(
                text.split("\n") if text else (),
                array("q", sizes),
                array("q", times),
                targets or repeat(_PLAIN),
                strict=False,
            )
            named = [
                (name, BlobFacts(size, mtime_ns, mtime_ns, 1, target))
                for name, size, mtime_ns, target in rows
                if name
            ]
            yield ListedPage(number, [n for n, _ in named], [f for _, f in named], foreign)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


def read_page(
    objects: Sequence[ObjectInfo], blobs_key: str
) -> tuple[list[str], list[BlobFacts], list[tuple[str, int]]]:
    """Return the names in a page, their facts, and the foreign keys with their sizes.

    A superseded version has the name `<hex>@<version>` and no age: no reader gets it, so it can be
    deleted at once. If a delete marker hides a blob, its versions are not superseded: they are
    deleted together, by the age of the marker.
    """
    start = len(blobs_key) + len(ALGORITHM) + 1
    prefix = f"{blobs_key}{ALGORITHM}:"
    names = [info.key[start:] for info in objects]
    if (
        are_blob_names(ALGORITHM, names)
        and not any(info.version for info in objects)
        and all(info.key.startswith(prefix) for info in objects)
    ):
        facts = [
            BlobFacts(info.size, info.modified_ns, info.modified_ns, 1, (("", info.etag),))
            for info in objects
        ]
        return names, facts, []
    pairs = list(_read_versions(objects, prefix))
    foreign = [
        (key.removeprefix(blobs_key), fact.st_size) for key, fact in pairs if not fact.targets
    ]
    named = [(name, fact) for name, fact in pairs if fact.targets]
    return [name for name, _ in named], [fact for _, fact in named], foreign


def _read_versions(objects: Iterable[ObjectInfo], prefix: str) -> Iterator[tuple[str, BlobFacts]]:
    """Yield the names of versions with their facts; a foreign key has no targets."""
    for key, versions in groupby(objects, attrgetter("key")):
        digits = key[len(prefix) :]
        held = list(versions)
        if not key.startswith(prefix) or not is_blob_name(ALGORITHM, digits):
            yield key, BlobFacts(sum(info.size for info in held), 0, 0, 1, ())
            continue
        if any(info.is_current and info.is_marker for info in held):
            targets = tuple((info.version, "") for info in reversed(held))
            newest_ns = max(info.modified_ns for info in held)
            size = sum(info.size for info in held)
            yield digits, BlobFacts(size, newest_ns, newest_ns, 1, targets, is_hidden=True)
            continue
        for info in held:
            target = ((info.version, info.etag),)
            if info.is_current:
                yield digits, BlobFacts(info.size, info.modified_ns, info.modified_ns, 1, target)
            else:
                yield f"{digits}@{info.version}", BlobFacts(info.size, 0, 0, 1, target)


def look_again(
    client: ObjectClient, blobs_key: str, names: Sequence[str], *, versions: bool
) -> list[BlobFacts]:
    """Return the facts of consecutive names, as they are now; MISSING for a missing blob."""
    prefix = f"{blobs_key}{ALGORITHM}:"
    first, last = f"{prefix}{names[0][:64]}", f"{prefix}{names[-1][:64]}"
    wanted, facts = frozenset(names), dict[str, BlobFacts]()
    # A shorter key sorts just before the first one.
    for page in client.list_pages(prefix, after=first[:-1], versions=versions):
        listed, new, _ = read_page(page.objects, blobs_key)
        facts.update(pair for pair in zip(listed, new, strict=True) if pair[0] in wanted)
        if page.is_last or (page.objects and page.objects[-1].key >= last):
            break
    return [facts.get(name, MISSING) for name in names]
