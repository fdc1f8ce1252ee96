"""cli/commands/prune.py: words to a policy, and a result to lines."""

import argparse
import json
import os
from pathlib import Path

import pytest

from kitcache.cli.commands.prune import prune_lines, read_policy
from kitcache.cli.parser import parse_words
from kitcache.errors import UsageError
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule
from kitcache.store.open import open_store
from kitcache.store.state import record_use
from kitcache.upkeep.pruning.prune import prune
from tests.hostile.build import Sample, make_sample
from tests.hostile.command import run
from tests.unit.test_exit_codes import stubborn_cache

DAY_NS = 86_400 * 10**9


def parsed(*words: str) -> argparse.Namespace:
    args = parse_words(["prune", *words, "cache"])
    assert args is not None
    return args


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), PrunePolicy()),
        (("--max-used-space", "5GB"), PrunePolicy(max_used=DiskSpace(bytes=5 * 10**9))),
        (("--min-free-space", "10%"), PrunePolicy(min_free=DiskSpace(percentage=10.0))),
        (("--keep-tag", "main", "--keep-tag", "v*"), PrunePolicy(keep_tags=("main", "v*"))),
        (("--drop-tag", "pr-*", "--drop-tag", "x"), PrunePolicy(drop_tags=("pr-*", "x"))),
        (
            ("--keep-last", "3", "--keep-within", "7d", "--unused-for", "30d"),
            PrunePolicy(rules=(PruneRule("", ("*",), False, 3, 7 * DAY_NS, 30 * DAY_NS),)),
        ),
        (("--unused-for", "0s"), PrunePolicy(rules=(PruneRule(unused_for_ns=0),))),
        (
            ("--max-used-space", "1GiB", "--trim", "--allow-empty"),
            PrunePolicy(max_used=DiskSpace(bytes=2**30), trim=True, allow_empty=True),
        ),
    ],
)
def test_words_are_a_policy(words: tuple[str, ...], expected: PrunePolicy) -> None:
    expected = expected._replace(key_prefix="--")
    assert read_policy(parsed(*words)) == expected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--max-used-space", "5 gigs"), "'5 gigs' is not a size; known forms: 5GB"),
        (("--keep-last", "-1"), "'-1' is not a number of tags"),
        (("--keep-last", "many"), "'many' is not a number of tags"),
        (("--unused-for", "soon"), "'soon' is not an age; known forms: 90s"),
        (("--unused-for", "30"), "argument --unused-for: '30' has no unit"),
        (("--keep-within", "30"), "argument --keep-within: '30' has no unit"),
        (("--keep-last", "0"), "keeps nothing"),
        (("--keep-tag", "main", "--trim"), "--trim needs a limit"),
        (("--keep-tag", "*", "--drop-tag", "a"), "--drop-tag a removes no tag: --keep-tag * keeps"),
        (("--policy", "p", "--unused-for", "0s"), "--unused-for with --policy"),
        (("--policy", "p", "--trim", "--keep-tag", "a"), "--keep-tag, --trim with --policy"),
    ],
)
def test_words_that_are_none(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_policy(parsed(*words))
    assert says in str(caught.value)


def test_a_file_says_the_same(sample: Sample) -> None:
    (sample.box.top / "p.toml").write_text('keep-tag = "main"\n')
    by_file = run(sample.box.top, "prune", "--policy", "p.toml", "--dry-run", "--json", "cache")
    by_words = run(sample.box.top, "prune", "--keep-tag", "main", "--dry-run", "--json", "cache")
    keeps = [[tag["keep"] for tag in answer.value["tags"]] for answer in (by_file, by_words)]
    assert keeps == [[True, False]] * 2
    assert by_file.value["tags"][0]["reason"] == "keep-tag main"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xef\xbb\xbfkeep-last = 1\r\n", "would remove 1 of 2 tags"),
        (b"keep-last = 0x" + b"f" * 5000, "keep-last: is more tags than any cache has"),
        (b"#" * (64 * 1024 + 1), "a policy has at most 65,536 bytes"),
    ],
)
def test_an_odd_file(sample: Sample, data: bytes, says: str) -> None:
    (sample.box.top / "p.toml").write_bytes(data)
    answer = run(sample.box.top, "prune", "--policy", "p.toml", "--dry-run", "cache")
    assert says in answer.out + answer.err
    assert answer.code == (0 if answer.out else 2)


def test_each_dir_is_pruned_on_its_own_and_the_worst_code_counts(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_sample(tmp_path / name)
    answer = run(
        tmp_path, "prune", "--keep-tag", "main", "one/cache", "nowhere", "two/cache", "--json"
    )
    assert answer.code == 10
    assert [value["exit_code"] for value in answer.values] == [0, 10, 0]
    for name in ("one", "two"):
        index = json.loads((tmp_path / name / "cache" / "index.json").read_bytes())
        assert len(index["manifests"]) == 1


def test_quiet_leaves_warnings(sample: Sample) -> None:
    forgotten = run(sample.box.top, "prune", "--quiet", "cache")
    assert (forgotten.code, forgotten.out) == (0, "")
    assert "no policy was named" in forgotten.err
    done = run(sample.box.top, "prune", "--quiet", "--keep-tag", "main", "cache")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_a_name_that_is_no_tag_is_told(sample: Sample) -> None:
    words = ("--keep-tag", "mian", "--keep-tag", "d*", "--keep-tag", "x*", "cache")
    answer = run(sample.box.top, "prune", "--dry-run", *words)
    assert answer.err == "kitcache: cache: --keep-tag mian matches no tag; did you mean main?\n"
    (sample.box.top / "p.toml").write_text('keep-tag = ["mian", "d*"]\n')
    for_many = run(sample.box.top, "prune", "--dry-run", "--policy", "p.toml", "cache")
    assert for_many.err == ""


def test_a_name_that_is_no_tag_drops_nothing_where_none_is_kept(sample: Sample) -> None:
    answer = run(sample.box.top, "prune", "--keep-tag", "mian", "cache")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "kitcache: cache: no tag matches --keep-tag mian: prune would remove 1 of 2 tags\n"
        "  nothing was changed\n"
        "  hint: did you mean 'main'?\n"
        "  hint: to remove them anyway, add --unused-for 0s\n"
    )
    assert len(json.loads((sample.dir / "index.json").read_bytes())["manifests"]) == 2


def test_an_empty_cache_has_no_tags(sample: Sample) -> None:
    sample.box.write_index(b'{"schemaVersion":2,"manifests":[]}')
    assert run(sample.box.top, "prune", "--dry-run", "cache").out == "cache: no tags\n"


def test_a_file_that_says_nothing_is_named(sample: Sample) -> None:
    (sample.box.top / "p.toml").write_text("keep-tag = []\n")
    answer = run(sample.box.top, "prune", "--policy", "p.toml", "cache")
    assert answer.code == 0
    assert "cache: p.toml applies to no tag: every tag is kept" in answer.err
    assert len(json.loads((sample.dir / "index.json").read_bytes())["manifests"]) == 2


def test_files_that_stay_are_told(tmp_path: Path) -> None:
    with stubborn_cache(tmp_path) as (_, run_here):
        answer = run_here("prune", "--keep-tag", "main", "cache")
        assert (answer.code, "could not be deleted" in answer.err) == (3, True)


def test_noted_uses_have_no_mark_and_no_footnote(sample: Sample) -> None:
    now_ns = 10**18
    with open_store(sample.dir) as layout:
        record_use(layout, ["main"], "exported", now_ns - 3 * DAY_NS)
    os.utime(sample.box.path_of(sample.main["digest"]), (0, 0))
    os.utime(sample.box.path_of(sample.dev["digest"]), (0, 0))
    policy = PrunePolicy(keep_tags=("*",))
    mixed = list(prune_lines(prune(sample.dir, policy, dry_run=True), now_ns))
    assert mixed[2].split()[:2] == ["main", "3"]
    assert mixed[3].split()[1].startswith("~")
    assert mixed[4].startswith("~ not recorded")
    with open_store(sample.dir) as layout:
        record_use(layout, ["dev"], "imported", now_ns - DAY_NS)
    noted = list(prune_lines(prune(sample.dir, policy, dry_run=True), now_ns))
    assert not any("~" in line for line in noted)


def test_tags_to_drop(sample: Sample) -> None:
    dry = run(sample.box.top, "prune", "--drop-tag", "d*", "--dry-run", "--json", "cache")
    assert [tag["keep"] for tag in dry.value["tags"]] == [True, False]
    assert dry.value["tags"][1]["reason"] == "--drop-tag d*"
    answer = run(sample.box.top, "prune", "--drop-tag", "d*", "cache")
    assert (answer.code, answer.err) == (0, "")
    left = json.loads((sample.dir / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in left] == [sample.main["digest"]]


def test_a_tag_to_drop_that_is_not_there_is_told(sample: Sample) -> None:
    answer = run(sample.box.top, "prune", "--drop-tag", "mian", "--drop-tag", "x*", "cache")
    assert answer.code == 0
    assert answer.err == "kitcache: cache: --drop-tag mian matches no tag; did you mean main?\n"
    assert len(json.loads((sample.dir / "index.json").read_bytes())["manifests"]) == 2
