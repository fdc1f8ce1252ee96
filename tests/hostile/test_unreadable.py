"""A file that is there and cannot be read is not a file that is missing.

What was found whole and fails a read later ends the command: nothing was changed, exit code 1. What
no read can get at any more, as with a bad sector, counts as bad.
"""

import errno
import json
import os
from pathlib import Path

import pytest

from tests.hostile import crash, privilege, stages
from tests.hostile.build import Box
from tests.hostile.command import run_command
from tests.hostile.fault_law import Stage
from tests.hostile.fault_scenes import SCENES, Scene, aged, broken, sound
from tests.hostile.faulty import Fault, Server
from tests.hostile.importable import UNCOMPRESSED, layer
from tests.property import witness
from tests.property.disk import settle


def reads_of(stage: Stage, *names: str) -> list[Fault]:
    """Each open and each read of these files, which fails with EIO."""
    return [
        fault
        for fault in stage.faults
        if fault.call.kind in ("open", "read")
        and fault.errno == errno.EIO
        and fault.call.name.endswith(names)
    ]


def documents_of(root: Path, tag: str) -> list[str]:
    """The names of the files of a tag's manifest and its cacheconfig."""
    entry = stages.entries(root)[tag]
    path = root / "blobs" / entry["digest"].replace(":", "/")
    manifest = json.loads(path.read_bytes())
    config = manifest.get("config") or manifest["manifests"][-1]
    return [path.name, config["digest"].partition(":")[2]]


@pytest.mark.parametrize("tag", ["whole", "index"])
def test_a_repair_drops_no_healthy_tag_for_one_failed_read(
    tag: str, fault_server: Server, quick_path: Path
) -> None:
    stage = Stage(fault_server, SCENES["verify --repair"], quick_path)
    codes = set()
    for fault in reads_of(stage, *documents_of(quick_path / "template" / "cache", tag)):
        assert list(stage.complaints(fault)) == [], fault
        codes.add(stage.ended.code)
        if stage.ended.code == 1:
            assert "cannot be read: Input/output error\n" in stage.ended.said, fault
    assert codes >= {0, 1}


def test_a_repair_ends_where_the_notes_cannot_be_read(
    fault_server: Server, quick_path: Path
) -> None:
    """They know the name of what a lost index.json named."""
    stage = Stage(fault_server, SCENES["verify --repair of a lost index"], quick_path)
    first, *_ = reads_of(stage, "tags.json")
    ended = stage.run(first)
    assert ended.code == 1
    assert ".kitcache/tags.json cannot be read: Input/output error\n" in ended.said
    assert "nothing was changed" in ended.said
    assert not (stage.box / "cache" / "index.json").exists()


@pytest.mark.parametrize("what", ["cacheconfig", "notes"])
@pytest.mark.parametrize("words", ["prune", "prune by age", "prune --trim"])
def test_no_prune_decides_by_a_guess(
    words: str, what: str, fault_server: Server, quick_path: Path
) -> None:
    """`dev` was used last, as its cacheconfig says; `pinned`, as the notes say."""
    stage = Stage(fault_server, SCENES[words], quick_path)
    config = documents_of(quick_path / "template" / "cache", "dev")[1]
    faults = reads_of(stage, config if what == "cacheconfig" else "tags.json")
    # The survey has read the cacheconfig by then: an open and two reads.
    told = []
    for fault in faults:
        assert list(stage.complaints(fault)) == [], fault
        ended = stage.run(fault)
        if ended.code == 1:
            told.append(ended.said)
            assert witness.entries(stage.box / "cache") == witness.entries(
                quick_path / "template" / "cache"
            )
    assert told
    assert all("cannot be read: Input/output error\n  nothing was" in said for said in told)


def test_ls_shows_what_it_knows_and_names_what_it_could_not_read(
    fault_server: Server, quick_path: Path
) -> None:
    stage = Stage(fault_server, Scene(aged, ("ls", "{}/cache")), quick_path)
    config = documents_of(quick_path / "template" / "cache", "dev")[1]
    last = reads_of(stage, config)[-1]
    ended = stage.run(last)
    assert ended.code == 12
    for words in ("main", "dev", "pinned", f"sha256:{config[:12]} cannot be read"):
        assert words in ended.said
    (row,) = (line for line in ended.said.splitlines() if line.startswith("dev"))
    assert "~" not in row, "the time of the manifest would be a guess"


def with_hint(top: Path) -> Box:
    """A layer of a kind that nobody knows names a blob, which nothing else does."""
    box = sound(top)
    named = box.blob(b"named by a hint")
    hint = box.document({"blobs": [named]}, "application/vnd.example.layer+json")
    box.tag("hint", box.manifest([layer(box, "0"), hint]))
    settle(box.dir)
    return box


def test_a_reset_removes_nothing_that_an_unread_blob_may_name(
    fault_server: Server, quick_path: Path
) -> None:
    stage = Stage(fault_server, Scene(with_hint, ("reset", "{}/cache")), quick_path)
    for path in (quick_path / "template" / "cache" / "blobs" / "sha256").iterdir():
        if path.read_bytes().startswith(b'{"blobs":'):
            hint = path.name
    faults = reads_of(stage, hint)
    assert faults
    for fault in faults:
        ended = stage.run(fault)
        assert ended.code == 12, fault
        assert "nothing was deleted" in ended.said
        assert "the read may have failed only once" in ended.said


def test_what_no_read_can_get_at_is_bad(tmp_path: Path) -> None:
    """Each read of one layer fails: the steps that need it go, and it is put aside."""
    missing = crash.missing_tool()
    if missing:
        privilege.cannot(missing)
    box = broken(tmp_path)
    unread = box.entries[0]
    manifest = json.loads(box.path_of(unread["digest"]).read_bytes())
    assert UNCOMPRESSED in manifest["layers"][2]["annotations"]
    blob = box.path_of(manifest["layers"][2]["digest"])
    traced = "read,readv,pread64"
    words = crash.command("verify", "--repair", box.dir)
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-P", str(blob), "-e", f"trace={traced}"]
    answer = run_command([*strace, "-e", f"inject={traced}:error=EIO", *words], tmp_path)
    assert answer.code == 0, answer.err
    assert "tag 'whole' was rewritten without 1 of its 3 steps" in answer.out
    assert not blob.exists()
    assert (box.dir / ".kitcache" / "quarantine" / f"sha256-{blob.name}").exists()
    assert witness.holes(box.dir) == ()


def test_the_library_raises_its_own_errors_for_a_failing_disk(
    fault_server: Server, quick_path: Path
) -> None:
    """Where a directory cannot be listed, and a file in it can be neither read nor looked at."""
    stage = Stage(fault_server, SCENES["export"], quick_path)
    names = ("/cache", "/cache/oci-layout", "/cache/index.json", "/cache/kitcache.lock")
    faults = {
        (fault.call.kind, fault.call.name): fault
        for fault in stage.faults
        if fault.call.kind in ("read", "stat", "list") and fault.call.name in names
    }
    assert len(faults) > 4
    for fault in faults.values():
        assert list(stage.complaints(fault)) == [], fault


@pytest.mark.parametrize("words", ["export", "exec"])
def test_an_unread_blob_is_not_said_to_have_been_removed(
    words: str, fault_server: Server, quick_path: Path
) -> None:
    """All that a new tag reaches is read before it is published, and once more after."""
    stage = Stage(fault_server, SCENES[words], quick_path)
    name = documents_of(stage.box / "cache", "new")[0]
    told = set()
    for fault in reads_of(stage, f"/cache/blobs/sha256/{name}"):
        ended = stage.run(fault)
        assert "meanwhile" not in ended.said
        told.add((ended.code, "published, but not checked again" in ended.said))
    # 12: the sweep that follows cannot read it.
    assert (1, True) in told
    assert told <= {(0, False), (1, False), (1, True), (12, False)}
