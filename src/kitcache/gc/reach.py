"""What a root reaches, by the links of a Survey. Pure: the disk was read before."""

from collections.abc import Iterator

from kitcache.gc.answers import BlobPath
from kitcache.gc.values import NodeKey, Survey, key_of
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
        if root.descriptor is not None and key_of(root.descriptor) in towards:
            todo.append((Link(root.descriptor, "manifest"),))
        while todo:
            links = todo.pop()
            last = links[-1].descriptor
            if last.digest == digest:
                yield BlobPath(root, links)
                continue
            below = dict.fromkeys(survey.links.get(key_of(last), ()))
            todo += [(*links, n) for n in reversed(below) if key_of(n.descriptor) in towards]


def _ancestors(survey: Survey, digest: Digest) -> set[NodeKey]:
    """That blob's nodes, and every node from which a path leads to one: no search leaves these."""
    parents: dict[NodeKey, list[NodeKey]] = {
        key_of(root.descriptor): [] for root in survey.roots if root.descriptor is not None
    }
    for parent, links in survey.links.items():
        for link in links:
            parents.setdefault(key_of(link.descriptor), []).append(parent)
    todo = [key for key in parents if key[0] == digest]
    found = set(todo)
    while todo:
        for parent in parents.get(todo.pop(), ()):
            if parent not in found:
                found.add(parent)
                todo.append(parent)
    return found
