"""`kitcache verify` where blobs are no files, belong to others, go and come, or never end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.caches.snapshot import differences, take_snapshot
from tests.caches.steps import Stage
from tests.hostile.build import Box, digest_of, encode
from tests.hostile.command import Answer, run
from tests.hostile.importable import Cached, add_cache, grow, layer
from tests.hostile.privilege import NOBODY, cannot, give, needs_root, reachable_box, run_as

DEAD = "d" * 64
NAME = f"blobs/sha256/{DEAD}"


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.fixture
def cached(box: Box) -> Cached:
    return grow(box)


def verify(box: Box, *words: str) -> Answer:
    """verify --json, which changes nothing but the lock file."""
    before = take_snapshot(box.top)
    answer = run(box.top, "verify", "--json", "cache", *words)
    changes = set(differences(before, take_snapshot(box.top)))
    assert changes <= {"new: cache/kitcache.lock"}
    assert answer.err == ""
    assert answer.value["exit_code"] == answer.code
    return answer


ODD_THINGS: dict[str, list[list[str]]] = {
    "a symlink to outside": [["write", "../precious", "x"], ["symlink", NAME, "../../../precious"]],
    "a dangling symlink": [["symlink", NAME, "/nowhere/at/all"]],
    "a symlink to itself": [["symlink", NAME, DEAD]],
    "a symlink to a device": [["symlink", NAME, "/dev/zero"]],
    "an empty directory": [["mkdir", NAME]],
    "a full directory": [["write", f"{NAME}/{DEAD}", "x"]],
    "a pipe": [["fifo", NAME]],
    "a socket": [["socket", NAME]],
}


LEADS_TO_A_FILE = "a symlink to outside"
NOTHING = {"a dangling symlink", "a symlink to itself"}
PROBLEMS = {
    name: "is a symlink that leads to nothing" if name in NOTHING else "is not a regular file"
    for name in ODD_THINGS
}


@pytest.mark.parametrize("name", ODD_THINGS)
def test_what_nobody_needs_and_is_no_file_is_bad(box: Box, cached: Cached, name: str) -> None:
    """It is in the way of an export; but for a link to a file, which is what BuildKit would see."""
    with Stage(box.dir) as stage:
        stage.do(ODD_THINGS[name])
        answer = verify(box)
    problems = {one["digest"]: one["problem"] for one in answer.value["bad_blobs"]}
    assert problems == ({} if name == LEADS_TO_A_FILE else {f"sha256:{DEAD}": PROBLEMS[name]})
    assert (answer.code, answer.value["warnings"]) == (12 if problems else 0, [])


@pytest.mark.parametrize("name", ODD_THINGS)
def test_in_the_place_of_a_layer_it_is_told_of(box: Box, cached: Cached, name: str) -> None:
    top = str(box.path_of(cached.layers[2]["digest"]).relative_to(box.dir))
    with Stage(box.dir) as stage:
        stage.do([["remove", top], *ODD_THINGS[name], ["rename", NAME, top]])
        answer = verify(box)
    (tag,) = answer.value["tags"]
    assert (answer.code, tag["importable"]) == (12, "partial")
    (why,) = {miss["reason"] for miss in tag["unusable_steps"]}
    if name == LEADS_TO_A_FILE:
        # Of another length: what BuildKit would find there is not what the tag names.
        assert "is truncated (1 of " in why
        assert "is a symlink, which kitcache does not follow" in answer.value["warnings"][0]
        assert answer.value["bad_blobs"] == []
    else:
        assert why.endswith(PROBLEMS[name])
        assert [one["problem"] for one in answer.value["bad_blobs"]] == [PROBLEMS[name]]


@pytest.mark.parametrize("name", ODD_THINGS)
def test_in_the_place_of_a_manifest_nothing_is_left(box: Box, cached: Cached, name: str) -> None:
    root = str(box.path_of(cached.root["digest"]).relative_to(box.dir))
    with Stage(box.dir) as stage:
        stage.do([["remove", root], *ODD_THINGS[name], ["rename", NAME, root]])
        answer = verify(box)
    assert answer.code == 12
    assert [tag["importable"] for tag in answer.value["tags"]] == ["none"]


def test_a_device_is_not_read(box: Box, cached: Cached) -> None:
    made = subprocess.run(
        ["mknod", box.dir / NAME, "c", "1", "5"], check=False, capture_output=True, text=True
    )
    if made.returncode != 0:
        cannot(f"no device can be made here: {made.stderr.strip()}", must_in_ci=False)
    (bad,) = verify(box).value["bad_blobs"]
    assert bad["problem"] == "is not a regular file"


def test_names_that_a_terminal_acts_on(box: Box) -> None:
    """`run` looks for them in all that is printed."""
    bad = "\x1b[2J\x07\u202e\n"
    one = layer(box, "0")
    config = {
        "layers": [{"blob": one["digest"], "parent": -1}],
        "records": [{"digest": bad, "layers": [{"layer": 0}]}],
    }
    add_cache(box, bad, [one | {"mediaType": bad}], config)
    box.tag(bad, {"mediaType": bad, "digest": bad, "size": 1})
    answer = run(box.top, "verify", "cache")
    assert answer.code == 12
    assert "not importable" in answer.out
    assert verify(box).code == 12


def test_a_blob_that_its_reader_may_not_read() -> None:
    needs_root()
    with reachable_box() as top:
        box = Box(top)
        cached = grow(box)
        give(top, NOBODY)
        path = box.path_of(cached.layers[2]["digest"])
        os.chown(path, 0, 0)
        path.chmod(0o400)
        answer = run_as(NOBODY, top, "verify", "--json", "cache")
    assert answer.code == 12
    (bad,) = answer.value["bad_blobs"]
    assert bad == {
        "digest": cached.layers[2]["digest"],
        "problem": "cannot be read: Permission denied",
        "bytes": 0,
    }
    assert answer.value["tags"][0]["unusable_steps"][0]["reason"].endswith(
        "cannot be read: Permission denied"
    )


def test_a_cache_that_its_reader_may_not_write() -> None:
    needs_root()
    with reachable_box() as top:
        box = Box(top)
        grow(box)
        answer = run_as(NOBODY, top, "verify", "cache")
        assert sorted(os.listdir(box.dir)) == ["blobs", "index.json", "ingest", "oci-layout"]
    assert answer.code == 0
    assert answer.err == (
        "kitcache: cache: the cache is not protected from a concurrent reset:"
        " cannot create the lock file kitcache.lock: Permission denied\n"
    )


def test_a_directory_that_its_reader_may_not_list() -> None:
    needs_root()
    with reachable_box() as top:
        box = Box(top)
        grow(box)
        (box.dir / "blobs" / "sha256").chmod(0o711)
        answer = run_as(NOBODY, top, "verify", "cache")
    assert (answer.code, answer.out) == (1, "")
    assert "cannot open blobs/sha256: Permission denied" in answer.err


@contextmanager
def meanwhile(work: Callable[[int], None]) -> Iterator[None]:
    """work, over and over in a thread, with how often it was done; errors fail the test."""
    is_over, failures = threading.Event(), []

    def loop() -> None:
        number = 0
        try:
            while not is_over.is_set():
                work(number)
                number += 1
        except BaseException as error:  # noqa: BLE001 - the test fails of it
            failures.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert failures == []


def path_of(box: Box, data: bytes) -> Path:
    return box.path_of(digest_of(data))


def test_blobs_that_go_and_come(box: Box, cached: Cached) -> None:
    """Strangers sweep and export: neither is damage. A blob gets its name when it is whole."""

    def go_and_come(number: int) -> None:
        new, old = (b"passing %d" % n * 20_000 for n in (number, number - 20))
        part = box.dir / "ingest" / "part"
        part.write_bytes(new)
        part.rename(path_of(box, new))
        path_of(box, old).unlink(missing_ok=True)

    with meanwhile(go_and_come):
        for _ in range(5):
            answer = run(box.top, "verify", "--json", "cache")
            assert (answer.code, answer.value["bad_blobs"]) == (0, [])


def test_an_index_that_is_rewritten_all_the_time(box: Box, cached: Cached) -> None:
    """BuildKit writes it in place, so that it is torn for moments."""

    def write(number: int) -> None:
        box.write_index(encode(box.index_document() | {"annotations": {"n": str(number)}}))
        # Publishing takes time; a file that is hardly ever whole is nobody's index.
        time.sleep(0.003)

    with meanwhile(write):
        for _ in range(3):
            answer = run(box.top, "verify", "--json", "cache")
            assert answer.code == 0
            assert [tag["importable"] for tag in answer.value["tags"]] == ["full"]


def test_a_tag_that_comes_and_loses_a_layer_meanwhile(box: Box, cached: Cached) -> None:
    """What is published while blobs are hashed is judged by what is there in the end."""
    with box.path_of(f"sha256:{DEAD}").open("wb") as file:
        file.truncate(1 << 30)
    with subprocess.Popen(
        [sys.executable, "-m", "kitcache", "verify", "--json", "cache"],
        cwd=box.top,
        stdout=subprocess.PIPE,
    ) as process:
        wait_until(lambda: is_reading(process.pid, DEAD))
        new = add_cache(box, "new", [layer(box, "new")])
        box.damage(new.layers[0]["digest"], None)
        out, _ = process.communicate(timeout=60)
    (bad,) = json.loads(out)["bad_blobs"]
    tags = json.loads(out)["tags"]
    assert bad["digest"] == f"sha256:{DEAD}"
    assert [(tag["ref_name"], tag["importable"]) for tag in tags] == [
        ("main", "full"),
        ("new", "none"),
    ]


def is_reading(pid: int, name: str) -> bool:
    """Whether that process has a file of that name open."""
    try:
        return any(name in os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def wait_until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ctrl_c_inside_a_blob_without_an_end(box: Box, cached: Cached) -> None:
    """A terabyte, which takes no space: nobody could wait until the blob is over."""
    with box.path_of(f"sha256:{DEAD}").open("wb") as file:
        file.truncate(1 << 40)
    process = subprocess.Popen(
        [sys.executable, "-m", "kitcache", "verify", "cache"],
        cwd=box.top,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: is_reading(process.pid, DEAD))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.startswith("kitcache: cache: stopped on request\n")
    assert "Traceback" not in err
