"""The blocks of the pages that need an object store, run against a real server.

The address on a page has no endpoint, so AWS_ENDPOINT_URL names the server. Its clock is three days
ahead, so the unreachable blobs are older than the grace.
"""

import json
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import ROOT, Block, name_of, of, write_project
from tests.docs.running import BIN, check_transcript, shell
from tests.hostile.exec_kit import install
from tests.integration.build.recorder import recording
from tests.objects.buckets import ADMIN, S3Bucket, Server, digest_of, put_cache
from tests.objects.proxy import run_proxy

BUCKET, PREFIX = "my-cache", "ci/"
BASE, RELEASE, MAIN = b"base" * 3000, b"release" * 3000, b"main" * 3000
ADDRESS = f"s3://{BUCKET}/{PREFIX}?region=eu-west-1"
ARN = f"arn:aws:s3:::{BUCKET}"
OBJECTS = ROOT / "src" / "kitcache" / "store" / "objects"
GARBAGE = [b"garbage %d " % n * 1000 for n in range(6)]


@pytest.fixture(scope="module")
def shop(seaweed: Server) -> Iterator[tuple[S3Bucket, dict[str, str]]]:
    """The bucket of the pages, and the environment in which their commands find it."""
    with (
        run_proxy(seaweed.url, timedelta(days=3)) as proxy,
        S3Bucket.open(seaweed, BUCKET, PREFIX) as bucket,
    ):
        bucket.create(attempts=40)
        env = {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": ADMIN.access,
            "AWS_SECRET_ACCESS_KEY": ADMIN.secret,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield bucket, {**os.environ, **env}


@pytest.fixture
def env(shop: tuple[S3Bucket, dict[str, str]]) -> dict[str, str]:
    """The environment; the bucket has two roots and garbage, and no run has been there."""
    bucket, env = shop
    present = bucket.keys()
    for key in present:
        bucket.remove(key)
    put_cache(bucket, {"main": [BASE, MAIN], "release": [BASE, RELEASE]}, GARBAGE)
    return env


@pytest.mark.parametrize("block", of("console", needs_bucket=True), ids=name_of)
def test_a_transcript_is_real(block: Block, env: dict[str, str], tmp_path: Path) -> None:
    check_transcript(block, tmp_path, env)


@pytest.mark.parametrize("block", of("sh", needs_bucket=True), ids=name_of)
def test_a_script_works(block: Block, env: dict[str, str], tmp_path: Path) -> None:
    """Builds are asked of a daemon, and of a docker, that only record what they are told."""
    _confirm(env, tmp_path)
    write_project(tmp_path)
    (tmp_path / "cache.toml").write_text("keep-last = 1\n")
    path = install(tmp_path / "bin")["PATH"]
    lines = [line for line in block.text.splitlines() if not line.startswith("pip install")]
    with recording(Path("/tmp") / f"kitcache-{os.getpid()}.sock") as recorder:
        env = {**env, "PATH": path, "BUILDKIT_HOST": f"unix:///tmp/kitcache-{os.getpid()}.sock"}
        printed = shell("set -e\n" + "\n".join([*lines, "echo done"]), tmp_path, BIN, env)
    assert printed.endswith("done\n"), printed
    assert "not reset" not in printed
    for solve in recorder.solves:
        ((kind, attrs),) = [(e.type, dict(e.attrs)) for e in solve.cache.exports]
        assert (kind, attrs["bucket"], "reset" in attrs) == ("s3", BUCKET, False)


@pytest.mark.parametrize("block", of("yaml", needs_bucket=True), ids=name_of)
def test_a_recipe_resets_the_bucket(
    block: Block, env: dict[str, str], shop: tuple[S3Bucket, dict[str, str]], tmp_path: Path
) -> None:
    recipe = yaml.safe_load(block.text)
    bucket, _ = shop
    _confirm(env, tmp_path)
    bucket.put(bucket.blob_key(digest_of(b"new garbage")), b"new garbage")
    for script in _scripts(recipe):
        lines = [line for line in script.splitlines() if not line.startswith("pip install")]
        printed = shell("set -e\n" + "\n".join([*lines, "echo done"]), tmp_path, BIN, env)
        assert "not reset" not in printed
    left = bucket.keys()
    assert bucket.blob_key(digest_of(b"new garbage")) not in left
    assert bucket.blob_key(digest_of(MAIN)) in left


def _confirm(env: dict[str, str], where: Path) -> None:
    printed = shell(f"kitcache reset --yes '{ADDRESS}'", where, BIN, env)
    assert printed.startswith(f"{ADDRESS}: deleted 6 blobs, "), printed


def _scripts(recipe: dict[str, object]) -> list[str]:
    """Return the shell scripts of a workflow or of a CronJob."""
    found: list[str] = []

    def search(value: object) -> None:
        if isinstance(value, dict):
            found.extend(value[key] for key in ("run",) if key in value)
            if value.get("command") == ["sh", "-c"]:
                found.extend(value["args"])
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                search(each)

    search(recipe)
    assert found
    return [script.replace("exec python", f"exec {sys.executable}") for script in found]


ACTIONS = {
    "AbortMultipartUpload": ["AbortMultipartUpload"],
    "CompleteMultipartUpload": ["PutObject"],
    "CopyObject": ["GetObject", "PutObject"],
    "CreateMultipartUpload": ["PutObject"],
    "DeleteObject": ["DeleteObject", "DeleteObjectVersion"],
    "DeleteObjects": ["DeleteObject", "DeleteObjectVersion"],
    "GetBucketLifecycleConfiguration": ["GetLifecycleConfiguration"],
    "GetBucketVersioning": ["GetBucketVersioning"],
    "GetObject": ["GetObject"],
    "HeadBucket": ["ListBucket"],
    "HeadObject": ["GetObject"],
    "ListMultipartUploads": ["ListBucketMultipartUploads"],
    "ListObjectVersions": ["ListBucketVersions"],
    "ListObjectsV2": ["ListBucket"],
    "ListParts": ["ListMultipartUploadParts"],
    "PutObject": ["PutObject"],
    "UploadPart": ["PutObject"],
}
"""The actions that a policy must allow for each request. Source: Amazon S3 API reference."""


def test_the_policy_allows_what_the_client_sends_and_no_more() -> None:
    import botocore.session  # noqa: PLC0415 - slow

    source = "".join(path.read_text() for path in sorted(OBJECTS.glob("s3*.py")))
    model = botocore.session.Session().get_service_model("s3")
    assert {name for name in model.operation_names if f'"{name}"' in source} == set(ACTIONS)
    policies = [json.loads(block.text) for block in of("json")]
    assert [policy["Version"] for policy in policies] == ["2012-10-17"] * 2
    statements = [statement for policy in policies for statement in policy["Statement"]]
    allowed: list[str] = []
    for statement in statements:
        actions = statement["Action"]
        allowed += [actions] if isinstance(actions, str) else actions
        assert statement["Effect"] == "Allow"
        assert statement["Resource"] in (ARN, f"{ARN}/{PREFIX}*")
    wanted = {f"s3:{action}" for actions in ACTIONS.values() for action in actions}
    assert sorted(allowed) == sorted(wanted)
