"""What a root reaches, by the links of a Survey. Pure: the disk was read before."""

from collections.abc import Iterator

from kitcache.gc.answers import BlobPath
from kitcache.gc.values import Survey, key_of
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link


def reach(
    survey: Survey, descriptor: Descriptor, *, with_subjects: bool = True
) -> dict[Digest, Link]:
    """Every digest at or below a descriptor, with the first link that was met to it.

    with_subjects: what an artifact is about counts too, as it does for what lives.
    """
    found: dict[Digest, Link] = {}
    done = set()
    todo = [Link(descriptor, "manifest")]
    while todo:
        link = todo.pop()
        key = key_of(link.descriptor)
        if key not in done:
            done.add(key)
            found.setdefault(link.descriptor.digest, link)
            below = reversed(survey.links.get(key, ()))
            todo += [n for n in below if with_subjects or n.role != "subject"]
    return found


def paths_to(survey: Survey, digest: Digest) -> Iterator[BlobPath]:
    """Each path from a root down to that blob, roots in order."""
    towards = _ancestors(survey, digest)
    for root in survey.roots:
        todo: list[tuple[Link, ...]] = []
        if root.descriptor is not None:
            todo.append((Link(root.descriptor, "manifest"),))
        while todo:
            links = todo.pop()
            last = links[-1].descriptor
            if last.digest == digest:
                yield BlobPath(root, links)
                continue
            below = dict.fromkeys(survey.links.get(key_of(last), ()))
            todo += [(*links, n) for n in reversed(below) if n.descriptor.digest in towards]


def _ancestors(survey: Survey, digest: Digest) -> set[Digest]:
    """That blob, and every blob from which a path leads to it: no search leaves these."""
    parents: dict[Digest, list[Digest]] = {}
    for (parent, _, _), links in survey.links.items():
        for link in links:
            parents.setdefault(link.descriptor.digest, []).append(parent)
    found = {digest}
    todo = [digest]
    while todo:
        for parent in parents.get(todo.pop(), ()):
            if parent not in found:
                found.add(parent)
                todo.append(parent)
    return found
