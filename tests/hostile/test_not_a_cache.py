"""DIR is something else: the root of the system, a home, a checkout, a daemon's data.

Law: nothing is made, nothing is removed, and the message says what was expected there.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.caches.snapshot import take_snapshot
from tests.caches.steps import Stage
from tests.hostile.build import LAYOUT, Sample
from tests.hostile.command import Answer, assert_refused, run

HEX = "ab" * 32
COMMANDS = {
    "reset": ["reset"],
    "reset in JSON": ["reset", "--json"],
    "a dry run": ["reset", "--dry-run"],
    "du": ["du"],
    "ls": ["ls"],
    "why": ["why"],
    "untag": ["untag"],
    "tag": ["tag"],
    "merge": ["merge"],
    "trim": ["trim", "--max-used-space", "1GB"],
}
WORDS = {
    "why": [HEX],
    "untag": ["main"],
    "tag": ["main", "new"],
    "merge": ["all"],
    "trim": ["main"],
}


def run_on(top: Path, command: str, directory: str) -> Answer:
    return run(top, *COMMANDS[command], directory, *WORDS.get(command, []))


def make_home(top: Path) -> Path:
    for name in (".bashrc", ".ssh/id_ed25519", ".docker/config.json", f".cache/blobs/{HEX}"):
        write(top / "home" / name)
    return top / "home"


def make_checkout(top: Path) -> Path:
    for name in ("src/main.go", f"blobs/sha256/{HEX}", "Dockerfile", "ingest/job.py"):
        write(top / "checkout" / name)
    git = ["git", "-C", str(top / "checkout"), "-c", "init.defaultBranch=main"]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except FileNotFoundError:
        write(top / "checkout" / ".git" / "HEAD")
    return top / "checkout"


def make_data_root(top: Path) -> Path:
    """dockerd's, with the containerd image store: the blobs are there, index.json is not."""
    root = top / "docker"
    for name in (
        "overlay2/l/ABC",
        "image/overlay2/repositories.json",
        f"containerd/daemon/io.containerd.content.v1.content/blobs/sha256/{HEX}",
        f"containerd/daemon/io.containerd.content.v1.content/ingest/{HEX}/data",
        "buildkit/cache.db",
        "engine-id",
    ):
        write(root / name)
    return root


def make_content_store(top: Path) -> Path:
    return make_data_root(top) / "containerd/daemon/io.containerd.content.v1.content"


def make_blobs_directory(top: Path) -> Path:
    """One level too deep: a cache's own blobs/."""
    write(top / "cache" / "blobs" / "sha256" / HEX)
    return top / "cache" / "blobs"


def make_parent_of_caches(top: Path) -> Path:
    """One level too high."""
    write(top / "caches" / "one" / "oci-layout")
    return top / "caches"


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")


PLACES = {
    "a home": make_home,
    "a git checkout": make_checkout,
    "a data-root": make_data_root,
    "a content store": make_content_store,
    "blobs/ itself": make_blobs_directory,
    "a directory of caches": make_parent_of_caches,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_is_no_cache_is_left_as_it_is(
    tmp_path: Path, place: str, command: str
) -> None:
    directory = str(PLACES[place](tmp_path).relative_to(tmp_path))
    before = take_snapshot(tmp_path)
    answer = run_on(tmp_path, command, directory)
    # Not even a lock file: this is no place of ours.
    assert take_snapshot(tmp_path) == before
    assert answer.code == 10, answer.err
    says_what_was_expected(answer, directory)


def says_what_was_expected(answer: Answer, directory: str) -> None:
    text = answer.out + answer.err
    assert directory in text
    assert "not a cache" in text
    assert "oci-layout" in text
    assert "index.json" in text


@pytest.mark.parametrize("place", PLACES)
def test_the_refusal_says_all_four_things(tmp_path: Path, place: str) -> None:
    directory = str(PLACES[place](tmp_path).relative_to(tmp_path))
    assert_refused(tmp_path, 10, "not a cache", "expected", directory=directory)


@pytest.mark.parametrize("command", ["a dry run", "du", "ls", "why"])
def test_the_root_of_the_system_is_no_cache(tmp_path: Path, command: str) -> None:
    """Only commands that could do no harm if they were wrong."""
    names = sorted(os.listdir("/"))
    assert not {"index.json", "oci-layout"} & set(names), "/ looks like a cache here"
    answer = run_on(tmp_path, command, "/")
    assert answer.code == 10
    assert answer.err.startswith("kitcache: /: not a cache")
    assert "\n  hint: " in answer.err
    assert "removed" not in answer.err
    assert sorted(os.listdir("/")) == names


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["absent", "file", "fifo", "socket", "dangling", "loop", "below"])
def test_a_path_that_is_no_directory_is_no_cache(tmp_path: Path, kind: str, command: str) -> None:
    with Stage(tmp_path) as stage:
        stage.do(
            {
                "absent": [],
                "file": [["write", "it", "x"]],
                "fifo": [["fifo", "it"]],
                "socket": [["socket", "it"]],
                "dangling": [["symlink", "it", "nowhere"]],
                "loop": [["symlink", "it", "it"]],
                "below": [["write", "file", "x"]],
            }[kind]
        )
    directory = "file/it" if kind == "below" else "it"
    before = take_snapshot(tmp_path)
    answer = run_on(tmp_path, command, directory)
    assert take_snapshot(tmp_path) == before
    assert answer.code == (10 if kind != "loop" else answer.code)
    assert answer.code in {1, 10}
    assert directory in answer.out + answer.err


@pytest.mark.parametrize("directory", ["", "-", "--", "-rf", "\n", "a" * 5000, "x/" * 3000])
def test_a_path_that_cannot_be_is_an_error(tmp_path: Path, directory: str) -> None:
    answer = run(tmp_path, "reset", "--", directory)
    assert answer.code in {1, 2, 10}
    assert answer.err.startswith(("kitcache: ", "usage: "))
    assert os.listdir(tmp_path) == []


def test_one_bad_directory_does_not_stop_the_others(sample: Sample) -> None:
    """Each is judged on its own; the exit code is the worst."""
    top = sample.box.top
    make_home(top)
    answer = run(top, "reset", "--json", "home", "cache", "absent")
    assert answer.code == 10
    assert [(v["path"], v["exit_code"]) for v in answer.values] == [
        ("home", 10),
        ("cache", 0),
        ("absent", 10),
    ]
    assert not sample.garbage & set(os.listdir(sample.dir / "blobs" / "sha256"))


VERSIONS: dict[str, bytes] = {
    "another major version": b'{"imageLayoutVersion":"2.0.0"}',
    "version 0": b'{"imageLayoutVersion":"0.9.0"}',
    "a number": b'{"imageLayoutVersion":1}',
    "no version": b"{}",
    "a list": b"[]",
    "null": b"null",
    "empty": b"",
    "half-written": LAYOUT[:12],
    "not JSON": b"1.0.0",
    "not UTF-8": b'{"imageLayoutVersion":"1.0.0\xff"}',
    "nested lists": b"[" * 60_000,
    "nested lists, huge": b"[" * 2_000_000,
    "zeros": b"\0" * 30,
    "a number of 5,000 digits": b'{"imageLayoutVersion":' + b"1" * 5000 + b"}",
    "an escape": b'{"imageLayoutVersion":"\\u001b[2J"}',
}


@pytest.mark.parametrize("name", VERSIONS)
def test_another_layout_version_is_refused(sample: Sample, name: str) -> None:
    """Whoever writes another version may lay blobs out otherwise."""
    (sample.dir / "oci-layout").write_bytes(VERSIONS[name])
    os.utime(sample.dir / "oci-layout", (1e9, 1e9))
    assert_refused(sample.box.top, 13, "oci-layout", "1.0.0")


@pytest.mark.parametrize("name", ["symlink", "directory", "fifo", "socket"])
def test_an_oci_layout_that_is_no_file_is_refused(sample: Sample, name: str) -> None:
    with Stage(sample.dir) as stage:
        stage.do([["rename", "oci-layout", "../layout"]])
        stage.do(
            {
                "symlink": [["symlink", "oci-layout", "../layout"]],
                "directory": [["mkdir", "oci-layout"]],
                "fifo": [["fifo", "oci-layout"]],
                "socket": [["socket", "oci-layout"]],
            }[name]
        )
    assert_refused(sample.box.top, 13, "oci-layout")


def test_a_missing_oci_layout_beside_an_index_is_no_hindrance(sample: Sample) -> None:
    """BuildKit reads index.json alone; a copied cache may have lost the other file."""
    (sample.dir / "oci-layout").unlink()
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code == 0
    assert answer.value["deleted"]["blobs"] == len(sample.garbage)
    assert not (sample.dir / "oci-layout").exists()


@pytest.mark.parametrize("version", ["1.0.0", "1.0.1", "1.1.0"])
def test_versions_of_the_same_major_are_read(sample: Sample, version: str) -> None:
    (sample.dir / "oci-layout").write_text(f'{{"imageLayoutVersion": "{version}", "x": [1]}}\n')
    assert run(sample.box.top, "reset", "cache").code == 0


def test_a_layout_without_an_index_and_without_blobs_stays_as_it_is(tmp_path: Path) -> None:
    """Nothing to judge and nothing to lose."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "oci-layout").write_bytes(LAYOUT)
    answer = run(tmp_path, "reset", "cache")
    assert answer.code in {0, 10, 12}
    assert set(os.listdir(tmp_path / "cache")) <= {"oci-layout", "kitcache.lock"}
