"""`docker buildx bake` under `kitcache exec`: HCL, JSON and compose files, groups, matrices."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.integration.build.serving import git, git_server, make_repository
from tests.integration.daemon import Daemon
from tests.integration.witness import entries, garbage, look, ref_name

from .kit import PREFIX, assert_swept_and_cached, context, masked, run, said_by_kitcache, wrapped

HCL = """\
variable "WHERE" {
  default = "cache"
}
group "default" {
  targets = ["main", "side"]
}
target "base" {
  context = "app"
  output = ["type=cacheonly"]
}
target "main" {
  inherits = ["base"]
  cache-from = ["type=local,src=${WHERE},tag=main"]
  cache-to = ["type=local,dest=${WHERE},mode=max,reset=true,tag=main", "type=inline"]
}
target "side" {
  inherits = ["base"]
  matrix = { v = ["x", "y"] }
  name = "side-${v}"
  cache-to = ["type=local,dest=${WHERE},tag=${v},\\"reset=true\\""]
}
"""
JSON = '{"target": {"default": {"context": "app", "output": ["type=cacheonly"], "cache-to": %s}}}'


def bake(*more: str) -> tuple[str, ...]:
    return ("docker", "buildx", "bake", "--progress=plain", *more)


def test_a_group_with_a_matrix_from_hcl(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text(HCL)
    for version in "12":
        context(tmp_path, version)
        said = wrapped(daemon, tmp_path, *bake())
    assert "kitcache: cache: deleted " in said
    assert sorted(map(ref_name, entries(tmp_path / "cache"))) == ["main", "x", "y"]
    assert_swept_and_cached(daemon, tmp_path, tmp_path / "cache", "main")


def test_set_and_a_file_elsewhere_are_read_as_bake_reads_them(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "my.hcl").write_text(HCL)
    for version in "12":
        context(tmp_path, version)
        value = "type=local,dest=sub/../other,reset=1"
        words = bake("-f", "files/my.hcl", "--set", f"*.cache-to={value}", "--set=main.args.a=b",
                     "main")  # fmt: skip
        (tmp_path / "sub").mkdir(exist_ok=True)
        wrapped(daemon, tmp_path, *words)
    assert [ref_name(entry) for entry in entries(tmp_path / "other")] == ["latest"]
    assert not (tmp_path / "cache").exists()
    assert garbage(tmp_path / "other") == {}


def test_json_from_stdin(daemon: Daemon, tmp_path: Path) -> None:
    text = JSON % '["type=local,dest=cache,mode=max,reset=true"]'
    for version in "12":
        context(tmp_path, version)
        said = wrapped(daemon, tmp_path, *bake("-f", "-"), stdin=text.encode())
    assert "kitcache: cache: deleted " in said
    assert (garbage(tmp_path / "cache"), look(tmp_path / "cache").missing) == ({}, frozenset())


def test_what_bake_refuses_it_refuses_in_its_own_words(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text(HCL)
    words = bake("no-such-target")
    alone, with_it = run(daemon, tmp_path, *words), run(daemon, tmp_path, *PREFIX, "--", *words)
    assert with_it.returncode == alone.returncode != 0
    assert b"failed to find target no-such-target" in with_it.stderr
    assert masked(with_it.stderr) == masked(alone.stderr)
    (tmp_path / "docker-bake.json").write_text(JSON % '["type=local,reset=true"]')
    done = run(daemon, tmp_path, *PREFIX, "--", *bake("-f", "docker-bake.json"))
    assert done.returncode == 2
    assert b"local cache exporter requires dest" in done.stderr


def test_a_definition_that_bake_fetches(
    daemon: Daemon, tmp_path: Path, need: Callable[..., None]
) -> None:
    """The file and the contexts come from git, one more file and the cache are here."""
    need("git")
    made = tmp_path / "git" / "repo"
    context(made, "1")
    (made / "docker-bake.hcl").write_text(HCL)
    make_repository(made)
    (tmp_path / "here.hcl").write_text('variable "WHERE" {\n  default = "mine"\n}\n')
    with git_server(tmp_path / "git") as url:
        words = bake(f"{url}/repo#main", "-f", "docker-bake.hcl", "-f", "cwd://here.hcl")
        for version in "12":
            context(made, version)
            git(made, "commit", "--quiet", "--allow-empty", "--all", "-m", version)
            said = wrapped(daemon, tmp_path, *words)
        missing = bake(f"{url}/repo#nowhere")
        alone = run(daemon, tmp_path, *missing)
        done = run(daemon, tmp_path, *PREFIX, "--", *missing)
    assert "kitcache: mine: deleted " in said
    assert sorted(map(ref_name, entries(tmp_path / "mine"))) == ["main", "x", "y"]
    assert (garbage(tmp_path / "mine"), look(tmp_path / "mine").missing) == ({}, frozenset())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["git", "here.hcl", "mine"]
    assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout)
    assert (alone.returncode, masked(done.stderr)) == (1, masked(alone.stderr))


def test_what_is_printed_and_written_has_no_secrets(daemon: Daemon, tmp_path: Path) -> None:
    """The context is missing, so that nothing is ever asked of the bucket."""
    caches = ["type=local,dest=cache,reset=true", "type=s3,bucket=b,region=r,name=n,"
              "access_key_id=i,secret_access_key=hunter2"]  # fmt: skip
    (tmp_path / "docker-bake.json").write_text(JSON % json.dumps(caches))
    plan = run(daemon, tmp_path, *PREFIX, "--dry-run", "--", *bake())
    done = run(daemon, tmp_path, *PREFIX, "--metadata-file=m.json", "--", *bake())
    assert done.returncode == 1
    for text in (plan.stdout.decode(), (tmp_path / "m.json").read_text()):
        assert "secret_access_key=" in text
        assert "hunter2" not in text


def test_what_only_prints_runs_as_it_is(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text(HCL)
    alone = run(daemon, tmp_path, *bake("--print"))
    with_it = run(daemon, tmp_path, *PREFIX, "--", *bake("--print"))
    assert with_it.stdout == alone.stdout != b""
    assert said_by_kitcache(with_it.stderr.decode()) == []
    assert not (tmp_path / "cache").exists()
