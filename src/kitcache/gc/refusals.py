"""The errors of a refusal, of lost blobs and of an incomplete root."""

from collections.abc import Sequence

from kitcache.errors import (
    NOTHING_CHANGED,
    Busy,
    Damaged,
    KitcacheError,
    Unsafe,
)
from kitcache.gc.values import DamagedPath, MissingBlob, Refusal, Root, Survey
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import kind_of
from kitcache.store.ioerrors import PERMISSION_DENIED, command_line, repair_command
from kitcache.store.protocol import CacheStore

IS_SYMLINK = "is a symlink, which kitcache does not follow"
"""The problem of a symlink that replaces a manifest."""
CANNOT_READ = "cannot be read: "
"""A part of the problem of a blob that exists and may be intact."""
_LISTED = 5


def refusal_error(path: str, refusal: Refusal) -> KitcacheError:
    """Return Busy, Damaged or Unsafe, with the tag, the path to the damage and hints."""
    if refusal.kind == "busy":
        return Busy(
            path,
            "another client is exporting to this cache"
            " (last write to ingest/ less than a minute ago)",
            retry_after_s=round(refusal.retry_after_s, 1),
            hints=(f"try again in {refusal.retry_after_s:.0f} s, when the export has ended",),
        )
    first, *others = refusal.damage
    problem = f"{first.root.label} cannot be read: {describe_damage(first)}"
    details = tuple(
        f"also: {other.root.label}: {describe_damage(other)}" for other in others[:_LISTED]
    )
    if len(others) > _LISTED:
        details += (f"and {len(others) - _LISTED:,} more",)
    hints = recovery_hints(path, first.root, first.problem)
    if refusal.kind == "unsafe":
        return Unsafe(
            path,
            problem,
            tag=first.root.ref_name,
            chain=chain_of(first),
            details=details,
            hints=hints,
        )
    return Damaged(
        path,
        problem,
        kind=first.kind,
        tag=first.root.ref_name,
        chain=chain_of(first),
        details=details,
        hints=hints,
    )


def no_roots_error(store: CacheStore) -> Damaged:
    """Return the error for a cache that has blobs and no roots at all."""
    hints: tuple[str, ...] = (
        repair_command(store.path),
        f"restore {store.roots_name} from a copy",
        "export again: then only the blobs of that export are kept",
    )
    problem = f"{store.roots_name} is missing but blobs/ is not empty"
    if store.blobs_are_leaves:
        problem = f"there are blobs, and no object below {store.roots_name}"
        hints = ("name every manifests_prefix that exporters use", hints[-1])
    return Damaged(
        store.path,
        f"{problem}: kitcache cannot tell which blobs are in use",
        kind="missing",
        hints=hints,
    )


def describe_damage(damage: DamagedPath) -> str:
    """Return a clause, such as "manifest sha256:9c1e… is missing"."""
    if not damage.chain:
        return damage.problem
    last = damage.chain[-1]
    kind = kind_of(last.media_type)
    return f"{'blob' if kind in ('leaf', None) else kind} {last.digest.short} {damage.problem}"


def chain_of(damage: DamagedPath) -> tuple[str, ...]:
    """Return the path from index.json, or from the prefix of the roots, to the damage."""
    return (damage.root.roots_name, *(describe_step(step) for step in damage.chain))


def describe_step(descriptor: Descriptor) -> str:
    """Return one step of a path: sha256:9c1e… (manifest, linux/arm64)."""
    kind = kind_of(descriptor.media_type) or descriptor.media_type or "no media type"
    words = [word for word in (kind, descriptor.platform) if word and word != "leaf"]
    return f"{descriptor.digest} ({', '.join(words)})" if words else str(descriptor.digest)


def recovery_hints(path: str, root: Root, problem: str = "") -> tuple[str, ...]:
    """Return the hints for a root that cannot be read.

    Args:
        problem: The clause of the damage, such as "is missing".
    """
    if problem.endswith(PERMISSION_DENIED):
        # The blob may be intact, so no hint removes the tag.
        return ("run it as the user who owns the cache",)
    if problem.endswith(IS_SYMLINK):
        return ("replace the symlink by its file",)
    repair = repair_command(path)
    if CANNOT_READ in problem:
        return ("run the same command again: the read may have failed only once", repair)
    if root.position < 0:
        return ("remove the field 'subject' from index.json by hand",)
    name = root.ref_name
    if name is None or not name.isprintable() or name.startswith("-"):
        name = str(root.descriptor.digest) if root.descriptor else None
    if name is None:
        return (repair, f"remove entry {root.position} from index.json by hand")
    untag = command_line("untag", path, name)
    return (repair, untag) if root.ref_name is None else (repair, untag, "export to that tag again")


def lost_blobs(before: Survey, after: Survey) -> tuple[DamagedPath | MissingBlob, ...]:
    """Return the blobs that are missing after a sweep and were not missing before it."""
    known = {damage.chain[-1].digest for damage in before.damage if damage.chain}
    known |= {blob.digest for blob in before.missing_blobs}
    damage = [d for d in after.damage if d.kind == "missing" and d.chain[-1].digest not in known]
    missing = [blob for blob in after.missing_blobs if blob.digest not in known]
    return (*damage, *missing)


def digests_of(lost: Sequence[DamagedPath | MissingBlob]) -> frozenset[Digest]:
    """Return the digests of lost blobs."""
    return frozenset(
        item.chain[-1].digest if isinstance(item, DamagedPath) else item.digest for item in lost
    )


def loss_error(store: CacheStore, lost: Sequence[DamagedPath | MissingBlob]) -> Damaged:
    """Return the error for a tag that lost blobs during a sweep."""
    first, path = lost[0], store.path
    if isinstance(first, DamagedPath):
        tag, chain = first.root.ref_name, chain_of(first)
        label, hints = first.root.label, recovery_hints(path, first.root)
    else:
        tag, chain = first.ref_name, (store.roots_name, str(first.digest))
        label = "an entry without a tag" if tag is None else f"tag '{tag}'"
        hints = ("export to that tag again",)
    cause = "its exporter does not use kitcache's lock"
    if store.blobs_are_leaves:
        cause = "its export took longer than the export time, or renewed blobs during the sweep"
        hints = (*hints, "sweep with a longer export time")
    return Damaged(
        path,
        f"{label} was published during the sweep and lacks {len(lost):,}"
        f" {'blob' if len(lost) == 1 else 'blobs'}",
        kind="lost",
        tag=tag,
        chain=chain,
        details=(
            *(_name_of(item) for item in lost[:_LISTED]),
            *((f"and {len(lost) - _LISTED:,} more",) if len(lost) > _LISTED else ()),
            cause,
        ),
        hints=hints,
    )


def incomplete_error(path: str, root: Root, faults: Sequence[DamagedPath | MissingBlob]) -> Damaged:
    """Return the error for an incomplete root that was to be tagged or copied."""
    first = faults[0]
    if isinstance(first, DamagedPath):
        kind, chain, problem = first.kind, chain_of(first), describe_damage(first)
    else:
        kind, chain = "missing", (root.roots_name, str(first.digest))
        problem = f"blob {first.digest.short} {first.problem}"
    more = f"and {len(faults) - 1:,} more" if len(faults) > 1 else ""
    return Damaged(
        path,
        f"{root.label} is not complete: {problem}",
        kind=kind,
        tag=root.ref_name,
        chain=chain,
        details=(more,) if more else (),
        effect=NOTHING_CHANGED,
        hints=recovery_hints(path, root, problem),
    )


def _name_of(item: DamagedPath | MissingBlob) -> str:
    if isinstance(item, DamagedPath):
        return f"missing: {describe_step(item.chain[-1])}"
    return f"missing: {item.digest} (layer)"
