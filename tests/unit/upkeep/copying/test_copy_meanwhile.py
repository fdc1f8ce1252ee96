"""copy while other processes change the caches, and after a crash at any request."""

from pathlib import Path

import pytest

import kitcache
from kitcache import KitcacheError
from tests.hostile.build import Box, digest_of
from tests.objects.memory import MemoryClient
from tests.unit.upkeep.copying.copykit import (
    Buckets,
    address,
    blob_key,
    check_complete,
    get,
    make_cache,
    put,
    root_key,
    roots,
)


class CrashError(Exception):
    """The process ends at this request."""


def once(client: MemoryClient, wanted: str, start: str, action: object) -> None:
    """Call an action before the first request of that kind and beginning of a key."""
    done: list[int] = []

    def hook(kind: str, key: str) -> None:
        if kind == wanted and key.startswith(start) and not done:
            done.append(1)
            action()  # type: ignore[operator]

    client.hooks.append(hook)


def crash_at(client: MemoryClient, number: int) -> None:
    left = [number]

    def hook(_kind: str, _key: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise CrashError

    client.hooks.append(hook)


def count_requests(client: MemoryClient) -> int:
    return sum(client.requests.values())


def test_a_copy_that_ends_at_any_request_of_the_target_can_be_repeated(
    buckets: Buckets, cache: Box
) -> None:
    kitcache.copy(cache.dir, address("a"))
    expected = roots(buckets.bucket("a"))
    for number in range(count_requests(buckets.bucket("a"))):
        client = buckets.bucket(f"t{number}")
        crash_at(client, number)
        with pytest.raises(CrashError):
            kitcache.copy(cache.dir, address(f"t{number}"))
        check_complete(client)
        client.hooks.clear()
        sent = len([key for key in client.versions if key.startswith(blob_key(""))])
        result = kitcache.copy(cache.dir, address(f"t{number}"))
        assert result.reused.blobs == sent
        check_complete(client)
        assert roots(client) == expected


def test_a_copy_that_ends_at_any_request_of_the_source_can_be_repeated(
    buckets: Buckets, cache: Box, tmp_path: Path
) -> None:
    kitcache.copy(cache.dir, address("a"))
    source = buckets.bucket("a")
    before = count_requests(source)
    kitcache.copy(address("a"), tmp_path / "all")
    for number in range(count_requests(source) - before):
        crash_at(source, number)
        out = tmp_path / f"out{number}"
        with pytest.raises(CrashError):
            kitcache.copy(address("a"), out)
        source.hooks.clear()
        assert not out.exists() or kitcache.verify(out).exit_code == 0
        kitcache.copy(address("a"), out)
        assert kitcache.verify(out).exit_code == 0
        assert {tag.ref_name for tag in kitcache.ls(out).tags} == {"main", "dev"}


def test_a_source_whose_tag_moves_is_read_again(
    buckets: Buckets, cache: Box, tmp_path: Path
) -> None:
    kitcache.copy(cache.dir, address("a"))
    source, lost = buckets.bucket("a"), digest_of(b"main" * 30)
    other = make_cache(tmp_path / "other", {"main": [b"new"]})
    kitcache.copy(other.dir, address("b"))

    def export_and_sweep() -> None:
        put(source, blob_key(digest_of(b"new")), b"new")
        put(source, root_key("main"), roots(buckets.bucket("b"))["main"])
        del source.versions[blob_key(lost)]

    once(source, "get", blob_key(lost), export_and_sweep)
    kitcache.copy(address("a"), address("c"))
    assert roots(buckets.bucket("c")) == roots(source)
    check_complete(buckets.bucket("c"))


def test_a_target_that_gets_the_same_tag_meanwhile_keeps_it(
    buckets: Buckets, cache: Box, tmp_path: Path
) -> None:
    target = buckets.bucket("a")
    other = make_cache(tmp_path / "other", {"main": [b"new"]})
    kitcache.copy(other.dir, address("b"))

    def export() -> None:
        put(target, blob_key(digest_of(b"new")), b"new")
        put(target, root_key("main"), roots(buckets.bucket("b"))["main"])

    once(target, "put", blob_key(""), export)
    with pytest.raises(KitcacheError, match="tag 'main' is") as caught:
        kitcache.copy(cache.dir, address("a"))
    assert caught.value.effect.startswith("no tag was changed")
    assert roots(target) == roots(buckets.bucket("b"))


def test_a_root_that_appears_between_the_reading_and_the_write_is_not_overwritten(
    buckets: Buckets, cache: Box
) -> None:
    target = buckets.bucket("a")
    once(target, "put", root_key("main"), lambda: put(target, root_key("main"), b'{"layers":[]}'))
    with pytest.raises(KitcacheError, match="tag 'main' is"):
        kitcache.copy(cache.dir, address("a"), tags="main")
    assert get(target, root_key("main")) == b'{"layers":[]}'


def test_a_target_that_loses_a_blob_before_its_root_publishes_nothing(
    buckets: Buckets, cache: Box
) -> None:
    target, lost = buckets.bucket("a"), blob_key(digest_of(b"base" * 20))
    kitcache.copy(cache.dir, address("a"), tags="main")
    held = roots(target)
    once(target, "put", blob_key(""), lambda: target.versions.pop(lost))
    with pytest.raises(KitcacheError, match="another process has deleted 1 of its blobs"):
        kitcache.copy(cache.dir, address("a"), tags="dev")
    assert roots(target) == held
    kitcache.copy(cache.dir, address("a"))
    check_complete(target)


def test_an_error_after_the_first_tag_does_not_state_that_no_tag_has_changed(
    buckets: Buckets, cache: Box
) -> None:
    target = buckets.bucket("a")

    def refuse() -> None:
        raise KitcacheError("s3://a/ci/", "access denied")

    once(target, "put", root_key("dev"), refuse)
    with pytest.raises(KitcacheError, match="access denied") as caught:
        kitcache.copy(cache.dir, address("a"))
    assert set(roots(target)) == {"main"}
    assert caught.value.effect == "tags may have been published, each with all its blobs"
    check_complete(target)
