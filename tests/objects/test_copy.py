"""copy between directories and real object stores, in every direction."""

import json
import os
from pathlib import Path

import pytest

import kitcache
from kitcache import Damaged
from tests.hostile.command import run
from tests.objects.buckets import (
    AzureBucket,
    Bucket,
    S3Bucket,
    digest_of,
    load_fixture,
    make_cacheconfig,
    put_cache,
    read_fixture,
)
from tests.unit.upkeep.copying.copykit import large_root

NAMES = ("main", "first", "feature/x")
LARGE = 40 << 20
"""An upload of several parts on S3, and of several blocks on Azure."""


def roots(bucket: Bucket) -> dict[str, bytes]:
    start = bucket.root_key("x").removesuffix("x")
    keys = [key for key in sorted(bucket.keys()) if key.startswith(start)]
    return {key.removeprefix(start): bucket.get(key) or b"" for key in keys}


def check_complete(bucket: Bucket) -> None:
    """Each blob matches its name, and no root names a missing blob."""
    for data in roots(bucket).values():
        for layer in json.loads(data).get("layers", ()):
            blob = bucket.get(bucket.blob_key(layer["blob"]))
            assert blob is not None
            assert digest_of(blob) == layer["blob"]


def test_a_cache_of_buildkit_goes_to_a_directory_and_back(
    any_bucket: Bucket, tmp_path: Path
) -> None:
    load_fixture(any_bucket, "s3")
    # SeaweedFS lists feature/x after "feature" if there is such a name.
    result = kitcache.copy(any_bucket.attributes(), tmp_path / "local")
    assert [skipped.ref_name for skipped in result.skipped] == ["empty"]
    verified = kitcache.verify(tmp_path / "local")
    assert {tag.ref_name: tag.importable for tag in verified.tags} == dict.fromkeys(NAMES, "full")
    for key in sorted(any_bucket.keys()):
        any_bucket.remove(key)
    assert kitcache.copy(tmp_path / "local", any_bucket.attributes()).copied.blobs == 5
    originals = read_fixture("s3")
    assert roots(any_bucket) == {name: originals[f"manifests/{name}"] for name in NAMES}
    check_complete(any_bucket)
    again = kitcache.copy(tmp_path / "local", any_bucket.attributes())
    assert (again.outcome, again.copied.blobs, again.reused.blobs) == ("unchanged", 0, 5)


def test_from_s3_to_azure_and_back(
    plain_bucket: S3Bucket, azure_bucket: AzureBucket, versioned_bucket: S3Bucket
) -> None:
    load_fixture(plain_bucket, "s3")
    kitcache.copy(plain_bucket.attributes(), azure_bucket.attributes())
    check_complete(azure_bucket)
    kitcache.copy(azure_bucket.attributes(), versioned_bucket.attributes())
    check_complete(versioned_bucket)
    assert roots(versioned_bucket) == roots(azure_bucket) == roots(plain_bucket)


def test_large_blobs_arrive_and_wrong_ones_do_not(
    plain_bucket: S3Bucket, azure_bucket: AzureBucket, tmp_path: Path
) -> None:
    large = os.urandom(1 << 20) * (LARGE >> 20)
    put_cache(plain_bucket, {"main": [large, b"small"]})
    kitcache.copy(plain_bucket.attributes(), tmp_path / "local")
    kitcache.copy(tmp_path / "local", azure_bucket.attributes())
    check_complete(azure_bucket)
    plain_bucket.put(plain_bucket.blob_key(digest_of(large)), large[:-1] + b"x")
    azure_bucket.remove(azure_bucket.blob_key(digest_of(large)))
    azure_bucket.remove(azure_bucket.root_key("main"))
    with pytest.raises(Damaged, match=r"tag .main. is not complete: .* does not match its digest"):
        kitcache.copy(plain_bucket.attributes(), azure_bucket.attributes())
    assert azure_bucket.get(azure_bucket.blob_key(digest_of(large))) is None
    assert roots(azure_bucket) == {}


@pytest.mark.parametrize("size", [9, 8 << 20])
def test_a_right_blob_of_one_request_is_written_and_a_wrong_one_is_not(
    any_bucket: Bucket, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    put_cache(any_bucket, {"main": [data]})
    kitcache.copy(any_bucket.attributes(), tmp_path / "local")
    any_bucket.remove(any_bucket.blob_key(digest_of(data)))
    any_bucket.remove(any_bucket.root_key("main"))
    kitcache.copy(tmp_path / "local", any_bucket.attributes())
    check_complete(any_bucket)
    path = tmp_path / "local" / "blobs" / "sha256" / digest_of(data)[7:]
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for key in sorted(any_bucket.keys()):
        any_bucket.remove(key)
    with pytest.raises(Damaged, match="does not match its digest"):
        kitcache.copy(tmp_path / "local", any_bucket.attributes())
    assert any_bucket.keys() == set()


def test_the_command_prints_what_was_sent(plain_bucket: S3Bucket, tmp_path: Path) -> None:
    put_cache(plain_bucket, {"main": [b"one", b"two"], "pr-1": [b"one", b"three"]})
    plain_bucket.put(plain_bucket.root_key("empty"), b"{}")
    address = plain_bucket.attributes()
    dry = run(tmp_path, "copy", "--dry-run", "--tag", "pr-*", address, "local", "--json")
    assert dry.code == 0
    value = json.loads(dry.out)
    assert value["copied"] == {"blobs": 2, "bytes": 8}
    assert not (tmp_path / "local").exists()
    answer = run(tmp_path, "copy", address, "local")
    assert answer.code == 0
    assert "local: 2 tags; 3 blobs, 11 B copied (" in answer.out
    assert "skipped empty: it names no layers" in answer.err
    assert "admin-secret" not in answer.out + answer.err
    # Another root of that name: refused, and nothing was changed.
    plain_bucket.put(plain_bucket.root_key("main"), make_cacheconfig([b"one"]))
    answer = run(tmp_path, "copy", address, "local")
    assert answer.code == 1
    assert "hint: let the tags of the target move: --replace" in answer.err


def test_a_tag_that_is_too_large_for_a_directory(plain_bucket: S3Bucket, tmp_path: Path) -> None:
    plain_bucket.put(plain_bucket.blob_key(digest_of(b"layer")), b"layer")
    plain_bucket.put(plain_bucket.root_key("big"), large_root(3000))
    address = plain_bucket.attributes()
    answer = run(tmp_path, "copy", address, "local")
    assert answer.code == 1
    assert "tag 'big' would have a document of " in answer.err
    assert "hint: copy such tags without their least recently used steps: --trim" in answer.err
    answer = run(tmp_path, "copy", "--trim", address, "local")
    assert answer.code == 0
    assert "of 3,000 steps, so that BuildKit imports it" in answer.err
