"""Nodes of the model from their children: each kind of document that a layout may hold.

The bytes follow what BuildKit, Docker and the OCI tools write; the links are noted beside them.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tests.property.model import (
    ARTIFACT,
    CACHECONFIG,
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_LAYERS,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SIGNED,
    EMPTY,
    INDEX,
    MANIFEST,
    OCI_LAYERS,
    STRANGE_STRUCTURE,
    Entry,
    Node,
    Ref,
    digest_of,
)

Link = tuple[Node, str]
"""A child and the media type that its descriptor says, "" for none."""


def leaf(data: bytes, media_type: str = OCI_LAYERS[1], algorithm: str = "sha256") -> Node:
    return Node(digest_of(data, algorithm), data, "leaf", media_type, ())


def image_config(seed: int, docker: bool = False) -> Node:
    """An image's config has a `config` of its own, which is no descriptor."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [f"SEED={seed}"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(b"%d" % seed)]},
    }
    return leaf(encode(document), DOCKER_CONFIG if docker else CONFIG)


def empty_config() -> Node:
    return leaf(b"{}", EMPTY)


def provenance(subject: Node) -> Node:
    """An in-toto statement: its `subject` is a list of digests that are no descriptors."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "app", "digest": {"sha256": subject.digest.partition(":")[2]}}],
        "predicate": {},
    }
    return leaf(encode(statement), "application/vnd.in-toto+json")


def cacheconfig(layers: Sequence[Node], seed: int = 0) -> Node:
    document = {
        "layers": [{"blob": node.digest, "parent": at - 1} for at, node in enumerate(layers)],
        "records": [
            {
                "digest": digest_of(b"%d-%d" % (seed, at)),
                "layers": [{"layer": at, "createdAt": "2026-06-01T10:00:00.5Z"}],
            }
            for at in range(len(layers))
        ],
    }
    links = tuple(Ref(node.digest, node.media_type) for node in layers)
    data = encode(document)
    return Node(digest_of(data), data, "cacheconfig", CACHECONFIG, links)


def manifest(
    config: Link,
    layers: Sequence[Link],
    *,
    media_type: str = MANIFEST,
    subject: Link | None = None,
    names_itself: bool = True,
    algorithm: str = "sha256",
    note: int = 0,
) -> Node:
    document: dict[str, Any] = {"schemaVersion": 2}
    if names_itself:
        document["mediaType"] = media_type
    document |= {"config": descriptor(config), "layers": [descriptor(link) for link in layers]}
    links = [ref(config), *map(ref, layers)]
    if subject is not None:
        document["subject"] = descriptor(subject)
        links.append(ref(subject)._replace(is_subject=True))
    document["annotations"] = {"org.example.note": str(note)}
    return _structure(document, "manifest", media_type, links, algorithm)


def index(
    children: Sequence[Link],
    *,
    media_type: str = INDEX,
    names_itself: bool = True,
    subject: Link | None = None,
    algorithm: str = "sha256",
    note: int = 0,
) -> Node:
    document: dict[str, Any] = {"schemaVersion": 2}
    if names_itself:
        document["mediaType"] = media_type
    document["manifests"] = [descriptor(link) for link in children]
    is_cache = any(said == CACHECONFIG for _, said in children)
    links = [ref(link)._replace(is_entry=not is_cache) for link in children]
    if subject is not None:
        document["subject"] = descriptor(subject)
        links.append(ref(subject)._replace(is_subject=True))
    document["annotations"] = {"org.example.note": str(note)}
    return _structure(document, "index", media_type, links, algorithm)


def cache_manifest(layers: Sequence[Node], seed: int = 0, extra: Sequence[Node] = ()) -> Node:
    """What BuildKit writes with image-manifest=true; `extra` is named by the config alone."""
    config = cacheconfig([*layers, *extra], seed)
    return manifest(honest(config), [honest(node) for node in layers])


def cache_index(layers: Sequence[Node], seed: int = 0, docker: bool = False) -> Node:
    """What BuildKit writes with image-manifest=false: the entries are layers and the config."""
    config = cacheconfig(layers, seed)
    media_type = DOCKER_LIST if docker else INDEX
    return index([honest(node) for node in [*layers, config]], media_type=media_type)


def docker_image(config: Node, layers: Sequence[Node]) -> Node:
    links = [(node, DOCKER_LAYERS[0]) for node in layers]
    return manifest((config, DOCKER_CONFIG), links, media_type=DOCKER_MANIFEST)


def attested(images: Sequence[Node], as_artifact: bool) -> tuple[list[Node], Node]:
    """A multi-platform image where each platform has an attestation: (new nodes, the index)."""
    made: list[Node] = []
    children: list[Link] = []
    for image in images:
        statement = provenance(image)
        config = empty_config()
        subject = honest(image) if as_artifact else None
        attestation = manifest(honest(config), [honest(statement)], subject=subject)
        made += [statement, config, attestation]
        children += [honest(image), honest(attestation)]
    return made, index(children)


def artifact(blobs: Sequence[Link], subject: Link | None = None, names_itself: bool = True) -> Node:
    """The short-lived OCI artifact manifest: its content is listed under `blobs`."""
    document: dict[str, Any] = {"artifactType": "application/vnd.acme.thing"}
    if names_itself:
        document["mediaType"] = ARTIFACT
    document["blobs"] = [descriptor(link) for link in blobs]
    links = [ref(link) for link in blobs]
    if subject is not None:
        document["subject"] = descriptor(subject)
        links.append(ref(subject)._replace(is_subject=True))
    return _structure(document, "manifest", ARTIFACT, links)


def signed_schema1(layers: Sequence[Node]) -> Node:
    """Docker's schema 1: layers are bare digests, newest first."""
    document = {
        "schemaVersion": 1,
        "name": "library/app",
        "fsLayers": [{"blobSum": node.digest} for node in layers],
        "history": [],
    }
    links = [Ref(node.digest, node.media_type) for node in layers]
    return _structure(document, "manifest", DOCKER_SIGNED, links)


def bundle(parts: Sequence[Link]) -> Node:
    """A media type that nobody knows, with layers all the same."""
    document = {"kind": "bundle", "layers": [descriptor(link) for link in parts]}
    return _structure(document, "manifest", STRANGE_STRUCTURE, [ref(link) for link in parts])


def honest(node: Node) -> Link:
    return node, node.media_type


def ref(link: Link) -> Ref:
    return Ref(link[0].digest, link[1])


def entry(node: Node, ref_name: str | None, media_type: str | None = None) -> Entry:
    said = node.media_type if media_type is None else media_type
    return Entry(Ref(node.digest, said, is_entry=True), len(node.data), ref_name)


def by_digest(nodes: Iterable[Node]) -> dict[str, Node]:
    return {node.digest: node for node in nodes}


def descriptor(link: Link) -> dict[str, Any]:
    node, media_type = link
    said = {"mediaType": media_type} if media_type else {}
    return said | {"digest": node.digest, "size": len(node.data)}


def encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _structure(
    document: object,
    kind: str,
    media_type: str,
    links: Sequence[Ref],
    algorithm: str = "sha256",
) -> Node:
    data = encode(document)
    return Node(digest_of(data, algorithm), data, kind, media_type, tuple(links))
