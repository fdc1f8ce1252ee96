"""Caches that BuildKit could really import: layers with annotations, records with results.

A chain of steps, each on top of the one before: step n made layer n. Written byte by byte into a
`Box`; nothing of kitcache is used.
"""

from typing import Any, NamedTuple

from tests.hostile.build import CACHECONFIG, LAYER, Box, Json, digest_of

UNCOMPRESSED = "containerd.io/uncompressed"


class Cached(NamedTuple):
    """What was written: descriptors of the root, of its cacheconfig, of its layers, base first."""

    root: Json
    config: Json
    layers: tuple[Json, ...]


def layer(box: Box, name: str, media_type: str = LAYER) -> Json:
    """A layer's blob, and its descriptor as BuildKit writes it."""
    described = box.blob(f"layer {name} ".encode() * 30, media_type)
    return described | {"annotations": {UNCOMPRESSED: digest_of(f"tar of {name}".encode())}}


def chain_of_steps(layers: list[Json], name: str = "") -> Json:
    """A cacheconfig: a record a step, each reached through the one before it."""
    return {
        "layers": [{"blob": one["digest"], "parent": n - 1} for n, one in enumerate(layers)],
        "records": [
            {
                "digest": digest_of(f"step {name} {n}".encode()),
                "inputs": [[{"link": n - 1}]] if n else [],
                "layers": [{"layer": n, "createdAt": f"2026-06-{n + 1:02}T10:00:00Z"}],
            }
            for n in range(len(layers))
        ],
    }


def add_cache(
    box: Box,
    tag: str,
    layers: list[Json],
    config: Json | None = None,
    *,
    as_index: bool = False,
    **more: Any,
) -> Cached:
    """A tag of a cache over these layers; as_index: the form of `image-manifest=false`.

    more: further fields of the root.
    """
    document = chain_of_steps(layers, tag) if config is None else config
    described = box.document(document, CACHECONFIG)
    if as_index:
        root = box.index_of([*layers, described], **more)
    else:
        root = box.manifest(layers, described, **more)
    box.tag(tag, root)
    return Cached(root, described, tuple(layers))


def grow(box: Box, tag: str = "main", count: int = 3, *, as_index: bool = False) -> Cached:
    """A tag of so many steps; tags share the layers that they have in common."""
    return add_cache(box, tag, [layer(box, str(n)) for n in range(count)], as_index=as_index)
