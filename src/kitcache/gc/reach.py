"""What a root reaches, by the links of a Survey. Pure: the disk was read before."""

from collections.abc import Iterable, Iterator

from kitcache.gc.answers import BlobPath
from kitcache.gc.values import NodeKey, Survey, key_of
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link, kind_of


def reach(
    survey: Survey,
    descriptor: Descriptor,
    *,
    with_subjects: bool = True,
    with_hints: bool = True,
) -> dict[Digest, Link]:
    """Every digest at or below a descriptor, with the first link that was met to it.

    with_subjects: what an artifact is about counts too, as it does for what lives. with_hints: so
    does what only a blob of unknown kind seems to name.
    """
    return first_links(
        links_below(survey, descriptor, with_subjects=with_subjects, with_hints=with_hints)
    )


def first_links(links: Iterable[Link]) -> dict[Digest, Link]:
    """Every digest among these links, with the first one to it."""
    found: dict[Digest, Link] = {}
    for link in links:
        found.setdefault(link.descriptor.digest, link)
    return found


def links_below(
    survey: Survey,
    descriptor: Descriptor,
    *,
    with_subjects: bool = True,
    with_hints: bool = True,
) -> Iterator[Link]:
    """What reach finds, as links: each node once for each part that it plays.

    A digest may be a layer to one, and may be missing, and a manifest to another.
    """
    done = set()
    todo = [Link(descriptor, "manifest")]
    while todo:
        link = todo.pop()
        key = key_of(link.descriptor)
        if (key, link.role) not in done:
            done.add((key, link.role))
            yield link
            if with_hints or not _is_hint(link):
                below = reversed(survey.links.get(key, ()))
                todo += [n for n in below if with_subjects or n.role != "subject"]


def _is_hint(link: Link) -> bool:
    """Whether what it names is a guess: a layer or config of a kind that nobody knows is a leaf."""
    is_unknown = kind_of(link.descriptor.media_type) is None
    return is_unknown and link.role in ("layer", "config", "blob")


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
            # A blob that is a link may lead back to what names it.
            met = {link.descriptor.digest for link in links}
            todo += [
                (*links, n)
                for n in reversed(below)
                if key_of(n.descriptor) in towards and n.descriptor.digest not in met
            ]


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
