"""Row: prune of a cache with hundreds of tags down to half its size, against a reset of it."""

import json
import os

from bench.clock import BenchError, Side, alternate
from bench.place import Place, check_swept, discard, file_system, kitcache
from bench.table import Row, ratio_row
from bench.trees import Tree, holes

_GOAL = 2.0


def prune_row(place: Place) -> Row:
    """Measure a half live cache with a tag per hundred blobs; half of the tags are removed."""
    blobs, sizes = place.sizes.sweep_blobs, place.sizes
    trees: list[Tree] = []

    def side(name: str, words: list[str]) -> Side:
        def prepare() -> list[str]:
            trees.append(place.tree(place.tmpfs, blobs, live=blobs // 2))
            limit = f"{_live_bytes(trees[-1]) // 2}B" if name == "kitcache" else ""
            return kitcache(*words, *filter(None, [limit]), trees[-1].path)

        def check() -> None:
            tree = trees.pop()
            (_check_pruned if name == "kitcache" else check_swept)(tree)
            discard([tree.path])

        return Side(name, prepare, check)

    ours, theirs = alternate(
        [
            side("kitcache", ["prune", "--quiet", "--max-used-space"]),
            side("reset", ["reset", "--quiet"]),
        ],
        rounds=sizes.sweep_rounds,
        spare=sizes.spare_rounds,
    )
    tags = blobs // 200
    what = f"prune of {tags:,} tags over {blobs:,} blobs, {file_system(place.tmpfs)}"
    return ratio_row(what, ours, "kitcache reset", theirs, _GOAL)


def _live_bytes(tree: Tree) -> int:
    return sum(os.stat(os.path.join(tree.blob_dir, name)).st_size for name in tree.live)


def _check_pruned(tree: Tree) -> None:
    """Raise BenchError unless about half of the tags are kept, complete, and no other blob."""
    with open(os.path.join(tree.path, "index.json"), "rb") as file:
        tags = len(json.load(file)["manifests"])
    left = set(os.listdir(tree.blob_dir))
    before = -(-len(tree.live) // 100)
    is_half = abs(tags - before / 2) <= 1 and len(left) <= 100 * tags and left <= tree.live
    if not is_half or holes(tree.path):
        raise BenchError(f"{tags} of {before} tags and {len(left)} blobs are left")
