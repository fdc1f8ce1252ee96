"""Our reset beside BuildKit's own, cache by cache; wherever they differ, why we are right.

What BuildKit's `reset=true` (client/solve.go, August 2026) does with each directory was recorded
in expect.json as `upstream_keep`. REASONS is the whole list of differences: one that is not in
it fails the test, and so does one that is no difference any more.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import kitcache
from tests.caches.harness import Expectation, read_expectations, resolve, unpack
from tests.caches.snapshot import Tree, take_snapshot
from tests.caches.steps import Stage

EXPECTATIONS = read_expectations()
HOUR_NS = 3600 * 10**9


class Reason(NamedTuple):
    """Why we are right, and the caches where it shows. We keep more, or we remove more."""

    because: str
    we_keep: tuple[str, ...] = ()
    we_remove: tuple[str, ...] = ()


REASONS: dict[str, Reason] = {
    "doubt": Reason(
        because="BuildKit takes a blob whose media type it does not know for a leaf, and removes"
        " what hangs below it; we look inside first",
        we_keep=("mt-missing-everywhere", "mt-missing-on-root", "mt-oci-artifact-manifest"),
    ),
    "referrers": Reason(
        because="BuildKit does not follow `subject`: what a signature signs would go",
        we_keep=("subject-chain",),
    ),
    "proof": Reason(
        because="BuildKit believes a manifest whose digest or size does not match, and an entry"
        " that is null; it could hide any layer, so we refuse",
        we_keep=(
            "index-entry-null",
            "index-size-huge",
            "index-size-negative",
            "torn-manifest-digest-lies",
        ),
    ),
    "not a blob": Reason(
        because="BuildKit removes links, pipes, sockets and files in directories that are named"
        " like a digest; no exporter made them, so they are not ours to remove",
        we_keep=("fs-blob-symlink-garbage", "fs-dir-named-digest", "fs-fifo-garbage"),
    ),
    "age": Reason(
        because="BuildKit has no --min-age: what another export has just written would go",
        we_keep=("age-young-blob",),
    ),
    "locks": Reason(
        because="BuildKit unlinks index.json.lock after use, which takes the ground from under"
        " whoever holds it; we never unlink a lock",
        we_keep=("lock-index-stale-file",),
    ),
    "a busy lock": Reason(
        because="BuildKit tries index.json.lock once and gives up with a warning; we read"
        " without it",
        we_remove=("lock-index-held-3s",),
    ),
    "uploads": Reason(
        because="BuildKit never removes an upload that was left behind, however old",
        we_remove=("bk-interrupted", "ingest-stale"),
    ),
}
# BuildKit warns and exits 0 there, and for ever: its user learns nothing from a script.
LOUD = (
    "bk-interrupted-fresh",
    "digest-number",
    "digest-short",
    "index-bom",
    "index-empty-file",
    "index-half-written",
    "index-is-array",
    "index-missing",
    "index-nan",
    "race-7102-by-hand",
    "sk-sparse",
    "torn-manifest-missing",
    "torn-manifest-truncated",
    "torn-nested-index-missing",
)


class Verdict(NamedTuple):
    """What a collector removed, and whether it failed."""

    removed: frozenset[str]
    failed: bool


def upstream(wanted: Expectation, before: Tree) -> frozenset[str]:
    """What BuildKit removed of this tree."""
    ours = frozenset(resolve(word, before) for word in wanted.remove)
    return files(removed_upstream(wanted.upstream_keep, ours, before), before)


def removed_upstream(said: Any, ours: frozenset[str], before: Tree) -> frozenset[str]:
    match said:
        case "all":
            return frozenset()
        case "as keep":
            return ours
        case {"also_removes": list(words), **rest} if not rest:
            return ours | {resolve(word, before) for word in words}
        case {"leaves": list(words), **rest} if not rest:
            return files(ours, before) - {resolve(word, before) for word in words}
    raise ValueError(f"upstream_keep says {said!r}, which nobody here understands")


def files(names: frozenset[str], tree: Tree) -> frozenset[str]:
    """The names, directories replaced by all that lies in them."""
    return frozenset(
        below
        for name in names
        for below in tree
        if (below == name or below.startswith(f"{name}/")) and tree[below].kind != "directory"
    )


def our_verdict(wanted: Expectation, box: Path, stage: Stage) -> Verdict:
    """What the library's reset does, with the options of the expectation."""
    min_age_ns = HOUR_NS if wanted.args == ["--min-age", "1h"] else 0
    assert wanted.args == (["--min-age", "1h"] if min_age_ns else [])
    before = take_snapshot(box)
    newest_ns = max(path.lstat().st_mtime_ns for path in box.rglob("*"))
    # What was written in the same tick of the clock would count as written meanwhile.
    while newest_ns <= time.time_ns() < newest_ns + 10**8:
        pass
    stage.start()
    try:
        report = kitcache.reset(
            box / wanted.dir, options=kitcache.SweepOptions(min_age_ns=min_age_ns)
        )
        failed = report.exit_code != 0
    except kitcache.KitcacheError:
        failed = True
    after = take_snapshot(box)
    return Verdict(files(frozenset(before.keys() - after.keys()), before), failed)


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_every_difference_has_its_reason(name: str, tmp_path: Path) -> None:
    wanted = EXPECTATIONS[name]
    with Stage(unpack(name, tmp_path)) as stage:
        stage.do(wanted.setup)
        before = take_snapshot(tmp_path)
        ours = our_verdict(wanted, tmp_path, stage)
    theirs = upstream(wanted, before)
    allowed = files(frozenset(resolve(word, before) for word in wanted.allow), before)
    kept = {key for key, reason in REASONS.items() if name in reason.we_keep}
    removed = {key for key, reason in REASONS.items() if name in reason.we_remove}
    assert bool(theirs - ours.removed) == bool(kept), sorted(theirs - ours.removed)
    assert bool(ours.removed - theirs - allowed) == bool(removed), sorted(ours.removed - theirs)
    nothing_goes = not ours.removed and not theirs
    assert (ours.failed and nothing_goes) == (name in LOUD)


def test_the_reasons_are_about_caches_that_are_here() -> None:
    named = [name for r in REASONS.values() for name in (*r.we_keep, *r.we_remove)]
    assert len(named) == len(set(named))
    assert {*named, *LOUD} <= EXPECTATIONS.keys()
    assert all(reason.because for reason in REASONS.values())


def test_a_word_that_nobody_understands_is_an_error() -> None:
    unknown: list[Any] = ["half", {"also_removes": [], "leaves": []}, None, "does not end"]
    for said in unknown:
        with pytest.raises(ValueError, match="nobody here understands"):
            removed_upstream(said, frozenset(), {})
