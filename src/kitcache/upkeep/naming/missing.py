"""The blobs that a root lacks, according to a survey. No I/O."""

from kitcache.gc.reach import reach
from kitcache.gc.values import DamagedPath, MissingBlob, Root, Survey
from kitcache.oci.digest import Digest


def find_missing(survey: Survey, root: Root) -> tuple[DamagedPath | MissingBlob, ...]:
    """Return the damaged and missing blobs that a root of this survey reaches.

    The subject of an artifact may be absent. Source: OCI image-spec, manifest.md.
    """
    if root.descriptor is None:
        return tuple(damage for damage in survey.damage if damage.root == root)
    if not survey.damage and not survey.missing_blobs:
        return ()
    reached = reach(survey, root.descriptor)
    needed = reach(survey, root.descriptor, with_subjects=False)
    damage = [d for d in survey.damage if d.chain and d.chain[-1].digest in reached]
    return (*damage, *(blob for blob in survey.missing_blobs if blob.digest in needed))


def find_unknown(survey: Survey) -> tuple[Root, Digest] | None:
    """Return the first blob that kitcache cannot verify, with a root that needs it; else None."""
    named = {link.descriptor.digest for links in survey.links.values() for link in links}
    named |= {root.descriptor.digest for root in survey.roots if root.descriptor is not None}
    unknown = {digest for digest in named if not digest.is_known}
    for root in survey.roots if unknown else ():
        if root.position >= 0 and root.descriptor is not None:
            for digest in reach(survey, root.descriptor, with_subjects=False):
                if digest in unknown:
                    return root, digest
    return None
