"""trimming/trim.py: one tag gets smaller, in either form of a root; nothing else moves."""

import fcntl
import json
import os
import time
from pathlib import Path
from threading import Event

import pytest

import kitcache
from kitcache.errors import (
    Busy,
    Cancelled,
    Damaged,
    KitcacheError,
    LimitNotReached,
    NotACache,
    NotFound,
    Unsafe,
    UsageError,
)
from kitcache.gc.du import du
from kitcache.gc.values import Tally
from kitcache.store.open import open_store
from kitcache.store.state import (
    count_skipped_sweep,
    read_skipped_sweeps,
    read_tag_uses,
    record_layer_uses,
    record_use,
)
from kitcache.upkeep.contents import ls_tag
from kitcache.upkeep.results import CachedStep
from kitcache.upkeep.trimming.trim import trim
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile import stages
from tests.hostile.build import CACHECONFIG, REF_NAME, Box, Json, encode
from tests.hostile.stages import AS_THEY_GO, LAYER_BYTES, MAIN, Stages, entries, steps_in
from tests.property import witness

OURS = {"cache/.kitcache", "cache/kitcache.lock", "cache/index.json.lock"}


@pytest.fixture(params=[False, True], ids=["manifest", "index"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Stages:
    return stages.make_stages(tmp_path, is_index=request.param)


@pytest.fixture
def one(tmp_path: Path) -> Stages:
    return stages.make_stages(tmp_path)


def limit_for(steps: int) -> int:
    """So many layers, and documents beside them."""
    return steps * LAYER_BYTES + LAYER_BYTES - 1


@pytest.mark.parametrize("left", range(1, 8))
def test_the_coldest_steps_go_and_the_others_are_what_they_were(cache: Stages, left: int) -> None:
    before = {tag: entry for tag, entry in entries(cache.dir).items() if tag != "main"}
    size = cache.bytes_of(cache.main)

    done = trim(cache.dir, "main", limit_for(left))

    after = entries(cache.dir)
    assert {tag: entry for tag, entry in after.items() if tag != "main"} == before
    assert sorted(steps_in(cache.dir, after["main"])) == sorted(AS_THEY_GO[8 - left :])
    assert (done.outcome, done.ref_name, done.exit_code) == ("done", "main", 0)
    assert [step.cache_key for step in done.removed_steps] == list(
        map(stages.record_of, AS_THEY_GO[: 8 - left])
    )
    assert [step.cache_key for step in done.kept_steps] == list(
        map(stages.record_of, AS_THEY_GO[8 - left :])
    )
    assert (done.before_size.bytes, str(done.before)) == (size, cache.main["digest"])
    assert str(done.after) == after["main"]["digest"]
    assert after["main"]["size"] == cache.box.path_of(after["main"]["digest"]).stat().st_size
    assert done.after_size.bytes == cache.bytes_of(after["main"]) <= limit_for(left)
    assert done.after_size.blobs == left + 2
    assert witness.holes(cache.dir) == ()
    assert witness.garbage(cache.dir) == frozenset(), "the sweep comes with it"
    assert done.reset is not None
    assert done.reset.kept == kitcache.du(cache.dir).live
    assert trim(cache.dir, "main", limit_for(left)).outcome == "unchanged"


def test_unique_is_what_a_removal_frees_as_ls_says_it(one: Stages) -> None:
    done = trim(one.dir, "main", limit_for(3), dry_run=True)
    steps = (*done.removed_steps, *done.kept_steps)
    assert {step.bytes for step in steps} == {LAYER_BYTES}
    assert done.before_size.bytes - done.after_size.bytes > 5 * LAYER_BYTES
    base = CachedStep(stages.record_of("base"), 10**9, None, LAYER_BYTES, 0)
    assert done.kept_steps[-1] == base, "dev has its layer too"
    assert done.reset is not None
    assert done.reset.freed is not None
    before = du(one.dir)
    assert done.reset.unreachable_before == before.reclaimable
    layers = sum(step.unique_bytes for step in done.removed_steps)
    documents = sum(one.box.path_of(d).stat().st_size for d in documents_of(one))
    assert 0 < layers < LAYER_BYTES * len(done.removed_steps)
    assert done.reset.freed == Tally(layers // LAYER_BYTES + 2, layers + documents)
    listed = {b.step.cache_key: b for b in ls_tag(one.dir, "main").blobs if b.step is not None}
    for step in steps:
        blob = listed[step.cache_key]
        assert blob.step is not None
        assert step.unique_bytes == blob.unique_bytes == blob.step.unique_bytes
    trim(one.dir, "main", limit_for(3))
    added = sum(one.box.path_of(d).stat().st_size for d in documents_of(one, "main"))
    assert du(one.dir).live.bytes == before.live.bytes - layers - documents + added


def documents_of(cache: Stages, tag: str = "") -> tuple[str, str]:
    """The manifest of main, or of a tag as it is now, and its cacheconfig."""
    manifest = entries(cache.dir)[tag]["digest"] if tag else cache.main["digest"]
    config = json.loads(cache.box.path_of(manifest).read_bytes())["config"]["digest"]
    return manifest, config


def test_what_fits_is_left_alone_garbage_too(cache: Stages) -> None:
    before = take_snapshot(cache.box.top)
    size = cache.bytes_of(cache.main)
    for dry_run in (True, False):
        done = trim(cache.dir, "main", size, dry_run=dry_run)
        assert (done.outcome, done.removed_steps, done.reset) == ("unchanged", (), None)
        assert done.before == done.after
        assert done.before_size == done.after_size
        assert (done.before_size.bytes, len(done.kept_steps)) == (size, 8)
    after = {n: e for n, e in take_snapshot(cache.box.top).items() if n not in OURS}
    assert differences(before, after) == []
    assert trim(cache.dir, "main", size - 1).outcome == "done"


def test_a_dry_run_says_it_all_and_touches_nothing(cache: Stages) -> None:
    before = take_snapshot(cache.box.top)
    with (cache.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = trim(cache.dir, "main", limit_for(4), dry_run=True)
    (cache.dir / "kitcache.lock").unlink()
    assert differences(before, take_snapshot(cache.box.top)) == []
    done = trim(cache.dir, "main", limit_for(4))
    assert said.reset is not None
    assert done.reset is not None
    report = said.reset._replace(outcome="done", seconds=done.reset.seconds)
    assert said._replace(outcome="done", reset=report) == done


def test_what_imports_read_is_warm(one: Stages) -> None:
    with open_store(one.dir) as layout:
        record_layer_uses(layout, [stages.layer_of("old 2")], time.time_ns())
    done = trim(one.dir, "main", limit_for(4))
    assert sorted(steps_in(one.dir, entries(one.dir)["main"])) == [
        "base",
        "new 1",
        "old 1",
        "old 2",
    ]
    assert [step.last_read_ns is None for step in done.kept_steps] == [True, False, True, True]


def test_a_limit_below_the_last_step_changes_nothing(cache: Stages) -> None:
    before = take_snapshot(cache.box.top)
    with pytest.raises(LimitNotReached, match=r"cannot be trimmed to 1\.0 kB") as caught:
        trim(cache.dir, "main", 1000)
    error = caught.value
    assert (error.exit_code, error.limit_bytes) == (14, 1000)
    assert LAYER_BYTES < error.needed_bytes < 2 * LAYER_BYTES
    assert error.effect == "nothing was changed"
    assert error.hints[1].endswith(f"kitcache untag {cache.dir} main")
    after = {n: e for n, e in take_snapshot(cache.box.top).items() if n not in OURS}
    assert differences(before, after) == []
    done = trim(cache.dir, "main", error.needed_bytes)
    assert (len(done.kept_steps), done.after_size.bytes) == (1, error.needed_bytes)


@pytest.mark.parametrize("name", ["odd\x07name", "-odd"])
def test_a_name_that_cannot_be_pasted_is_given_up_by_a_digest_of_its_own(
    one: Stages, name: str
) -> None:
    one.box.tag(name, one.dev)
    with pytest.raises(LimitNotReached) as caught:
        trim(one.dir, name, 1000)
    assert len(caught.value.hints) == 1, "dev would go with it"
    trim(one.dir, "dev", limit_for(1))
    with pytest.raises(LimitNotReached) as caught:
        trim(one.dir, name, 1000)
    assert caught.value.hints[1].endswith(f"kitcache untag {one.dir} {one.dev['digest']}")


def test_sizes_that_look_the_same_are_told_apart(one: Stages) -> None:
    with pytest.raises(LimitNotReached) as caught:
        trim(one.dir, "main", 1000)
    needed = caught.value.needed_bytes
    with pytest.raises(LimitNotReached, match=f"to {needed - 1:,} B: .* needs {needed:,} B"):
        trim(one.dir, "main", needed - 1)


def test_what_is_no_cache_is_said_to_be_none(one: Stages) -> None:
    with pytest.raises(
        KitcacheError, match="tag 'image' is not a build cache but an image"
    ) as caught:
        trim(one.dir, "image", 10)
    assert (caught.value.exit_code, caught.value.effect) == (1, "nothing was changed")
    one.box.tag("both", one.box.index_of([one.main, one.dev]))
    with pytest.raises(
        KitcacheError, match="is not a build cache but an index of build caches"
    ) as nested:
        trim(one.dir, "both", 10)
    assert nested.value.hints == (), "ls calls it a cache"
    one.box.tag("what", one.box.blob(b'{"a":1}', "application/x"))
    with pytest.raises(KitcacheError, match="tag 'what' is not a build cache but something else"):
        trim(one.dir, "what", 10)


def test_no_such_tag(one: Stages) -> None:
    with pytest.raises(NotFound, match=r"no entry of index\.json has the tag 'nope'"):
        trim(one.dir, "nope", 10)
    with pytest.raises(NotACache):
        trim(one.box.top, "main", 10)


def test_of_two_tags_on_one_root_only_the_named_one_moves(one: Stages) -> None:
    one.box.tag("alias", one.main)
    done = trim(one.dir, "main", limit_for(2))
    assert entries(one.dir)["alias"]["digest"] == one.main["digest"]
    assert entries(one.dir)["main"]["digest"] == str(done.after)
    assert witness.holes(one.dir) == ()
    assert done.after_size.bytes <= limit_for(2)


@pytest.mark.parametrize("more", [{}, {"platform": {"os": "linux", "architecture": "arm64"}}])
def test_all_entries_of_the_tag_move_together(one: Stages, more: Json) -> None:
    one.box.tag("main", one.main | more)
    done = trim(one.dir, "main", limit_for(4))
    listed = json.loads((one.dir / "index.json").read_bytes())["manifests"]
    named = [e["digest"] for e in listed if e["annotations"][REF_NAME] == "main"]
    assert named == [str(done.after), str(done.after)]
    assert done.after_size.bytes <= limit_for(4)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_tag_that_stands_for_two_things_is_refused(one: Stages, dry_run: bool) -> None:
    """To cut the first alone would not make all that the tag reaches fit."""
    one.box.tag("main", one.dev)
    before = take_snapshot(one.box.top)
    with pytest.raises(UsageError, match=r"'main' names 2 roots in index\.json") as caught:
        trim(one.dir, "main", limit_for(4), dry_run=dry_run)
    after = {n: e for n, e in take_snapshot(one.box.top).items() if n not in OURS}
    assert differences(before, after) == []
    assert caught.value.details == (one.main["digest"], one.dev["digest"])
    assert caught.value.hints == (
        "trim everything that the tags reach",
        f"let the tag name one of them: kitcache tag {one.dir} {one.main['digest']} main",
    )


@pytest.mark.parametrize("is_entry", [True, False])
def test_the_subject_of_the_index_is_no_tag(one: Stages, is_entry: bool) -> None:
    document = one.box.index_document()
    main, dev, image = document["manifests"]
    document |= {"manifests": [main, dev, image] if is_entry else [dev, image], "subject": main}
    one.box.write_index(encode(document))
    if is_entry:
        done = trim(one.dir, "main", limit_for(4))
        document["manifests"][0] = main | {"digest": str(done.after)}
    else:
        with pytest.raises(NotFound, match="has the tag 'main'"):
            trim(one.dir, "main", limit_for(4))
    after = json.loads((one.dir / "index.json").read_bytes())
    assert after["subject"] == main
    assert [e["digest"] for e in after["manifests"]] == [e["digest"] for e in document["manifests"]]


def test_a_layer_of_an_unknown_type_goes_from_an_index_too(tmp_path: Path) -> None:
    """There its role is a manifest's, as that of all that an index lists."""
    box = Box(tmp_path)
    layers = [box.blob(f"layer {n}".encode() * 100, "application/x.unknown") for n in range(2)]
    config = {
        "layers": [{"blob": layer["digest"], "parent": -1} for layer in layers],
        "records": [
            {
                "digest": f"sha256:{n:064}",
                "layers": [{"layer": n, "createdAt": f"20{n}0-01-01T00:00:00Z"}],
            }
            for n in range(2)
        ],
    }
    box.tag("main", box.index_of([*layers, box.document(config, CACHECONFIG)]))
    size = sum(path.stat().st_size for path in (box.dir / "blobs" / "sha256").iterdir())
    done = trim(box.dir, "main", size - 1)
    left = [path.stat().st_size for path in (box.dir / "blobs" / "sha256").iterdir()]
    assert (done.after_size.bytes, done.after_size.blobs) == (sum(left), 3)


def test_unknown_fields_survive(one: Stages) -> None:
    config = stages.cacheconfig_of(MAIN)
    config["future"] = {"a": 1}
    config["records"][0]["more"] = "said"
    described = one.box.document(config, stages.CACHECONFIG) | {"hint": "x"}
    layers = json.loads(one.box.path_of(one.main["digest"]).read_bytes())["layers"]
    root = one.box.manifest(layers, described, annotations={"who": "me"})
    one.box.tag("extra", root | {"platform": {"os": "linux", "architecture": "arm"}})
    trim(one.dir, "extra", limit_for(2))
    entry = entries(one.dir)["extra"]
    assert entry["platform"] == {"os": "linux", "architecture": "arm"}
    after = json.loads(one.box.path_of(entry["digest"]).read_bytes())
    assert (after["annotations"], after["config"]["hint"]) == ({"who": "me"}, "x")
    written = json.loads(one.box.path_of(after["config"]["digest"]).read_bytes())
    assert (written["future"], written["records"][0]["more"]) == ({"a": 1}, "said")


def test_a_missing_layer_is_no_hindrance_and_weighs_nothing(one: Stages) -> None:
    one.box.damage(stages.layer_of("old 1"), None)
    done = trim(one.dir, "main", limit_for(5))
    assert sorted(steps_in(one.dir, entries(one.dir)["main"])) == sorted(AS_THEY_GO[2:])
    assert done.reset is not None
    assert {str(leaf.digest) for leaf in done.reset.missing_blobs} == {stages.layer_of("old 1")}


def test_a_damaged_root_is_refused(one: Stages) -> None:
    for tag, root in (("main", one.main), ("dev", one.dev)):
        data = one.box.path_of(root["digest"]).read_bytes()
        one.box.damage(root["digest"], data[:40])
        with pytest.raises(Damaged, match=f"tag '{tag}' cannot be read"):
            trim(one.dir, "main", limit_for(2))
        one.box.damage(root["digest"], data)


@pytest.mark.parametrize("data", [None, b'{"layers":[]', b"{}"])
def test_a_damaged_cacheconfig_is_refused(one: Stages, data: bytes | None) -> None:
    """A sweep may go on without it, for its layers are listed beside it; a trim may not."""
    root = json.loads(one.box.path_of(one.main["digest"]).read_bytes())
    one.box.damage(root["config"]["digest"], data)
    before = take_snapshot(one.box.top)
    with pytest.raises(Damaged, match="tag 'main' cannot be trimmed: its cacheconfig") as caught:
        trim(one.dir, "main", limit_for(2))
    assert caught.value.facts["tag"] == "main"
    assert caught.value.effect == "nothing was changed"
    assert caught.value.hints == (f"kitcache verify {one.dir} --repair",)
    after = {n: e for n, e in take_snapshot(one.box.top).items() if n not in OURS}
    assert differences(before, after) == []


def test_a_cacheconfig_that_no_build_imports_is_refused(one: Stages) -> None:
    config = stages.cacheconfig_of(MAIN)
    config["records"][0]["inputs"] = [[{"link": 7}]]
    layers = json.loads(one.box.path_of(one.main["digest"]).read_bytes())["layers"]
    one.box.tag("loop", one.box.manifest(layers, one.box.document(config, stages.CACHECONFIG)))
    with pytest.raises(Damaged, match=r"tag 'loop' cannot be trimmed: its cacheconfig .* cycle"):
        trim(one.dir, "loop", limit_for(2))


def test_an_export_under_way_is_left_alone(one: Stages) -> None:
    one.box.ingest("under way", age_s=1)
    with pytest.raises(Busy, match="another client is exporting"):
        trim(one.dir, "main", limit_for(2))
    assert entries(one.dir)["main"]["digest"] == one.main["digest"]


@pytest.mark.parametrize("lock", ["kitcache.lock", "index.json.lock"])
def test_a_lock_that_is_not_had_leaves_the_tag_as_it_was(one: Stages, lock: str) -> None:
    with (one.dir / lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=lock):
            trim(one.dir, "main", limit_for(2), lock_timeout_s=0)
    assert entries(one.dir)["main"]["digest"] == one.main["digest"]
    assert trim(one.dir, "main", limit_for(2)).outcome == "done"


def test_cancelled_before_it_began(one: Stages) -> None:
    cancel = Event()
    cancel.set()
    with pytest.raises(Cancelled):
        trim(one.dir, "main", limit_for(2), cancel=cancel)
    assert entries(one.dir)["main"]["digest"] == one.main["digest"]


def test_a_link_in_place_of_blobs_is_refused(one: Stages) -> None:
    os.rename(one.dir / "blobs", one.box.top / "pool")
    (one.dir / "blobs").symlink_to("../pool")
    with pytest.raises(Unsafe):
        trim(one.dir, "main", limit_for(2))


def test_the_note_of_the_export_moves_with_the_tag(one: Stages) -> None:
    with open_store(one.dir) as layout:
        digests = {"main": one.main["digest"], "dev": one.main["digest"]}
        record_use(layout, digests, "exported", 5, digests=digests)
        done = trim(one.dir, "main", limit_for(2))
        notes = read_tag_uses(layout)
        trim(one.dir, "dev", limit_for(2))
        assert read_tag_uses(layout)["dev"] == notes["dev"], "it speaks of another export"
    assert notes["main"].digest == str(done.after)
    assert notes["main"].exported_ns == 5
    assert notes["dev"].digest == one.main["digest"], "of another tag nothing is known"


def test_its_sweep_is_one_that_was_not_left_out(one: Stages) -> None:
    with open_store(one.dir) as layout:
        count_skipped_sweep(layout)
        trim(one.dir, "main", limit_for(2))
        assert read_skipped_sweeps(layout) == 0
