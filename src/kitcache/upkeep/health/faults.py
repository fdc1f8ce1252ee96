"""The status of a root, and the faulty blobs that it reaches. No I/O."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from kitcache.gc.values import Root, Survey
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link, kind_in_place
from kitcache.options.units import join_first
from kitcache.upkeep.health.importrules import ImportCheck


class Fault(NamedTuple):
    """A faulty blob that a root reaches. problem: A clause, such as "is missing"."""

    link: Link
    problem: str


class RootStatus(NamedTuple):
    """The kind of a root, and whether a build could import it.

    Attributes:
        check: The result of an import. A root that is not a cache is importable if every blob that
            it needs is intact.
        faults: The blobs that it needs and that are missing, bad or damaged.
        side_faults: Damaged blobs that are reached only through a subject or a hint. An import does
            not need them, but a reset refuses because of them.
    """

    kind: Literal["cache", "image", "artifact", "unknown"]
    check: ImportCheck
    faults: Mapping[Digest, Fault] = {}
    side_faults: Mapping[Digest, Fault] = {}

    @property
    def is_intact(self) -> bool:
        """True if the root is importable and every blob that it reaches is intact."""
        return self.check.importable == "full" and not (self.faults or self.side_faults)


def malformed_entry(survey: Survey, root: Root) -> str:
    """Return the problem of an entry that has no descriptor, a clause."""
    return next(d.problem for d in survey.damage if d.root == root and not d.chain)


def describe_faults(faults: Collection[Fault]) -> str:
    """Return the first faults, each with the kind and the digest of its blob; "" without faults."""
    clauses = [
        f"{_kind_of(fault.link)} {fault.link.descriptor.digest.short} {fault.problem}"
        for fault in faults
    ]
    return join_first(clauses)


def _kind_of(link: Link) -> str:
    kind = kind_in_place(link)
    return link.role if kind in ("leaf", None) else str(kind)
