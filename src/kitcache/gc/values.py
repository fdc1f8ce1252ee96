"""The collector's values: immutable, comparable, printable. None holds a file or a lock.

Tally counts file sizes in bytes, not disk blocks. Names that came from a disk are raw here.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from kitcache.errors import KitcacheError
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link
from kitcache.store.protocol import Ingest

MAX_LISTED = 100
"""How many foreign files, or files that stayed, a report names; it counts them all."""

NO_ROOT = -2
"""The position of what no root names."""

NameAndReason = tuple[str, str]
NodeKey = tuple[Digest, str, int | None]


def key_of(descriptor: Descriptor) -> NodeKey:
    """What makes two references the same node: a lie about the size is a node of its own."""
    return descriptor.digest, descriptor.media_type, descriptor.size


class Tally(NamedTuple):
    """A number of blobs (or uploads, or files) and the sum of their file sizes in bytes."""

    blobs: int = 0
    bytes: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Both counted together."""
        return Tally(self.blobs + other.blobs, self.bytes + other.bytes)


class Progress(NamedTuple):
    """An event of a long call: what it is doing, how many blobs and bytes it has done.

    total_bytes: of all that there is to do, 0 while that is not known. seconds: since this phase
    began; 0 where nobody asked for a rate.
    """

    phase: Literal["survey", "sweep", "verify", "merge"]
    blobs: int
    bytes: int
    total_bytes: int = 0
    seconds: float = 0.0


class Root(NamedTuple):
    """An entry of index.json. descriptor: None where it cannot be read.

    position: 0-based; -1 is the subject of index.json itself. A blob that no root names has
    NO_ROOT.
    """

    position: int
    ref_name: str | None
    descriptor: Descriptor | None

    @property
    def label(self) -> str:
        """The root in words: tag 'main', or entry 3 (sha256:9c1e…), counted from 0."""
        if self.position < 0:
            is_named = self.position != NO_ROOT
            return "the subject of index.json" if is_named else "a blob that no tag names"
        if self.ref_name is not None:
            return f"tag '{self.ref_name}'"
        digest = f" ({self.descriptor.digest.short})" if self.descriptor else ""
        return f"entry {self.position}{digest}"


class DamagedPath(NamedTuple):
    """A root, or something structural below one, that cannot be read: the picture is incomplete.

    chain: from the root down to what is damaged; empty where the entry itself is malformed.
    kind: as in errors.Damaged, or over-cap, too-deep. detail: a clause, such as "is missing".
    """

    root: Root
    chain: tuple[Descriptor, ...]
    kind: str
    problem: str


class MissingBlob(NamedTuple):
    """A layer, config or subject that a tag names and that is not there, or not whole.

    No hindrance, for nothing can hide below it. ref_name: the first tag that names it. problem: a
    clause, such as "is missing".
    """

    digest: Digest
    ref_name: str | None
    problem: str = "is missing"


class Survey(NamedTuple):
    """What one reading of a cache found.

    index_digest: of index.json's bytes; the same digest means the same roots. live: what roots
    reach and is there, with its file size. young: what young unreferenced blobs shelter, likewise.
    links: what each structural blob points at. missing_leaves, damage: see there. other_writes_ns:
    when the rest of ingest/ was written, such as what oras uploads. began_ns: files that
    changed since then have this time or a later one. The two *_changed_ns are modification times.
    """

    index_digest: Digest
    roots: tuple[Root, ...]
    live: Mapping[Digest, int]
    young: Mapping[Digest, int]
    links: Mapping[NodeKey, tuple[Link, ...]]
    missing_blobs: tuple[MissingBlob, ...]
    damage: tuple[DamagedPath, ...]
    ingests: tuple[Ingest, ...]
    other_writes_ns: tuple[int, ...]
    began_ns: int
    index_changed_ns: int
    ingest_changed_ns: int

    @property
    def live_tally(self) -> Tally:
        """Everything that a root reaches and that is there."""
        return Tally(len(self.live), sum(self.live.values()))


class Refusal(NamedTuple):
    """Why a plan removes nothing. retry_after_s: seconds, for busy."""

    kind: Literal["damaged", "unsafe", "busy"]
    damage: tuple[DamagedPath, ...] = ()
    retry_after_s: float = 0.0


class Plan(NamedTuple):
    """What stays: a valid blob name outside `keep` goes, but for what was written too recently.

    It names what stays, not what goes, so it is as large as what lives. young_since_ns: what was
    written since then, by its modification time, is too young; infinite where age does not count.
    came_from_ns, came_until_ns: what was written or came here from then until before then, by its
    modification or its change time, may be of an export under way. valid_until_ns: by the clock of
    the system; later the plan knows too little of what came.
    """

    index_digest: Digest
    keep: Mapping[str, frozenset[str]]
    young_since_ns: float
    came_from_ns: int
    came_until_ns: int
    valid_until_ns: int
    drop_ingests: tuple[Ingest, ...]
    kept_ingests: tuple[NameAndReason, ...]
    refusal: Refusal | None

    def is_too_young(self, mtime_ns: int, ctime_ns: int) -> bool:
        """Return True if a blob with these times stays for their sake."""
        came_ns = max(mtime_ns, ctime_ns)
        return mtime_ns >= self.young_since_ns or (
            self.came_from_ns <= came_ns < self.came_until_ns
        )


class SweepResult(NamedTuple):
    """What one walk over the blobs did, or would do.

    foreign_tally: its bytes are 0 unless they were asked for. stopped: the walk ended early, at a
    changed index.json, or by the failure.
    """

    deleted: Tally = Tally()
    too_young: Tally = Tally()
    ingests_deleted: Tally = Tally()
    not_deleted: tuple[NameAndReason, ...] = ()
    not_deleted_count: int = 0
    foreign: tuple[str, ...] = ()
    foreign_tally: Tally = Tally()
    stopped: bool = False
    failure: KitcacheError | None = None


UsedFrom = Literal["export", "import", "cacheconfig", "manifest", "unknown"]
"""What a tag's last use is known from: a note of ours, its newest record, its manifest's file."""

Outcome = Literal["done", "dry-run", "skipped", "refused", "damaged"]


class ResetResult(NamedTuple):
    """What a reset did (outcome done), or would do (dry-run), or why it did nothing.

    After an export only: skipped, left to others who are at work; refused, for what a tag reaches
    cannot be known; lost, a tag that was just published has a hole. Then `why` says so in a
    sentence, and the figures are 0. It also does where no export was published there yet.

    path: as named by the caller. tags: entries of index.json. kept: all blobs that stay; spared:
    those of them that are only too young to go. ingests_kept: uploads that stay, each with the
    reason. left: what should have gone and could not be removed, with the reason; foreign: what is
    no blob's, left alone; of both the first hundred, and a count. seconds: wall time.
    """

    path: str
    outcome: Outcome
    entry_count: int
    kept: Tally
    too_young: Tally
    deleted: Tally
    ingests_deleted: Tally
    ingests_kept: tuple[NameAndReason, ...]
    not_deleted: tuple[NameAndReason, ...]
    not_deleted_count: int
    foreign: tuple[str, ...]
    foreign_count: int
    missing_blobs: tuple[MissingBlob, ...]
    seconds: float
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """0, or 3 where something could not be removed, or 12 where a tag lost a blob."""
        if self.outcome == "damaged":
            return 12
        return 3 if self.not_deleted_count else 0
