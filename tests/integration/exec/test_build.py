"""`docker build` by its many names under `kitcache exec`: the client of buildx 0.13 on dockerd."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.daemon import Daemon
from tests.integration.witness import entries, garbage, look, ref_name

from .kit import (
    BUILDX,
    PREFIX,
    assert_swept_and_cached,
    context,
    masked,
    run,
    said_by_kitcache,
    wrapped,
)

NAMES = (
    ("docker", "build"),
    ("docker", "--log-level", "error", "buildx", "b"),
    ("docker", "image", "build"),
    ("docker", "-D", "builder", "build"),
    (BUILDX, "build"),
)
PLAIN = ("--progress=plain", "--output=type=cacheonly", "--network=none")
WRITERS = 8


@pytest.mark.parametrize("name", NAMES, ids=" ".join)
def test_built_twice_with_a_change_then_imported(
    name: tuple[str, ...], daemon: Daemon, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for version in "12":
        app = context(tmp_path, version)
        value = "type=local,dest=cache,mode=max,reset=true,tag=main"
        source = "type=local,src=cache,tag=main"
        words = (*name, *PLAIN, "--cache-to", value, f"--cache-from={source}", app)
        said = wrapped(daemon, tmp_path, *words)
        first, *rest = said_by_kitcache(said)
        assert first.startswith("kitcache: cache: merged 'main': ")
        assert [line[:16] for line in rest] == ["kitcache: cache:"]
    assert "deleted " in said
    assert_swept_and_cached(daemon, tmp_path, cache, "main")


def test_the_client_alone_leaves_garbage_which_is_why(daemon: Daemon, tmp_path: Path) -> None:
    for version in "12":
        app = context(tmp_path, version)
        value = "type=local,dest=cache,mode=max,reset=true"
        assert not run(
            daemon, tmp_path, "docker", "build", *PLAIN, "--cache-to", value, app
        ).returncode
    assert garbage(tmp_path / "cache")


def test_the_same_output_and_exit_code_but_for_our_line(daemon: Daemon, tmp_path: Path) -> None:
    app = context(tmp_path, "1")
    words = ("docker", "build", *PLAIN, "--cache-to=type=local,dest=c,mode=max", app)
    run(daemon, tmp_path, *words)
    alone = run(daemon, tmp_path, *words)
    with_it = run(daemon, tmp_path, *PREFIX, "--", *words)
    assert (with_it.returncode, with_it.stdout) == (alone.returncode, alone.stdout) == (0, b"")
    (ours,) = said_by_kitcache(with_it.stderr.decode())
    # The daemon may date a record anew, so its two documents can be new though no layer is.
    assert re.match(r"kitcache: c: merged 'latest': \d+ new blobs?, ", ours)
    assert masked(with_it.stderr.replace(ours.encode(), b"")) == masked(alone.stderr)


def test_stdin_arrives_and_a_failure_is_the_clients_own(daemon: Daemon, tmp_path: Path) -> None:
    text = b"FROM scratch\nCOPY nothing /\n"
    words = ("docker", "build", *PLAIN, "--cache-to=type=local,dest=c,reset=true", "-")
    alone = run(daemon, tmp_path, *words, stdin=text)
    with_it = run(daemon, tmp_path, *PREFIX, "--", *words, stdin=text)
    assert (with_it.returncode, with_it.stdout) == (alone.returncode, alone.stdout)
    assert alone.returncode
    assert masked(with_it.stderr) == masked(alone.stderr)


def test_a_failing_build_changes_no_tag_and_no_blob(daemon: Daemon, tmp_path: Path) -> None:
    app = context(tmp_path, "1")
    value = "type=local,dest=cache,mode=max,reset=true"
    words = ("docker", "build", *PLAIN, "--cache-to", value, app)
    wrapped(daemon, tmp_path, *words)
    blobs = sorted(path.name for path in (tmp_path / "cache/blobs/sha256").iterdir())
    index = (tmp_path / "cache/index.json").read_bytes()
    (app / "Dockerfile").write_text((app / "Dockerfile").read_text() + "RUN false\n")
    for options in ((), ("--in-place",)):
        done = run(daemon, tmp_path, *PREFIX, *options, "--", *words)
        assert done.returncode == 1
        assert sorted(p.name for p in (tmp_path / "cache/blobs/sha256").iterdir()) == blobs
        assert (tmp_path / "cache/index.json").read_bytes() == index


def test_what_only_tells_runs_as_it_is(daemon: Daemon, tmp_path: Path) -> None:
    words = ("docker", "buildx", "build", "--help", "--cache-to=type=local,dest=c,reset=true", ".")
    alone = run(daemon, tmp_path, *words)
    with_it = run(daemon, tmp_path, *PREFIX, "--", *words)
    assert (with_it.returncode, with_it.stdout) == (0, alone.stdout)
    assert list(tmp_path.iterdir()) == []


def test_staged_then_imported(daemon: Daemon, tmp_path: Path) -> None:
    for version in "12":
        app = context(tmp_path, version)
        words = ("docker", "build", *PLAIN, "--cache-to=type=local,dest=cache,mode=max", app)
        said = wrapped(daemon, tmp_path, *words, options=("--reset",))
    assert "merged 'latest'" in said
    assert " 0 reused" not in said
    assert_swept_and_cached(daemon, tmp_path, tmp_path / "cache", "latest")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app", "cache", "out"]


def test_several_exports_of_one_build_are_all_importable(daemon: Daemon, tmp_path: Path) -> None:
    app = context(tmp_path, "1")
    values = (
        "dest=other",
        "dest=cache,mode=max,tag=max,reset=true",
        "dest=./cache,tag=min,image-manifest=true",
    )
    caches = [f"--cache-to=type=local,{value}" for value in values]
    wrapped(daemon, tmp_path, "docker", "build", *PLAIN, *caches, app)
    assert sorted(map(ref_name, entries(tmp_path / "cache"))) == ["max", "min"]
    assert look(tmp_path / "other").missing == frozenset()
    assert len({entry["digest"] for entry in entries(tmp_path / "cache")}) == 2
    assert_swept_and_cached(daemon, tmp_path, tmp_path / "cache", "max")


@pytest.mark.parametrize("options", [("--in-place",), ()], ids=["in place", "staged"])
def test_many_at_once(options: tuple[str, ...], daemon: Daemon, tmp_path: Path) -> None:
    app = context(tmp_path, "1")
    words = ("docker", "build", *PLAIN, "--cache-to=type=local,dest=cache,mode=max,tag=old", app)
    wrapped(daemon, tmp_path, *words)
    procs = []
    for n in range(WRITERS):
        value = f"type=local,dest=cache,mode=max,reset=true,tag=t{n}"
        build = ("docker", "build", *PLAIN, "--build-arg", f"n={n}", "--cache-to", value, str(app))
        procs.append(
            subprocess.Popen(
                [*PREFIX, *options, "--", *build],
                cwd=tmp_path,
                env=daemon.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=90)[1] for process in procs]
    codes = [process.returncode for process in procs]
    assert look(tmp_path / "cache").missing == frozenset()
    tags = {ref_name(entry) for entry in entries(tmp_path / "cache")}
    if not options:
        assert codes == [0] * WRITERS, said
        assert tags == {"old", *(f"t{n}" for n in range(WRITERS))}
    for n, code in enumerate(codes):
        if code == 0:
            assert f"t{n}" in tags
        else:
            assert "without --in-place" in said[n]


def test_a_cache_in_the_context_is_left_out_by_a_line_of_dockerignore(
    daemon: Daemon, tmp_path: Path
) -> None:
    """Also while it is exported to: the staging directory is below it."""
    app = context(tmp_path, "1")
    with (app / "Dockerfile").open("a") as file:
        file.write("COPY . /all\n")
    words = ("docker", "build", *PLAIN, "--cache-to=type=local,dest=cache,mode=max", ".")
    warned = "warning: cache: the cache is sent with the context ., so each export"
    copied = r"COPY \. /all\n#\d+ CACHED"
    for _ in range(2):
        said = wrapped(daemon, app, *words)
        assert warned in said
        assert not re.search(copied, said)
    (app / ".dockerignore").write_text("cache\n")
    wrapped(daemon, app, *words)
    said = wrapped(daemon, app, *words)
    assert "warning: " not in said
    assert re.search(copied, said)


def test_beside_an_unwrapped_build(daemon: Daemon, tmp_path: Path) -> None:
    app = context(tmp_path, "1")
    alone = [
        *("docker", "build", *PLAIN),
        "--cache-to=type=local,dest=cache,mode=max,tag=a",
        str(app),
    ]
    ours = ("docker", "build", *PLAIN, "--cache-to=type=local,dest=cache,tag=b,reset=true", app)
    with subprocess.Popen(alone, cwd=tmp_path, env=daemon.env, stderr=subprocess.DEVNULL) as other:
        wrapped(daemon, tmp_path, *ours)
        other.wait(60)
    assert look(tmp_path / "cache").missing == frozenset()
    assert "b" in {ref_name(entry) for entry in entries(tmp_path / "cache")}
