"""naming/merge.py: others change the caches while it merges."""

from pathlib import Path
from typing import Any

import pytest

from kitcache.errors import Busy, Damaged, KitcacheError
from kitcache.store.directory import DirectoryStore
from kitcache.upkeep.naming import blobcopy as bring_module
from kitcache.upkeep.naming.merge import merge
from tests.hostile.build import Box, Sample
from tests.unit.upkeep.naming.mergekit import items, tags


def test_a_tag_that_is_published_in_the_target_meanwhile_stays(
    sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, names = DirectoryStore.commit_roots, iter(["one", "two"])

    def met(*args: Any, **more: Any) -> Any:
        if name := next(names, None):
            other.tag(name, other.entries[0] | {"annotations": {}})
        return real(*args, **more)

    monkeypatch.setattr(DirectoryStore, "commit_roots", met)
    merge([sample.dir], other.dir)
    assert list(tags(other.dir)) == ["extra", "one", "two", "main", "dev"]


def test_a_tag_that_becomes_another_meanwhile_is_not_overwritten(
    sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DirectoryStore.commit_roots

    def met(*args: Any, **more: Any) -> Any:
        if "main" not in tags(other.dir):
            other.tag("main", other.manifest([]))
        return real(*args, **more)

    monkeypatch.setattr(DirectoryStore, "commit_roots", met)
    with pytest.raises(KitcacheError, match="tag 'main' is "):
        merge([sample.dir], other.dir)
    assert list(tags(other.dir)) == ["extra", "main"]


def test_an_index_that_never_rests_is_busy(
    sample: Sample, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DirectoryStore, "commit_roots", lambda *_, **more: None)
    with pytest.raises(Busy, match=r"index.json changed 8 times"):
        merge([sample.dir], target)


def test_blobs_that_others_take_from_the_target_are_a_loss_that_is_told(
    sample: Sample, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DirectoryStore.commit_roots

    def met(*args: Any, **more: Any) -> Any:
        (target / "blobs" / "sha256" / sample.layers[2]["digest"][7:]).unlink()
        return real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "commit_roots", met)
        with pytest.raises(Damaged, match="another client has deleted") as caught:
            merge([sample.dir], target)
    assert (caught.value.kind, caught.value.tag) == ("lost", "dev")
    assert merge([sample.dir], target).linked.blobs == 1


def test_a_blob_that_goes_from_a_source_meanwhile_is_no_hole(
    sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's sweep: it knows no lock of ours."""
    real, lost = bring_module.copy_blob, sample.box.path_of(sample.layers[2]["digest"])

    def met(*args: Any, **more: Any) -> Any:
        lost.unlink(missing_ok=True)
        return real(*args, **more)

    monkeypatch.setattr(bring_module, "copy_blob", met)
    before = items(other.dir)
    with pytest.raises(Damaged, match="is missing") as caught:
        merge([sample.dir], other.dir)
    assert (caught.value.path, items(other.dir)) == (str(sample.dir), before)
