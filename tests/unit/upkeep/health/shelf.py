"""Blobs without a disk, and what is done about them, for tests of what is mended."""

import json
from typing import Any

from kitcache.errors import Damaged
from kitcache.gc.values import DamagedPath, MissingBlob, NodeKey, Root, Survey, key_of
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import DocumentError
from kitcache.oci.index import read_entries
from kitcache.oci.links import Link, kind_of, read_links
from kitcache.upkeep.health.judge import Judge
from kitcache.upkeep.health.repairplan import RepairInput, RepairPlan, make_repair_plan
from kitcache.upkeep.project import CacheDocuments
from tests.hostile.build import (
    CACHECONFIG,
    IMAGE_CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    REF_NAME,
    Json,
    digest_of,
    encode,
)
from tests.hostile.importable import UNCOMPRESSED, chain_of_steps
from tests.unit.gc.surveys import EMPTY


class Shelf:
    """Blobs without a disk, and what a survey of them would say."""

    blobs_are_leaves = False

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.bad: dict[Digest, str] = {}
        self.offers: dict[Digest, str] = {}
        self.noted: dict[str, Descriptor] = {}
        self.entries: list[Json] = []

    def put(self, data: bytes, media_type: str = LAYER, **more: Any) -> Json:
        self.blobs[parse_digest(digest_of(data))] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}

    def layer(self, name: str) -> Json:
        data = f"layer {name}".encode()
        return self.put(data, annotations={UNCOMPRESSED: digest_of(b"tar " + data)})

    def cache(
        self, layers: list[Json], config: Json | None = None, *, as_index: bool = False
    ) -> Json:
        described = self.put(encode(config or chain_of_steps(layers)), CACHECONFIG)
        if as_index:
            return self.put(encode({"manifests": [*layers, described]}), INDEX)
        return self.put(encode({"config": described, "layers": layers}), MANIFEST)

    def image(self, layers: list[Json]) -> Json:
        config = self.put(b"{}", IMAGE_CONFIG)
        return self.put(encode({"config": config, "layers": layers}), MANIFEST)

    def tag(self, name: str | None, root: Json) -> None:
        named = {} if name is None else {"annotations": {REF_NAME: name}}
        self.entries.append({**root, **named})

    def lose(self, blob: Json) -> Digest:
        """It is missing."""
        gone = parse_digest(blob["digest"])
        self.blobs.pop(gone, None)
        return gone

    def spoil(self, blob: Json) -> Digest:
        """It holds other bytes: hidden from the survey, and known to be bad."""
        gone = self.lose(blob)
        self.bad[gone] = "holds other bytes"
        return gone

    def found(self, **more: Any) -> RepairInput:
        data = encode({"schemaVersion": 2, "manifests": self.entries})
        entries = read_entries(data)
        roots = tuple(Root(n, e.ref_name, e.descriptor) for n, e in enumerate(entries))
        survey = self.survey(roots, [(e.problem, r) for e, r in zip(entries, roots, strict=True)])
        judge = Judge(self, survey, {d: bad for d, bad in self.bad.items() if d not in survey.live})
        named = [r.descriptor for r in roots if r.descriptor] + list(self.noted.values())
        statuses = {root: judge.judge(root) for root in (r._replace(ref_name=None) for r in named)}
        caches = {root.digest: self.read_cache(root.digest) for root in statuses}
        whole = RepairInput(
            old_index=data,
            index_data=data,
            survey=survey,
            last_exports=self.noted,
            statuses=statuses,
            caches={digest: cache for digest, cache in caches.items() if cache is not None},
            last_used_ns={},
            bad=self.bad,
            problems=judge.problems,
            offers=self.offers,
            corrected=frozenset(),
            symlinks=frozenset(),
            lost="",
            candidates=(),
        )
        return whole._replace(**more)

    def read_cache(self, root: Digest) -> CacheDocuments | None:
        try:
            cache = read_cache_manifest(self.blobs.get(root, b"{}"))
        except DocumentError:
            return None
        config = cache and self.blobs.get(cache.config.digest)
        return CacheDocuments(self.blobs[root], config) if config else None

    def read_blob(
        self, digest: Digest, size: int | None, *, unless_binary: bool = False
    ) -> bytes | None:
        if digest not in self.blobs:
            raise Damaged("shelf", "is missing", kind="missing")
        return self.blobs[digest]

    def survey(self, roots: tuple[Root, ...], problems: list[tuple[str, Root]]) -> Survey:
        live: dict[Digest, int] = {}
        links: dict[NodeKey, tuple[Link, ...]] = {}
        missing: dict[Digest, MissingBlob] = {}
        damage = [
            DamagedPath(root, (), "malformed", problem) for problem, root in problems if problem
        ]
        starts = [(root, root.descriptor) for root in roots if root.descriptor]
        starts += [(Root(-1, tag, last), last) for tag, last in self.noted.items()]
        for root, start in starts:
            todo = [(Link(start, "manifest"), (start,))]
            while todo:
                link, chain = todo.pop()
                found = self.blobs.get(link.descriptor.digest)
                if found is not None:
                    live[link.descriptor.digest] = len(found)
                    kind = kind_of(link.descriptor.media_type)
                    below = read_links(kind, found) if kind != "leaf" else ()
                    links[key_of(link.descriptor)] = below
                    todo += [(one, (*chain, one.descriptor)) for one in below]
                elif kind_of(link.descriptor.media_type) in ("index", "manifest"):
                    damage.append(DamagedPath(root, chain, "missing", "is missing"))
                else:
                    leaf = MissingBlob(link.descriptor.digest, root.ref_name)
                    missing.setdefault(link.descriptor.digest, leaf)
        return EMPTY._replace(
            roots=roots,
            live=live,
            links=links,
            missing_blobs=tuple(missing.values()),
            damage=tuple(damage),
        )


def mend(shelf: Shelf, *, is_dry: bool = False, **more: Any) -> RepairPlan:
    """more: what is found otherwise than a survey of the shelf would."""
    return make_repair_plan(shelf.found(**more), now_ns=10**18, is_dry=is_dry)


def tags(mending: RepairPlan) -> dict[str | None, Json]:
    """The entries of the new index.json by their names."""
    assert mending.new_index is not None
    found = json.loads(mending.new_index)["manifests"]
    return {(e.get("annotations") or {}).get(REF_NAME): e for e in found}
