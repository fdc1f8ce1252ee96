"""What du, ls, why, untag and verify answer: values like those of the collector."""

from typing import Literal, NamedTuple

from kitcache.gc.values import DamagedPath, MissingBlob, Root, Tally, UsedFrom
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link


class TagUsage(NamedTuple):
    """A tag's share: unique is what no other entry reaches, shared is what another reaches too."""

    ref_name: str | None
    digest: Digest | None
    unique: Tally
    shared: Tally


class DiskUsage(NamedTuple):
    """Where a cache's bytes are. reclaimable: what a reset would remove.

    ingest: all uploads. foreign: files that are nobody's blob. skips: resets after an export that
    were left out in a row, since others were at work. quarantine: files that a repair put aside.
    With damage, `live` is only what
    could be seen, reclaimable counts what may live after all, and a reset would refuse.
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

    @property
    def exit_code(self) -> int:
        """0, or 12 where the picture is incomplete."""
        return 12 if self.damage else 0


class TagInfo(NamedTuple):
    """An entry of index.json as `ls` shows it.

    created_ns: since 1970, by created_from: the newest record of the cacheconfig, or the time at
    which the manifest was written here. size: all that it reaches. missing: blobs that are not
    there. problem: why it cannot be read whole, "" if it can. used_ns: the last use of all entries
    with that ref name, by used_from, as a policy counts it; None if unknown.
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
        """0, or 12 where the picture is incomplete."""
        return 12 if self.damage else 0


class ReferencePath(NamedTuple):
    """One way from an entry of index.json down to a blob."""

    root: Root
    links: tuple[Link, ...]


class BlobReferences(NamedTuple):
    """Why a blob is kept: each path from a root to it; without one it is garbage.

    size, written_ns: of the file, None where it is missing. more_paths: there are more than shown.
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
        """Whether nothing reaches it, as far as can be seen."""
        return not self.paths
