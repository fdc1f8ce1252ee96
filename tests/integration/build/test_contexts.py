"""Where a build's files come from: directories of every shape, image layouts, URLs, git."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.privilege import NOBODY, PROGRAM, needs_root, reachable_box
from tests.integration.build.kit import (
    SCRATCH,
    Kit,
    context,
    read_entries,
    run_command,
    tar_of,
)
from tests.integration.build.serving import git, git_server, http_server, make_repository
from tests.integration.kit import command
from tests.integration.listener import into_socket, listen_unix

FROM_OTHER = "FROM scratch\nCOPY --from=other f /g\n"


def test_a_named_directory(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", FROM_OTHER, f="wrong")
    other = context(tmp_path / "other", None, f="right")
    assert kit.files("--build-context", f"other={other}", where) == {"g": b"right"}


def test_a_named_directory_has_its_own_ignore_file(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", "FROM scratch\nCOPY --from=other . /\n", _dockerignore="b")
    other = context(tmp_path / "other", None, a="1", b="2", _dockerignore="a")
    found = kit.files("--build-context", f"other={other}", where)
    assert sorted(found) == [".dockerignore", "b"]


@pytest.mark.parametrize("name", ["context", "dockerfile"])
def test_a_named_directory_that_is_called_as_ours_are(kit: Kit, tmp_path: Path, name: str) -> None:
    where = context(tmp_path / "c", f"FROM scratch\nCOPY --from={name} f /g\nCOPY f /\n", f="c")
    other = context(tmp_path / "other", None, f="right")
    found = kit.files("--build-context", f"{name}={other}", where)
    assert found == {"f": b"c", "g": b"right"}


def test_an_image_layout_by_tag_and_by_digest(kit: Kit, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    for tag in ("old", "new"):
        made = context(tmp_path / tag, "FROM scratch\nCOPY f /\n", f=tag)
        kit.must("-t", f"app:{tag}", "-o", f"type=oci,dest={layout},tar=false", made)
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    digests = {e["annotations"]["org.opencontainers.image.ref.name"]: e["digest"] for e in entries}
    user = context(tmp_path / "user", FROM_OTHER)
    base = context(tmp_path / "base", "FROM other\n")
    for tag in ("old", "new"):
        for place in (f"{layout}:{tag}", f"{layout}@{digests[tag]}"):
            option = ("--build-context", f"other=oci-layout://{place}")
            assert kit.files(*option, user) == {"g": tag.encode()}
            assert kit.files(*option, base) == {"f": tag.encode()}
    built = kit.run("--build-context", f"other=oci-layout://{layout}:none", user)
    assert built.code == 1
    assert f"{layout}: it has no tag 'none'" in built.err


def test_an_image_of_the_engine_as_a_context(kit: Kit, tmp_path: Path) -> None:
    made = context(tmp_path / "c", "FROM scratch\nCOPY f /\n", f="data")
    kit.must("-t", "contexts-here:1", made)
    user = context(tmp_path / "user", FROM_OTHER)
    option = ("--build-context", "other=docker-image://contexts-here:1")
    assert kit.files(*option, user) == {"g": b"data"}


def test_contexts_that_are_fetched_over_http(kit: Kit, tmp_path: Path) -> None:
    served = context(tmp_path / "served", None, only="FROM scratch\nCOPY --from=other c.tar /h\n")
    two = "FROM scratch\nCOPY f /g\n"
    tar = tar_of(Dockerfile="FROM scratch\nCOPY f /\n", f="tarred", sub__two=two)
    (served / "c.tar").write_bytes(tar)
    with http_server(served) as url:
        other = ("--build-context", f"other={url}/c.tar")
        assert kit.files(f"{url}/c.tar") == {"f": b"tarred"}
        assert kit.files("-f", "sub/two", f"{url}/c.tar") == {"g": b"tarred"}
        # As a named context it is the file.
        assert kit.files(*other, f"{url}/only") == {"h": tar}
        here = context(tmp_path / "here", "FROM scratch\nCOPY f /from-here\n") / "Dockerfile"
        assert kit.files("-f", here, f"{url}/c.tar") == {"from-here": b"tarred"}
        stdin = b"FROM scratch\nCOPY f /from-stdin\n"
        assert kit.files("-f", "-", f"{url}/c.tar", stdin=stdin) == {"from-stdin": b"tarred"}
        built = kit.run(f"{url}/gone.tar")
    assert built.code == 21
    assert "404" in built.err


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two contexts and two branches."""
    made = context(tmp_path / "git" / "repo", "FROM scratch\nCOPY f /\n", f="main")
    context(made, None, sub__Dockerfile="FROM scratch\nCOPY f /\n", sub__f="sub")
    make_repository(made)
    git(made, "switch", "--quiet", "--create", "other")
    (made / "f").write_text("other")
    git(made, "commit", "--quiet", "--all", "-m", "other")
    git(made, "switch", "--quiet", "main")
    return made


def test_contexts_that_are_fetched_with_git(
    kit: Kit, tmp_path: Path, repository: Path, need: Callable[..., None]
) -> None:
    need("git")
    commit = git(repository, "rev-parse", "other")
    with git_server(tmp_path / "git") as url:
        assert kit.files(f"{url}/repo") == {"f": b"main"}
        assert kit.files(f"{url}/repo#other") == {"f": b"other"}
        assert kit.files(f"{url}/repo#{commit}") == {"f": b"other"}
        assert kit.files(f"{url}/repo#main:sub") == {"f": b"sub"}
        user = context(tmp_path / "user", FROM_OTHER)
        assert kit.files("--build-context", f"other={url}/repo#other", user) == {"g": b"other"}
        built = kit.run(f"{url}/repo#nowhere")
    assert built.code == 21
    assert "nowhere" in built.err


def test_a_repository_over_http(kit: Kit, tmp_path: Path, repository: Path) -> None:
    git(tmp_path / "git", "clone", "--quiet", "--bare", "repo", "bare.git")
    git(tmp_path / "git" / "bare.git", "update-server-info")
    with http_server(tmp_path / "git") as url:
        # That server is a dumb one, of which git fetches whole branches only.
        assert kit.files("--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", f"{url}/bare.git#main")[
            "f"
        ] == b"main"  # fmt: skip


def copied(kit: Kit, where: Path, *options: str | Path) -> dict[str, tuple[bytes, int, str]]:
    """Kind, mode and target of all that COPY . / brings in."""
    built = kit.must("--no-cache", "-o", "-", *options, where)
    return {
        name: (entry.kind, entry.mode, entry.link)
        for name, entry in read_entries(built.stdout).items()
    }


def test_odd_files_arrive_as_they_are_and_nothing_from_outside(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    where = context(tmp_path / "c", SCRATCH, plain="p", d__inner="i")
    (where / "out").symlink_to("../secret")
    (where / "far").symlink_to(tmp_path / "secret")
    (where / "loop").symlink_to("loop")
    (where / "up").symlink_to("..")
    os.mkfifo(where / "pipe", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(where / "s"))
    if os.geteuid() == 0:
        os.chown(where / "plain", 1234, 5678)
    (where / "run").write_text("r")
    (where / "run").chmod(0o4755)
    (where / "d").chmod(0o1777)
    built = kit.must("--no-cache", "-o", "-", where)
    entries = read_entries(built.stdout)
    assert b"outside" not in built.stdout
    links = {name: entry.link for name, entry in entries.items() if entry.kind == b"2"}
    far = str(tmp_path / "secret")
    assert links == {"out": "../secret", "far": far, "loop": "loop", "up": ".."}
    assert (entries["pipe"].kind, entries["pipe"].mode) == (b"6", 0o640)
    assert (entries["run"].mode, entries["d"].mode) == (0o4755, 0o1777)
    assert {entry.owner for entry in entries.values()} == {(0, 0)}
    theirs = kit.buildx("--no-cache", "-o", "-", where)
    assert entries == read_entries(theirs.stdout)


def test_names_beyond_ascii(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", 'FROM scratch\nCOPY ärger/* ["日 本", "/to/"]\n')
    where = context(tmp_path / "ä", 'FROM scratch\nCOPY ["日 本", "é*", "/to/"]\n')
    for name in ("日 本", "é1", "é2", "other"):
        (where / name).write_text(name)
    found = kit.files(where)
    assert sorted(found) == ["to/é1", "to/é2", "to/日 本"]
    (where / "é.Dockerfile").write_text("FROM scratch\nCOPY other /\n")
    assert kit.files("-f", where / "é.Dockerfile", where) == {"other": b"other"}


def test_a_name_that_is_no_utf_8_is_told(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", SCRATCH)
    Path(os.fsdecode(os.fsencode(where) + b"/bad-\xff")).touch()
    built = kit.run("-o", "type=cacheonly", where)
    assert built.code == 21
    assert "bad-\\udcff" in built.err or "bad-\\xff" in built.err
    (where / ".dockerignore").write_text("bad-*\n")
    kit.must("-o", "type=cacheonly", where)


def test_many_contexts_need_few_open_files(kit: Kit, tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    lines = [f"COPY --from={name} . /{name}/" for name in names]
    where = context(tmp_path / "c", "\n".join(["FROM scratch", *lines]))
    contexts: list[str | Path] = []
    for name in names:
        files = {f"d{n}__f": f"{tmp_path}{name}{n}" for n in range(70)}
        contexts += ["--build-context", f"{name}={context(tmp_path / name, None, **files)}"]
    line = command("build", "--no-cache", "-o", tmp_path / "out", *contexts, where)
    built = run_command(["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *line], env=kit.env)
    assert built.code == 0, built
    assert len(list((tmp_path / "out").glob("*/*/f"))) == 4 * 70


def test_an_empty_directory_as_the_context(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    dockerfile = context(tmp_path / "d", SCRATCH) / "Dockerfile"
    assert kit.files("-f", dockerfile, tmp_path / "empty") == {}


def test_an_unreadable_file_is_named_unless_it_is_ignored(kit: Kit) -> None:
    needs_root()
    with reachable_box() as box, listen_unix(box / "s", into_socket(kit.daemon.socket)):
        (box / "s").chmod(0o666)
        where = context(box / "c", SCRATCH, private="p")
        (where / "private").chmod(0o600)
        words = ("build", "--addr", f"unix://{box}/s", "-o", "type=cacheonly")
        command = [sys.executable, PROGRAM, str(NOBODY), *words, str(where)]
        env = {**kit.env, "HOME": str(box), "DOCKER_CONFIG": str(box / "config")}

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, check=False, capture_output=True, text=True, env=env, cwd=box
            )

        refused = run()
        assert refused.returncode == 21, refused
        assert f'{where}: "private" cannot be read: Permission denied' in refused.stderr
        (where / ".dockerignore").write_text("private\n")
        assert run().returncode == 0


def test_what_is_copied_through_links_comes_along(kit: Kit, tmp_path: Path) -> None:
    copies = "FROM scratch\nCOPY way/*.txt /all/\nCOPY chain /one\nCOPY way/deep /deep/\n"
    where = context(tmp_path / "c", copies, real__a_txt="a", real__b_txt="b", real__no_bin="n")
    context(where, None, real__deep__x="x", unused="u" * 100_000)
    (where / "way").symlink_to("real")
    (where / "chain").symlink_to("link2")
    (where / "link2").symlink_to("real/a.txt")
    # buildx 0.13 misses way/deep, and fails.
    ours = kit.must("--no-cache", "-o", "-", where)
    assert sorted(read_entries(ours.stdout)) == [
        "all", "all/a.txt", "all/b.txt", "deep", "deep/x", "one",
    ]  # fmt: skip
    # What else is there is not even sent.
    sent = [line for line in ours.err.splitlines() if "transferring context:" in line]
    assert sent
    assert not any("kB" in line for line in sent), ours


def test_hard_links_stay_one_file(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", SCRATCH, b="data", sub__x="x")
    os.link(where / "b", where / "sub" / "again")
    os.link(where / "b", where / "a")
    ours = read_entries(kit.must("--no-cache", "-o", "-", where).stdout)
    assert ours == read_entries(kit.buildx("--no-cache", "-o", "-", where).stdout)
    files = kit.files(where)
    assert files["a"] == files["b"] == files["sub/again"] == b"data"


def test_another_directory_of_equal_sizes_and_times_is_another_context(
    kit: Kit, tmp_path: Path
) -> None:
    for name in ("first", "other"):
        where = context(tmp_path / name, "FROM scratch\nCOPY f /\n", f=name)
        for path in (where / "f", where / "Dockerfile", where):
            os.utime(path, (1_000_000_000, 1_000_000_000))
        assert kit.files(where) == {"f": name.encode()}


def test_a_change_of_a_file_is_seen(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", "FROM scratch\nCOPY f /\n", f="1")
    assert kit.files(where) == {"f": b"1"}
    (where / "f").write_text("2")
    assert kit.files(where) == {"f": b"2"}
    (where / "f").unlink()
    built = kit.run("-o", "-", where)
    assert built.code == 21
    assert '"/f": not found' in built.err


def test_files_that_change_while_they_are_sent_end_the_build_in_words(
    kit: Kit, tmp_path: Path
) -> None:
    where = context(tmp_path / "c", SCRATCH, _dockerignore=".*\n")
    done = threading.Event()

    def meddle() -> None:
        number = 0
        while not done.is_set():
            path = where / f"f{number % 200}"
            path.write_bytes(bytes(number % 5000))
            (where / f"f{(number + 100) % 200}").unlink(missing_ok=True)
            number += 1

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        built = [kit.run("-o", "-", where) for _ in range(3)]
    finally:
        done.set()
        meddler.join()
    for one in built:
        assert one.code == 0 or (one.code == 21 and "failed to solve: " in one.err), one
    quiet = kit.files(where)
    assert quiet.pop("Dockerfile") == SCRATCH.encode()
    assert quiet == {path.name: path.read_bytes() for path in where.glob("f*")}
