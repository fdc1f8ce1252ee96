"""Other processes in the same cache: holders of locks, and an exporter that knows none of ours.

Run as a program in a child (`main`), so that locks and crashes are real. Standard library only.
"""

import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


@contextmanager
def lock_holder(path: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has a flock ("sh" or "ex") on that file; communicate() makes it let go."""
    with _child("hold", str(path), kind) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child


@contextmanager
def exporter(root: Path, rounds: int, reused: int, *, seed: int) -> Iterator[subprocess.Popen[str]]:
    """A process that exports so often, in BuildKit's order, with so many old layers each time."""
    with _child("export", str(root), str(rounds), str(reused), str(seed)) as child:
        yield child


@contextmanager
def _child(*args: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, __file__, *args], stdin=pipe, stdout=pipe, text=True)
    with child:
        try:
            yield child
        finally:
            child.kill()


def hold(path: str, kind: str) -> None:
    """Take the lock, say so, keep it until stdin ends."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(fd, fcntl.LOCK_SH if kind == "sh" else fcntl.LOCK_EX)
    sys.stdout.write("held\n")
    sys.stdout.flush()
    sys.stdin.read()


def export(root: Path, rounds: int, reused: int, seed: int) -> None:
    """Export under three tags in turn: three new layers, and some of older exports."""
    rng = random.Random(seed)
    old_layers: list[bytes] = []
    for n in range(rounds):
        fresh = [b"layer %d of round %d, seed %d" % (i, n, seed) for i in range(3)]
        layers = [*fresh, *rng.sample(old_layers, min(reused, len(old_layers)))]
        old_layers = (old_layers + fresh)[-8:]
        digest, size = push_cache(root, layers, n)
        time.sleep(rng.choice((0.0, 0.0, 0.01, 0.05)))  # BuildKit publishes some 50 ms later
        publish(root, ("main", "latest", "pr")[n % 3], digest, size)
        time.sleep(rng.choice((0.0, 0.01, 0.02)))


def push_cache(root: Path, layers: list[bytes], seed: int) -> tuple[str, int]:
    """Commit layers, then the cacheconfig, then the manifest: (its digest, its size)."""
    described = [push_blob(root, LAYER, data) for data in layers]
    document = {"layers": [{"blob": d["digest"]} for d in described], "records": [], "n": seed}
    config = push_blob(root, CACHECONFIG, json.dumps(document).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": described,
    }
    pushed = push_blob(root, MANIFEST, json.dumps(manifest).encode())
    return str(pushed["digest"]), int(str(pushed["size"]))


def push_blob(root: Path, media_type: str, data: bytes) -> dict[str, object]:
    """A blob through ingest/, as containerd's store does it; one that exists leaves no trace."""
    name = hashlib.sha256(data).hexdigest()
    digest = f"sha256:{name}"
    target = root / "blobs" / "sha256" / name
    if not target.exists():
        ref = digest if media_type != LAYER else f"layer-{digest}"
        folder = root / "ingest" / hashlib.sha256(ref.encode()).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        (folder / "ref").write_text(ref)
        (folder / "startedat").write_text(stamp)
        (folder / "updatedat").write_text(stamp)
        (folder / "data").write_bytes(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "data").rename(target)
        target.chmod(0o444)
        shutil.rmtree(folder)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def publish(root: Path, tag: str, digest: str, size: int) -> bool:
    """Rewrite index.json in place under index.json.lock, one try, and unlink the lock file.

    False where the lock is busy: a real build fails then.
    """
    fd = os.open(root / "index.json.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return False
    with (root / "index.json").open("r+b") as file:
        index = json.loads(file.read())
        stays = [e for e in index["manifests"] if e["annotations"][REF_NAME] != tag]
        entry = {"mediaType": MANIFEST, "digest": digest, "size": size}
        entry["annotations"] = {REF_NAME: tag}
        data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [*stays, entry]})
        file.seek(0)
        file.write(data.encode())
        file.truncate()
    os.unlink(root / "index.json.lock")
    os.close(fd)
    return True


def main() -> None:
    """hold PATH sh|ex, or export DIR ROUNDS REUSED SEED."""
    if sys.argv[1] == "hold":
        hold(sys.argv[2], sys.argv[3])
    else:
        export(Path(sys.argv[2]), *map(int, sys.argv[3:6]))


if __name__ == "__main__":
    main()
