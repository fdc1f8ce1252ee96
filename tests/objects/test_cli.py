"""The command line on caches in real object stores: one user's session, from du to trim."""

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kitcache.cli.console import Console
from kitcache.cli.parser import load_command, parse_words
from tests.hostile.command import Answer, run
from tests.objects.buckets import (
    ADMIN,
    AZURITE_KEY,
    AzureBucket,
    Bucket,
    S3Bucket,
    digest_of,
    missing_blobs,
    put_cache,
)
from tests.unit.loading import CHILD, loaded

MAIN = [b"base", b"main 1", b"main 2"]
GARBAGE = b"of the last export"
Run = Callable[..., Answer]
NO_GRACE = ("--export-time", "0s")


@pytest.fixture
def kitcache(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command line in this process: the packages for object stores are slow to import."""

    def call(*words: str) -> Answer:
        args = parse_words(words)
        assert args is not None
        args.cancel = None
        command = load_command(args.command)
        console = Console(
            wants_json=getattr(args, "json", False),
            is_quiet=getattr(args, "quiet", False),
            effect=command.COMMAND.effect,
        )
        code = command.run(args, console)
        answer = Answer(code, *capsys.readouterr())
        assert ADMIN.secret not in answer.out + answer.err
        assert AZURITE_KEY not in answer.out + answer.err
        return answer

    return call


def fill(bucket: Bucket) -> None:
    put_cache(bucket, {"main": MAIN, "pr-1": [*MAIN[:1], b"pr 1"]}, [GARBAGE])


def test_a_session_on_s3(plain_bucket: S3Bucket, kitcache: Run) -> None:
    fill(plain_bucket)
    time.sleep(1.1)  # S3 has dates of whole seconds: now all objects are old.
    address = plain_bucket.attributes(touch_refresh="0s")
    garbage = plain_bucket.blob_key(digest_of(GARBAGE))

    usage = kitcache("du", *NO_GRACE, address)
    assert usage.code == 0
    short, live, reclaimable, *_ = usage.out.splitlines()
    assert short.startswith(f"s3://{plain_bucket.name}/{plain_bucket.prefix}?region=")
    assert re.search(r"live .* 6 blobs", live)
    assert re.search(r"reclaimable +18 B .* 1 blob$", reclaimable)
    assert re.search(r"requests: \d+ list, \d+ get", usage.err)
    assert "secret_access_key is on the command line" in usage.err

    young = kitcache("du", address).out
    assert re.search(r"reclaimable +0 B .*\n  too young +18 B .* 1 blob\n", young)

    # The short form names the same cache; a first run deletes nothing, and prints its plan.
    credentials = f"&access_key_id={ADMIN.access}&secret_access_key={ADMIN.secret}"
    first = kitcache("reset", *NO_GRACE, f"{short}{credentials}")
    assert first.code == 15
    assert f"{short}: would delete 1 blob, 18 B; kept 6" in first.out
    assert (
        f"{short}: this is the first run of kitcache on this cache\n  nothing was deleted\n"
        in first.err
    )
    assert "hint: check the numbers, then run the same command with --yes" in first.err
    assert plain_bucket.get(garbage) == GARBAGE

    done = kitcache("reset", "--yes", "--json", *NO_GRACE, address).value
    assert (done["path"], done["outcome"], done["deleted"]["blobs"]) == (short, "done", 1)
    assert done["requests"]["delete"] >= 1
    assert done["requests"]["list"] >= 1
    assert plain_bucket.get(garbage) is None

    assert [tag["ref_name"] for tag in kitcache("ls", "--json", address).value["tags"]] == [
        "main",
        "pr-1",
    ]
    assert kitcache("tag", address, "main", "v1").code == 0
    time.sleep(1.1)  # What was live in the second of the last run is kept.
    pruned = kitcache("prune", "--drop-tag", "pr-*", *NO_GRACE, address)
    assert f"{short}: removed 1 of 3 tags" in pruned.out
    assert "deleted 1 blob, 4 B; kept 4" in pruned.out
    assert kitcache("untag", address, "v1").code == 0
    assert missing_blobs(plain_bucket) == {}
    assert plain_bucket.keys() >= {plain_bucket.root_key("main")}
    assert not plain_bucket.keys() & {plain_bucket.root_key(name) for name in ("v1", "pr-1")}


def test_a_session_on_azure(azure_bucket: AzureBucket, kitcache: Run) -> None:
    fill(azure_bucket)
    address = azure_bucket.attributes()
    usage = kitcache("du", "--json", *NO_GRACE, address).value
    assert usage["path"].startswith(f"azblob://{azure_bucket.name}/{azure_bucket.prefix}")
    assert usage["live"]["blobs"] == 6
    first = kitcache("reset", *NO_GRACE, address)
    assert "run the same command with --yes" in first.err
    done = kitcache("reset", "--yes", address)
    assert done.code == 0
    assert missing_blobs(azure_bucket) == {}


def test_mistakes_are_usage_errors(plain_bucket: S3Bucket, kitcache: Run) -> None:
    fill(plain_bucket)
    before = plain_bucket.keys()
    young = kitcache("reset", "--yes", "--min-age", "1h", plain_bucket.attributes())
    assert (young.code, young.out) == (2, "")
    assert "a minimum age of 1 h is less than touch_refresh" in young.err
    assert "hint: leave the minimum age out: without --min-age" in young.err
    nowhere = kitcache("reset", "--json", plain_bucket.attributes(bucket="no-such-bucket"))
    assert (nowhere.code, nowhere.value["error"]) == (10, "NotACache")
    assert plain_bucket.keys() == before


def test_a_hint_can_be_pasted(
    plain_bucket: S3Bucket, kitcache: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(plain_bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN.access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
    address = plain_bucket.attributes(access_key_id="", secret_access_key="")
    missing = kitcache("ls", address, "mian")
    assert missing.code == 1
    assert "on the command line" not in missing.err
    (command,) = re.findall(r"hint: list the tags[^:]*: (kitcache .*)", missing.err)
    assert kitcache(*shlex.split(command)[1:]).code == 0


@pytest.mark.parametrize("prefix", ["a b/", "x//", "../up/", "é+&=#?%41'/", "proj-"])
def test_any_prefix(moto_bucket: S3Bucket, kitcache: Run, prefix: str) -> None:
    bucket = moto_bucket._replace(prefix=moto_bucket.prefix + prefix)
    fill(bucket)
    value = kitcache("du", "--json", bucket.attributes()).value
    assert (value["live"]["blobs"], value["missing_blobs"]) == (6, [])
    credentials = f"&access_key_id={ADMIN.access}&secret_access_key={ADMIN.secret}"
    again = kitcache("du", "--json", value["path"] + credentials).value
    assert (again["live"], again["path"]) == (value["live"], value["path"])


def test_a_process_of_its_own(plain_bucket: S3Bucket, tmp_path: Path) -> None:
    fill(plain_bucket)
    answer = run(tmp_path, "why", "--json", plain_bucket.attributes(), digest_of(b"base"))
    assert [path["ref_name"] for path in answer.value["paths"]] == ["main", "pr-1"]
    assert "secret" not in json.dumps(answer.value)


def test_only_the_package_of_its_kind_is_loaded(plain_bucket: S3Bucket, tmp_path: Path) -> None:
    modules = loaded(CHILD, "du", plain_bucket.attributes(), cwd=tmp_path)
    assert "botocore" in modules
    assert not {"azure", "boto3", "rich", "hpack"} & modules
