"""buildkit/caches.py with a policy: which tags go after an export, and what is said of it."""

import fcntl
from collections.abc import Sequence
from pathlib import Path

import pytest

from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.result import BuildResult
from kitcache.cli.cachetext import cache_lines, excess_lines
from kitcache.cli.jsonout import shape_metadata
from kitcache.options.build import BuildRequest
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule
from tests.hostile import stages
from tests.hostile.stages import Stages
from tests.unit.buildkit.cachekit import CACHE, OTHER, blobs, local, locked, run, tags
from tests.unit.buildkit.session.exporter import Exported, make_cache
from tests.unit.buildkit.test_build import NOWHERE, Run

LAST_ONE = PrunePolicy(rules=(PruneRule(keep_last=1),))
ALL = PrunePolicy(keep_tags=("*",))


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A cache with the tags a and b, and the garbage of an older b."""
    root = tmp_path / "c"
    run([local(root, "a")], make_cache([b"a" * 500]))
    run([local(root, "b")], make_cache([b"old b" * 500]))
    run([local(root, "b")], OTHER)
    return root


def test_the_tags_that_it_retires_go_with_their_blobs(grown: Path) -> None:
    (result,) = run([local(grown, "new")], CACHE, policy=LAST_ONE)
    assert tags(grown) == {"new": CACHE.root}
    assert blobs(grown) == CACHE.digests
    assert result.prune is not None
    assert result.reset == result.prune.reset
    assert [d.ref_name for d in result.prune.tags if not d.keep] == ["a", "b"]
    assert (result.outcome, result.exit_code) == ("published", 0)


def test_it_implies_the_reset_and_without_it_no_tag_goes(grown: Path) -> None:
    (plain,) = run([local(grown, "new", reset=True)], CACHE)
    assert (plain.prune, plain.reset is not None) == (None, True)
    assert set(tags(grown)) == {"a", "b", "new"}
    run([local(grown, "b")], CACHE)
    (kept,) = run([local(grown, "new")], CACHE, policy=ALL)
    assert kept.reset is not None
    assert kept.reset.deleted.blobs > 0
    assert set(tags(grown)) == {"a", "b", "new"}


def test_every_directory_has_it_applied_once(grown: Path, tmp_path: Path) -> None:
    other = tmp_path / "d"
    run([local(other, "old")], OTHER)
    exports = [local(grown, "x"), local(other, "x"), local(grown, "y")]
    results = run(exports, CACHE, CACHE, policy=LAST_ONE)
    assert [result.tag for result in results if result.prune] == ["y", "x"]
    assert set(tags(grown)) == {"x", "y"}
    assert set(tags(other)) == {"x"}


def test_a_limit_that_is_not_reached_is_told_and_no_failure(grown: Path) -> None:
    policy = PrunePolicy(max_used=DiskSpace(bytes=10), source="cache.toml")
    (result,) = run([local(grown, "new")], CACHE, policy=policy)
    assert result.exit_code == 0
    assert result.prune is not None
    assert set(tags(grown)) == {"new"}
    (line,) = excess_lines(result.prune)
    assert line.startswith(f"{grown}: the kept tags need ")
    assert line.endswith(" more than max-used-space 10 B allows")


def test_the_digest_is_the_one_that_the_tag_has_after_a_trim(grown: Path, tmp_path: Path) -> None:
    """Both are of one export, whose root has gone by then."""
    cache = stages.make_stages(tmp_path / "made")
    files = [(digest, cache.box.path_of(digest).read_bytes()) for digest in _below(cache)]
    exported = Exported(tuple(files), cache.main["digest"])
    policy = PrunePolicy(keep_tags=("*",), max_used=DiskSpace(bytes=10), trim=True)
    results = run([local(grown, "new"), local(grown, "again")], exported, policy=policy)
    found = tags(grown)
    assert [r.digest for r in results] == [found["new"], found["again"]]
    assert cache.main["digest"] not in found.values()


def _below(cache: Stages) -> list[str]:
    """The digests of what main reaches, its manifest last."""
    root = cache.main["digest"]
    return [*sorted(stages.reached(cache, [cache.main]) - {root}), root]


def test_while_others_export_it_is_left_to_them(grown: Path) -> None:
    with locked(grown, fcntl.LOCK_SH):
        (result,) = run([local(grown, "new")], CACHE, policy=LAST_ONE)
    assert result.reset is not None
    assert (result.reset.outcome, result.exit_code) == ("skipped", 0)
    assert set(tags(grown)) == {"a", "b", "new"}


def test_after_an_export_that_failed_nothing_goes(grown: Path) -> None:
    (result,) = run([local(grown, "new")], None, policy=LAST_ONE)
    assert (result.outcome, result.prune, result.reset) == ("empty", None, None)
    assert set(tags(grown)) == {"a", "b"}


def lines(results: Sequence[object], root: Path) -> list[str]:
    said = cache_lines(results)  # type: ignore[arg-type]
    return [line.replace(str(root), "c") for line in said]


def test_what_people_and_machines_are_told(grown: Path) -> None:
    results = run([local(grown, "new")], CACHE, policy=LAST_ONE)
    said = lines(results, grown)
    assert said[1] == "c: removed 2 of 3 tags: 'a', 'b'"
    assert said[2].startswith("c: deleted ")
    shape = shape_metadata(BuildResult("ref", None, {}, caches=tuple(results)))
    (export,) = shape["kitcache.caches"]
    assert export["prune"]["schema"] == "kitcache.prune/1"
    assert export["reset"] == export["prune"]["reset"]
    assert [tag["keep"] for tag in export["prune"]["tags"]] == [False, False, True]


def test_nothing_dropped_is_told_too(grown: Path) -> None:
    results = run([local(grown, "new")], CACHE, policy=ALL)
    assert lines(results, grown)[1] == "c: removed 0 of 3 tags"


def test_a_policy_without_a_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    told = Run(
        BuildRequest(str(tmp_path), outputs=NOWHERE), BuildOptions(prune_policy=LAST_ONE)
    ).told
    assert "the policy applies to no cache: nothing is exported to type=local, s3 or azblob" in told
