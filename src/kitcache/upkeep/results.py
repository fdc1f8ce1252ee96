"""What prune, trim, verify, repair, tag, untag and merge answer. None holds a file or a lock."""

from typing import Literal, NamedTuple

from kitcache.gc.values import DamagedPath, Outcome, ResetResult, Tally, UsedFrom
from kitcache.oci.digest import Digest
from kitcache.oci.links import Role


class TagDecision(NamedTuple):
    """What a policy makes of a tag, or of an entry without one (ref_name None; never dropped).

    digest: of its first entry, None where that cannot be read. positions: of all its entries in
    index.json, -1 for its own subject. rule: what decided, in words. used_ns: its last use as far
    as it counted, by used_from. size: all that it reaches. unique: what nothing else reaches,
    before anything goes.
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
    """The entries that were taken out of index.json (or would be), as (ref name, digest)."""

    path: str
    outcome: Literal["done", "dry-run"]
    entries: tuple[tuple[str | None, str | None], ...]


class CachedStep(NamedTuple):
    """What a cache knows of a step's result.

    record: the step's cache key, a digest. created_ns: since 1970, None if unknown. read_ns: when
    an import last read its last layer, None if that is not known. bytes: of layers that are there
    for it alone: no warmer step of the tag has them.
    """

    cache_key: str
    created_ns: int | None
    last_read_ns: int | None
    bytes: int


class HeldBlob(NamedTuple):
    """A blob that a tag reaches.

    bytes: None if the blob is missing. unique_bytes: what would be free without the tag, 0 if
    another entry reaches the blob too. platform, created_by: of a layer of an image, as its config
    has them; "" if unknown. step: the step that made a layer of a build cache.
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

    digests: of its entries; a tag can have several. size: all blobs that are there. unique: those
    of them that no other entry reaches. damage: of the whole cache; with damage both may be wrong.
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
    """A tag that was made smaller (outcome done), would be (dry-run), or is small enough (fits).

    before, after: the digest of its manifest, and all that it reaches. limit_bytes: for all that.
    kept, dropped: its steps, coldest first. report: of the sweep that followed, None where there
    was none of its own.
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
        """That of the report, or 0."""
        return self.reset.exit_code if self.reset else 0


class BadBlob(NamedTuple):
    """A blob whose bytes are not those of its digest, that cannot be read, or is no regular file.

    problem: a clause, such as "holds other bytes (sha256:9c1e…)". size: its length in bytes, as far
    as it could be read.
    """

    digest: Digest
    problem: str
    size: int


class UnusableStep(NamedTuple):
    """A result of a cached step that BuildKit would not have from this cache.

    key: the number of the record in the cacheconfig, and of the result there. record: the record's
    digest, which is the step's cache key. created_ns: since 1970, None if unknown. layers: those of
    its chain that are at fault. why: what is wrong with the first of them, a sentence.
    """

    key: tuple[int, int]
    cache_key: str
    created_ns: int | None
    layers: tuple[Digest, ...]
    reason: str


class TagStatus(NamedTuple):
    """What becomes of an entry of index.json when it is imported.

    imports: fully; with-misses (a cache: some steps cannot be loaded); not, and why says so. Of
    what is no cache: fully, where all that it reaches is whole. steps: results in its cacheconfig.
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
    """What a verification found.

    blobs: all that were rehashed. bad: each that is not what its name says, reached or not.
    index_problem: why index.json says nothing, "" if it does; then there are no verdicts. damage:
    what a reset would refuse for and no verdict names. warnings: what is no fault yet, a sentence
    each. seconds: wall time. why: a sentence where there was nothing to look at, else "".
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

    @property
    def exit_code(self) -> int:
        """0, or 12 where something is wrong."""
        is_faulty = self.bad_blobs or self.index_problem or self.damage
        return 12 if is_faulty or any(v.importable != "full" for v in self.tags) else 0


RECOVERED = "recovered-"
"""Begins the name of a root that nobody has a name for: a wrong name would be exported over."""


class RepairAction(NamedTuple):
    """Something that a repair did, or would do.

    take: a blob came from another copy. rebuild-index: index.json was made anew, or has an entry
    again. move-tag: an entry names what was exported last, or has its size right. rewrite: a cache
    names only what can be imported. drop-tag: an entry went. quarantine: a blob was put aside.
    digest: of the blob, or of what the tag names then; of a dropped one, what it named. what: a
    sentence.
    """

    kind: Literal[
        "copy-blob", "rebuild-index", "move-tag", "rewrite-cache", "remove-tag", "quarantine-blob"
    ]
    tag: str | None
    digest: Digest | None
    description: str


class RepairResult(NamedTuple):
    """What a repair did (done), or would do (dry-run); no steps: nothing was broken.

    verified: what was found afterwards; of a dry run, what is there now.
    """

    path: str
    outcome: Literal["done", "dry-run"]
    actions: tuple[RepairAction, ...]
    verification: VerifyResult

    @property
    def exit_code(self) -> int:
        """0, or 12 where something is wrong still."""
        return self.verification.exit_code


class PruneResult(NamedTuple):
    """What a policy made of the tags, and the sweep that followed.

    outcome: as of the report; no-policy where none was named, so that nothing was changed. A
    dry-run, or no-policy, says what would be. decisions: a tag each, in the order of index.json;
    empty where it did not come to that. trimmed: tags that stay and were made smaller. limit_bytes:
    what the policy allows all that the tags reach to hold, None where it names no limit; below 0
    where an empty cache would leave the disk too full. needed_bytes: what has to stay holds, where
    that is more; else None. What would free nothing counts for neither. why: a sentence where it
    did not do all that was asked for, else "".
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
        """That of the report, or 14 where the limit was not reached."""
        return max(self.reset.exit_code, 14 if self.needed_bytes is not None else 0)


class TagResult(NamedTuple):
    """A further name for an entry of index.json: given (done), to be given, or there already.

    old: what the entry was found by. digest: of what both names stand for. moved_from: the digests
    that `new` stood for before; none where it is a new name.
    """

    path: str
    outcome: Literal["done", "dry-run", "unchanged"]
    source: str
    target: str
    digest: str
    previous_digests: tuple[str, ...]


class MergedTag(NamedTuple):
    """What became of a tag of a source, or of an entry without one, for which both names are None.

    source: the path of its cache. new: what it goes by in the target. digests: what it stands for.
    state: new there; moved from what it stood for there before, moved_from; or there already.
    """

    source: str
    source_name: str | None
    target_name: str | None
    digests: tuple[str, ...]
    state: Literal["new", "moved", "unchanged"]
    previous_digests: tuple[str, ...] = ()


class MergeResult(NamedTuple):
    """What a merge did, or would do; unchanged where all was there.

    path: of the target. tags: of all sources, in order. linked, copied, there: blobs that are the
    sources' own files now, that are copies, and that were there. warnings: a sentence each.
    seconds: wall time.
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
