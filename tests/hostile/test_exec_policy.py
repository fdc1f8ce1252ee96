"""`kitcache exec --prune-policy FILE`: the tags that a policy retires go after the command."""

import json
import os
from pathlib import Path

import pytest

from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.exec_kit import bare, install, run
from tests.integration.witness import entries, garbage, look, ref_name


def build(*caches: str) -> list[str]:
    return ["docker", "build", *(f"--cache-to=type=local,{cache}" for cache in caches), "."]


def client(tmp_path: Path, do: str = "export", seed: int = 0) -> dict[str, str]:
    return {**install(tmp_path / "bin"), "EXEC_DO": do, "EXEC_SEED": str(seed)}


def tags(cache: Path) -> list[str]:
    return sorted(ref_name(entry) or "" for entry in entries(cache))


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """The cache c with the tags a and b."""
    for seed, tag in enumerate(("a", "b")):
        bare(build(f"dest=c,tag={tag}"), tmp_path, client(tmp_path, seed=seed))
    (tmp_path / "cache.toml").write_text("keep-last = 1\n")
    return tmp_path / "c"


@pytest.mark.parametrize("options", [["--in-place"], []], ids=["in place", "staged"])
def test_build_then_no_more_than_the_policy_keeps(
    options: list[str], grown: Path, tmp_path: Path
) -> None:
    options = ["--prune-policy", "cache.toml", "--metadata-file", "said.json", *options]
    done = run(build("dest=c,tag=new"), tmp_path, client(tmp_path, seed=3), *options)
    assert done.returncode == 0, done.stderr
    assert (tags(grown), garbage(grown), look(grown).missing) == (["new"], {}, frozenset())
    assert "kitcache: c: removed 2 of 3 tags: 'a', 'b'\n" in done.stderr.decode(errors="replace")
    (store,) = json.loads((tmp_path / "said.json").read_text())["caches"]
    assert store["prune"]["schema"] == "kitcache.prune/1"
    assert store["prune"]["reset"] == store["reset"]


def test_without_one_no_tag_goes(grown: Path, tmp_path: Path) -> None:
    words = build("dest=c,tag=new,reset=true")
    done = run(words, tmp_path, client(tmp_path, seed=3), "--metadata-file", "said.json")
    assert (done.returncode, tags(grown)) == (0, ["a", "b", "new"])
    (store,) = json.loads((tmp_path / "said.json").read_text())["caches"]
    assert store["prune"] is None


def test_a_limit_that_is_not_reached_is_a_warning(grown: Path, tmp_path: Path) -> None:
    (tmp_path / "cache.toml").write_text('max-used-space = "10 B"\n')
    options = ["--prune-policy", "cache.toml", "--quiet"]
    done = run(build("dest=c,tag=new"), tmp_path, client(tmp_path, seed=3), *options)
    assert (done.returncode, tags(grown)) == (0, ["new"])
    assert b"more than max-used-space 10 B allows\n" in done.stderr


def test_after_a_failure_nothing_goes(grown: Path, tmp_path: Path) -> None:
    options = ["--prune-policy", "cache.toml"]
    done = run(build("dest=c,tag=new"), tmp_path, client(tmp_path, do="fail"), *options)
    assert done.returncode != 0
    assert tags(grown) == ["a", "b"]


@pytest.mark.parametrize("content", ["keep-last = 0", "keep-lost = 1", "[", None])
def test_with_a_bad_one_the_command_is_not_started(
    grown: Path, tmp_path: Path, content: str | None
) -> None:
    if content is None:
        (tmp_path / "cache.toml").unlink()
    else:
        (tmp_path / "cache.toml").write_text(content)
    before = take_snapshot(tmp_path)
    done = run(build("dest=c"), tmp_path, client(tmp_path), "--prune-policy", "cache.toml")
    assert done.returncode == (1 if content is None else 2)
    assert done.stderr.startswith(b"kitcache: cache.toml: ")
    assert differences(before, take_snapshot(tmp_path)) == []


@pytest.mark.parametrize("words", ["build -", "build -f - .", "buildx bake -f-", "buildx bake"])
def test_one_on_stdin_beside_a_command_that_reads_stdin_is_refused(
    words: str, tmp_path: Path
) -> None:
    env = {**client(tmp_path), "BUILDX_BAKE_FILE": "-"}
    done = run(["docker", *words.split()], tmp_path, env, "--prune-policy", "-", input=b"")
    assert done.returncode == 2
    assert b"--prune-policy - and the command would both read stdin" in done.stderr


def test_one_on_stdin_beside_a_command_that_does_not(grown: Path, tmp_path: Path) -> None:
    env = client(tmp_path, seed=3)
    done = run(
        build("dest=c,tag=new"), tmp_path, env, "--prune-policy", "-", input=b"keep-last = 1\n"
    )
    assert (done.returncode, tags(grown)) == (0, ["new"])


def test_the_name_that_buildx_has_otherwise_is_the_clients(tmp_path: Path) -> None:
    env = {**client(tmp_path), "EXEC_RECORD": str(tmp_path / "record")}
    done = run(["docker", "build", "."], tmp_path, env, "--policy", "cache.toml")
    assert done.returncode == 2
    assert b"Rego source policies" in done.stderr
    assert b"write" in done.stderr
    assert not (tmp_path / "record").exists()
    words = ["docker", "buildx", "build", "--policy", "filename=x.rego", "."]
    assert run(words, tmp_path, env).returncode == 0
    seen = json.loads((tmp_path / "record").read_text())["argv"]
    assert [bytes.fromhex(word).decode() for word in seen[1:]] == words[1:]


def test_a_dry_run_says_so_and_a_policy_without_a_cache_is_told(
    grown: Path, tmp_path: Path
) -> None:
    options = ["--prune-policy", "cache.toml"]
    dry = run(build("dest=c"), tmp_path, client(tmp_path), *options, "--dry-run")
    assert b"then a reset, by the policy cache.toml" in dry.stdout
    done = run(["docker", "build", "."], tmp_path, client(tmp_path), *options)
    assert b"the policy applies to no cache" in done.stderr
    assert sorted(os.listdir(grown / "blobs"))
