"""The values of the collector: immutable, comparable, printable, without files or locks.

Bytes are file sizes, not disk blocks. Names that were read from a disk are not escaped here.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from kitcache.errors import KitcacheError
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link
from kitcache.store.values import NOTHING_REMEMBERED, Ingest, Remembered, RequestCounts

MAX_LISTED = 100
"""How many foreign files, and files that could not be deleted, a result lists; it counts all."""

NO_ROOT = -2
"""The position of a blob that no root names."""

NameAndReason = tuple[str, str]
NodeKey = tuple[Digest, str, int | None]


def key_of(descriptor: Descriptor) -> NodeKey:
    """Return the identity of a node: a reference with another size is another node."""
    return descriptor.digest, descriptor.media_type, descriptor.size


class Tally(NamedTuple):
    """A number of blobs, uploads or files, and the sum of their sizes in bytes."""

    blobs: int = 0
    bytes: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Return the sum of both."""
        return Tally(self.blobs + other.blobs, self.bytes + other.bytes)


class Progress(NamedTuple):
    """An event of a long call: how many blobs and bytes it has processed.

    Attributes:
        total_bytes: Of all blobs to process, 0 if that is not known yet.
        seconds: Since this phase began, 0 if the phase has no rate.
    """

    phase: Literal["survey", "sweep", "verify", "merge", "copy"]
    blobs: int
    bytes: int
    total_bytes: int = 0
    seconds: float = 0.0


class Root(NamedTuple):
    """An entry of index.json, or a root in an object store.

    Attributes:
        position: From 0; -1 for the subject of index.json itself.
        descriptor: None if the entry is malformed.
        roots_name: That of the store; see CacheStore.
    """

    position: int
    ref_name: str | None
    descriptor: Descriptor | None
    roots_name: str = "index.json"

    @property
    def label(self) -> str:
        """The root in a message: tag 'main', or entry 3 (sha256:9c1e…)."""
        if self.position < 0:
            is_named = self.position != NO_ROOT
            return "the subject of index.json" if is_named else "a blob that no tag names"
        if self.ref_name is not None:
            return f"tag '{self.ref_name}'"
        digest = f" ({self.descriptor.digest.short})" if self.descriptor else ""
        return f"entry {self.position}{digest}"


class DamagedPath(NamedTuple):
    """A root, or a structural blob below a root, that cannot be read: reachability is unknown.

    Attributes:
        chain: From the root to the damaged blob; empty if the entry itself is malformed.
        kind: As in Damaged, or unreadable, over-cap, too-deep.
        problem: A clause, such as "is missing".
    """

    root: Root
    chain: tuple[Descriptor, ...]
    kind: str
    problem: str


class MissingBlob(NamedTuple):
    """A layer, config or subject of a tag that is missing or has another length.

    It does not stop a sweep, because it references no other blob.

    Attributes:
        ref_name: The first tag that reaches it.
        problem: A clause, such as "is missing".
    """

    digest: Digest
    ref_name: str | None
    problem: str = "is missing"


class Survey(NamedTuple):
    """The result of reading the roots and structural blobs of a cache once.

    Attributes:
        index_digest: The version of the roots: equal digests mean equal roots.
        live: The blobs that roots reach and that exist, with their sizes.
        young: The blobs that young unreferenced blobs reach, these included, with their sizes.
        links: The references that each structural blob contains.
        other_writes_ns: When uploads of other clients, such as oras, were written.
        began_ns: Files that changed since the survey began have this time or a later one.
        index_changed_ns: When the roots were written last.
        ingest_changed_ns: When an upload last began or ended.
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
        """The number and size of the live blobs."""
        return Tally(len(self.live), sum(self.live.values()))


class Refusal(NamedTuple):
    """The reason why a plan deletes nothing.

    Attributes:
        damage: All damage below the roots; empty for "busy".
        retry_after_s: For "busy": the seconds until the export may have ended.
    """

    kind: Literal["damaged", "unsafe", "busy"]
    damage: tuple[DamagedPath, ...] = ()
    retry_after_s: float = 0.0


class Plan(NamedTuple):
    """The blobs to keep. A sweep deletes every other blob that is not too young.

    It names the blobs to keep, so its size does not grow with the blobs to delete.

    Attributes:
        keep: The hex digits of the blobs to keep, by algorithm.
        young_since_ns: A blob that was written since then is too young; infinite without a minimum
            age.
        changed_from_ns: A blob that was written or renamed since then, and before changed_until_ns,
            may belong to a running export.
        valid_until_ns: The plan is not applied after this time of the store's clock, because new
            blobs could then be later than changed_until_ns.
        drop_ingests: The uploads to delete.
        kept_ingests: The other uploads, with the reason.
        refusal: Why nothing may be deleted; None if the plan may be applied.
        remembered: The blobs that earlier runs protect.
        recent: Those of them that no root reaches now.
    """

    index_digest: Digest
    keep: Mapping[str, frozenset[str]]
    young_since_ns: float
    changed_from_ns: int
    changed_until_ns: int
    valid_until_ns: int
    drop_ingests: tuple[Ingest, ...]
    kept_ingests: tuple[NameAndReason, ...]
    refusal: Refusal | None
    remembered: Remembered = NOTHING_REMEMBERED
    recent: Mapping[str, frozenset[str]] = {}

    def is_too_young(self, mtime_ns: int, ctime_ns: int) -> bool:
        """Return True if a blob with these times must not be deleted."""
        changed_ns = max(mtime_ns, ctime_ns)
        return mtime_ns >= self.young_since_ns or (
            self.changed_from_ns <= changed_ns < self.changed_until_ns
        )


class SweepResult(NamedTuple):
    """The result of one pass over the blobs, or of its dry run.

    Attributes:
        foreign_tally: Its bytes are 0 unless the caller asked for them.
        freed: Those of `deleted` that a tag reached before an edit; None without an edit.
        stopped: The pass ended early, because the roots changed or because of `failure`.
        failure: Cancelled, or an I/O error.
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
    freed: Tally | None = None


UsedFrom = Literal["export", "import", "cacheconfig", "manifest", "unknown"]
"""The source of a tag's last use: kitcache's record, the newest result, the manifest's file."""

Outcome = Literal["done", "dry-run", "skipped", "refused", "damaged"]


class ResetResult(NamedTuple):
    """The result of a reset.

    Attributes:
        path: As the caller named the cache.
        outcome: "done" or "dry-run". After an export also "skipped": another export runs, or the
            caller cancelled. "damaged": a published tag lacks a blob. "refused": another error.
            If an error ended the sweep, all figures are 0, even if blobs were deleted.
        entry_count: The number of entries of index.json.
        kept: All blobs that were not deleted.
        too_young: Those of them that no root reaches: they, or blobs that reach them, are young.
        deleted: Deleted blobs; in a dry run the blobs that a reset would delete.
        ingests_deleted: Deleted uploads.
        ingests_kept: The other uploads, each with the reason.
        not_deleted: The first hundred files that could not be deleted, each with the reason.
        foreign: The first hundred files that neither a client nor kitcache creates.
        seconds: The wall time.
        reason: Why the reset had this outcome, "" if there is no need to explain it.
        requests: The requests to an object store; None for a directory.
        warnings: Sentences about an object store and its earlier runs.
        freed: Those of `deleted` that a tag reached before this command removed or trimmed it;
            None if the command changed no tag.
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
    requests: RequestCounts | None = None
    warnings: tuple[str, ...] = ()
    freed: Tally | None = None

    @property
    def unreachable_before(self) -> Tally:
        """Those of `deleted` that no tag reached when the command began."""
        freed = self.freed or Tally()
        return Tally(self.deleted.blobs - freed.blobs, self.deleted.bytes - freed.bytes)

    @property
    def needs_confirmation(self) -> bool:
        """True if a run on a bucket deletes nothing until it is confirmed; `reason` has the cause.

        A dry run has it too, if a run with the same options would.
        """
        return self.requests is not None and self.outcome == "dry-run" and bool(self.reason)

    @property
    def exit_code(self) -> int:
        """The code of a reset command: 0, 3 if a file could not be deleted, 12, or 15.

        12: A published tag lacks a blob; in an object store, any root does. There a build fails if
        it needs that blob. 15: needs_confirmation.
        """
        if self.needs_confirmation:
            return 15
        is_hole = bool(self.missing_blobs) and self.requests is not None
        return 12 if is_hole else self.export_code

    @property
    def export_code(self) -> int:
        """The code of a reset after an export: a blob that only other tags lack does not count."""
        if self.outcome == "damaged":
            return 12
        return 3 if self.not_deleted_count else 0
