"""health/repair.py: how many bytes a repair reads, and which blobs it hashes again."""

from pathlib import Path

import pytest

from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.hostile.build import LAYER, Box, Json, digest_of
from tests.hostile.importable import UNCOMPRESSED, add_cache
from tests.property.disk import settle
from tests.unit.upkeep.health.healthkit import flip, kinds

MIB = 1024 * 1024


def large(box: Box, number: int) -> Json:
    blob = box.blob(bytes([number]) * MIB, LAYER)
    return blob | {"annotations": {UNCOMPRESSED: digest_of(f"tar {number}".encode())}}


@pytest.fixture
def layers(box: Box) -> list[Json]:
    """Two caches of eight layers of a mebibyte; the last layer of the second one is bad."""
    layers = [large(box, number) for number in range(16)]
    add_cache(box, "whole", layers[:8])
    add_cache(box, "cut", layers[8:])
    flip(box, layers[15]["digest"])
    settle(box.dir)
    return layers


def bytes_read() -> int:
    """By this process so far, in all threads."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar: ")).split()[1])


def test_each_blob_is_read_once_and_a_bad_one_twice(box: Box, layers: list[Json]) -> None:
    before = bytes_read()
    done = repair(box.dir)
    read = bytes_read() - before
    assert (kinds(done), done.exit_code) == (
        [("rewrite-cache", "cut"), ("quarantine-blob", None)],
        0,
    )
    # The rest are documents: a few kB, each read for several reasons.
    assert 17 * MIB <= read < 17.25 * MIB
    assert done.verification.blobs.blobs == verify(box.dir).blobs.blobs
    assert done.verification.blobs.bytes == verify(box.dir).blobs.bytes
