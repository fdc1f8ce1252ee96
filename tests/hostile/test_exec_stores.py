"""What `kitcache exec` leaves in the caches: bad words, odd paths, failures, many at once."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.caches.snapshot import differences, take_snapshot
from tests.hostile import strangers
from tests.hostile.exec_kit import PREFIX, bare, install, run
from tests.hostile.privilege import needs_root
from tests.integration.witness import entries, garbage, look, ref_name

WRITERS = 8


def build(*caches: str) -> list[str]:
    return ["docker", "build", *(f"--cache-to=type=local,{cache}" for cache in caches), "src"]


def client(tmp_path: Path, do: str = "export", seed: int = 0) -> dict[str, str]:
    return {**install(tmp_path / "bin"), "EXEC_DO": do, "EXEC_SEED": str(seed)}


def tags(cache: Path) -> list[str | None]:
    return sorted(ref_name(entry) or "" for entry in entries(cache))


@pytest.mark.parametrize("options", [["--in-place"], []], ids=["in place", "staged"])
def test_reset_true_leaves_what_tags_reach_and_no_more(options: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "c"
    for seed in (1, 2):
        bare(build("dest=c"), tmp_path, client(tmp_path, seed=seed))
    assert garbage(cache)
    done = run(build("dest=c,reset=true"), tmp_path, client(tmp_path, seed=3), *options)
    assert (done.returncode, garbage(cache)) == (0, {})
    assert look(cache).missing == frozenset()
    assert done.stderr.decode(errors="replace").count("kitcache: c: deleted ") == 1
    assert sorted(os.listdir(tmp_path)) == ["bin", "c"]


@pytest.mark.parametrize("options", [["--in-place"], []], ids=["in place", "staged"])
def test_without_reset_nothing_is_collected(options: list[str], tmp_path: Path) -> None:
    for seed in (1, 2):
        run(build("dest=c"), tmp_path, client(tmp_path, seed=seed), *options)
    assert garbage(tmp_path / "c")
    done = run(build("dest=c"), tmp_path, client(tmp_path, seed=3), "--reset", *options)
    assert (done.returncode, garbage(tmp_path / "c")) == (0, {})


@pytest.mark.parametrize("options", [["--in-place"], []], ids=["in place", "staged"])
def test_what_was_exported_is_noted(options: list[str], tmp_path: Path) -> None:
    run(build("dest=c,tag=a"), tmp_path, client(tmp_path, seed=1), *options)
    (entry,) = entries(tmp_path / "c")
    notes = json.loads((tmp_path / "c" / ".kitcache" / "tags.json").read_bytes())["tags"]
    assert list(notes) == ["a"]
    assert notes["a"]["digest"] == entry["digest"]


@pytest.mark.parametrize("options", [["--in-place"], []], ids=["in place", "staged"])
def test_a_failing_build_changes_nothing(options: list[str], tmp_path: Path) -> None:
    for seed in (1, 2):
        run(build("dest=c"), tmp_path, client(tmp_path, seed=seed))
    before = take_snapshot(tmp_path)
    words = build("dest=c,reset=true")
    done = run(words, tmp_path, client(tmp_path, do="fail"), "--reset", *options)
    assert done.returncode == 7
    assert differences(before, take_snapshot(tmp_path)) == []


def test_a_killed_staged_build_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    run(build("dest=c"), tmp_path, client(tmp_path, seed=1))
    before = take_snapshot(tmp_path)
    env = client(tmp_path, do="export die", seed=2)
    done = run(build("dest=c,reset=true"), tmp_path, env)
    assert done.returncode == 128 + 9
    assert differences(before, take_snapshot(tmp_path)) == []


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("type=local,mode=max", "local cache exporter requires dest"),
        ("type=local,dest=c,reset=yes", 'reset attribute: "yes" is neither true nor false'),
        ("type=local,dest=c,reset", "invalid value reset"),
        ('type=local,"dest=c', 'cannot be read at column 19: the " that ends the field is missing'),
        ("type=local,src=c", "write dest=DIR, not src=DIR"),
    ],
)  # fmt: skip
def test_attributes_that_do_not_parse(value: str, says: str, tmp_path: Path) -> None:
    """The client judges them, unless a reset is asked for."""
    env = {**client(tmp_path, do="fail"), "EXEC_RECORD": str(tmp_path / "record")}
    words = ["docker", "build", "--cache-to", value, "."]
    refused = run(words, tmp_path, env, *([] if "reset" in value else ["--reset"]))
    assert refused.returncode == 2
    assert says in refused.stderr.decode(errors="replace")
    assert os.listdir(tmp_path) == ["bin"]
    if "reset" in value:
        return
    alone, done = bare(words, tmp_path, env), run(words, tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (7, alone.stdout, alone.stderr)
    taken = run(words, tmp_path, {**env, "EXEC_DO": ""})
    *_, last = taken.stderr.decode(errors="replace").splitlines()
    assert last.startswith("kitcache: warning: no cache of this command was guarded: ")
    assert says in last
    dry = run(words, tmp_path, env, "--dry-run")
    assert dry.stdout.decode().splitlines()[1].startswith("# no cache is guarded: ")
    assert says in dry.stdout.decode()


def test_two_exports_to_one_directory_keep_both_tags_by_whatever_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "sub").mkdir()
    words = build("dest=link,tag=a,reset=true", "dest=sub/../real,tag=b", "dest=other,tag=a")
    done = run(words, tmp_path, client(tmp_path))
    assert done.returncode == 0, done.stderr
    assert tags(tmp_path / "real") == ["a", "b"]
    assert tags(tmp_path / "other") == ["a"]
    assert look(tmp_path / "real").missing == frozenset()
    assert garbage(tmp_path / "real") == {}
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["bin", "link", "other", "real", "sub"]


def test_a_directory_of_other_things_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("")
    for value, options in (("dest=c,reset=true", ()), ("dest=c", ["--reset"])):
        done = run(build(value), tmp_path, client(tmp_path), *options)
        assert done.returncode == 10
        assert b"the command was not started" in done.stderr
    assert os.listdir(tmp_path / "c") == ["thesis.tex"]
    # Without the prefix that works, and so it does with it.
    done = run(build("dest=c", "dest=d"), tmp_path, client(tmp_path))
    assert (done.returncode, tags(tmp_path / "c"), tags(tmp_path / "d")) == (
        0, ["latest"], ["latest"]
    )  # fmt: skip
    assert done.stderr.startswith(b"kitcache: warning: c: the export is not guarded: ")
    assert (tmp_path / "c" / "thesis.tex").read_text() == ""


def newer_version(cache: Path) -> None:
    (cache / "oci-layout").write_text('{"imageLayoutVersion":"9"}')


def ambiguous_index(cache: Path) -> None:
    (cache / "index.json").write_text('{"schemaVersion":2,"manifests":[],"Manifests":[]}')


def directory_for_index(cache: Path) -> None:
    (cache / "index.json").unlink()
    (cache / "index.json").mkdir()


def link_to_itself(cache: Path) -> None:
    shutil.rmtree(cache)
    cache.symlink_to(cache.name)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (newer_version, "dest=d"),
        (ambiguous_index, "dest=d"),
        (ambiguous_index, "dest=c,tag=b"),
        (directory_for_index, "dest=d"),
        (link_to_itself, "dest=d"),
    ],
)
def test_a_directory_that_we_cannot_work_in_is_the_clients_to_judge(
    make: Callable[[Path], None], other: str, tmp_path: Path
) -> None:
    words = build("dest=c,tag=a", other)
    ends = []
    for runs in (bare, run):
        top = tmp_path / runs.__name__
        top.mkdir()
        run(build("dest=c"), top, client(top))
        make(top / "c")
        done = runs(words, top, client(top))
        ours = [line for line in done.stderr.splitlines() if line.startswith(b"kitcache: ")]
        rest = [line for line in done.stderr.splitlines() if line not in ours]
        index = top / "c" / "index.json"
        written = index.read_bytes() if index.is_file() else b""
        ends.append((done.returncode, done.stdout, rest[-1:], written))
    assert ends[1] == ends[0]
    assert any(b" c: the export is not " in line for line in ours)


def test_a_reset_in_a_cache_of_a_newer_version_is_refused_before(tmp_path: Path) -> None:
    run(build("dest=c"), tmp_path, client(tmp_path))
    newer_version(tmp_path / "c")
    env = {**client(tmp_path), "EXEC_RECORD": str(tmp_path / "record")}
    done = run(build("dest=c,reset=true"), tmp_path, env)
    assert done.returncode == 13
    assert not (tmp_path / "record").exists()


def test_a_lock_that_is_not_had_in_time(tmp_path: Path) -> None:
    run(build("dest=c"), tmp_path, client(tmp_path))
    with strangers.lock_holder(tmp_path / "c" / "kitcache.lock", "ex"):
        env = {**client(tmp_path), "EXEC_RECORD": str(tmp_path / "record")}
        done = run(build("dest=c"), tmp_path, env, "--lock-timeout", "0s")
    assert done.returncode == 11
    assert not (tmp_path / "record").exists()


def test_the_source_of_an_import_is_locked_too(tmp_path: Path) -> None:
    run(build("dest=c"), tmp_path, client(tmp_path))
    words = ["docker", "build", "--cache-from", "type=local,src=c", "."]
    with strangers.lock_holder(tmp_path / "c" / "kitcache.lock", "ex"):
        done = run(words, tmp_path, client(tmp_path), "--lock-timeout", "0s")
    assert done.returncode == 11
    missing = run(["docker", "build", "--cache-from=type=local,src=no", "."], tmp_path,
                  client(tmp_path))  # fmt: skip
    assert missing.returncode == 0
    assert not (tmp_path / "no").exists()


def at_once(tmp_path: Path, count: int, *options: str) -> list[tuple[int, str]]:
    """So many wrapped exports, each of its own tag, begun together: exit codes and stderr."""
    with ExitStack() as stack:
        procs = []
        for seed in range(count):
            env = {**client(tmp_path, seed=seed), "EXEC_PAUSE": "0.05"}
            words = [*PREFIX, *options, "--", *build(f"dest=c,tag=t{seed},reset=true")]
            process = subprocess.Popen(
                words, cwd=tmp_path, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            procs.append(stack.enter_context(process))
        said = [process.communicate(timeout=60)[1].decode(errors="replace") for process in procs]
    return [(process.returncode, text) for process, text in zip(procs, said, strict=True)]


def test_many_at_once_staged_all_succeed_and_all_tags_are_whole(tmp_path: Path) -> None:
    run(build("dest=c,tag=old"), tmp_path, client(tmp_path, seed=100))
    results = at_once(tmp_path, WRITERS)
    assert [code for code, _ in results] == [0] * WRITERS, results
    assert tags(tmp_path / "c") == sorted(["old", *(f"t{n}" for n in range(WRITERS))])
    assert look(tmp_path / "c").missing == frozenset()
    run(build("dest=c,tag=last,reset=true"), tmp_path, client(tmp_path, seed=101))
    assert garbage(tmp_path / "c") == {}
    assert sorted(os.listdir(tmp_path)) == ["bin", "c"]


def test_many_at_once_in_place_lose_nothing_that_is_tagged(tmp_path: Path) -> None:
    run(build("dest=c,tag=old"), tmp_path, client(tmp_path, seed=100))
    results = at_once(tmp_path, WRITERS, "--in-place")
    assert look(tmp_path / "c").missing == frozenset()
    published = {f"t{n}" for n, (code, _) in enumerate(results) if code == 0}
    assert published <= set(tags(tmp_path / "c"))


def test_a_neighbour_is_named_when_the_command_fails(tmp_path: Path) -> None:
    run(build("dest=c"), tmp_path, client(tmp_path))
    with strangers.lock_holder(tmp_path / "c" / "kitcache.lock", "sh"):
        done = run(build("dest=c"), tmp_path, client(tmp_path, do="fail"), "--in-place")
        staged = run(build("dest=c"), tmp_path, client(tmp_path, do="fail"))
    alone = run(build("dest=c"), tmp_path, client(tmp_path, do="fail"), "--in-place")
    assert b"without --in-place" in done.stderr
    assert b"--in-place" not in staged.stderr
    assert b"--in-place" not in alone.stderr


def test_what_is_staged_and_has_a_hole_is_not_published(tmp_path: Path) -> None:
    run(build("dest=c"), tmp_path, client(tmp_path, seed=1))
    before = (tmp_path / "c" / "index.json").read_bytes()
    env = client(tmp_path, seed=2)
    shell = (tmp_path / "bin" / "docker").read_text()
    (tmp_path / "bin" / "docker").write_text(
        shell.replace("exec ", "")
        + 'grep -l "seed 2" c/.kitcache/stage-*/blobs/sha256/* | xargs rm -f\n'
    )
    done = run(build("dest=c,reset=true"), tmp_path, env)
    assert done.returncode == 12
    assert b"not published" in done.stderr
    assert (tmp_path / "c" / "index.json").read_bytes() == before
    assert look(tmp_path / "c").missing == frozenset()


def test_a_store_without_room_beside_it_stages_inside(tmp_path: Path) -> None:
    needs_root()
    cache = tmp_path / "c"
    run(build("dest=c"), tmp_path, client(tmp_path, seed=1))
    subprocess.run(["mount", "-t", "tmpfs", "none", str(cache)], check=True)
    try:
        run(build("dest=c,tag=a"), tmp_path, client(tmp_path, seed=1))
        done = run(build("dest=c,tag=b,reset=true"), tmp_path, client(tmp_path, seed=2))
        assert done.returncode == 0, done.stderr
        assert tags(cache) == ["a", "b"]
        assert (look(cache).missing, garbage(cache)) == (frozenset(), {})
        assert not [name for name in os.listdir(cache / ".kitcache") if "stage" in name]
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_a_dry_run_shows_the_command_and_touches_nothing(tmp_path: Path) -> None:
    words = build("dest=my cache,Mode=max,reset=1", "dest=b,tag=x")
    done = run(words, tmp_path, client(tmp_path), "--dry-run")
    first, *rest = done.stdout.decode().splitlines()
    assert first.startswith("docker build '--cache-to=type=local,dest=my cache/.kitcache/stage-X")
    assert "reset" not in first
    assert rest == [
        "# to my cache, tag 'latest': staged, under the shared lock, then a reset",
        "# to b, tag 'x': staged, under the shared lock",
    ]
    assert os.listdir(tmp_path) == ["bin"]


def test_the_metadata_file_has_the_reports(tmp_path: Path) -> None:
    words = build("dest=c,reset=true")
    done = run(words, tmp_path, client(tmp_path), "--in-place", "--metadata-file", "m.json")
    assert done.returncode == 0
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["schema"] == "kitcache.exec/1"
    assert document["command"] == build("dest=c")
    (store,) = document["caches"]
    assert (store["path"], store["tags"], store["reset"]["outcome"]) == ("c", ["latest"], "done")


def test_ctrl_c_while_waiting_for_a_lock(tmp_path: Path) -> None:
    run(build("dest=c"), tmp_path, client(tmp_path))
    env = {**client(tmp_path), "EXEC_RECORD": str(tmp_path / "record")}
    with strangers.lock_holder(tmp_path / "c" / "kitcache.lock", "ex"):
        words = [*PREFIX, "--", *build("dest=c")]
        with subprocess.Popen(words, cwd=tmp_path, env=env, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            assert b"waiting" in process.stderr.readline()
            process.send_signal(2)
            assert process.wait(20) == 130
    assert not (tmp_path / "record").exists()
