"""A cache as plain values, and what a collector owes it: the oracle of the property tests.

Imports nothing of kitcache. A node says what it points at in `links`, which were known before
its bytes were made, so that reach is never computed by reading JSON. Sources: OCI image-spec
(manifest.md, image-index.md, descriptor.md), BuildKit's cache/remotecache/v1.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
OCI_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
)
DOCKER_LAYERS = (
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
)
STRANGE_LEAVES = ("application/vnd.acme.leaf.v1", "text/plain", "application/vnd.in-toto+json")
STRANGE_STRUCTURE = "application/vnd.acme.bundle.v1+json"

LEAF_TYPES = frozenset({*OCI_LAYERS, *DOCKER_LAYERS, CONFIG, DOCKER_CONFIG, EMPTY})
"""A layer or a config of one of these types is never opened, whatever its bytes are."""
STRUCTURAL_TYPES = frozenset({INDEX, MANIFEST, ARTIFACT, DOCKER_LIST, DOCKER_MANIFEST})

HOUR_S = 3600


class Ref(NamedTuple):
    """How a parent names a child: `media_type` is "" where the descriptor has none.

    `is_entry`: it is an entry of index.json, or of an index that lists no cacheconfig. BuildKit
    infers the kind of such a blob from its bytes.
    """

    digest: str
    media_type: str
    is_subject: bool = False
    is_entry: bool = False


class Node(NamedTuple):
    """A blob. `links` is all that it points at when it is opened, in its own order."""

    digest: str
    data: bytes
    kind: str  # leaf, manifest, index, cacheconfig
    media_type: str  # what an honest descriptor of it says
    links: tuple[Ref, ...]


class Entry(NamedTuple):
    """A descriptor of index.json."""

    ref: Ref
    size: int
    ref_name: str | None


class Foreign(NamedTuple):
    """Something that is no blob: kind is file, dir or link; `content` is text or a target."""

    path: str
    kind: str
    content: str


class Ingest(NamedTuple):
    """An upload left behind; a negative age is a date in the future."""

    ref: str
    age_s: int
    data: bytes

    @property
    def name(self) -> str:
        return hashlib.sha256(self.ref.encode()).hexdigest()


class Cache(NamedTuple):
    """A whole directory as a value. Ages are seconds before the moment of writing."""

    nodes: Mapping[str, Node]
    entries: tuple[Entry, ...]
    absent: frozenset[str]
    ages_s: Mapping[str, int]
    foreign: tuple[Foreign, ...]
    ingests: tuple[Ingest, ...]

    @property
    def present(self) -> frozenset[str]:
        return frozenset(self.nodes) - self.absent


class Verdict(NamedTuple):
    """What a reset must do: `keep` stays, `remove` goes, of `doubt` either is right."""

    keep: frozenset[str]
    remove: frozenset[str]
    doubt: frozenset[str]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def is_opened(ref: Ref) -> bool:
    return ref.is_entry or ref.media_type not in LEAF_TYPES


def walk(nodes: Mapping[str, Node], readable: frozenset[str], roots: Iterable[Ref]) -> set[Ref]:
    """Every ref that is met from the roots; only `readable` nodes are opened."""
    met: set[Ref] = set()
    waiting = list(roots)
    while waiting:
        ref = waiting.pop()
        if ref in met:
            continue
        met.add(ref)
        if is_opened(ref) and ref.digest in readable:
            waiting.extend(nodes[ref.digest].links)
    return met


def reach(cache: Cache, entries: Iterable[Entry] | None = None) -> frozenset[str]:
    """All digests that the entries reach, present or not."""
    roots = [entry.ref for entry in (cache.entries if entries is None else entries)]
    return frozenset(ref.digest for ref in walk(cache.nodes, cache.present, roots))


def young_reach(cache: Cache, min_age_s: int) -> tuple[frozenset[str], frozenset[str]]:
    """(what young garbage keeps, what it may keep).

    Nothing names a piece of garbage, so it is opened whatever it is. A cacheconfig without a
    descriptor to say so is recognised by luck: its layers are a matter of doubt.
    """
    live = reach(cache)
    young = [d for d in cache.present - live if cache.ages_s[d] < min_age_s]
    sure = [Ref(d, "") for d in young if cache.nodes[d].kind != "cacheconfig"]
    kept = {ref.digest for ref in walk(cache.nodes, cache.present, sure)} | set(young)
    every = walk(cache.nodes, cache.present, [Ref(d, "") for d in young])
    return frozenset(kept), frozenset(ref.digest for ref in every) - kept


def verdict(cache: Cache, min_age_s: int = 0) -> Verdict:
    live = reach(cache)
    spared, doubt = young_reach(cache, min_age_s) if min_age_s else (frozenset(), frozenset())
    present = cache.present
    keep = (live | spared) & present
    doubt = (doubt & present) - keep
    return Verdict(keep, present - keep - doubt, doubt)


def stale_ingests(cache: Cache, ingest_age_s: int = HOUR_S) -> frozenset[str]:
    return frozenset(i.name for i in cache.ingests if i.age_s >= ingest_age_s)


def foreign_names(cache: Cache) -> frozenset[str]:
    """What a reset lists as foreign: each stray by its topmost directory that is foreign too."""
    rooms = ("", "blobs", "blobs/sha256", "blobs/sha384", "blobs/sha512", "ingest")
    found = set()
    for thing in cache.foreign:
        room, name = thing.path.rpartition("/")[::2]
        while room not in rooms:
            room, _, name = room.rpartition("/")
            name = f"{thing.path[len(room) :].strip('/').split('/')[0]}/"
        found.add(f"{room}/{name}" if room else name)
    return frozenset(found)


def size_of(cache: Cache, digests: Iterable[str]) -> int:
    return sum(len(cache.nodes[digest].data) for digest in digests)


def depth(nodes: Mapping[str, Node], digest: str) -> int:
    """1 for a leaf, else one more than the deepest child that exists."""
    node = nodes.get(digest)
    if node is None or not node.links:
        return 1
    return 1 + max(depth(nodes, ref.digest) for ref in node.links)


def structure(cache: Cache) -> list[str]:
    """Live blobs without which the picture is incomplete: roots and nested manifests.

    Left out is what only a `subject` names, for that may rightly be absent, and what is met
    only by an unknown media type below a root.
    """
    refs = walk(cache.nodes, cache.present, [entry.ref for entry in cache.entries])
    roots = {entry.ref for entry in cache.entries}
    needed = {
        ref.digest
        for ref in refs
        if not ref.is_subject
        and ref.digest in cache.present
        and cache.nodes[ref.digest].kind in ("manifest", "index")
        and (ref.media_type in (*STRUCTURAL_TYPES, *LEAF_TYPES) or ref in roots)
        and is_opened(ref)
    }
    return sorted(needed)
