"""gc/survey.py: symbolic links under the names of blobs. They are looked at, and never read."""

import os
import shutil
from pathlib import Path

import pytest

import kitcache
from kitcache.errors import Damaged
from kitcache.gc.control import Control
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey
from kitcache.oci.digest import parse_digest
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from kitcache.upkeep.project import project
from tests.hostile.build import CACHECONFIG, Box, Json, Sample, digest_of


def survey(box: Box) -> Survey:
    with open_store(box.dir) as layout:
        return take_survey(layout, Control("cache", None, None))


def make_link(box: Box, blob: Json, target: str | Path) -> Path:
    """A link in a blob's place, and the path of it."""
    path = box.path_of(blob["digest"])
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return path


def move_out(box: Box, blob: Json) -> Path:
    """A link in a blob's place that leads to its file, which lies beside the cache now."""
    target = box.top / "pool" / blob["digest"].partition(":")[2]
    target.parent.mkdir(exist_ok=True)
    shutil.copy(box.path_of(blob["digest"]), target)
    return make_link(box, blob, f"../../../pool/{target.name}")


@pytest.mark.parametrize(
    ("target", "problem", "is_live"),
    [
        ("/nowhere/at/all", "is missing", False),
        ("../../../bystander/below-a-file", "is missing", False),
        ("itself", "is missing", False),
        ("../../../bystander", "is truncated (13 of 140 bytes)", True),
        ("../../../neighbour", "is not a regular file", True),
        ("/dev/zero", "is not a regular file", True),
    ],
)
def test_a_layer_that_leads_to_no_such_file_is_told(
    sample: Sample, target: str, problem: str, is_live: bool
) -> None:
    layer = sample.layers[0]
    name = layer["digest"].partition(":")[2]
    make_link(sample.box, layer, name if target == "itself" else target)
    (sample.box.top / "bystander").write_text("thirteen byte")
    found = survey(sample.box)
    (leaf,) = [leaf for leaf in found.missing_blobs if leaf.digest.hex == name]
    assert leaf.problem == problem
    assert (parse_digest(layer["digest"]) in found.live) == is_live
    assert found.damage == ()


def test_a_layer_that_leads_to_a_file_of_its_length_is_there(sample: Sample) -> None:
    path = move_out(sample.box, sample.layers[0])
    found = survey(sample.box)
    assert (found.missing_blobs, found.damage) == ((), ())
    assert found.live[parse_digest(sample.layers[0]["digest"])] == path.lstat().st_size


def test_what_lies_where_nobody_may_look_is_in_doubt_there(
    layout: Layout, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_link(sample.box, sample.layers[0], "/nowhere")
    real = os.stat

    def closed(path: str, **more: object) -> os.stat_result:
        if "follow_symlinks" not in more:
            raise PermissionError(13, "Permission denied")
        return real(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", closed)
    found, _ = layout.follow_symlink(parse_digest(sample.layers[0]["digest"]))
    assert found is not None
    assert found.kind == "symlink"


def test_a_manifest_that_is_a_link_stops_a_reset_which_says_what_to_do(sample: Sample) -> None:
    path = move_out(sample.box, sample.main)
    with pytest.raises(Damaged, match="is a symlink, which kitcache does not follow") as caught:
        kitcache.reset(sample.dir)
    assert caught.value.hints == ("replace the symlink by its file",)
    assert path.exists()


@pytest.mark.parametrize("place", ["layer", "unknown", "spare cacheconfig", "subject"])
def test_what_a_live_link_names_stays(box: Box, place: str) -> None:
    """A store that keeps each file under one name: by another, a link to it. And links to links."""
    data = b'{"layers":[]}'
    real = box.blob(data)
    first, second = (box.blob(data, algorithm=algorithm) for algorithm in ("sha512", "sha384"))
    make_link(box, first, box.path_of(second["digest"]))
    make_link(box, second, f"../sha256/{real['digest'].partition(':')[2]}")
    layer = box.blob(b"layer")
    match place:
        case "subject":
            root = box.manifest([layer], subject=first)
        case "spare cacheconfig":
            root = box.manifest([layer], first | {"mediaType": CACHECONFIG})
        case "unknown":
            root = box.manifest([first | {"mediaType": "x/y"}])
        case _:
            root = box.manifest([first])
    box.tag("main", root)
    box.tag("other", box.manifest([box.blob(b"other")]))
    found = survey(box)
    # What is left of it after an edit of index.json is told by the links alone.
    left = project(found, drop=[1], index_digest=found.index_digest)
    assert {parse_digest(one["digest"]) for one in (real, second)} <= left.live.keys()
    kitcache.reset(box.dir)
    assert box.path_of(first["digest"]).read_bytes() == data


def test_what_a_dead_link_names_goes_and_a_stranger_is_not_looked_for(sample: Sample) -> None:
    box, dead = sample.box, sample.box.blob(b"dead")
    make_link(box, box.blob(b"nobody's"), box.path_of(dead["digest"]))
    make_link(box, sample.layers[0], f"/nowhere/{digest_of(b'far').partition(':')[2]}")
    kitcache.reset(sample.dir)
    assert not box.path_of(dead["digest"]).exists()


def test_a_link_back_to_what_names_it_is_a_path_once(sample: Sample) -> None:
    """A walk along the links would never end."""
    manifest = sample.box.path_of(sample.main["digest"])
    make_link(sample.box, sample.layers[0], manifest.name)
    paths = kitcache.why(sample.dir, sample.layers[1]["digest"]).paths
    assert [len(path.links) for path in paths if path.root.ref_name == "main"][:1] == [2]


def test_a_link_to_a_blob_of_another_store_leads_to_nothing_here(sample: Sample) -> None:
    """As tools that share one pool of blobs make them: the names are the same."""
    target = sample.box.top / "pool" / sample.main["digest"].partition(":")[2]
    target.parent.mkdir()
    sample.box.path_of(sample.main["digest"]).rename(target)
    make_link(sample.box, sample.main, target)
    found = survey(sample.box)
    assert all(
        link.descriptor.digest != key[0] for key, links in found.links.items() for link in links
    )
