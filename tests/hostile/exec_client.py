"""A build client for the tests of `kitcache exec`: it records all that it was given, and exports.

Run under the name `docker`. EXEC_RECORD: where to write what it saw. EXEC_DO: what to do, words of
`wait` (until a signal, whose number becomes 40 + n as the exit code; with `once` 99 if it comes
twice), `export` (each --cache-to, in BuildKit's order; with `hole` a bucket lacks one blob), `die`
(by SIGKILL), `fail`. Standard library only, but for an export to type=s3.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
EXIT = 7
LINES = b"client: out\n", b"client: err \xff\x1b[0m\n"
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGWINCH")


def record() -> None:
    path = os.environ.get("EXEC_RECORD")
    if path is None:
        return
    fds = [fd for fd in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{fd}")]
    seen = {
        "argv": [os.fsencode(word).hex() for word in sys.argv],
        "cwd": os.getcwd(),
        "stdin": "" if 0 not in fds else sys.stdin.buffer.read().hex(),
        "closed": [fd for fd in (0, 1, 2) if fd not in fds],
        "environ": {k: v for k, v in os.environ.items() if k != "_"},
        "group": os.getpgid(0) == os.getpgid(os.getppid()),
        "ignored": [n for n in range(1, 32) if signal.getsignal(n) == signal.SIG_IGN],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }
    Path(path).write_text(json.dumps(seen))


def export(layers: int) -> bool:
    from tests.hostile.strangers import publish, push_cache  # noqa: PLC0415 - found since above

    for value in (w.partition("=")[2] for w in sys.argv if w.startswith("--cache-to=")):
        attrs = dict(pair.split("=", 1) for pair in value.split(","))
        if attrs["type"] == "s3":
            export_to_bucket(attrs)
            continue
        root = Path(attrs["dest"])
        for name in ("ingest", "blobs/sha256"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        if not (root / "index.json").exists():
            (root / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
        tag = attrs.get("tag", "latest")
        seed = int(os.environ.get("EXEC_SEED", "0"))
        fresh = [b"layer %d of %s, seed %d" % (n, tag.encode(), seed) for n in range(layers)]
        digest, size = push_cache(root, [b"shared", *fresh], seed)
        time.sleep(float(os.environ.get("EXEC_PAUSE", "0")))
        if not publish(root, tag, digest, size):
            return False
    return True


def export_to_bucket(attrs: dict[str, str]) -> None:
    """A layer that all exports share, and one of this seed."""
    from tests.objects.buckets import S3Bucket, Server, digest_of  # noqa: PLC0415 - slow
    from tests.objects.exporter import export_s3, finish  # noqa: PLC0415

    layers = [b"shared", b"seed %d" % int(os.environ.get("EXEC_SEED", "0"))]
    server = Server("s3", attrs["endpoint_url"], str)
    day_ns = 24 * 3600 * 10**9
    with S3Bucket.open(server, attrs["bucket"], attrs["prefix"]) as bucket:
        names = attrs.get("name", "buildkit").split(";")
        finish(export_s3(bucket, names, layers, now_ns=time.time_ns, touch_refresh_ns=day_ns))
        if "hole" in os.environ["EXEC_DO"].split():
            bucket.remove(bucket.blob_key(digest_of(layers[-1])))


def on_signal(number: int, frame: FrameType | None) -> None:
    if "once" in os.environ["EXEC_DO"].split():
        # Was it sent a second time? The window is for one that is wrong; a right one waits it out.
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        if signal.sigtimedwait([number], 0.5):
            os._exit(99)
    os._exit(40 + number)


def main() -> int:
    wanted = os.environ.get("EXEC_DO", "").split()
    if "wait" in wanted:
        for name in SIGNALS:
            signal.signal(getattr(signal, name), on_signal)
    record()
    if "export" in wanted and not export(3):
        return 1
    for stream, line in zip((1, 2), LINES, strict=True):
        with suppress(OSError):
            os.write(stream, line)
    if "die" in wanted:
        os.kill(os.getpid(), signal.SIGKILL)
    if "wait" in wanted:
        Path(os.environ["EXEC_READY"]).write_text(str(os.getpid()))
        time.sleep(60)
    return EXIT if "fail" in wanted else 0


if __name__ == "__main__":
    sys.exit(main())
