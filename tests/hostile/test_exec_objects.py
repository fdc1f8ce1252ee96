"""`kitcache exec` and exports to object stores that no server answers for: what is printed."""

import json
from pathlib import Path

import pytest

from tests.hostile.exec_kit import bare, install, run

PLACE = "bucket=b,region=r,prefix=ci/,endpoint_url=http://127.0.0.1:1,retry_max_attempts=1"
S3 = f"type=s3,{PLACE},access_key_id=i,secret_access_key=hush"
SHORT = "s3://b/ci/?region=r&endpoint_url=http://127.0.0.1:1&retry_max_attempts=1"


def test_a_dry_run_names_the_bucket_and_the_names(tmp_path: Path) -> None:
    words = ["docker", "build", f"--cache-to={S3},name=a;b,reset=true", f"--cache-to={S3}", "."]
    done = run(words, tmp_path, install(tmp_path / "bin"), "--dry-run")
    command, line = done.stdout.decode().splitlines()
    assert "reset" not in command
    assert command.count("secret_access_key=…") == 2
    assert line == f"# to {SHORT}, 'a', 'b': without a lock, then a reset"
    (tmp_path / "cache.toml").write_text("keep-last = 1\n")
    done = run(words, tmp_path, install(tmp_path / "bin"), "-n", "--prune-policy=cache.toml")
    assert done.stderr == b""
    assert done.stdout.decode().splitlines()[1:] == [
        f"# to {SHORT}, 'a', 'b', 'buildkit': without a lock, then a reset,"
        " by the policy cache.toml"
    ]


def test_a_bucket_that_does_not_answer_does_not_fail_the_command(tmp_path: Path) -> None:
    words = ["docker", "build", f"--cache-to={S3},reset=true", "."]
    done = run(words, tmp_path, install(tmp_path / "bin"), "--metadata-file=m.json")
    assert done.returncode == 0
    assert f"kitcache: {SHORT}: not reset: " in done.stderr.decode(errors="replace")
    (cache,) = json.loads((tmp_path / "m.json").read_text())["caches"]
    assert (cache["path"], cache["tags"], cache["exit_code"]) == (SHORT, ["buildkit"], 0)
    assert cache["reset"]["outcome"] == "refused"
    assert "hush" not in (tmp_path / "m.json").read_text()


@pytest.mark.parametrize("options", [[], ["--reset"]])
def test_what_cannot_be_read_is_passed_on_and_told(options: list[str], tmp_path: Path) -> None:
    """BuildKit ignores `reset` here, so the command works with it."""
    env = {**install(tmp_path / "bin"), "EXEC_RECORD": str(tmp_path / "record"), "EXEC_DO": "fail"}
    words = ["docker", "build", "--cache-to=type=s3,bucket=b,reset=true", "."]
    alone = bare(words, tmp_path, env)
    before = (tmp_path / "record").read_text()
    done = run(words, tmp_path, env, *options)
    assert json.loads((tmp_path / "record").read_text())["argv"] == json.loads(before)["argv"]
    assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout)
    assert (
        b"warning: the cache of type=s3 is not swept: region ($AWS_REGION) not set" in done.stderr
    )
