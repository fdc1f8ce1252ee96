"""naming/untag.py: entries out of index.json, all or none, under both locks."""

import fcntl
import json
import os
from typing import Any

import pytest

from kitcache.errors import Busy, Damaged, NotFound, UsageError
from kitcache.store.layout import Layout
from kitcache.store.state import read_tag_uses, record_use
from kitcache.upkeep.naming.untag import untag
from kitcache.upkeep.results import UntagResult
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile import pair, strangers
from tests.hostile.build import REF_NAME, Sample


def tags(sample: Sample) -> list[Any]:
    index = json.loads((sample.dir / "index.json").read_bytes())
    return [entry.get("annotations", {}).get(REF_NAME) for entry in index["manifests"]]


def test_an_entry_goes_and_no_blob_does(sample: Sample) -> None:
    before = os.listdir(sample.dir / "blobs" / "sha256")
    done = untag(sample.dir, ["main"])
    assert done == UntagResult(str(sample.dir), "done", (("main", sample.main["digest"]),))
    assert tags(sample) == ["dev"]
    assert os.listdir(sample.dir / "blobs" / "sha256") == before


def test_a_string_is_one_name(sample: Sample) -> None:
    untag(sample.dir, "main")
    assert tags(sample) == ["dev"]


def test_several_names_tags_and_digests(sample: Sample) -> None:
    sample.box.tag(None, sample.dev)
    done = untag(sample.dir, iter(["main", sample.dev["digest"]]))
    assert tags(sample) == []
    assert done.entries == (
        ("main", sample.main["digest"]),
        ("dev", sample.dev["digest"]),
        (None, sample.dev["digest"]),
    )


def test_nothing_is_written_while_buildkit_s_lock_is_held(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BuildKit never waits for it: the new file is on the disk before, and only gets its name."""
    lock = sample.dir / "index.json.lock"
    lock.touch()
    real, free = os.fsync, []

    def watch(fd: int) -> None:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fsync", watch)
    untag(sample.dir, ["main"])
    assert len(free) == 2
    assert tags(sample) == ["dev"]
    assert os.listdir(sample.dir / ".kitcache") == []


def test_who_publishes_just_before_it_has_the_lock_is_heard(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = strangers.push_cache(sample.dir, [b"layer of a stranger"], 1)
    publish = lambda: strangers.publish(sample.dir, "late", *late)  # noqa: E731
    pair.after(monkeypatch, "kitcache.store.commit.write_file", publish)
    untag(sample.dir, ["main"])
    assert tags(sample) == ["dev", "late"]


def test_an_index_that_is_torn_until_it_is_locked_is_no_damage(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sample.dir / "index.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    pair.after(monkeypatch, "kitcache.store.commit._prepare", lambda: path.write_bytes(whole))
    untag(sample.dir, ["main"])
    assert tags(sample) == ["dev"]


def test_if_one_name_is_not_there_nothing_changes(sample: Sample) -> None:
    before = take_snapshot(sample.dir / "index.json")
    for dry_run in (True, False):
        with pytest.raises(
            NotFound, match="has the tag or digest 'nope' or the tag or digest 'none'"
        ) as caught:
            untag(sample.dir, ["main", "nope", "none"], dry_run=dry_run)
        assert caught.value.effect == "nothing was changed"
    assert take_snapshot(sample.dir / "index.json") == before


def test_no_name_at_all_is_no_request(sample: Sample) -> None:
    with pytest.raises(UsageError, match="name at least one tag or digest"):
        untag(sample.dir, [])


def test_a_dry_run_touches_nothing_and_takes_no_lock(sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = take_snapshot(sample.dir)
        dry = untag(sample.dir, ["main"], dry_run=True)
        assert differences(before, take_snapshot(sample.dir)) == []
    assert (dry.outcome, dry.entries) == ("dry-run", (("main", sample.main["digest"]),))
    assert untag(sample.dir, ["main"]).entries == dry.entries


@pytest.mark.parametrize("name", ["kitcache.lock", "index.json.lock"])
def test_both_locks_are_needed(sample: Sample, name: str) -> None:
    with (sample.dir / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(Busy, match=f"{name} is held by") as caught:
            untag(sample.dir, ["main"], lock_timeout_s=0)
        assert caught.value.effect == "nothing was changed"
    assert tags(sample) == ["main", "dev"]


def test_what_is_noted_of_a_tag_goes_with_it(sample: Sample, layout: Layout) -> None:
    sample.box.tag("dev", sample.main)
    record_use(layout, ["main", "dev"], "exported", 5)
    untag(sample.dir, [sample.dev["digest"]], dry_run=True)
    untag(sample.dir, [sample.dev["digest"]])
    assert set(read_tag_uses(layout)) == {"main", "dev"}, "another entry of that name is there"
    untag(sample.dir, ["dev"])
    assert set(read_tag_uses(layout)) == {"main"}


def test_the_way_out_works_where_a_tag_is_damaged(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], None)
    untag(sample.dir, ["main"])
    assert tags(sample) == ["dev"]


def test_the_way_out_works_where_an_entry_is_malformed(sample: Sample) -> None:
    bad = {"digest": "sha256:../../x", "size": "7", "annotations": {REF_NAME: "bad"}}
    sample.box.entries.append(bad)
    sample.box.tag("last", sample.main)
    assert untag(sample.dir, ["bad"]).entries == (("bad", "sha256:../../x"),)
    assert tags(sample) == ["main", "dev", "last"]


@pytest.mark.parametrize("data", [None, b"{", b"[]", b'{"Manifests":[]}'])
@pytest.mark.parametrize("dry_run", [True, False])
def test_no_index_can_be_edited_that_cannot_be_read(
    sample: Sample, data: bytes | None, dry_run: bool
) -> None:
    if data is None:
        (sample.dir / "index.json").unlink()
    else:
        sample.box.write_index(data)
    with pytest.raises(Damaged, match=r"index.json is (missing|invalid or ambiguous)") as caught:
        untag(sample.dir, ["main"], dry_run=dry_run)
    assert caught.value.effect in ("nothing was changed", "nothing was deleted")
    path = sample.dir / "index.json"
    assert (path.read_bytes() if path.exists() else None) == data


class TestPatterns:
    @pytest.fixture
    def prs(self, sample: Sample) -> Sample:
        for name in ("pr-1", "pr-2", "Pr-3", "pr/4", "v[1]", "v1", None):
            sample.box.tag(name, sample.dev)
        return sample

    @pytest.mark.parametrize(
        ("names", "left"),
        [
            (["pr-*"], ["main", "dev", "Pr-3", "pr/4", "v[1]", "v1", None]),
            (["pr*", "main"], ["dev", "Pr-3", "v[1]", "v1", None]),
            # A tag of that very name wins: v1 stays.
            (["v[1]"], ["main", "dev", "pr-1", "pr-2", "Pr-3", "pr/4", "v1", None]),
            (["v[1-9]"], ["main", "dev", "pr-1", "pr-2", "Pr-3", "pr/4", "v[1]", None]),
            (["*"], [None]),
        ],
    )
    def test_all_tags_that_match_go(
        self, prs: Sample, names: list[str], left: list[str | None]
    ) -> None:
        before = tags(prs)
        dry = untag(prs.dir, names, dry_run=True)
        assert tags(prs) == before
        done = untag(prs.dir, names)
        assert tags(prs) == left
        assert dry.entries == done.entries
        assert [name for name, _ in done.entries] == [name for name in before if name not in left]

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_one_that_matches_nothing_changes_nothing(self, prs: Sample, dry_run: bool) -> None:
        before = take_snapshot(prs.dir / "index.json")
        with pytest.raises(
            NotFound, match=r"no entry of index.json has a tag that matches 'pt-"
        ) as e:
            untag(prs.dir, ["pr-*", "pt-*"], dry_run=dry_run)
        assert e.value.effect == "nothing was changed"
        assert take_snapshot(prs.dir / "index.json") == before

    def test_a_digest_is_matched_whole_alone(self, prs: Sample) -> None:
        with pytest.raises(NotFound):
            untag(prs.dir, ["sha256:*"])
