"""BuildKit imports its cache after a copy to an object store, resets there and a copy back."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.objects.azureclock import ClockedAzure
from tests.objects.buckets import AzureBucket, Bucket, S3Bucket, missing_blobs
from tests.objects.proxy import run_proxy

from . import witness
from .contexts import STEPS, import_build, write_context
from .daemon import Daemon
from .kit import kitcache, must


class Exports(NamedTuple):
    """What BuildKit exported: the cache after each of two builds, and the context of each tag."""

    before: Path
    after: Path
    contexts: dict[str, Path]


class Place(NamedTuple):
    """A cache in an object store. `address(days)` names it as it is that many days later."""

    bucket: Bucket
    address: Callable[[float], str]


@pytest.fixture(scope="module")
def exports(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    top = tmp_path_factory.mktemp("exports")
    cache, contexts = top / "after", {}
    for tag, app, lock in (("main", "1", "1"), ("side", "2", "2"), ("old", "3", "1")):
        contexts[tag] = write_context(top / tag, app=f"oracle {app}\n", lock=f"oracle {lock}\n")
        daemon.export(contexts[tag], cache, tag=tag, mode="max")
    shutil.copytree(cache, top / "before")
    write_context(contexts["main"], app="oracle 4\n", lock="oracle 1\n")
    daemon.export(contexts["main"], cache, tag="main", mode="max")
    return Exports(top / "before", cache, contexts)


_numbers = count()


@pytest.fixture
def azure(clocked_azure: ClockedAzure) -> Iterator[Place]:
    clocked_azure.go_to(0)
    with AzureBucket.open(clocked_azure.server, f"oracle-{next(_numbers)}", "ci/") as bucket:
        bucket.create()

        def address(days: float) -> str:
            clocked_azure.go_to(days)
            return bucket.attributes()

        yield Place(bucket, address)


@pytest.fixture
def s3(plain_bucket: S3Bucket) -> Iterator[Place]:
    """The server has no clock to set, so a proxy shows the time of each day."""
    proxies = {}
    with ExitStack() as stack:

        def address(days: float) -> str:
            if days not in proxies:
                proxy = run_proxy(plain_bucket.server.url, timedelta(days=days))
                proxies[days] = stack.enter_context(proxy).url
            return plain_bucket.attributes(endpoint_url=proxies[days])

        yield Place(plain_bucket, address)


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_cache_lives_in_an_object_store(
    kind: str, exports: Exports, daemon: Daemon, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Copied, grown, reset, pruned, trimmed, repaired, copied back: each kept step is CACHED."""
    place: Place = request.getfixturevalue(kind)
    bucket, address = place.bucket, place.address
    must("copy", exports.before, address(0))
    must("copy", "--replace", exports.after, address(0))
    must("reset", "--yes", address(0))
    grown = blobs(bucket)

    report = must("reset", address(2.1), "--json").json
    assert report["deleted"]["blobs"] == len(grown - blobs(bucket)) > 0
    assert missing_blobs(bucket) == {}
    reset = blobs(bucket)

    must("prune", address(3.1), "--drop-tag", "old")
    must("reset", address(5.2))
    assert blobs(bucket) < reset
    assert missing_blobs(bucket) == {}

    limit = size_of(address(5.2), "side") - 1
    trimmed = must("trim", address(5.2), "side", "--max-used-space", f"{limit}B", "--json").json
    assert len(trimmed["removed_steps"]) == 1
    bucket.remove(min(layers(bucket, "side") - layers(bucket, "main")))
    assert kitcache("verify", address(5.2)).code == 12
    must("verify", "--repair", address(5.2))
    must("verify", address(5.2))
    assert missing_blobs(bucket) == {}

    back = tmp_path / "back"
    must("copy", address(5.2), back)
    states = imported(daemon, exports, back, "main", tmp_path)
    assert set(states.values()) == {"CACHED"}, states
    states = imported(daemon, exports, back, "side", tmp_path)
    assert set(states.values()) == {"CACHED", "DONE"}, states


def test_both_object_stores_get_the_same_cache(
    azure: Place, s3: Place, exports: Exports, tmp_path: Path
) -> None:
    """From one to the other, and back to a directory: the documents are BuildKit's own."""
    must("copy", exports.after, s3.address(0))
    must("copy", s3.address(0), azure.address(0))
    for name in exports.contexts:
        root = s3.bucket.get(s3.bucket.root_key(name))
        assert root == azure.bucket.get(azure.bucket.root_key(name))
    back = tmp_path / "back"
    must("copy", azure.address(0), back)
    assert back_of(exports.after) == back_of(back)


def back_of(cache: Path) -> dict[str | None, frozenset[str]]:
    """Return the layers of each tag."""
    return {
        witness.ref_name(entry): frozenset(
            digest
            for digest in witness.look_at(cache, entry).reached
            if not witness.blob_path(cache, digest).read_bytes().startswith(b"{")
        )
        for entry in witness.entries(cache)
    }


def imported(daemon: Daemon, exports: Exports, cache: Path, tag: str, top: Path) -> dict[str, str]:
    """Return the states of the steps of a build that knows only the cache. Its result is right."""
    context, out = exports.contexts[tag], top / tag
    states = import_build(daemon, context, cache, tag, out)
    assert len(states) == STEPS, states
    expected = (context / "app").read_text() + (context / "lock").read_text()
    assert (out / "result").read_text() == expected
    return states


def size_of(address: str, tag: str) -> int:
    tags = must("ls", address, "--json").json["tags"]
    return int(next(each["bytes"] for each in tags if each["ref_name"] == tag))


def layers(bucket: Bucket, name: str) -> set[str]:
    """Return the keys of the layers of a root."""
    root = json.loads(bucket.get(bucket.root_key(name)) or b"{}")
    return {bucket.blob_key(layer["blob"]) for layer in root["layers"]}


def blobs(bucket: Bucket) -> set[str]:
    return {key for key in bucket.keys() if "/blobs/" in key}  # noqa: SIM118
