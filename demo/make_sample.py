"""Create sample-cache.tar.gz: a cache that BuildKit exported in seven rounds. See README.md.

This is a tool for developers of kitcache, not a part of the demo: it needs root and a dockerd. The
bytes of the layers are the same each time; the cacheconfigs contain the time of the build.
"""

import gzip
import sys
import tarfile
import tempfile
from pathlib import Path

from rounds import ROUNDS, write_context

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from integration.daemon import Daemon  # noqa: E402

SAMPLE = HERE / "sample-cache.tar.gz"
TOKEN = "demo"


def main() -> None:
    with tempfile.TemporaryDirectory() as work, Daemon() as daemon:
        cache, context = Path(work, "cache"), Path(work, "context")
        for part in ROUNDS:
            write_context(context, part, TOKEN)
            daemon.export(context, cache, tag=part.tag, mode="max", image_manifest="true")
        pack(cache)
        blobs = list((cache / "blobs" / "sha256").iterdir())
        print(f"{daemon.version()}: {len(ROUNDS)} exports, {len(blobs)} blobs")
    print(f"{SAMPLE.name}: {SAMPLE.stat().st_size:,} bytes")


def pack(cache: Path) -> None:
    """Pack a cache with the times of its files, but without their owner."""
    with (
        open(SAMPLE, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted([cache, *cache.rglob("*")]):
            tar.add(path, path.relative_to(cache.parent), recursive=False, filter=anonymous)


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = int(entry.mtime)
    return entry


if __name__ == "__main__":
    main()
