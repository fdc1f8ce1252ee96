"""Rounds of a reset against an export that touches and publishes the blob which the reset deletes.

Each round has a prefix of its own in a real bucket: a root, and an old blob that no root reaches.
The export has looked at the blob already. It stalls, touches, stalls and publishes, while the reset
runs with a grace of no time, so that only its second look and the deletion itself protect the blob.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import kitcache
from kitcache.errors import Damaged
from kitcache.options.sweep import SweepOptions
from kitcache.store.objects.client import ObjectClient
from kitcache.store.objects.live import LiveState, encode_state
from tests.objects.buckets import S3Bucket, digest_of, missing_blobs, open_client, put_cache
from tests.objects.exporter import export_s3, finish, run_until

NO_GRACE = SweepOptions(export_time_ns=0, confirmed=True)
OLD = b"a blob that no root reaches"
DIGEST = digest_of(OLD)
ROUNDS_AT_ONCE = 100
LONGEST_STALL_S = 0.08


class Tally(NamedTuple):
    """The outcome of so many rounds.

    Attributes:
        kept: The reset found that the blob was touched, and the export is complete.
        failed: The blob was deleted before the touch: the build failed, and there is no root.
        lost: The root of the export lacks the blob.
        reported: Of the lost ones, the reset reported this many, with name and blob.
        found_later: Of the lost ones, the next run reported this many.
    """

    rounds: int = 0
    kept: int = 0
    failed: int = 0
    lost: int = 0
    reported: int = 0
    found_later: int = 0

    def plus(self, **more: int) -> "Tally":
        return self._replace(**{name: getattr(self, name) + n for name, n in more.items()})


def address_of(bucket: S3Bucket, **changes: str) -> str:
    return bucket.attributes(touch_refresh="0s", **changes)


def prepare(bucket: S3Bucket) -> None:
    """Write a root, the old blob, and the record of a run that tested the store."""
    put_cache(bucket, {"main": [b"live"]}, garbage=[OLD])
    state = encode_state(LiveState(tested_ns=time.time_ns()))
    bucket.put(f"{bucket.prefix}kitcache/live", state)


def wait_a_second() -> None:
    """Dates have whole seconds: after this, all objects of before are older than no time."""
    time.sleep(1.1)


def race(bucket: S3Bucket, seed: int, tally: Tally) -> Tally:
    """Play one round. The blob is at least a second old."""
    moments = random.Random(seed)
    export = export_s3(bucket, ["dev"], [OLD], now_ns=time.time_ns, touch_refresh_ns=-(10**18))
    run_until(export, "touch")
    results: list[str] = []

    def go_on() -> None:
        time.sleep(moments.uniform(0, LONGEST_STALL_S))
        try:
            next(export)
            time.sleep(moments.choice((0, moments.uniform(0, LONGEST_STALL_S))))
            finish(export)
            results.append("built")
        except LookupError:
            results.append("failed")

    exporter = threading.Thread(target=go_on)
    exporter.start()
    try:
        error = run_reset(bucket)
    finally:
        exporter.join()
    missing = missing_blobs(bucket)
    tally = tally.plus(rounds=1)
    if results == ["failed"]:
        assert missing == {}
        return tally.plus(failed=1)
    assert results == ["built"]
    if not missing:
        return tally.plus(kept=1)
    assert missing == {"dev": {DIGEST}}
    if error is not None:
        assert (error.exit_code, error.kind, error.tag) == (12, "lost", "dev")
        assert DIGEST in str(error)
        return tally.plus(lost=1, reported=1)
    later = kitcache.reset(address_of(bucket), options=NO_GRACE)
    names = [(blob.ref_name, str(blob.digest)) for blob in later.missing_blobs]
    return tally.plus(lost=1, found_later=int(names == [("dev", DIGEST)]))


def run_reset(bucket: S3Bucket, **changes: str) -> Damaged | None:
    try:
        kitcache.reset(address_of(bucket, **changes), options=NO_GRACE)
    except Damaged as error:
        return error
    return None


def race_rounds(bucket: S3Bucket, rounds: int, say: Callable[[str], None]) -> Tally:
    """Play rounds in prefixes of their own, below the prefix of the bucket."""
    tally = Tally()
    with shared_client(bucket):
        for start in range(0, rounds, ROUNDS_AT_ONCE):
            numbers = range(start, min(start + ROUNDS_AT_ONCE, rounds))
            places = [bucket._replace(prefix=f"{bucket.prefix}{number}/") for number in numbers]
            for place in places:
                prepare(place)
            wait_a_second()
            for number, place in zip(numbers, places, strict=True):
                tally = race(place, number, tally)
            say(f"{tally}")
    return tally


@contextmanager
def shared_client(bucket: S3Bucket) -> Iterator[None]:
    """Let each run use one client of the bucket: a new one takes 0.1 s."""
    client = open_client(bucket)

    def open_shared(_: object) -> ObjectClient:
        return client

    with (
        mock.patch("kitcache.store.objects.open._open_client", open_shared),
        mock.patch.object(client, "close", return_value=None),
    ):
        yield
    client.close()
