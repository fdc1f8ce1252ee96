"""What the tests of prune share: policies, and a look at what is left."""

import json
import os
from typing import Any

from kitcache.options.prunepolicy import DiskSpace, PrunePolicy
from kitcache.store.values import WaitPolicy
from kitcache.upkeep.results import PruneResult
from tests.hostile.build import REF_NAME, Json, Sample

KEEP_MAIN = PrunePolicy(keep_tags=("main",))
IMPATIENT = WaitPolicy(0, lambda _: None, lambda _: None)


def most(limit_bytes: int, **more: Any) -> PrunePolicy:
    return PrunePolicy(max_used=DiskSpace(bytes=limit_bytes), **more)


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def tags(sample: Sample) -> list[Any]:
    index = json.loads((sample.dir / "index.json").read_bytes())
    return [entry.get("annotations", {}).get(REF_NAME) for entry in index["manifests"]]


def below(sample: Sample, root: Json) -> set[str]:
    """The names of all that a manifest reaches."""
    manifest = json.loads(sample.box.path_of(root["digest"]).read_bytes())
    found = [root, manifest["config"], *manifest["layers"]]
    return {item["digest"].partition(":")[2] for item in found}


def size_of(sample: Sample, names: set[str]) -> int:
    return sum((sample.dir / "blobs" / "sha256" / name).stat().st_size for name in names)


def kept(pruned: PruneResult) -> list[str | None]:
    return [decision.ref_name for decision in pruned.tags if decision.keep]
