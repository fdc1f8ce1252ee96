"""A cache that BuildKit wrote to Azure, with the commands as a user types them."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kitcache.cli.main import main
from tests.integration.kit import Answer, kitcache
from tests.objects.azureclock import ClockedAzure
from tests.objects.buckets import AzureBucket, missing_blobs
from tests.objects.exporter import export_azure, finish
from tests.objects.proxy import run_proxy

GARBAGE = "sha256:b4fdbf3ddf01686d087a49d119625de568a293561231f576f5eb6f6e7770c30e"


LIVE = {
    "sha256:04ee9fd82a4528b245c17eecf21825c7030a5649d6210a8e73be9d31277f285e",
    "sha256:06314724690dc233b6df33182625b0fc57343701986143e6c02330d927696c1f",
    "sha256:619fbdb2c0b307e5d8a09722892a78a11f8ce5d24c0bf9f43c742d0b6a4e9995",
    "sha256:84c4760233faff63117e839a6eef02b2488cacc866b1bb8da2298c54757a9455",
    "sha256:b6533e8cdb58d0cbaaae69917c463e77099b3e308d85f99062fac9ea16b467d2",
}
ONLY_FIRST = "sha256:b6533e8cdb58d0cbaaae69917c463e77099b3e308d85f99062fac9ea16b467d2"
NAMES = ["empty", "feature/x", "first", "main"]


def keys_of(bucket: AzureBucket) -> set[str]:
    return bucket.keys()


def blobs(bucket: AzureBucket) -> set[str]:
    start = "ci/blobs/"
    return {key.removeprefix(start) for key in keys_of(bucket) if key.startswith(start)}


RunJson = Callable[..., Any]


@pytest.fixture
def run_json(capfd: pytest.CaptureFixture[str]) -> RunJson:
    """A command line in this process that succeeds, or has that code. Returns its JSON."""

    def run(command: str, bucket: AzureBucket, *words: str, code: int = 0) -> Any:
        actual = main([command, bucket.attributes(), *words, "--json"])
        out, err = capfd.readouterr()
        assert actual == code, out + err
        return json.loads(out)

    return run


def test_du_ls_and_why(clocked_cache: AzureBucket, run_json: RunJson) -> None:
    usage = run_json("du", clocked_cache)
    assert usage["path"].startswith("azblob://clocked-")
    assert usage["live"]["blobs"] == 9
    assert [tag["ref_name"] for tag in usage["tags"]] == NAMES
    listing = run_json("ls", clocked_cache)
    assert {tag["ref_name"]: tag["layers"] for tag in listing["tags"]} == {
        "empty": 0,
        "feature/x": 3,
        "first": 3,
        "main": 3,
    }
    paths = run_json("why", clocked_cache, ONLY_FIRST)["paths"]
    assert [path["ref_name"] for path in paths] == ["first"]
    assert run_json("why", clocked_cache, GARBAGE)["unreachable"]


def test_a_blob_is_deleted_after_a_whole_grace_without_a_root(
    clocked_cache: AzureBucket, clocked_azure: ClockedAzure, run_json: RunJson
) -> None:
    """The grace is two days: no exporter renews the date of a blob in Azure."""
    everything = blobs(clocked_cache)
    clocked_azure.go_to(20)
    first = run_json("reset", clocked_cache, "--dry-run", code=15)
    assert (first["outcome"], first["deleted"]["blobs"]) == ("dry-run", 0)
    assert clocked_cache.get("ci/kitcache/live") is None
    second = run_json("reset", clocked_cache, "--yes")
    assert (second["outcome"], second["deleted"]["blobs"]) == ("done", 0)
    assert clocked_cache.get("ci/kitcache/live") is not None
    clocked_azure.go_to(21.9)
    assert run_json("reset", clocked_cache)["deleted"]["blobs"] == 0
    assert blobs(clocked_cache) == everything
    clocked_azure.go_to(22.1)
    dry = run_json("reset", clocked_cache, "--dry-run")
    assert dry["deleted"]["blobs"] == 1
    assert blobs(clocked_cache) == everything
    last = run_json("reset", clocked_cache)
    assert last["deleted"] == dry["deleted"]
    assert everything - blobs(clocked_cache) == {GARBAGE}
    assert missing_blobs(clocked_cache) == {}


def test_what_was_live_in_the_grace_is_kept(
    clocked_cache: AzureBucket, clocked_azure: ClockedAzure, run_json: RunJson
) -> None:
    clocked_azure.go_to(20)
    run_json("reset", clocked_cache, "--yes")
    clocked_azure.go_to(22.1)
    run_json("untag", clocked_cache, "first")
    assert run_json("reset", clocked_cache)["deleted"]["blobs"] == 1
    assert ONLY_FIRST in blobs(clocked_cache)
    clocked_azure.go_to(24)
    run_json("reset", clocked_cache)
    assert ONLY_FIRST in blobs(clocked_cache)
    clocked_azure.go_to(24.3)
    assert run_json("reset", clocked_cache)["deleted"]["blobs"] == 1
    assert blobs(clocked_cache) == LIVE - {ONLY_FIRST}
    assert missing_blobs(clocked_cache) == {}


def test_prune_removes_roots_by_their_date(
    clocked_cache: AzureBucket, clocked_azure: ClockedAzure, run_json: RunJson
) -> None:
    clocked_azure.go_to(3)
    run_json("tag", clocked_cache, "main", "release/1")
    root = clocked_cache.get(clocked_cache.root_key("main"))
    assert clocked_cache.get(clocked_cache.root_key("release/1")) == root
    clocked_azure.go_to(3.5)
    policy = ("--unused-for", "1d", "--keep-tag", "feature/*")
    dry = run_json("prune", clocked_cache, *policy, code=15)
    assert (dry["outcome"], dry["reset"]["outcome"]) == ("dry-run", "dry-run")
    kept = {"feature/x", "release/1"}
    assert {tag["ref_name"] for tag in dry["tags"] if tag["keep"]} == kept
    run_json("prune", clocked_cache, *policy, "--yes")
    roots = {clocked_cache.root_key(name) for name in kept}
    assert {key for key in keys_of(clocked_cache) if "/manifests/" in key} == roots
    assert blobs(clocked_cache) == {*LIVE, GARBAGE}
    clocked_azure.go_to(6)
    assert run_json("reset", clocked_cache)["deleted"]["blobs"] == 2
    assert blobs(clocked_cache) == LIVE - {ONLY_FIRST}
    assert missing_blobs(clocked_cache) == {}


def test_trim_makes_a_root_smaller(
    clocked_cache: AzureBucket, clocked_azure: ClockedAzure, run_json: RunJson
) -> None:
    before = clocked_cache.get(clocked_cache.root_key("main")) or b""
    trimmed = run_json("trim", clocked_cache, "main", "--max-used-space", "2kB", "--yes")
    after = clocked_cache.get(clocked_cache.root_key("main")) or b""
    assert trimmed["outcome"] == "done"
    assert len(json.loads(after)["records"]) < len(json.loads(before)["records"])
    assert missing_blobs(clocked_cache) == {}
    assert run_json("ls", clocked_cache)["tags"][3]["missing"] == 0


def test_a_root_that_is_not_a_cacheconfig_keeps_everything(
    clocked_cache: AzureBucket, clocked_azure: ClockedAzure, run_json: RunJson
) -> None:
    run_json("reset", clocked_cache, "--yes")
    clocked_cache.put(clocked_cache.root_key("odd"), b"<html></html>")
    clocked_azure.go_to(9)
    before = clocked_cache.keys()
    answer = kitcache("reset", clocked_cache.attributes())
    assert answer.code == 12
    assert "'odd'" in answer.err
    assert "nothing was deleted" in answer.err
    assert clocked_cache.keys() == before


def reset_during_an_export(
    run_json: RunJson, cache: AzureBucket, azure: ClockedAzure, restore: Callable[[bytes], bool]
) -> Answer:
    """An exporter finds a blob before kitcache deletes it, and publishes its root after that.

    Args:
        restore: Called with the blob when it is to be undeleted. True if that worked.
    """
    run_json("reset", cache, "--yes")
    azure.go_to(9)
    data = cache.get(cache.blob_key(GARBAGE)) or b""
    with run_proxy(azure.server.url) as proxy, ThreadPoolExecutor(1) as pool:
        proxy.answer(
            lambda request: "comp=undelete" in request.query and restore(data),
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        held = proxy.hold(lambda request: "comp=batch" in request.query)
        url = f"{proxy.url}/devstoreaccount1"
        running = pool.submit(kitcache, "reset", cache.attributes(account_url=url))
        held.wait()
        finish(export_azure(cache, ["late"], [data]))
        held.release()
        return running.result()


def test_a_root_that_appears_after_the_deletion_is_reported(
    clocked_cache: AzureBucket, clocked_azure: ClockedAzure, run_json: RunJson
) -> None:
    answer = reset_during_an_export(run_json, clocked_cache, clocked_azure, lambda _: False)
    assert missing_blobs(clocked_cache) == {"late": {GARBAGE}}
    assert answer.code == 12, answer
    assert "'late' was published during the sweep and lacks 1 blob" in answer.err
    assert GARBAGE[:20] in answer.err


def test_soft_delete_restores_what_such_a_root_needs(
    clocked_cache: AzureBucket, clocked_azure: ClockedAzure, run_json: RunJson
) -> None:
    """Azurite has no soft delete: the test puts the blob back when kitcache asks for that."""

    def restore(data: bytes) -> bool:
        clocked_cache.put(clocked_cache.blob_key(GARBAGE), data)
        return True

    answer = reset_during_an_export(run_json, clocked_cache, clocked_azure, restore)
    assert missing_blobs(clocked_cache) == {}
    assert answer.code == 0, answer
    assert f"blob {GARBAGE} was deleted and restored" in answer.err


def test_failures_have_a_reason_and_no_secret(clocked_cache: AzureBucket) -> None:
    key = "d3Jvbmc="
    answer = kitcache("du", clocked_cache.attributes(secret_access_key=key))
    assert (answer.code, answer.out) == (1, "")
    assert "(403 AuthorizationFailure)" in answer.err
    assert key not in answer.err
    answer = kitcache("reset", clocked_cache.attributes(container="other"))
    assert answer.code == 10
    assert "the container other does not exist" in answer.err
