"""docs/guarantees.md, "Caches in S3 and Azure": each sentence has a test that fails without it."""

import ast
import json
import re
from collections.abc import Callable, Iterator

import pytest

from kitcache.errors import UsageError
from kitcache.gc.collect import survey_and_plan
from kitcache.gc.sweep import dry_run_sweep
from kitcache.options.prunepolicy import PrunePolicy, PruneRule
from kitcache.options.sweep import SweepOptions
from kitcache.upkeep.pruning.prune import prune_after_export
from tests.docs.blocks import ROOT
from tests.objects.test_store import CONFIRMED, CONTROL, HOUR_NS, LIVE, Bucket, names

TESTS = ROOT / "tests"
STORE = "objects/test_store.py::"
HERE = "objects/test_guarantees.py::"
SENTENCES = {
    "If in doubt, kitcache keeps the blob.": [],
    "If a root cannot be read or is not a cacheconfig, nothing is deleted: exit code 12, and the"
    " error names the root.": [f"{STORE}test_a_root_that_is_not_a_cacheconfig_stops_the_sweep"],
    "Only a key that is exactly the blobs' prefix and a digest is deleted; every other key is"
    " foreign, and kept.": [f"{HERE}test_only_keys_that_are_digests_are_deleted"],
    "Young blobs are kept.": [],
    "No blob is deleted that is younger than touch_refresh plus --export-time, by the store's own"
    " clock.": [
        f"{STORE}test_a_blob_younger_than_the_grace_is_kept",
        f"{HERE}test_the_grace_is_touch_refresh_and_the_export_time",
    ],
    "A minimum age below touch_refresh is refused: exit code 2.": [
        f"{HERE}test_a_minimum_age_below_touch_refresh_is_refused"
    ],
    "kitcache lists again before it deletes.": [],
    "Before each batch the roots are listed again; if one has changed, the sweep stops and plans"
    " again with it.": [
        f"{STORE}test_a_root_that_is_published_during_the_sweep_is_read",
        f"{HERE}test_a_root_between_two_batches_keeps_its_blobs",
    ],
    "On S3 the keys of the batch are listed again too, and a blob with a renewed date is kept.": [
        f"{HERE}test_a_blob_that_was_renewed_before_the_last_look_is_kept"
    ],
    "In a bucket with versions, the version that was listed is deleted, so a blob that is renewed"
    " at that moment is kept.": [
        f"{STORE}test_a_renewed_blob_is_kept_if_the_renewal_came_after_the_last_look"
    ],
    "On Azure, the deletion names the ETag that was listed, with the same effect.": [
        f"{HERE}test_azure_deletes_only_what_was_listed"
    ],
    "A store that cannot protect exports is detected.": [],
    "If a listing does not show a renewed date, nothing is deleted (exit code 13).": [
        f"{STORE}test_a_store_that_does_not_show_renewals_is_refused"
    ],
    "If the date of the store's answers and the date of an object written just now differ by more"
    " than 15 minutes, nothing is deleted either (exit code 13).": [
        f"{STORE}test_a_store_with_two_clocks_is_refused"
    ],
    "If a document next to the cache looks like a root that uses blobs of the cache, nothing is"
    " deleted either (exit code 13), and the error names the document.": [
        f"{STORE}test_roots_of_another_prefix_that_use_the_blobs_stop_the_sweep"
    ],
    "Blobs that were live lately are kept.": [],
    "A blob that was live in a run within the grace is kept, so a running build keeps the blobs of"
    " a root that was replaced.": [
        f"{STORE}test_a_blob_that_was_live_in_a_recent_run_is_kept_for_running_imports"
    ],
    "The newest run that is older than --export-time counts too, and a prune keeps the blobs of the"
    " roots that it removes.": [
        "objects/test_runs.py::test_a_running_import_keeps_its_blobs",
        "objects/test_runs.py::test_a_root_that_no_run_has_recorded_is_protected_when_prune_removes_it",
    ],
    "On Azure, where no date is renewed, a blob is deleted only after a whole grace in which"
    " kitcache's runs saw no root that names it.": [
        f"{STORE}test_azure_deletes_a_blob_only_after_a_whole_grace_without_a_root"
    ],
    "The first run on a cache, and a run that finds less than half of the live blobs of the run"
    " before, delete nothing without a confirmation: exit code 15.": [
        f"{STORE}test_the_first_run_needs_a_confirmation",
        f"{STORE}test_a_live_set_that_shrank_by_more_than_half_needs_a_confirmation",
    ],
    "If the record of these runs is damaged or was written by another version, nothing is deleted:"
    " exit code 12 or 13.": [
        f"{STORE}test_a_damaged_state_stops_the_sweep",
        f"{STORE}test_a_state_of_another_version_stops_the_sweep",
    ],
    "A loss is never silent.": [],
    "After the last batch, the roots are read again: if a new root lacks a blob that was deleted,"
    " the exit code is 12, and the error names the root and the blob.": [
        f"{STORE}test_a_loss_is_reported_with_the_name_and_the_blob"
    ],
    "On a plain S3 bucket such a loss is possible if an export renews a blob between the last look"
    " and the deletion, which is one request later.": [
        f"{STORE}test_a_loss_is_reported_with_the_name_and_the_blob"
    ],
    "If its root is published after the run, the next run reports it; with --settle the run waits"
    " for --export-time and reports it.": [
        f"{STORE}test_a_root_that_is_published_after_the_sweep_is_found_if_the_run_settles"
    ],
    "In an Azure account with soft delete, the blob is restored.": [
        "objects/test_azure_cache.py::test_soft_delete_restores_what_such_a_root_needs"
    ],
    "If kitcache is killed at any request, it leaves unreachable blobs, never a root that lacks a"
    " blob.": [
        f"{HERE}test_a_reset_that_is_killed_at_any_request",
        f"{HERE}test_a_prune_that_is_killed_at_any_request",
    ],
    "Roots are removed or rewritten first, and only if no other client has changed them since they"
    " were read.": [
        f"{HERE}test_a_prune_removes_roots_before_blobs",
        f"{STORE}test_a_root_is_replaced_only_if_it_has_not_changed",
    ],
    "A dry run changes nothing in the bucket: it sends only requests that list and read.": [
        f"{HERE}test_a_dry_run_lists_and_reads"
    ],
}
"""The sentences of the page, in order. A heading of an item has no test of its own."""


def test_the_page_has_these_sentences_and_no_other() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    section = text.partition("## Caches in S3 and Azure\n")[2].partition("\n## ")[0]
    items = section[section.index("\n1. ") :]
    items = re.sub(r"^\d\. ", "", items, flags=re.MULTILINE)
    items = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", items).replace("`", "").replace("**", "")
    assert " ".join(items.split()) == " ".join(SENTENCES)


@pytest.mark.parametrize("sentence", [s for s, tests in SENTENCES.items() if tests])
def test_each_sentence_has_a_test(sentence: str) -> None:
    for test in SENTENCES[sentence]:
        path, _, name = test.partition("::")
        tree = ast.parse((TESTS / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


class Killed(BaseException):
    """The failure of all requests after a kill."""


@pytest.fixture(params=["plain", "versioned"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    return make_cache(has_versions=request.param == "versioned")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test waits for the next second of the clock, which each copy advances here."""
    monkeypatch.setattr("kitcache.store.objects.checks.time.sleep", lambda _: None)


def make_cache(**abilities: bool) -> Bucket:
    """Three live blobs below two roots, and two old ones that no root names."""
    made = Bucket(**abilities)
    live = [made.blob(b"one"), made.blob(b"two"), made.blob(b"three")]
    made.blob(b"old")
    made.blob(b"older")
    made.root("main", *live[:2])
    made.root("feature/x", *live[1:])
    made.age(49)
    advance_with(made, "copy")
    return made


def advance_with(bucket: Bucket, kind: str) -> None:
    def advance(sent: str, key: str) -> None:
        if sent == kind:
            bucket.age(0.001)

    bucket.client.hooks.append(advance)


def missing(bucket: Bucket) -> dict[str, set[str]]:
    """Return the blobs that each root lacks."""
    lacking = {}
    for key in list(bucket.client.versions):
        held = bucket.client._current(key) if "/manifests/" in key else None
        if held is not None:
            wanted = {
                layer["blob"].removeprefix("sha256:") for layer in json.loads(held[1])["layers"]
            }
            lacking[key] = wanted - bucket.blobs
    return {key: blobs for key, blobs in lacking.items() if blobs}


def on(bucket: Bucket, matches: Callable[[str, str], bool], act: Callable[[], object]) -> None:
    """Act once, before the first request that matches."""
    done: list[None] = []

    def hook(kind: str, key: str) -> None:
        if not done and matches(kind, key):
            done.append(None)
            act()

    bucket.client.hooks.append(hook)


def test_only_keys_that_are_digests_are_deleted(bucket: Bucket) -> None:
    digest = "0" * 64
    foreign = [f"sha256:{digest}{more}" for more in ("0", "/x", "-")]
    foreign += [f"sha256:{digest[1:]}", f"sha256:{'A' * 64}", f"sha512:{digest * 2}", f"/{digest}"]
    for name in foreign:
        bucket.client.write(f"ci/blobs/{name}", b"foreign")
    bucket.client.write(f"ci/blob/sha256:{digest}", b"foreign")
    bucket.client.write(f"blobs/sha256:{digest}", b"foreign")
    bucket.age(49)
    swept = bucket.reset()
    assert swept.deleted.blobs == 2
    assert bucket.blobs & names(b"one", b"old") == names(b"one")
    assert bucket.client.versions.keys() >= {
        *(f"ci/blobs/{name}" for name in foreign),
        f"ci/blob/sha256:{digest}",
        f"blobs/sha256:{digest}",
    }


@pytest.mark.parametrize(("hours", "is_deleted"), [(72 + 9, False), (72 + 11, True)])
def test_the_grace_is_touch_refresh_and_the_export_time(hours: int, is_deleted: bool) -> None:
    cache = make_cache()
    cache.cache = cache.cache._replace(touch_refresh_ns=72 * HOUR_NS)
    cache.age(hours - 49)
    cache.reset(SweepOptions(confirmed=True, export_time_ns=10 * HOUR_NS))
    assert (cache.blobs == LIVE) == is_deleted


def test_a_minimum_age_below_touch_refresh_is_refused(bucket: Bucket) -> None:
    with pytest.raises(UsageError, match="is less than touch_refresh") as caught:
        bucket.reset(SweepOptions(min_age_ns=23 * HOUR_NS, confirmed=True))
    assert (caught.value.exit_code, len(bucket.blobs)) == (2, 5)


def test_a_root_between_two_batches_keeps_its_blobs() -> None:
    cache = make_cache()
    cache.client.delete_batch_size = 1
    late = max(names(b"old", b"older"))
    on(
        cache,
        lambda kind, key: kind == "delete" and "blobs" in key,
        lambda: cache.root("late", late),
    )
    cache.reset()
    assert (cache.blobs, missing(cache)) == (LIVE | {late}, {})


def test_a_blob_that_was_renewed_before_the_last_look_is_kept(bucket: Bucket) -> None:
    """The blob is renewed after the listing of the plan. The listing of the batch shows it."""
    (old,) = names(b"old")
    on(
        bucket,
        lambda kind, key: kind == "put" and key.endswith("/live"),
        lambda: bucket.client.renew(f"ci/blobs/sha256:{old}"),
    )
    bucket.reset()
    assert bucket.blobs == LIVE | {old}


def test_azure_deletes_only_what_was_listed() -> None:
    cache = make_cache(renews=False)
    cache.reset()
    cache.age(49)
    on(cache, lambda kind, key: kind == "delete", lambda: cache.blob(b"old"))
    cache.reset()
    assert cache.blobs == LIVE | names(b"old")


def kill_at_each_request(
    make: Callable[[], Bucket], run: Callable[[Bucket], object]
) -> Iterator[Bucket]:
    """Yield a cache for each request of a run: the run was killed before that request."""
    number = 0
    is_killed = True
    while is_killed:
        cache, left, number = make(), [None] * number, number + 1

        def kill(kind: str, key: str, left: list[None] = left) -> None:
            if not left:
                raise Killed
            left.pop()

        cache.client.hooks.append(kill)
        try:
            run(cache)
            is_killed = False
        except Killed:
            pass
        cache.client.hooks.remove(kill)
        yield cache


@pytest.mark.parametrize("has_versions", [False, True])
def test_a_reset_that_is_killed_at_any_request(has_versions: bool) -> None:
    count = 0
    for cache in kill_at_each_request(lambda: make_cache(has_versions=has_versions), Bucket.reset):
        count += 1
        assert missing(cache) == {}
        cache.reset()
        assert cache.blobs == LIVE
    assert count > 10


@pytest.mark.parametrize("has_versions", [False, True])
def test_a_prune_that_is_killed_at_any_request(has_versions: bool) -> None:
    def make() -> Bucket:
        cache = make_cache(has_versions=has_versions)
        cache.reset()
        cache.age(1)
        cache.root("new", *names(b"one", b"two"))
        cache.age(100)
        return cache

    count = 0
    for cache in kill_at_each_request(make, prune):
        count += 1
        assert missing(cache) == {}
        prune(cache)
        assert missing(cache) == {}
        assert cache.blobs == LIVE  # A running build may read a root that was removed just now.
        cache.age(49)
        prune(cache)
        assert cache.blobs == names(b"one", b"two")
    assert count > 10


def prune(cache: Bucket) -> None:
    policy = PrunePolicy(rules=(PruneRule(keep_last=1),))
    with cache.store() as store:
        result = prune_after_export(store, {"new"}, policy, CONTROL)
    assert result.reset.outcome == "done", result.reset.reason


def test_a_prune_removes_roots_before_blobs(bucket: Bucket) -> None:
    bucket.reset()
    bucket.root("new", *names(b"one", b"two"))
    bucket.blob(b"garbage")
    bucket.age(100)
    seen: list[bool] = []
    bucket.client.hooks.append(
        lambda kind, key: seen.append("/manifests/" in key) if kind == "delete" else None
    )
    prune(bucket)
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {True, False}


def test_a_dry_run_lists_and_reads(bucket: Bucket) -> None:
    before = dict(bucket.client.versions)
    bucket.client.requests.clear()
    with bucket.store() as store:
        dry_run_sweep(survey_and_plan(store, CONFIRMED, CONTROL, None).plan, store, CONTROL)
    assert bucket.client.requests.keys() <= {"list", "get", "head"}
    assert bucket.client.versions == before
