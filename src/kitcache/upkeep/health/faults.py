"""What is wrong with what roots reach: by blob, by node, and in words. Pure."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from kitcache.gc.values import Survey, key_of
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link, kind_in_place

_NAMED = 3


class Fault(NamedTuple):
    """What is wrong with something that a root reaches: a clause, such as "is missing"."""

    link: Link
    problem: str


class Faults:
    """All that a survey and the hashing tell.

    flat: of a blob, whatever is said of it. damaged: where a chain of damage ends. nodes: the same,
    with what is said of the blob there.
    """

    def __init__(self, survey: Survey, bad: Mapping[Digest, str]) -> None:
        self.damaged = {d.chain[-1].digest: d.problem for d in survey.damage if d.chain}
        # A manifest that is gone is no missing leaf, also where somebody calls it a layer.
        gone = (d for d in self.damaged if d.is_known and d not in survey.live)
        self.flat = {leaf.digest: leaf.problem for leaf in survey.missing_blobs}
        self.flat |= {digest: self.damaged[digest] for digest in gone}
        # What a blob is says more than that it counts as missing.
        self.flat |= bad
        ends = [(d.chain[-1], d.problem) for d in survey.damage if d.chain]
        self.nodes = {
            key_of(end): told if end.digest in survey.live else self.flat.get(end.digest, told)
            for end, told in ends
        }

    def below(self, links: Iterable[Link]) -> dict[Digest, Fault]:
        """The faults of these blobs: that one entry lies about a size is no other's."""
        found: dict[Digest, Fault] = {}
        for link in links:
            digest = link.descriptor.digest
            problem = self.nodes.get(key_of(link.descriptor)) or self.flat.get(digest)
            if problem:
                found.setdefault(digest, Fault(link, problem))
        return found


def describe_faults(faults: Collection[Fault]) -> str:
    """The first of them, each with what it is and its digest; "" where there are none."""
    told = [
        f"{_word_of(link)} {link.descriptor.digest.short} {problem}" for link, problem in faults
    ]
    more = len(told) - _NAMED
    return ", ".join(told[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _word_of(link: Link) -> str:
    kind = kind_in_place(link)
    return link.role if kind in ("leaf", None) else str(kind)
