"""The command line on caches that BuildKit wrote, in real S3 and Azure servers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kitcache.cli.main import main
from tests.hostile.command import run
from tests.objects.buckets import (
    ADMIN,
    AZURITE_KEY,
    STORES,
    AzureBucket,
    Bucket,
    S3Bucket,
    digest_of,
    load_fixture,
    missing_blobs,
)

Kitcache = Callable[..., tuple[int, Any]]
EVERYWHERE = pytest.mark.parametrize("store", STORES)


@pytest.fixture(params=["plain_bucket", "azure_bucket"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bucket(store: str, request: pytest.FixtureRequest) -> Bucket:
    bucket: Bucket = request.getfixturevalue(store)
    load_fixture(bucket, "azblob" if isinstance(bucket, AzureBucket) else "s3")
    return bucket


@pytest.fixture
def kitcache(bucket: Bucket, capfd: pytest.CaptureFixture[str]) -> Kitcache:
    """A command on the cache, in this process: its exit code, and its JSON."""

    def call(command: str, *words: str) -> tuple[int, Any]:
        code = main([command, bucket.attributes(), *words, "--json"])
        out, err = capfd.readouterr()
        assert not any(secret in out + err for secret in (ADMIN.secret, AZURITE_KEY))
        return code, json.loads(out)

    return call


def roots(bucket: Bucket) -> dict[str, Any]:
    start = bucket.root_key("x")[:-1]
    keys = [key for key in sorted(bucket.keys()) if key.startswith(start)]
    return {key.removeprefix(start): json.loads(bucket.get(key) or b"") for key in keys}


def layers(root: Any) -> set[str]:
    return {layer["blob"] for layer in root.get("layers") or ()}


def top(root: Any) -> str:
    """The blob of a layer that is not the parent of another."""
    below = {root["layers"][layer["parent"]]["blob"] for layer in root["layers"]}
    return next(layer["blob"] for layer in root["layers"] if layer["blob"] not in below)


def test_what_a_cache_holds(bucket: Bucket, kitcache: Kitcache) -> None:
    held = roots(bucket)
    code, listing = kitcache("ls")
    assert code == 0
    assert {tag["ref_name"]: (tag["kind"], tag["layers"]) for tag in listing["tags"]} == {
        name: ("cache", len(layers(root))) for name, root in held.items()
    }
    code, contents = kitcache("ls", "main")
    assert {blob["digest"] for blob in contents["blobs"] if blob["role"] == "layer"} == layers(
        held["main"]
    )
    code, usage = kitcache("du")
    assert code == 0
    named = set().union(*map(layers, held.values()))
    documents = {json.dumps(root) for root in held.values()}
    assert usage["live"]["blobs"] == len(named) + len(documents)
    blob = top(held["main"])
    code, references = kitcache("why", blob)
    assert {path["ref_name"] for path in references["paths"]} == {
        name for name, root in held.items() if blob in layers(root)
    }


def test_names_are_added_and_removed(bucket: Bucket, kitcache: Kitcache) -> None:
    before = roots(bucket)
    assert kitcache("tag", "main", "release/1")[0] == 0
    assert roots(bucket) == before | {"release/1": before["main"]}
    assert kitcache("tag", "main", "release/1")[1]["outcome"] == "unchanged"
    assert kitcache("untag", "release/*", "first")[0] == 0
    del before["first"]
    assert roots(bucket) == before
    code, error = kitcache("untag", "man")
    assert code == 1
    where = bucket.root_key("x")[:-1]
    assert f"no entry of {where} has" in json.dumps(error)


@EVERYWHERE
def test_a_policy_removes_names(bucket: Bucket, kitcache: Kitcache) -> None:
    """The date of a root is its last use. Its blobs are kept for their grace."""
    before = roots(bucket)
    keys = {key for key in sorted(bucket.keys()) if "/blobs/" in key}
    code, done = kitcache("prune", "--keep-tag", "main", "--keep-tag", "f*", "--yes")
    assert code == 0
    assert {tag["ref_name"]: (tag["keep"], tag["last_used_from"]) for tag in done["tags"]} == {
        name: (name != "empty", "export") for name in before
    }
    del before["empty"]
    assert roots(bucket) == before
    assert {key for key in sorted(bucket.keys()) if "/blobs/" in key} == keys
    if isinstance(bucket, S3Bucket) and bucket.has_versions:
        # Without a delete marker: nothing of the root is left.
        assert bucket.root_key("empty") not in {held.key for held in bucket.versions()}


@EVERYWHERE
def test_a_tag_is_trimmed(bucket: Bucket, kitcache: Kitcache) -> None:
    before = roots(bucket)
    size = next(t for t in kitcache("ls")[1]["tags"] if t["ref_name"] == "main")["bytes"]
    words = ("trim", "main", "--max-used-space", f"{size - 1}B", "--yes")
    code, dry = kitcache(*words, "--dry-run")
    assert (code, roots(bucket)) == (0, before)
    code, done = kitcache(*words)
    assert (code, done["after"]) == (0, dry["after"])
    after = roots(bucket)
    assert {name for name in before if after[name] != before[name]} == {"main"}
    assert layers(after["main"]) <= layers(before["main"])
    assert after["main"]["layers"][0]["annotations"] in [
        layer["annotations"] for layer in before["main"]["layers"]
    ]
    assert digest_of(bucket.get(bucket.root_key("main")) or b"") == done["after"]["digest"]
    # All blobs are younger than touch_refresh and the time of an export.
    assert done["reset"]["deleted"]["blobs"] == 0
    assert kitcache("verify")[0] == 0


@EVERYWHERE
def test_a_missing_blob_is_found_and_repaired(bucket: Bucket, kitcache: Kitcache) -> None:
    before = roots(bucket)
    assert kitcache("verify")[1]["exit_code"] == 0
    lost = top(before["main"])
    bucket.remove(bucket.blob_key(lost))
    bucket.put(bucket.root_key("torn"), b'{"layers":[{"bl')
    torn = {name for name, root in before.items() if lost in layers(root)}
    code, found = kitcache("verify")
    assert code == 12
    assert {t["ref_name"] for t in found["tags"] if t["importable"] != "full"} == {*torn, "torn"}
    keys = bucket.keys()
    code, dry = kitcache("verify", "--repair", "--dry-run")
    assert (code, bucket.keys()) == (12, keys)
    code, done = kitcache("verify", "--repair")
    assert (code, missing_blobs(bucket)) == (0, {})
    assert [action["kind"] for action in done["actions"]] == [a["kind"] for a in dry["actions"]]
    after = roots(bucket)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == torn
    assert all(after[name]["layers"] for name in torn)
    (kept,) = [key for key in sorted(bucket.keys()) if "kitcache/quarantine" in key]
    assert (kept.rpartition("/")[2], bucket.get(kept)) == ("torn", b'{"layers":[{"bl')
    assert kitcache("verify")[0] == 0


def test_every_blob_is_read_on_request(bucket: Bucket, tmp_path: Path) -> None:
    blob = top(roots(bucket)["main"])
    right = bucket.get(bucket.blob_key(blob)) or b""
    bucket.put(bucket.blob_key(blob), bytes(len(right)))
    listed = run(tmp_path, "verify", bucket.attributes())
    assert listed.code == 0
    assert "presence and sizes were checked, and no blob was read" in listed.out
    read = run(tmp_path, "verify", "--read", bucket.attributes())
    assert read.code == 12
    assert "6 blobs" in read.out
    assert "hashed" in read.out
    assert "every blob is read: 612 B will be transferred" in read.err
    assert f"blob {blob} does not match its digest" in read.err
