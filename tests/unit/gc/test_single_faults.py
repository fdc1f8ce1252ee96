"""gc, upkeep: single faults that no other test notices. Each test fails for one of them."""

import math
import os
import time
from threading import Event
from typing import Any

import pytest

import kitcache
from kitcache.errors import Cancelled, Damaged, Unreadable
from kitcache.gc.control import Control
from kitcache.gc.plan import make_plan
from kitcache.gc.reset import reset_after_export, unswept_result
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import apply
from kitcache.gc.values import Survey
from kitcache.oci.digest import Digest
from kitcache.oci.links import read_links
from kitcache.options.sweep import SweepOptions
from kitcache.store.directory import DirectoryStore
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from kitcache.store.values import STRUCTURAL_LIMIT_BYTES, HeldLock
from tests.hostile.build import CACHECONFIG, LAYER, MANIFEST, Box, Json, Sample, digest_of, encode


def survey(box: Box) -> Survey:
    with open_store(box.dir) as layout:
        return take_survey(layout, Control("cache", None, None))


@pytest.mark.parametrize("by", ["mtime", "came", "ctime"])
def test_a_blob_of_the_surveys_own_clock_tick_stays(
    sample: Sample, layout: Layout, by: str
) -> None:
    """Its time is the moment from which blobs are spared: it may be an export's."""
    tick_ns, never_ns = 3_000_000_000, 1 << 62
    paths = [sample.dir / "blobs" / "sha256" / name for name in sample.garbage]
    for path in paths:
        os.utime(path, ns=(tick_ns, tick_ns))
    newest_ns = max(path.stat().st_ctime_ns for path in paths)
    spared_from: dict[str, dict[str, Any]] = {
        "mtime": {
            "young_since_ns": tick_ns,
            "changed_from_ns": never_ns,
            "changed_until_ns": never_ns,
        },
        "came": {
            "young_since_ns": math.inf,
            "changed_from_ns": tick_ns,
            "changed_until_ns": never_ns,
        },
        "ctime": {
            "young_since_ns": math.inf,
            "changed_from_ns": newest_ns,
            "changed_until_ns": never_ns,
        },
    }
    control = Control("cache", None, None)
    plan = make_plan(take_survey(layout, control), SweepOptions(), time.time_ns())
    plan = plan._replace(**spared_from[by], valid_until_ns=never_ns)
    swept = apply(plan, HeldLock(layout, "exclusive"), control, lambda: True)
    spared = [path for path in paths if path.exists()]
    newest = [path for path in spared if path.stat().st_ctime_ns == newest_ns]
    assert (newest, swept.too_young.blobs) != ([], 0)
    assert len(spared) == (len(newest) if by == "ctime" else len(paths))


def test_what_a_cacheconfig_names_outside_its_own_fields_is_reached(box: Box) -> None:
    """It is another document, then, under that media type."""
    hidden, layer = box.blob(b"hidden"), box.blob(b"layer")
    document = {"layers": [{"blob": layer["digest"]}], "records": [], "config": hidden}
    reached = {str(link.descriptor.digest) for link in read_links("cacheconfig", encode(document))}
    assert reached == {hidden["digest"], layer["digest"]}
    box.tag("main", box.document(document, CACHECONFIG))
    assert kitcache.reset(box.dir).deleted.blobs == 0


def test_a_cacheconfig_over_the_cap_is_damage_beside_its_layers_too(box: Box) -> None:
    layer, size = box.blob(b"layer"), STRUCTURAL_LIMIT_BYTES + 1
    config: Json = {"mediaType": CACHECONFIG, "digest": digest_of(b"huge"), "size": size}
    box.path_of(config["digest"]).write_bytes(b"{")
    os.truncate(box.path_of(config["digest"]), size)
    box.tag("main", box.manifest([layer], config))
    found = survey(box)
    assert [damage.kind for damage in found.damage] == ["over-cap"]
    assert found.missing_blobs == ()


def test_a_layer_that_is_elsewhere_to_one_is_missing_to_another(box: Box) -> None:
    layer = {"mediaType": LAYER, "digest": digest_of(b"nowhere"), "size": 7}
    box.tag(
        "first", box.manifest([layer | {"urls": ["https://example.com/layer"]}], box.blob(b"a"))
    )
    box.tag("second", box.manifest([layer], box.blob(b"b")))
    (leaf,) = survey(box).missing_blobs
    assert (str(leaf.digest), leaf.ref_name) == (layer["digest"], "second")


def test_a_layer_that_is_too_long_is_not_whole(sample: Sample) -> None:
    sample.box.damage(sample.layers[0]["digest"], b"layer 0" * 20 + b"more")
    (leaf,) = survey(sample.box).missing_blobs
    assert (str(leaf.digest), leaf.ref_name) == (sample.layers[0]["digest"], "main")
    assert leaf.problem == "is too long (144 of 140 bytes)"


def test_a_loss_is_ours_whoever_published_the_tag(layout: Layout) -> None:
    """The sweep and a stranger's export met: our sweep removed what that had counted on."""

    lost = Damaged(layout.path, "a tag lacks a blob", kind="lost", tag="another")
    report = unswept_result(layout, lost, ("main",), 0.0)
    assert (report.outcome, report.exit_code) == ("damaged", 12)


def test_a_damaged_subject_that_is_there_is_mended_for_good(box: Box) -> None:
    """Its bytes are what its digest says, and no manifest: the quarantine is no way out."""
    subject = box.blob(b"no JSON at all", MANIFEST)
    box.tag("about", box.manifest([box.blob(b"note")], subject=subject))
    assert kitcache.verify(box.dir).exit_code == 12
    done = kitcache.repair(box.dir)
    assert [(step.kind, step.tag) for step in done.actions] == [("remove-tag", "about")]
    assert done.verification.exit_code == 0


@pytest.mark.parametrize("how", ["wrong bytes", "wrong size"])
def test_a_bad_cacheconfig_whose_layers_are_listed_is_reported(box: Box, how: str) -> None:
    """It hides nothing, so it is no damage; a build could not import the cache all the same."""
    layer = box.blob(b"layer")
    document = {"layers": [{"blob": layer["digest"]}], "records": []}
    config = box.document(document, CACHECONFIG)
    box.tag("main", box.manifest([layer], config))
    data = bytes(config["size"] - (how == "wrong size"))
    box.damage(config["digest"], b"{" + data[1:])
    found = survey(box)
    assert found.damage == ()
    (missing,) = found.missing_blobs
    assert (str(missing.digest), missing.ref_name) == (config["digest"], "main")
    assert missing.problem != "is missing"


def test_a_manifest_that_cannot_be_read_is_damage(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be intact, and what it lists is not known."""
    real = Layout.read_blob

    def fail(self: Layout, digest: Digest, *args: Any, **more: Any) -> bytes | None:
        if str(digest) == sample.main["digest"]:
            raise Unreadable("cache", "blob", "Input/output error")
        return real(self, digest, *args, **more)

    monkeypatch.setattr(Layout, "read_blob", fail)
    found = survey(sample.box)
    assert [(path.root.ref_name, path.kind) for path in found.damage] == [("main", "unreadable")]


def test_a_cancel_is_noticed_within_a_batch_of_names(
    sample: Sample, layout: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        sample.box.blob(b"garbage %d" % number)
    plan = make_plan(
        take_survey(layout, Control("cache", None, None)), SweepOptions(), time.time_ns()
    )
    plan = plan._replace(changed_from_ns=1 << 62)
    cancel, real, chunks = Event(), DirectoryStore.delete_names, []

    def delete(self: DirectoryStore, *args: Any) -> Any:
        chunks.append(args)
        cancel.set()
        return real(self, *args)

    monkeypatch.setattr(DirectoryStore, "delete_names", delete)
    swept = apply(plan, HeldLock(layout, "exclusive"), Control("cache", None, cancel), lambda: True)
    assert isinstance(swept.failure, Cancelled)
    assert len(chunks) <= 2, "one of each thread"


def test_a_sweep_after_an_export_ends_the_count_of_skipped_ones(
    sample: Sample, layout: DirectoryStore
) -> None:
    layout.count_skipped_sweep()
    control = Control("cache", None, None)
    assert reset_after_export(layout, (), control, lock_timeout_s=0).outcome == "done"
    assert layout.read_skipped_sweeps() == 0
