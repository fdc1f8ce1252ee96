"""The results of du, ls and why."""

from typing import Literal, NamedTuple

from kitcache.gc.values import DamagedPath, MissingBlob, Root, Tally, UsedFrom
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link
from kitcache.store.values import RequestCounts


class TagUsage(NamedTuple):
    """The share of one tag: blobs that only its entry reaches, and blobs that others reach too."""

    ref_name: str | None
    digest: Digest | None
    unique: Tally
    shared: Tally


class DiskUsage(NamedTuple):
    """The bytes of a cache by their use.

    With damage, `live` is incomplete, `reclaimable` counts blobs that may be live, and a reset
    would refuse.

    Attributes:
        reclaimable: The blobs that a reset would delete.
        ingest: All uploads.
        foreign: Files that neither a client nor kitcache creates.
        skipped_sweeps: How many sweeps in a row were skipped because other exports ran.
        quarantine: Files that repairs have quarantined.
        requests: The requests to an object store; None for a directory.
        warnings: Sentences about an object store and its earlier runs.
        too_young: The blobs that no tag reaches and that a reset would keep because of their age.
    """

    path: str
    live: Tally
    reclaimable: Tally
    ingest: Tally
    foreign: Tally
    tags: tuple[TagUsage, ...]
    missing_blobs: tuple[MissingBlob, ...]
    damage: tuple[DamagedPath, ...]
    skipped_sweeps: int = 0
    quarantine: Tally = Tally()
    requests: RequestCounts | None = None
    warnings: tuple[str, ...] = ()
    too_young: Tally = Tally()

    @property
    def exit_code(self) -> int:
        """0, or 12 if there is damage; in an object store also if a root lacks a blob."""
        is_hole = bool(self.missing_blobs) and self.requests is not None
        return 12 if self.damage or is_hole else 0


class TagInfo(NamedTuple):
    """An entry of index.json, as `ls` lists it.

    Attributes:
        created_ns: Since 1970; None if unknown.
        created_from: The source of that time: the newest result of the cacheconfig, or the file of
            the manifest.
        size: All blobs that the entry reaches.
        missing: How many of them are missing.
        problem: Why the entry cannot be read completely, "" if it can.
        last_used_ns: The last use of all entries with that ref name; None if unknown.
    """

    ref_name: str | None
    digest: Digest | None
    kind: Literal["cache", "image", "artifact", "unknown"]
    created_ns: int | None
    created_from: Literal["cacheconfig", "manifest"] | None
    size: Tally
    layers: int
    platforms: tuple[str, ...]
    missing: int
    problem: str
    last_used_ns: int | None = None
    last_used_from: UsedFrom = "unknown"


class TagList(NamedTuple):
    """The tags of a cache, in the order of index.json."""

    path: str
    tags: tuple[TagInfo, ...]
    damage: tuple[DamagedPath, ...]

    @property
    def exit_code(self) -> int:
        """0, or 12 if there is damage."""
        return 12 if self.damage else 0


class ReferencePath(NamedTuple):
    """One path from an entry of index.json to a blob."""

    root: Root
    links: tuple[Link, ...]


class BlobReferences(NamedTuple):
    """The paths from the roots to a blob. A blob without a path is unreachable.

    Attributes:
        size: Of the file; None if it is missing.
        written_ns: When the file was written; None if it is missing.
        has_more_paths: There are more than a hundred paths.
    """

    path: str
    digest: Digest
    size: int | None
    written_ns: int | None
    paths: tuple[ReferencePath, ...]
    has_more_paths: bool
    damage: tuple[DamagedPath, ...]

    @property
    def is_unreachable(self) -> bool:
        """True if no root reaches the blob, as far as the roots can be read."""
        return not self.paths
