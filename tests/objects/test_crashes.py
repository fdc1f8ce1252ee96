"""Commands that edit the roots of a bucket, killed at every request that they send.

Law: each root is as it was or as it was to be, no root lacks a blob that it did not lack before,
and a root that is removed by a repair is in the quarantine first.
"""

import json
from collections.abc import Callable

import pytest

import kitcache
from kitcache.errors import Unsafe
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.options.sweep import SweepOptions
from tests.objects.test_repair import QUARANTINE, Bucket

DAY_NS = 24 * 3600 * 10**9
CONFIRMED = SweepOptions(confirmed=True)
TRIMMED_BYTES = 2600
"""Less than main and its layers have."""


class KilledError(BaseException):
    """The process ends here."""


def lose_a_layer(bucket: Bucket) -> None:
    bucket.lose(bucket.top("main"))
    bucket.put("manifests/torn", b'{"layers":[{"bl')


def age(bucket: Bucket) -> None:
    bucket.client.clock_ns += 30 * DAY_NS


def repair(bucket: Bucket) -> None:
    kitcache.repair(bucket.address)


def trim(bucket: Bucket) -> None:
    kitcache.trim(bucket.address, "main", TRIMMED_BYTES, options=CONFIRMED)


def prune(bucket: Bucket) -> None:
    policy = PrunePolicy(keep_tags=("main", "empty"))
    kitcache.prune(bucket.address, policy, options=CONFIRMED)


def tag(bucket: Bucket) -> None:
    kitcache.tag(bucket.address, "main", "first")


def untag(bucket: Bucket) -> None:
    kitcache.untag(bucket.address, ["feature/*", "first"])


CASES: dict[str, tuple[Callable[[Bucket], None], Callable[[Bucket], None]]] = {
    "repair": (lose_a_layer, repair),
    "trim": (age, trim),
    "prune": (age, prune),
    "tag": (age, tag),
    "untag": (age, untag),
}


def roots(bucket: Bucket) -> dict[str, bytes]:
    return {key: data for key, data in bucket.objects.items() if "/manifests/" in key}


def lacking(bucket: Bucket) -> set[tuple[str, str]]:
    """Each blob that a root names and that is not there."""
    held = bucket.objects
    named = set()
    for key, data in roots(bucket).items():
        try:
            layers = json.loads(data).get("layers") or ()
        except ValueError:
            continue
        named |= {(key, layer["blob"]) for layer in layers}
    return {(key, blob) for key, blob in named if f"ci/blobs/{blob}" not in held}


@pytest.mark.parametrize("store", ["s3", "azblob", "versioned s3"])
@pytest.mark.parametrize("name", CASES)
def test_a_command_may_be_killed_at_any_request(
    store: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, command = CASES[name]

    def make() -> Bucket:
        bucket = make_bucket(store, monkeypatch)
        prepare(bucket)
        bucket.client.requests.clear()
        return bucket

    whole = make()
    before, holes = roots(whole), lacking(whole)
    command(whole)
    after = roots(whole)
    assert after != before
    for number in range(sum(whole.client.requests.values())):
        bucket = make()
        bucket.client.hooks.append(kill_after(number))
        with pytest.raises(KilledError):
            command(bucket)
        bucket.client.hooks.clear()
        left = roots(bucket)
        assert all(data in {before.get(key), after.get(key)} for key, data in left.items())
        for key in before.keys() - left.keys():
            assert key not in after
            copy = QUARANTINE + key.removeprefix("ci/manifests/")
            assert name != "repair" or bucket.objects[copy] == before[key]
        assert lacking(bucket) <= holes
        if name != "untag":  # The sweep has no record of a removed name.
            command(bucket)
            assert (roots(bucket), lacking(bucket)) == (after, lacking(whole))


def make_bucket(store: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    version, _, kind = store.rpartition(" ")
    bucket = Bucket(kind, has_versions=bool(version))
    for module in (
        "upkeep.trimming.trim.open_store",
        "upkeep.pruning.prune.open_published_store",
        "upkeep.naming.tag.open_store",
        "upkeep.naming.untag.open_store",
        "upkeep.health.verify.open_published_store",
        "upkeep.health.repair.open_object_store",
    ):
        monkeypatch.setattr(f"kitcache.{module}", lambda _: bucket.open())

    def sleep(seconds: float) -> None:
        bucket.client.clock_ns += int(seconds * 10**9)

    monkeypatch.setattr("kitcache.store.objects.checks.time.sleep", sleep)
    return bucket


def kill_after(number: int) -> Callable[[str, str], None]:
    """A hook that lets so many requests pass."""
    sent = 0

    def kill(_: str, __: str) -> None:
        nonlocal sent
        sent += 1
        if sent > number:
            raise KilledError

    return kill


@pytest.mark.parametrize("name", ["trim", "prune"])
def test_no_root_is_edited_for_a_sweep_that_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store whose listings show no renewed date, such as rclone's."""
    bucket = make_bucket("s3", monkeypatch)
    age(bucket)
    monkeypatch.setattr("kitcache.store.objects.checks.time.sleep", lambda _: None)
    before = bucket.objects
    with pytest.raises(Unsafe, match="does not change its date in a listing"):
        CASES[name][1](bucket)
    assert bucket.objects == before


def test_no_root_is_edited_if_another_prefix_uses_the_blobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = make_bucket("s3", monkeypatch)
    age(bucket)
    bucket.put("others/main", bucket.get("manifests/first") or b"")
    before = bucket.objects
    with pytest.raises(Unsafe, match="looks like a root of this cache under another"):
        prune(bucket)
    assert bucket.objects == before
