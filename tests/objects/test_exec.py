"""kitcache exec with exports to S3: a stand-in client writes to a real server as BuildKit does.

The clock of the store is three days ahead, so every blob is older than the grace.
"""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import kitcache
from kitcache.options.caches import parse_cache_export
from kitcache.options.sweep import SweepOptions
from kitcache.upkeep.jobcaches import LockOptions, object_target, sweep_objects_after_export
from tests.hostile.exec_kit import install, run
from tests.objects.buckets import (
    AZURITE_KEY,
    AzureBucket,
    S3Bucket,
    digest_of,
    missing_blobs,
    put_cache,
)
from tests.objects.proxy import Proxy, run_proxy

SECRET = "admin-secret"


@pytest.fixture
def proxy(plain_bucket: S3Bucket) -> Iterator[Proxy]:
    with run_proxy(plain_bucket.server.url, timedelta(days=3)) as proxy:
        yield proxy


class Exports:
    """Runs builds that export to one cache."""

    def __init__(self, bucket: S3Bucket, proxy: Proxy, where: Path) -> None:
        self.bucket, self.where = bucket, where
        self.value = bucket.attributes(endpoint_url=proxy.url)
        self.env = {**install(where / "bin"), "EXEC_RECORD": str(where / "record")}

    def build(self, more: str, *options: str, seed: int = 0, do: str = "export") -> tuple[int, str]:
        """Return the exit code and the text on stderr."""
        words = ["docker", "build", f"--cache-to={self.value}{more}", "."]
        env = {**self.env, "EXEC_DO": do, "EXEC_SEED": str(seed)}
        done = run(words, self.where, env, "--metadata-file=result.json", *options)
        stderr = done.stderr.decode(errors="replace")
        assert SECRET not in stderr + (self.where / "result.json").read_text()
        return done.returncode, stderr

    @property
    def result(self) -> dict[str, Any]:
        (cache,) = json.loads((self.where / "result.json").read_text())["caches"]
        assert cache["path"].startswith("s3://")
        return dict(cache)

    def layers(self) -> set[str]:
        """Return the seeds whose layers are in the bucket."""
        keys = self.bucket.keys()
        return {n for n in "0123" if self.bucket.blob_key(digest_of(f"seed {n}".encode())) in keys}

    def confirm(self) -> None:
        kitcache.reset(self.value, options=SweepOptions(confirmed=True))


@pytest.fixture
def exports(plain_bucket: S3Bucket, proxy: Proxy, tmp_path: Path) -> Exports:
    return Exports(plain_bucket, proxy, tmp_path)


def test_the_first_run_on_a_bucket_is_confirmed_once(exports: Exports) -> None:
    exports.build("", seed=0)
    code, stderr = exports.build(",reset=true", seed=1)
    assert (code, exports.layers()) == (0, {"0", "1"})
    assert exports.result["reset"]["outcome"] == "refused"
    assert ": not reset: this is the first run of kitcache on this cache; nothing was" in stderr
    assert f": hint: kitcache reset '{exports.result['path']}' --yes\n" in stderr
    exports.confirm()
    assert exports.layers() == {"1"}
    orphan = exports.bucket.blob_key(digest_of(b"seed 3"))
    exports.bucket.put(orphan, b"seed 3")
    code, stderr = exports.build(",reset=true", seed=2)
    # The layer of the replaced root was live in a run within the grace.
    assert (code, exports.layers()) == (0, {"1", "2"})
    assert ": deleted 1 blob, 6 B; kept " in stderr


def test_the_client_gets_all_but_reset(exports: Exports) -> None:
    exports.build(",name=a,reset=true,mode=max")
    seen = json.loads((exports.where / "record").read_text())
    assert [bytes.fromhex(word).decode() for word in seen["argv"][1:]] == [
        *("build", f"--cache-to={exports.value},name=a,mode=max", "."),
    ]
    assert exports.result["tags"] == ["a"]


@pytest.mark.parametrize("do", ["fail", "export fail"])
def test_after_a_failure_no_request_is_sent(exports: Exports, proxy: Proxy, do: str) -> None:
    exports.build("", seed=0)
    exports.confirm()
    exports.build("", seed=1)
    sent = len(proxy.requests)
    code, _ = exports.build(",reset=true", seed=2, do=do)
    assert (code, exports.result["reset"]) == (7, None)
    assert [r for r in proxy.requests[sent:] if r.method in ("GET", "POST", "DELETE")] == []


def test_a_policy_applies_to_the_bucket(exports: Exports) -> None:
    (exports.where / "cache.toml").write_text("keep-last = 1\n")
    exports.confirm()
    exports.build(",name=old", seed=0)
    time.sleep(1.1)  # S3 dates roots by whole seconds, and of equal dates the order is open.
    code, stderr = exports.build(",name=new", "--prune-policy=cache.toml", seed=1)
    assert code == 0, stderr
    assert "removed 1 of 2 tags: 'old'" in stderr
    assert exports.layers() == {"0", "1"}  # Another build may have imported the old root.
    assert "1 blob, 6 B of them kept: too young" in stderr
    assert exports.result["prune"]["reset"] == exports.result["reset"]
    assert missing_blobs(exports.bucket) == {}


def test_an_unconfirmed_policy_removes_no_root(exports: Exports) -> None:
    (exports.where / "cache.toml").write_text("keep-last = 1\n")
    exports.build(",name=old", seed=0)
    before = exports.bucket.keys()
    code, _ = exports.build(",name=old", "--prune-policy=cache.toml", seed=0)
    assert (code, exports.result["prune"]["outcome"]) == (0, "refused")
    state = f"{exports.bucket.prefix}kitcache/live"
    assert exports.bucket.keys() - {state} == before
    before = exports.bucket.keys()
    exports.build(",name=old", "--prune-policy=cache.toml", seed=0)
    assert exports.bucket.keys() == before


def test_a_cancelled_sweep_deletes_nothing(exports: Exports) -> None:
    exports.build("", seed=0)
    exports.confirm()
    exports.build("", seed=1)
    before = exports.bucket.keys()
    cancel = Event()
    cancel.set()
    target = object_target(parse_cache_export(exports.value))
    reset, _ = sweep_objects_after_export(target, None, LockOptions(0, None, print, cancel))
    assert (reset.outcome, reset.exit_code) == ("skipped", 0)
    assert exports.bucket.keys() == before


def test_a_root_of_this_build_without_its_blob_is_damage(exports: Exports) -> None:
    exports.confirm()
    code, stderr = exports.build(",reset=true,name=other", do="export hole")
    assert (code, exports.result["reset"]["outcome"]) == (12, "damaged")
    assert ": reset failed: tag 'other' has lost a blob" in stderr
    code, _ = exports.build(",reset=true", seed=1)
    assert (code, exports.result["reset"]["outcome"]) == (0, "done")
    missing = [blob["digest"] for blob in exports.result["reset"]["missing_blobs"]]
    assert missing == [digest_of(b"seed 0")]


def test_a_bucket_that_is_gone_is_a_warning(exports: Exports, proxy: Proxy) -> None:
    exports.value = exports.value.replace(f"bucket={exports.bucket.name},", "bucket=nowhere,")
    code, stderr = exports.build(",reset=true", do="")
    assert (code, exports.result["reset"]["outcome"]) == (0, "refused")
    assert "not reset: " in stderr


def test_a_container_of_azure_is_swept_too(azure_bucket: AzureBucket, tmp_path: Path) -> None:
    """Its dates prove nothing, so the first runs only record which blobs are live."""
    put_cache(azure_bucket, {"main": [b"one"]}, [b"garbage"])
    words = ["docker", "build", f"--cache-to={azure_bucket.attributes()},name=main,reset=true"]
    env, outcomes = install(tmp_path / "bin"), []
    for _ in range(2):
        done = run(words, tmp_path, env, "--metadata-file=result.json")
        (cache,) = json.loads((tmp_path / "result.json").read_text())["caches"]
        outcomes.append((done.returncode, cache["reset"]["outcome"]))
        kitcache.reset(azure_bucket.attributes(), options=SweepOptions(confirmed=True))
    assert outcomes == [(0, "refused"), (0, "done")]
    assert cache["reset"]["deleted"]["blobs"] == 0
    assert cache["path"].startswith(f"azblob://{azure_bucket.name}/?account_url=http")
    assert AZURITE_KEY not in done.stderr.decode(errors="replace")
