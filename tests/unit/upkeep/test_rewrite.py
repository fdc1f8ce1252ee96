"""upkeep/rewrite.py: a smaller root says what it reaches, and is written before it is named."""

import json

from kitcache.oci.cacheconfig import read_cacheconfig
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.layout import Layout
from kitcache.upkeep.project import CacheDocuments, make_root
from kitcache.upkeep.rewrite import write_root
from tests.hostile.build import CACHECONFIG, Json, Sample, encode


def root_of(sample: Sample) -> tuple[CacheDocuments, list[Digest]]:
    """Three layers on top of each other, a step for each; both documents, and layers."""
    layers = list(sample.layers)
    listed: list[Json] = [{"blob": d["digest"], "parent": n - 1} for n, d in enumerate(layers)]
    records: list[Json] = [
        {
            "digest": f"step {n}",
            "layers": [{"layer": n}],
            **({"inputs": [[{"link": n - 1}]]} if n else {}),
        }
        for n in range(3)
    ]
    data = encode({"layers": listed, "records": records})
    config = sample.box.blob(data, CACHECONFIG)
    manifest = sample.box.manifest(layers, config)
    root = sample.box.path_of(manifest["digest"]).read_bytes()
    return CacheDocuments(root, data), [parse_digest(d["digest"]) for d in layers]


def test_it_reaches_what_is_kept(sample: Sample, layout: Layout) -> None:
    cache, (first, second, _) = root_of(sample)
    new = make_root(cache, [(1, 0)])
    assert new.layers == {first, second}

    digest, size = write_root(layout, new)
    assert digest == new.digest
    found = read_cache_manifest(layout.read_blob(digest, size) or b"")
    assert found is not None
    assert [layer.descriptor.digest for layer in found.layers] == [first, second]
    kept = read_cacheconfig(layout.read_blob(found.config.digest, found.config.size) or b"")
    assert [record.digest for record in kept.records] == ["step 0", "step 1"]
    assert [len(record.results) for record in kept.records] == [0, 1]
    assert json.loads(new.documents.root)["mediaType"] == json.loads(cache.root)["mediaType"]


def test_all_kept_is_the_same_root(sample: Sample) -> None:
    cache, _ = root_of(sample)
    new = make_root(cache, [(0, 0), (1, 0), (2, 0)])
    assert json.loads(new.documents.root) == json.loads(cache.root)
    assert new.documents.config == cache.config
