"""A blobs tree, an ingest tree and a DIR with things in them that no exporter makes.

Law: only regular files with exactly a digest's name go; everything else stays, and is listed.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.caches.snapshot import take_snapshot
from tests.caches.steps import ImpossibleError, Stage
from tests.hostile.build import Sample
from tests.hostile.command import Answer, assert_refused, run, unchanged
from tests.hostile.privilege import cannot

DEAD = "d" * 64
NAME = f"blobs/sha256/{DEAD}"


def do(sample: Sample, *steps: list[Any]) -> None:
    with Stage(sample.dir) as stage:
        stage.do(list(steps))


def reset(sample: Sample, *args: str) -> Answer:
    """A reset that removes exactly the garbage of the sample, whatever else lies around."""
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "reset", "cache", "--json", *args)
    changes = set(unchanged(before, take_snapshot(sample.box.top)))
    assert changes == {f"gone: cache/blobs/sha256/{name}" for name in sample.garbage}
    return answer


LINKED_DIRECTORIES: dict[str, tuple[str, list[list[str]]]] = {
    "blobs": ("blobs", [["rename", "blobs", "../pool"], ["symlink", "blobs", "../pool"]]),
    "blobs, within": ("blobs", [["rename", "blobs", "real"], ["symlink", "blobs", "real"]]),
    "blobs, dangling": ("blobs", [["rename", "blobs", "../pool"], ["symlink", "blobs", "nowhere"]]),
    "blobs/sha256": (
        "blobs/sha256",
        [["rename", "blobs/sha256", "../pool"], ["symlink", "blobs/sha256", "../../pool"]],
    ),
    "blobs/sha512": ("blobs/sha512", [["symlink", "blobs/sha512", "sha256"]]),
    "blobs/sha384, dangling": ("blobs/sha384", [["symlink", "blobs/sha384", "/nowhere"]]),
    "ingest": ("ingest", [["rename", "ingest", "../uploads"], ["symlink", "ingest", "../uploads"]]),
}


@pytest.mark.parametrize("name", LINKED_DIRECTORIES)
def test_a_linked_directory_is_refused(sample: Sample, name: str) -> None:
    """Other layouts may share that pool, and nobody here knows their roots."""
    what, steps = LINKED_DIRECTORIES[name]
    sample.box.ingest("left behind")
    do(sample, *steps)
    assert_refused(sample.box.top, 13, what, "symbolic link")


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "blobs/sha512", "ingest"])
@pytest.mark.parametrize("kind", ["write", "fifo", "socket"])
def test_a_directory_that_is_none_is_refused(sample: Sample, name: str, kind: str) -> None:
    if (sample.dir / name).exists():
        do(sample, ["rename", name, "../aside"])
    do(sample, ["write", name, "x"] if kind == "write" else [kind, name])
    assert_refused(sample.box.top, 13, name, "not a directory")


ODD_THINGS: dict[str, list[list[str]]] = {
    "a symlink to outside": [["write", "../precious", "x"], ["symlink", NAME, "../../../precious"]],
    "a symlink to a live blob": [["symlink", NAME, "live"]],
    "a dangling symlink": [["symlink", NAME, "/nowhere/at/all"]],
    "a symlink to itself": [["symlink", NAME, DEAD]],
    "an empty directory": [["mkdir", NAME]],
    "a full directory": [["write", f"{NAME}/{DEAD}", "x"]],
    "a pipe": [["fifo", NAME]],
    "a socket": [["socket", NAME]],
}


@pytest.mark.parametrize("name", ODD_THINGS)
def test_what_is_no_file_stays_and_is_listed(sample: Sample, name: str) -> None:
    live = sample.layers[0]["digest"].partition(":")[2]
    do(sample, *[[word if word != "live" else live for word in s] for s in ODD_THINGS[name]])
    answer = reset(sample)
    assert answer.code == 0
    assert answer.value["foreign_count"] == 1
    assert answer.value["foreign"][0].rstrip("/") == NAME


def test_a_device_stays_and_is_listed(sample: Sample) -> None:
    made = subprocess.run(
        ["mknod", sample.dir / NAME, "c", "1", "3"], check=False, capture_output=True, text=True
    )
    if made.returncode != 0:
        cannot(f"no device can be made here: {made.stderr.strip()}", must_in_ci=False)
    answer = reset(sample)
    assert (answer.code, answer.value["foreign"]) == (0, [NAME])


ODD_NAMES = [
    DEAD[:-1],
    DEAD + "d",
    DEAD.upper(),
    DEAD[:-1] + "D",
    DEAD[:-1] + "g",
    DEAD[:-1] + ".",
    "." + DEAD,
    DEAD + ".tmp",
    DEAD + "~",
    f"sha256:{DEAD}",
    "tmp-1",
    ".DS_Store",
    "Thumbs.db",
    " " + DEAD[1:],
    DEAD[1:] + "\n",
    "\n" + DEAD,
    "٣" * 32,
    "-rf",
    "*",
    "ü" * 32,
]


def test_odd_names_stay_and_are_listed(sample: Sample) -> None:
    for name in ODD_NAMES:
        (sample.dir / "blobs" / "sha256" / name).write_text("odd")
    raw = os.fsencode(sample.dir / "blobs" / "sha256") + b"/\xff\xfe" + b"a" * 62
    with open(raw, "w") as file:
        file.write("no UTF-8")
    answer = reset(sample)
    assert answer.code == 0
    assert answer.value["foreign_count"] == len(ODD_NAMES) + 1
    assert {f"blobs/sha256/{name}" for name in ODD_NAMES} < set(answer.value["foreign"])


def test_foreign_files_everywhere_stay_and_are_listed(sample: Sample) -> None:
    names = [
        "notes.txt",
        ".git/config",
        "blobs/readme",
        f"blobs/{DEAD}",
        f"blobs/blake3/{DEAD}",
        f"blobs/md5/{DEAD}",
        f"blobs/SHA256/{DEAD}",
        f"blobs/sha256/sub/{DEAD}",
        f"ingest/{DEAD}.bak/data",
        "ingest/file",
        "index.json.bak",
        "index.json.tmp",
    ]
    for name in names:
        do(sample, ["write", name, "x"], ["age", name.split("/")[0], 7200])
    do(sample, ["age", "index.json", 60])
    answer = reset(sample)
    assert answer.code == 0
    assert answer.value["foreign_count"] >= len(names) - 1
    text = run(sample.box.top, "reset", "cache")
    assert "foreign" in text.out + text.err


def test_only_the_first_hundred_foreign_names_are_listed(sample: Sample) -> None:
    for number in range(250):
        (sample.dir / "blobs" / "sha256" / f"odd-{number}").touch()
    answer = reset(sample)
    assert answer.value["foreign_count"] == 250
    assert len(answer.value["foreign"]) == 100


def test_a_hard_link_elsewhere_keeps_its_bytes(sample: Sample) -> None:
    """rsync --link-dest and cp -l share files between caches: only this name goes."""
    name = min(sample.garbage)
    do(sample, ["hardlink", f"blobs/sha256/{name}", "../backup/blob"])
    backup = sample.box.top / "backup" / "blob"
    content = backup.read_bytes()
    answer = reset(sample)
    assert answer.code == 0
    assert backup.read_bytes() == content
    assert backup.stat().st_nlink == 1


def test_a_dead_name_of_a_live_blob_goes_alone(sample: Sample) -> None:
    live = sample.layers[0]["digest"].partition(":")[2]
    do(sample, ["hardlink", f"blobs/sha256/{live}", NAME])
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.value["deleted"]["blobs"] == len(sample.garbage) + 1
    assert sample.box.path_of(sample.layers[0]["digest"]).stat().st_nlink == 1


def test_a_hard_linked_index_is_not_written_through(sample: Sample) -> None:
    """untag replaces the file: the other name keeps the old bytes."""
    do(sample, ["hardlink", "index.json", "../saved.json"])
    saved = (sample.box.top / "saved.json").read_bytes()
    assert run(sample.box.top, "untag", "cache", "main").code == 0
    assert (sample.box.top / "saved.json").read_bytes() == saved
    assert b"main" not in (sample.dir / "index.json").read_bytes()


def test_a_live_layer_that_is_a_link_stays_with_its_target(sample: Sample) -> None:
    name = str(sample.box.path_of(sample.layers[0]["digest"]).relative_to(sample.dir))
    do(sample, ["rename", name, "../pool/l"], ["symlink", name, "../../../pool/l"])
    assert reset(sample).code == 0


@pytest.mark.parametrize("kind", ["mkdir", "fifo", "socket"])
def test_a_live_layer_that_is_no_file_is_missing(sample: Sample, kind: str) -> None:
    """No build could import it."""
    layer = sample.layers[0]["digest"]
    name = str(sample.box.path_of(layer).relative_to(sample.dir))
    do(sample, ["remove", name], [kind, name])
    answer = reset(sample)
    assert answer.code == 0
    assert [leaf["digest"] for leaf in answer.value["missing_blobs"]] == [layer]


def test_an_immutable_blob_does_not_stop_the_rest(sample: Sample) -> None:
    stubborn, *others = sorted(sample.garbage)
    with Stage(sample.dir) as stage:
        try:
            stage.do([["immutable", f"blobs/sha256/{stubborn}"]])
        except ImpossibleError as reason:
            cannot(str(reason), must_in_ci=False)
        text = run(sample.box.top, "reset", "cache")
        in_json = run(sample.box.top, "reset", "cache", "--json")
    assert (text.code, in_json.code) == (3, 3)
    assert stubborn[:12] in text.out + text.err
    assert "not permitted" in text.out + text.err
    value = in_json.value
    assert (value["exit_code"], value["not_deleted_count"]) == (3, 1)
    ((name, told),) = value["not_deleted"]
    assert (name, "not permitted" in told) == (f"blobs/sha256/{stubborn}", True)
    left = set(os.listdir(sample.dir / "blobs" / "sha256"))
    assert left & sample.garbage == {stubborn}
    assert not left & set(others)


def test_an_upload_left_behind_goes_and_its_odd_neighbours_stay(sample: Sample) -> None:
    gone = sample.box.ingest("left behind")
    odd = sample.box.ingest("with a directory in it")
    do(sample, ["mkdir", f"ingest/{odd}/inner"], ["symlink", f"ingest/{DEAD}", f"../ingest/{odd}"])
    do(sample, ["age", "ingest", 7200], ["age", "index.json", 60])
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code in {0, 3}
    assert sorted(os.listdir(sample.dir / "ingest")) == sorted([odd, DEAD])
    assert answer.value["ingests_deleted"]["blobs"] == 1
    assert not (sample.dir / "ingest" / gone).exists()
    assert {"data", "ref", "inner"} <= set(os.listdir(sample.dir / "ingest" / odd))


def test_an_upload_from_the_future_is_kept_and_reported(sample: Sample) -> None:
    """Further ahead than a minute is no sign of life: the reset goes on."""
    name = sample.box.ingest("from tomorrow", age_s=-86_400)
    do(sample, ["age", "index.json", -90000])
    answer = reset(sample)
    assert answer.code in {0, 3}
    assert [kept[0] for kept in answer.value["ingests_kept"]] == [name]


def test_an_upload_under_way_stops_the_reset_at_once(sample: Sample) -> None:
    sample.box.ingest("right now", age_s=0)
    assert_refused(sample.box.top, 11, "export")


def test_a_link_to_the_cache_is_resolved_once(sample: Sample) -> None:
    (sample.box.top / "link").symlink_to("cache")
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "reset", "link")
    assert answer.code == 0
    gone = {line.rpartition("/")[2] for line in unchanged(before, take_snapshot(sample.box.top))}
    assert gone == sample.garbage
    assert Path(os.readlink(sample.box.top / "link")) == Path("cache")
