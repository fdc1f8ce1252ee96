"""Reachability: the blobs that a root reaches, by the links of a survey. No I/O."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain

from kitcache.gc.results import ReferencePath
from kitcache.gc.values import NodeKey, Survey, key_of
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link, kind_in_place


def reach(
    survey: Survey,
    descriptor: Descriptor,
    *,
    with_subjects: bool = True,
    with_hints: bool = True,
) -> dict[Digest, Link]:
    """Return every digest at or below a descriptor, with the first link to it.

    Args:
        with_subjects: Also follow the subject of an artifact, as a survey does.
        with_hints: Also follow the possible references in a blob of unknown kind.
    """
    return first_links(
        links_below(survey, descriptor, with_subjects=with_subjects, with_hints=with_hints)
    )


def first_links(links: Iterable[Link]) -> dict[Digest, Link]:
    """Return every digest among these links, with the first link to it."""
    first: dict[Digest, Link] = {}
    for link in links:
        first.setdefault(link.descriptor.digest, link)
    return first


def links_below(
    survey: Survey,
    descriptor: Descriptor,
    *,
    with_subjects: bool = True,
    with_hints: bool = True,
) -> Iterator[Link]:
    """Yield the links at or below a descriptor: each node once for each of its roles.

    An image manifest can list a digest as a layer, and an index can list it as a manifest.
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


def reached_elsewhere(survey: Survey, positions: Collection[int]) -> set[Digest]:
    """Return the digests that entries at other positions reach."""
    others = {
        key_of(root.descriptor): root.descriptor
        for root in survey.roots
        if root.descriptor is not None and root.position not in positions
    }
    return set(chain.from_iterable(reach(survey, descriptor) for descriptor in others.values()))


def _is_hint(link: Link) -> bool:
    """Return True if the references of the blob are a guess.

    A layer or config of unknown kind counts as a leaf. A leaf has links only if the same blob is
    also referenced as a manifest, or is a symlink.
    """
    kind = kind_in_place(link)
    return kind == "leaf" or (kind is None and link.role in ("layer", "config", "blob"))


_Parents = dict[NodeKey, list[NodeKey]]


def paths_to(
    survey: Survey, digest: Digest, check: Callable[[], None] = lambda: None
) -> Iterator[ReferencePath]:
    """Yield each path from a root down to that blob, in the order of the roots.

    A path contains a blob twice only if the blob's references depend on the media type it is listed
    with. The work for one path does not depend on the number of paths.

    Args:
        check: Called for each step. It may raise to cancel.
    """
    parents = _parents_in(survey)
    ends = [key for key in parents if key[0] == digest]
    above = _nodes_above(parents, ends, ())
    # Without a loop no path can return to one of its blobs.
    twins = _twins_in(survey) if _has_loop(parents, above) else None
    for root in survey.roots:
        todo: list[tuple[Link, ...]] = []
        if root.descriptor is not None and key_of(root.descriptor) in above:
            todo.append((Link(root.descriptor, "manifest"),))
        while todo:
            check()
            links = todo.pop()
            last = links[-1].descriptor
            if last.digest == digest:
                yield ReferencePath(root, links)
                continue
            # A symlink in a blob's place may lead back to a blob of this path. Follow only nodes
            # that still lead to the end: else 2^n paths could be tried in vain.
            open_nodes = above
            if twins is not None:
                keys = [key_of(link.descriptor) for link in links]
                on_path = {twin for key in keys for twin in twins.get(key, (key,))}
                open_nodes = _nodes_above(parents, ends, on_path)
            below = dict.fromkeys(survey.links.get(key_of(last), ()))
            todo += [(*links, n) for n in reversed(below) if key_of(n.descriptor) in open_nodes]


def _parents_in(survey: Survey) -> _Parents:
    """Return for each root, and each referenced node, the nodes that reference it."""
    parents: _Parents = {
        key_of(root.descriptor): [] for root in survey.roots if root.descriptor is not None
    }
    for parent, links in survey.links.items():
        for key in dict.fromkeys(key_of(link.descriptor) for link in links):
            parents.setdefault(key, []).append(parent)
    return parents


def _twins_in(survey: Survey) -> dict[NodeKey, list[NodeKey]]:
    """Return for each node with links the nodes of the same blob that have the same links."""
    groups: dict[tuple[Digest, tuple[Link, ...]], list[NodeKey]] = {}
    for key, links in survey.links.items():
        groups.setdefault((key[0], links), []).append(key)
    return {key: group for group in groups.values() for key in group}


def _nodes_above(
    parents: _Parents, ends: Collection[NodeKey], excluded: Collection[NodeKey]
) -> set[NodeKey]:
    """Return the ends, and the nodes that lead to one of them without an excluded node."""
    above = set(ends).difference(excluded)
    todo = list(above)
    while todo:
        for parent in parents.get(todo.pop(), ()):
            if parent not in above and parent not in excluded:
                above.add(parent)
                todo.append(parent)
    return above


def _has_loop(parents: _Parents, nodes: Collection[NodeKey]) -> bool:
    """Return True if one of the nodes leads back to itself. `nodes` contains all their parents."""
    waits = Counter(parent for key in nodes for parent in parents.get(key, ()))
    order = [key for key in nodes if not waits[key]]
    for key in order:
        for parent in parents.get(key, ()):
            waits[parent] -= 1
            if not waits[parent]:
                order.append(parent)
    return len(order) < len(nodes)
