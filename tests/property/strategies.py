"""Grows caches, and damages them. New laws join these strategies instead of writing their own.

`caches()` is built from the leaves up, so that a child's digest is known when its parent is
made; sharing, nesting and garbage come by drawing children from all that was made before.
"""

from typing import NamedTuple

from hypothesis import strategies as st

from tests.property import make
from tests.property.make import Link, honest
from tests.property.model import (
    DOCKER_LAYERS,
    DOCKER_LIST,
    EMPTY,
    OCI_LAYERS,
    STRANGE_LEAVES,
    Cache,
    Entry,
    Foreign,
    Ingest,
    Node,
    Ref,
    depth,
    digest_of,
    is_opened,
    structure,
    walk,
)

MAX_DEPTH = 6
"""A layer, its manifest, and up to four nested indexes."""

ALGORITHMS = ("sha256", "sha256", "sha256", "sha384", "sha512")
SHAPES = (
    "cache manifest",
    "cache index",
    "image",
    "docker image",
    "index",
    "docker list",
    "nested",
    "attested",
    "artifact",
    "referrer",
    "schema 1",
    "bundle",
    "manifest of a stranger",
)
TAGS = ("latest", "main", "pr-1", "ünïcode", "a/b:c@d", "")
LOOKALIKES = (
    b'{"layers":[{"size":3}]}',
    b'{"config":{"Env":[]},"layers":"none"}',
    b'{"manifests":[]}',
    b"[1,2]",
    b"{",
    b"\x1f\x8b not json",
    b"",
)


class Damage(NamedTuple):
    """What befalls one blob of a cache: missing, torn (cut at `at`), or lying."""

    digest: str
    how: str
    data: bytes  # what is there instead; nothing where it is missing


@st.composite
def leaves(draw: st.DrawFn) -> list[Node]:
    """One to eight leaves: layers, configs, strange types, and what only looks like structure."""
    made: list[Node] = []
    for seed in range(draw(st.integers(1, 8))):
        match draw(st.integers(0, 5)):
            case 0:
                made.append(make.image_config(seed, docker=draw(st.booleans())))
            case 1:
                look = draw(st.sampled_from(LOOKALIKES))
                made.append(make.leaf(look, draw(st.sampled_from(STRANGE_LEAVES))))
            case _:
                data = b"layer %d " % seed + draw(st.binary(max_size=40))
                kind = draw(st.sampled_from(OCI_LAYERS + DOCKER_LAYERS))
                made.append(make.leaf(data, kind, draw(st.sampled_from(ALGORITHMS))))
    return made


@st.composite
def nodes(draw: st.DrawFn) -> dict[str, Node]:
    """A graph of blobs, leaves first."""
    pool = draw(leaves())
    for seed in range(draw(st.integers(1, 9))):
        for node in draw(documents(tuple(pool), seed)):
            if depth(make.by_digest([*pool, node]), node.digest) > MAX_DEPTH:
                break  # and without it nothing above it
            pool.append(node)
    return make.by_digest(pool)


@st.composite
def documents(draw: st.DrawFn, pool: tuple[Node, ...], seed: int) -> list[Node]:
    """One document of any shape over nodes of the pool, after the new nodes that it needs."""
    layers = draw(some([node for node in pool if node.kind == "leaf"]))
    structures = [node for node in pool if node.kind in ("manifest", "index")]
    children = draw(some(structures or list(pool)))
    quiet = draw(st.booleans())
    config = make.image_config(seed)
    match draw(st.sampled_from(SHAPES)):
        case "cache manifest":
            extra = draw(some([n for n in pool if n.kind == "leaf"])) if quiet else []
            cacheconfig = make.cacheconfig([*layers, *extra], seed)
            links = [honest(node) for node in layers]
            return [cacheconfig, make.manifest(honest(cacheconfig), links)]
        case "cache index":
            cacheconfig = make.cacheconfig(layers, seed)
            return [cacheconfig, make.cache_index(layers, seed, docker=quiet)]
        case "image":
            links = [(n, draw(layer_types(n))) for n in layers]
            algorithm = draw(st.sampled_from(ALGORITHMS))
            image = make.manifest(
                honest(config), links, names_itself=quiet, algorithm=algorithm, note=seed
            )
            return [config, image]
        case "docker image":
            docker = make.image_config(seed, docker=True)
            return [docker, make.docker_image(docker, layers)]
        case "index":
            links = [(n, draw(index_types(n))) for n in children]
            return [make.index(links, names_itself=quiet, note=seed)]
        case "docker list":
            return [make.index([honest(n) for n in children], media_type=DOCKER_LIST, note=seed)]
        case "nested":
            return nested(structures[-1] if structures else pool[-1], draw(st.integers(2, 4)))
        case "attested":
            made, top = make.attested(children, as_artifact=quiet)
            return [*made, top]
        case "artifact":
            return [make.artifact([honest(n) for n in layers], names_itself=quiet)]
        case "referrer":
            subject = draw(subjects(structures))
            blobs = [honest(n) for n in layers]
            empty = make.empty_config()
            return [empty, make.manifest(honest(empty), blobs, subject=subject, note=seed)]
        case "schema 1":
            return [make.signed_schema1(layers)]
        case "bundle":
            return [make.bundle([honest(n) for n in layers])]
        case _:  # its config is of a type that nobody knows, and may be missing or a lookalike
            strange = make.leaf(b'{"config":{"a":%d}}' % seed, STRANGE_LEAVES[0])
            return [strange, make.manifest(honest(strange), [honest(n) for n in layers])]


def nested(node: Node, levels: int) -> list[Node]:
    """Indexes of one index each, down to the node."""
    made: list[Node] = []
    for _ in range(levels):
        node = make.index([honest(node)], note=levels)
        made.append(node)
    return made


@st.composite
def subjects(draw: st.DrawFn, structures: list[Node]) -> Link:
    """A manifest that exists, or one that was never here, which OCI allows."""
    if structures and draw(st.integers(0, 3)) > 0:
        return honest(draw(st.sampled_from(structures)))
    never_here = make.manifest(honest(make.empty_config()), [], note=10_000)
    return honest(never_here)


def layer_types(node: Node) -> st.SearchStrategy[str]:
    """What a descriptor below `layers` may say of a leaf: the truth, nothing, another type."""
    return st.sampled_from([node.media_type, "", OCI_LAYERS[2], STRANGE_LEAVES[0]])


def index_types(node: Node) -> st.SearchStrategy[str]:
    """An index may leave the media type out, or call a whole image a layer."""
    if node.kind in ("manifest", "index"):
        return st.sampled_from([node.media_type, node.media_type, "", OCI_LAYERS[1]])
    return st.just(node.media_type)


def some(pool: list[Node]) -> st.SearchStrategy[list[Node]]:
    return st.lists(st.sampled_from(pool), max_size=4) if pool else st.just([])


@st.composite
def entries(draw: st.DrawFn, pool: dict[str, Node]) -> tuple[Entry, ...]:
    """Some nodes become roots: any structure, now and then a leaf; tags may be shared or absent."""
    structures = [node for node in pool.values() if node.kind in ("manifest", "index")]
    roots = draw(st.lists(st.sampled_from(structures), max_size=3))
    if draw(st.booleans()):
        roots.append(structures[-1])  # what was made last reaches most
    if draw(st.integers(0, 7)) == 0:
        roots.append(draw(st.sampled_from(list(pool.values()))))
    found = []
    for node in roots:
        said = draw(st.sampled_from([node.media_type, node.media_type, "", OCI_LAYERS[1], EMPTY]))
        ref_name = draw(st.sampled_from([*TAGS, None]))
        found.append(Entry(Ref(node.digest, said, is_entry=True), len(node.data), ref_name))
    return tuple(found)


@st.composite
def caches(draw: st.DrawFn, with_ingests: bool = True, min_roots: int = 0) -> Cache:
    """A whole cache that a reset must accept: nothing structural is damaged."""
    pool = draw(nodes())
    roots = draw(entries(pool).filter(lambda found: len(found) >= min_roots))
    garbage = [make.leaf(b"garbage %d" % n) for n in range(draw(st.integers(0, 4)))]
    pool |= make.by_digest(garbage)
    cache = Cache(pool, roots, frozenset(), {}, (), ())
    absent = draw(st.sets(st.sampled_from(may_be_absent(cache)))) if may_be_absent(cache) else ()
    young_s, old_s = st.integers(1, 1800), st.integers(7200, 10**6)
    ages = {digest: draw(st.one_of(young_s, old_s)) for digest in pool}
    foreign = tuple(draw(st.lists(st.sampled_from(foreign_things(cache)), unique=True)))
    left_behind = draw(ingests()) if with_ingests else ()
    return cache._replace(
        absent=frozenset(absent), ages_s=ages, foreign=foreign, ingests=left_behind
    )


def may_be_absent(cache: Cache) -> list[str]:
    """Layers and configs, and any garbage: what a reset must bear to miss."""
    roots = [entry.ref for entry in cache.entries]
    live = walk(cache.nodes, frozenset(cache.nodes), roots)
    needed = {ref.digest for ref in live if is_opened(ref)}
    needed |= {entry.ref.digest for entry in cache.entries}
    return sorted(set(cache.nodes) - needed)


def foreign_things(cache: Cache) -> list[Foreign]:
    """Names that are nearly digests, things that are not files, and what does not belong."""
    some_hex = digest_of(b"not here").partition(":")[2]
    return [
        Foreign("README", "file", "mine"),
        Foreign("notes/todo", "file", "mine"),
        Foreign("blobs/stray", "file", "x"),
        Foreign(f"blobs/blake3/{some_hex}", "file", "x"),
        Foreign(f"blobs/sha256/{some_hex.upper()}", "file", "x"),
        Foreign(f"blobs/sha256/{some_hex[:-1]}", "file", "x"),
        Foreign(f"blobs/sha256/{some_hex}0", "file", "x"),
        Foreign(f"blobs/sha256/{some_hex[:-1]}g", "file", "x"),
        Foreign(f"blobs/sha256/.{some_hex}", "file", "x"),
        Foreign("blobs/sha256/new\nline", "file", "x"),
        Foreign(f"blobs/sha512/{some_hex}", "file", "a sha256 name in another room"),
        Foreign(f"blobs/sha256/{some_hex}", "dir", "x"),
        Foreign(f"blobs/sha384/{some_hex}{some_hex[:32]}", "link", "../../index.json"),
    ]


@st.composite
def ingests(draw: st.DrawFn) -> tuple[Ingest, ...]:
    """Left behind hours ago, minutes ago (stays), or dated well into the future (stays)."""
    ages = st.one_of(
        st.integers(2 * 3600, 10**6), st.integers(120, 3000), st.integers(-(10**6), -300)
    )
    drawn = draw(st.lists(ages, max_size=3))
    return tuple(Ingest(f"layer-{n}", age, b"half a layer") for n, age in enumerate(drawn))


@st.composite
def damages(draw: st.DrawFn, cache: Cache) -> Damage:
    """One structural blob of the cache is missing, cut short, or says something else."""
    digest = draw(st.sampled_from(structure(cache)))
    data = cache.nodes[digest].data
    match draw(st.sampled_from(["missing", "wrong-size", "longer", "lying"])):
        case "missing":
            return Damage(digest, "missing", b"")
        case "wrong-size":
            return Damage(digest, "wrong-size", data[: draw(st.integers(0, len(data) - 1))])
        case "longer":
            return Damage(digest, "longer", data + b" ")
        case _:  # the same size and valid JSON: only the digest gives it away
            return Damage(digest, "lying", data[:2] + data[2:3].upper() + data[3:])


def damaged_caches() -> st.SearchStrategy[tuple[Cache, Damage]]:
    sound = caches(with_ingests=False, min_roots=1).filter(lambda cache: bool(structure(cache)))
    return sound.flatmap(lambda cache: st.tuples(st.just(cache), damages(cache)))


def orders(cache: Cache) -> st.SearchStrategy[list[str]]:
    return st.permutations(sorted(cache.present))
