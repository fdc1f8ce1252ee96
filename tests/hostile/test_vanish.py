"""Files and directories that vanish between being listed and being removed.

Another reset, a person, an rsync --delete: what is gone already is no error, and what vanished
with everything in it is one, in words.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.caches.snapshot import take_snapshot
from tests.caches.steps import Stage
from tests.hostile.build import Sample
from tests.hostile.command import Answer, run, run_command, unchanged

PROGRAM = Path(__file__).with_name("vanish.py")


def run_while(sample: Sample, when: str, what: str, *args: str) -> Answer:
    """`kitcache ARGS`, and `what` vanishes right before `when`. It did, or the test is none."""
    answer = run_command([sys.executable, PROGRAM, when, what, *args], sample.box.top)
    assert f"vanished: {what}\n" in answer.err, "nothing vanished: the hook was never reached"
    return answer._replace(err=answer.err.replace(f"vanished: {what}\n", ""))


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_a_blob_that_vanishes_is_no_error(sample: Sample) -> None:
    name = min(sample.garbage)
    what = f"cache/blobs/sha256/{name}"
    answer = run_while(sample, f"os.remove={name}", what, "reset", "cache", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.value["not_deleted_count"] == 0
    assert blobs(sample) == sample.live


def test_a_blob_that_vanishes_is_not_counted_as_freed(sample: Sample) -> None:
    """Whoever removed it freed it."""
    name = min(sample.garbage)
    what = f"cache/blobs/sha256/{name}"
    answer = run_while(sample, f"os.remove={name}", what, "reset", "cache", "--json")
    assert answer.value["deleted"]["blobs"] == len(sample.garbage) - 1


def test_all_garbage_that_vanishes_is_no_error(sample: Sample) -> None:
    """Two resets without our lock: a shared disk whose flock does not reach."""
    others = sample.box.top / "others"
    shutil.copytree(sample.dir, others)
    for name in sample.garbage:
        (others / "blobs" / "sha256" / name).unlink()
    shutil.move(sample.dir / "blobs" / "sha256", sample.box.top / "aside")
    shutil.move(others / "blobs" / "sha256", sample.dir / "blobs" / "sha256")
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert (answer.code, answer.value["deleted"]["blobs"]) == (0, 0)


def test_an_upload_that_vanishes_is_no_error(sample: Sample) -> None:
    name = sample.box.ingest("left behind")
    age_index(sample)
    what = f"cache/ingest/{name}.kitcache-removing"
    answer = run_while(sample, "os.remove=data", what, "reset", "cache", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.value["not_deleted_count"] == 0
    assert os.listdir(sample.dir / "ingest") == []


@pytest.mark.parametrize("command", ["reset", "du"])
def test_an_upload_that_vanishes_while_looked_at_is_no_error(sample: Sample, command: str) -> None:
    """Its directory is opened by the name that was just listed."""
    name = sample.box.ingest("just published")
    age_index(sample)
    answer = run_while(sample, f"open={name}", f"cache/ingest/{name}", command, "cache", "--json")
    assert answer.code == 0
    # Whoever took it away may be about to publish, so a reset waits.
    assert ("an upload has just ended" in answer.err) == (command == "reset")


def test_a_file_of_an_upload_that_vanishes_is_no_error(sample: Sample) -> None:
    name = sample.box.ingest("left behind")
    age_index(sample)
    what = f"cache/ingest/{name}.kitcache-removing/ref"
    answer = run_while(sample, "os.remove=ref", what, "reset", "cache", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert os.listdir(sample.dir / "ingest") == []


def test_a_blobs_directory_that_vanishes_ends_in_words(sample: Sample) -> None:
    """Somebody removes the tree: there is nothing left to save, and no traceback."""
    name = min(sample.garbage)
    answer = run_while(sample, "os.remove=", "cache/blobs", "reset", "cache")
    assert name not in answer.err
    assert answer.code in {0, 1, 12}
    assert (sample.dir / "index.json").exists()


def test_a_cache_that_vanishes_ends_in_words(sample: Sample) -> None:
    answer = run_while(sample, "os.remove=", "cache", "reset", "cache")
    assert answer.code in {1, 10, 12}
    assert answer.err.startswith("kitcache: cache: ")
    assert not sample.dir.exists()


@pytest.mark.parametrize(
    ("command", "when"),
    [
        *((["reset", "cache"], n) for n in ("oci-layout", "blobs", "index.json", "kitcache.lock")),
        *((["untag", "cache", "main"], n) for n in ("oci-layout", "index.json", "kitcache.lock")),
    ],
)
def test_a_cache_that_vanishes_at_the_start_ends_in_words(
    sample: Sample, when: str, command: list[str]
) -> None:
    before = take_snapshot(sample.box.top)
    answer = run_while(sample, f"open={when}", "cache", *command)
    assert answer.code in {1, 10, 12}
    assert answer.err.startswith("kitcache: cache: ")
    after = take_snapshot(sample.box.top)
    assert all(line.startswith("gone: cache") for line in unchanged(before, after))


@pytest.mark.parametrize(
    ("command", "when"),
    [
        *((["du"], when) for when in ("open=oci-layout", "open=index.json", "os.scandir=")),
        *((["ls"], when) for when in ("open=oci-layout", "open=index.json")),
    ],
)
def test_looking_at_a_cache_that_vanishes_ends_in_words(
    sample: Sample, when: str, command: list[str]
) -> None:
    answer = run_while(sample, when, "cache", *command, "cache")
    assert answer.code in {0, 1, 10, 12}


def test_a_live_manifest_that_vanishes_before_it_is_read_stops_everything(sample: Sample) -> None:
    """Another collector without our lock."""
    name = sample.main["digest"].partition(":")[2]
    answer = run_while(sample, f"open={name}", f"cache/blobs/sha256/{name}", "reset", "cache")
    assert answer.code == 12
    assert "'main'" in answer.err
    assert blobs(sample) == (sample.live | sample.garbage) - {name}


def test_an_index_that_vanishes_before_the_removal_stops_it(sample: Sample) -> None:
    """It is read again right before anything goes: what it no longer says, nobody knows."""
    answer = run_while(sample, "os.remove=", "cache/index.json", "reset", "cache")
    assert answer.code in {0, 12}
    assert sample.live <= blobs(sample)


def age_index(sample: Sample) -> None:
    """index.json is newer than ingest/: nobody is about to publish."""
    with Stage(sample.dir) as stage:
        stage.do([["age", "index.json", 60]])
