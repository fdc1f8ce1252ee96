"""naming/bring.py: which blobs come, each once, and nothing before what it names."""

import json

from kitcache.gc.control import Control
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey, Tally
from kitcache.oci.digest import parse_digest
from kitcache.store.open import open_store
from kitcache.upkeep.naming.blobcopy import CopyPlan, copy_all, dry_run, plan_copies
from tests.hostile.build import Box, Sample

FREE = Control("", None, None)


def survey_of(box: Box) -> Survey:
    with open_store(box.dir) as layout:
        return take_survey(layout, FREE)


def wants_of(*boxes: Box) -> CopyPlan:
    surveys = [survey_of(box) for box in boxes]
    return plan_copies(surveys, [(n, root) for n, s in enumerate(surveys) for root in s.roots])


def test_of_two_caches_each_blob_comes_once_from_the_first_that_has_it(
    sample: Sample, other: Box
) -> None:
    wants = wants_of(sample.box, other)
    came = [one.digest for part in wants for one in part]
    assert len(came) == len(set(came))
    assert {d.hex for d in came} == sample.live | {
        path.name for path in (other.dir / "blobs" / "sha256").iterdir()
    }
    shared = parse_digest(sample.layers[0]["digest"])
    assert [one.source for one in wants.leaves if one.digest == shared] == [0]
    assert sum(one.root.ref_name == "extra" for part in wants for one in part) == len(came) - len(
        sample.live
    )


def test_an_index_comes_after_all_that_is_below_it(sample: Sample) -> None:
    """In whichever order tags reach them, and where one is reached along paths of two lengths."""
    box = sample.box
    inner = box.index_of([sample.main])
    outer = box.index_of([inner, sample.dev, sample.main])
    for name, top in (("outer", outer), ("inner", inner)):
        box.tag(name, top)
    wants = wants_of(box)
    order = [str(one.digest) for one in wants.structure]
    assert len(order) == len(set(order)) == 6
    for one in wants.structure:
        data = json.loads(box.path_of(str(one.digest)).read_bytes())
        below = [*data.get("manifests", ()), *([data["config"]] if "config" in data else ())]
        assert {b["digest"] for b in below} <= set(order[: order.index(str(one.digest))])


def test_an_empty_cache_wants_nothing(box: Box) -> None:
    box.write_index(b'{"schemaVersion":2,"manifests":[]}')
    assert wants_of(box) == CopyPlan((), ())


def test_what_is_foreseen_is_what_comes(sample: Sample, other: Box) -> None:
    wants = wants_of(sample.box)
    with open_store(sample.dir) as source, open_store(other.dir) as target:
        source.open_directories()
        target.open_directories()
        foreseen = dry_run([source], target, str(other.dir), wants, FREE)
        assert foreseen == copy_all([source], target, wants, FREE)
        assert (foreseen.reused.blobs, foreseen.copied) == (1, Tally())
