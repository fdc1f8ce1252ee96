"""The results of the commands that change a cache or verify it. They hold no files or locks."""

from typing import Literal, NamedTuple

from kitcache.gc.values import DamagedPath, Outcome, ResetResult, Tally, UsedFrom
from kitcache.oci.digest import Digest
from kitcache.oci.links import Role


class TagDecision(NamedTuple):
    """The decision of a policy about a tag, or about an entry without one (always kept).

    Attributes:
        ref_name: None if the entry has no tag.
        digest: Of its first entry; None if that cannot be read.
        positions: Of all its entries in index.json; -1 for the index's own subject.
        reason: The rule that decided, a sentence.
        last_used_ns: Its last use, as known from `last_used_from`.
        size: All blobs that it reaches.
        unique: The blobs that no other entry reaches, before anything is removed.
    """

    ref_name: str | None
    digest: Digest | None
    positions: tuple[int, ...]
    keep: bool
    reason: str
    last_used_ns: int
    last_used_from: UsedFrom
    size: Tally
    unique: Tally


class UntagResult(NamedTuple):
    """The entries that were, or would be, removed from index.json, as (ref name, digest)."""

    path: str
    outcome: Literal["done", "dry-run"]
    entries: tuple[tuple[str | None, str | None], ...]


class CachedStep(NamedTuple):
    """The result of a cached step.

    Attributes:
        cache_key: The digest of its record.
        created_ns: Since 1970, None if unknown.
        last_read_ns: When an import last read its last layer, None if unknown.
        bytes: Of its layers that no more recently used step has.
        unique_bytes: Those of them that no other tag needs: what its removal frees.
    """

    cache_key: str
    created_ns: int | None
    last_read_ns: int | None
    bytes: int
    unique_bytes: int


class HeldBlob(NamedTuple):
    """A blob that a tag reaches.

    Attributes:
        bytes: None if the blob is missing.
        unique_bytes: The bytes that only this tag needs; 0 if another entry reaches the blob.
        platform, created_by: Of a layer of an image, from its config; "" if unknown.
        step: The step that made a layer of a build cache.
    """

    digest: Digest
    bytes: int | None
    unique_bytes: int
    role: Role
    media_type: str
    platform: str
    created_by: str
    step: CachedStep | None


class TagContents(NamedTuple):
    """The blobs of a tag, largest first.

    Attributes:
        digests: Of its entries; a tag can have several.
        size: All existing blobs.
        unique: Those that no other entry reaches.
        damage: Of the whole cache. If there is any, both sizes may be wrong.
    """

    path: str
    ref_name: str | None
    digests: tuple[Digest, ...]
    kind: Literal["cache", "image", "artifact", "unknown"]
    size: Tally
    unique: Tally
    blobs: tuple[HeldBlob, ...]
    damage: tuple[DamagedPath, ...]

    @property
    def exit_code(self) -> int:
        """0, or 12 if a part of the cache cannot be read."""
        return 12 if self.damage else 0


class TrimResult(NamedTuple):
    """A trimmed tag.

    Attributes:
        outcome: done, dry-run, or unchanged if it is small enough.
        limit_bytes: The limit for all blobs that the tag reaches.
        before, after: The digest of its manifest.
        before_size, after_size: All blobs that it reaches.
        kept_steps, removed_steps: Its steps, least recently used first.
        reset: The sweep that followed; None if the tag was trimmed as a part of a prune.
    """

    path: str
    outcome: Literal["done", "dry-run", "unchanged"]
    ref_name: str | None
    limit_bytes: int
    before: Digest
    before_size: Tally
    after: Digest
    after_size: Tally
    kept_steps: tuple[CachedStep, ...]
    removed_steps: tuple[CachedStep, ...]
    reset: ResetResult | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of the reset, or 0."""
        return self.reset.exit_code if self.reset else 0


class BadBlob(NamedTuple):
    """A blob that does not match its digest, cannot be read, or is not a regular file.

    Attributes:
        problem: A clause, such as "holds other bytes (sha256:9c1e…)".
        size: Its length in bytes, as far as it could be read.
    """

    digest: Digest
    problem: str
    size: int


class UnusableStep(NamedTuple):
    """The result of a cached step that BuildKit cannot load from this cache.

    Attributes:
        key: The number of the record in the cacheconfig, and of the result in the record.
        cache_key: The digest of the record.
        created_ns: Since 1970, None if unknown.
        layers: The faulty layers of its chain.
        reason: A clause about the first of these layers.
    """

    key: tuple[int, int]
    cache_key: str
    created_ns: int | None
    layers: tuple[Digest, ...]
    reason: str


class TagStatus(NamedTuple):
    """The status of an entry of index.json: whether a build can import it.

    Attributes:
        importable: full; partial (some steps of a cache cannot be loaded); none. An entry that is
            not a cache is full if all its blobs are intact.
        reason: Why `importable` is not full.
        steps: The number of results in its cacheconfig.
    """

    position: int
    ref_name: str | None
    digest: Digest | None
    kind: Literal["cache", "image", "artifact", "unknown"]
    importable: Literal["full", "partial", "none"]
    reason: str = ""
    steps: int = 0
    unusable_steps: tuple[UnusableStep, ...] = ()


class VerifyResult(NamedTuple):
    """The result of a verification.

    Attributes:
        blobs: All blobs that were hashed or, in an object store, listed.
        bad_blobs: All of them, reachable or not.
        index_problem: Why index.json is unusable; there are no tags then. "" if it is usable.
        damage: Damage that makes a reset refuse and that no tag names.
        warnings: Possible faults, a sentence each.
        seconds: Wall time.
        reason: Why there was nothing to verify, "" if there was.
        hashed: Every blob was read. False if only the listing of an object store was compared.
    """

    path: str
    blobs: Tally
    bad_blobs: tuple[BadBlob, ...]
    index_problem: str
    tags: tuple[TagStatus, ...]
    damage: tuple[DamagedPath, ...]
    warnings: tuple[str, ...]
    seconds: float
    reason: str = ""
    hashed: bool = True

    @property
    def exit_code(self) -> int:
        """0, or 12 if something is wrong."""
        is_faulty = self.bad_blobs or self.index_problem or self.damage
        return 12 if is_faulty or any(v.importable != "full" for v in self.tags) else 0


RECOVERED = "recovered-"
"""The prefix of a recovered root whose name is unknown. An export to a guessed name replaces it."""


class RepairAction(NamedTuple):
    """A change that a repair made, or would make.

    Attributes:
        kind: copy-blob (from another copy); rebuild-index (index.json, or an entry of it, was
            restored); move-tag (an entry now names the last export, or has the right size);
            rewrite-cache (a cache names only what can be imported); remove-tag; quarantine-blob;
            quarantine-root (of an object store: its document was copied before its removal).
        digest: Of the blob; of the manifest that the tag names now, or named before its removal.
        description: A sentence.
    """

    kind: Literal[
        "copy-blob",
        "rebuild-index",
        "move-tag",
        "rewrite-cache",
        "remove-tag",
        "quarantine-blob",
        "quarantine-root",
    ]
    tag: str | None
    digest: Digest | None
    description: str


class RepairResult(NamedTuple):
    """The result of a repair. Without actions nothing was broken.

    Attributes:
        verification: Of the repaired cache; after a dry run, of the cache as it is.
    """

    path: str
    outcome: Literal["done", "dry-run"]
    actions: tuple[RepairAction, ...]
    verification: VerifyResult

    @property
    def exit_code(self) -> int:
        """0, or 12 if something is still wrong."""
        return self.verification.exit_code


class PruneResult(NamedTuple):
    """The decisions of a policy, and the sweep that followed.

    Attributes:
        outcome: That of the sweep; no-policy if there is no policy, so nothing was changed. With
            dry-run and no-policy, the other fields describe changes that were not made.
        tags: One decision per tag, in the order of index.json; empty if nothing was decided.
        trimmed: Tags that were kept and trimmed.
        limit_bytes: The most that all tags may reach, None without a limit. Below 0 if even an
            empty cache would leave too little free space.
        needed_bytes: The bytes that the tags to keep reach, if they exceed the limit.
        reason: Why the limit was not reached, else "".
    """

    path: str
    outcome: Outcome | Literal["no-policy"]
    tags: tuple[TagDecision, ...]
    trimmed: tuple["TrimResult", ...]
    reset: ResetResult
    limit_bytes: int | None
    needed_bytes: int | None
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code of the reset, or 14 if the limit was not reached."""
        return max(self.reset.exit_code, 14 if self.needed_bytes is not None else 0)


class TagResult(NamedTuple):
    """One more name for an entry of index.json.

    Attributes:
        outcome: done, dry-run, or unchanged if the target named the digest already.
        source: The tag or digest by which the entry was found.
        digest: The digest of both names.
        previous_digests: The digests that the target named before.
    """

    path: str
    outcome: Literal["done", "dry-run", "unchanged"]
    source: str
    target: str
    digest: str
    previous_digests: tuple[str, ...]


class MergedTag(NamedTuple):
    """A tag of a source, or an entry without one (both names are None).

    Attributes:
        source: The path of its cache.
        target_name: Its name in the target.
        digests: The digests that it names.
        state: new in the target; moved from `previous_digests`; unchanged.
    """

    source: str
    source_name: str | None
    target_name: str | None
    digests: tuple[str, ...]
    state: Literal["new", "moved", "unchanged"]
    previous_digests: tuple[str, ...] = ()


class MergeResult(NamedTuple):
    """The result of a merge.

    Attributes:
        path: Of the target.
        outcome: done, dry-run, or unchanged if the target had all tags and blobs.
        tags: Of all sources, in order.
        linked: Blobs that are hard links to files of the sources.
        copied: Blobs that were copied and verified.
        reused: Blobs that existed in the target.
        warnings: A sentence each.
        seconds: Wall time.
    """

    path: str
    outcome: Literal["done", "dry-run", "unchanged"]
    sources: tuple[str, ...]
    tags: tuple[MergedTag, ...]
    linked: Tally
    copied: Tally
    reused: Tally
    warnings: tuple[str, ...]
    seconds: float


class SkippedTag(NamedTuple):
    """A root that was not copied, because the target cannot hold it.

    Attributes:
        source: The path of its cache.
        reason: A clause, such as "is an image, which an object store cannot hold".
    """

    source: str
    ref_name: str | None
    digest: str
    reason: str


class TrimmedTag(NamedTuple):
    """A tag that was copied without some steps, so that BuildKit imports it.

    Attributes:
        source: The path of its cache.
        steps: The number of its steps in the source.
    """

    source: str
    ref_name: str | None
    steps: int
    removed_steps: int


class CopyResult(NamedTuple):
    """The result of a copy.

    Attributes:
        path: Of the target.
        outcome: done, dry-run, or unchanged if the target had all tags and blobs.
        tags: Of all sources, in order, without those that were skipped.
        trimmed: Tags that were copied without some steps.
        linked: Blobs that are hard links to files of the sources.
        copied: Blobs that were copied and verified; in a dry run, the blobs to copy.
        reused: Blobs that existed in the target.
        warnings: A sentence each.
        seconds: Wall time.
    """

    path: str
    outcome: Literal["done", "dry-run", "unchanged"]
    sources: tuple[str, ...]
    tags: tuple[MergedTag, ...]
    trimmed: tuple[TrimmedTag, ...] = ()
    skipped: tuple[SkippedTag, ...] = ()
    linked: Tally = Tally()
    copied: Tally = Tally()
    reused: Tally = Tally()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
