"""naming/mergeplan.py: who may bring which name, and what two caches disagree about. No disk."""

import hashlib
from typing import Any

import pytest

from kitcache.errors import KitcacheError, UsageError
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.index import CopiedEntry, IndexEntry
from kitcache.options.renames import read_rename
from kitcache.upkeep.naming.mergeplan import EntryGroup, MergeCache, decide

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(word: str) -> Digest:
    return Digest("sha256", hashlib.sha256(word.encode()).hexdigest())


def entry(tag: str | None, word: str, **more: Any) -> IndexEntry:
    return IndexEntry(tag, Descriptor(MANIFEST, digest(word), 7))._replace(**more)


def side(name: str, *entries: IndexEntry) -> MergeCache:
    return MergeCache(f"./{name}", name, entries)


EMPTY = side("all")


def plan(
    target: MergeCache, *sources: MergeCache, rename: tuple[str, ...] = (), replaces: bool = False
) -> tuple[EntryGroup, ...]:
    return decide(target, sources, [read_rename(text) for text in rename], replaces=replaces)


def shown(groups: tuple[EntryGroup, ...]) -> list[tuple[str | None, str | None, str]]:
    return [(group.tag.source_name, group.tag.target_name, group.tag.state) for group in groups]


def test_everything_comes_into_an_empty_cache() -> None:
    groups = plan(
        EMPTY, side("a", entry("main", "1"), entry(None, "2")), side("b", entry("x", "3"))
    )
    assert shown(groups) == [("main", "main", "new"), (None, None, "new"), ("x", "x", "new")]
    assert [group.copies for group in groups] == [
        (CopiedEntry(0, 0),),
        (CopiedEntry(0, 1),),
        (CopiedEntry(1, 0),),
    ]
    assert groups[0].tag.digests == (str(digest("1")),)


def test_the_same_thing_by_the_same_name_comes_once() -> None:
    a = side("a", entry("main", "1"), entry(None, "2"))
    assert [g.tag.state for g in plan(EMPTY, a, a)] == ["new", "new", "unchanged", "unchanged"]
    groups = plan(a._replace(path="./all"), a)
    assert [(g.tag.state, g.copies) for g in groups] == [("unchanged", ()), ("unchanged", ())]


def test_the_subject_of_an_index_is_no_tag() -> None:
    assert plan(EMPTY, side("a", entry(None, "1", is_subject=True))) == ()
    own = side("all", entry(None, "1", is_subject=True))
    assert plan(own, side("a", entry(None, "1")))[0].tag.state == "new"


def test_sources_that_disagree_are_both_named_with_the_way_out() -> None:
    a, b = side("a", entry("main", "1")), side("b", entry("main", "2"))
    for replaces in (True, False):
        with pytest.raises(KitcacheError) as caught:
            plan(EMPTY, a, b, replaces=replaces)
        error = caught.value
        assert error.problem == (f"tag 'main' is {digest('1')} in ./a and {digest('2')} in ./b")
        assert (error.path, error.effect) == ("./all", "nothing was changed")
        assert error.hints == ("keep both, each by the name of its directory",)
    groups = plan(EMPTY, a, b, rename=("{dir}-{tag}",))
    assert shown(groups) == [("main", "a-main", "new"), ("main", "b-main", "new")]
    assert [g.copies for g in groups] == [
        (CopiedEntry(0, 0, "a-main"),),
        (CopiedEntry(1, 0, "b-main"),),
    ]


def test_a_tag_of_the_target_moves_only_if_it_may() -> None:
    own, a = side("all", entry("main", "0"), entry("x", "9")), side("a", entry("main", "1"))
    with pytest.raises(KitcacheError, match=r"in \./all and") as caught:
        plan(own, a)
    assert caught.value.hints[1] == "let the tags of the target move"
    (group,) = plan(own, a, replaces=True)
    assert (group.tag.state, group.tag.previous_digests) == ("moved", (str(digest("0")),))
    assert group.copies == (CopiedEntry(0, 0),)


def test_replace_is_no_way_out_where_sources_disagree_too() -> None:
    own = side("all", entry("main", "0"))
    a, b = side("a", entry("main", "1")), side("b", entry("main", "2"))
    with pytest.raises(KitcacheError) as caught:
        plan(own, a, b)
    assert not any("tags of the target" in step for step in caught.value.hints)
    with pytest.raises(KitcacheError, match=r"in \./a and"):
        plan(own, a, b, replaces=True)


def test_all_disagreements_are_counted_and_some_are_told() -> None:
    names = [f"t{n}" for n in range(9)]
    a, b = (side(d, *(entry(n, n + d) for n in names)) for d in ("a", "b"))
    with pytest.raises(KitcacheError) as caught:
        plan(EMPTY, a, b)
    assert "'t0'" in caught.value.problem
    assert [line[:14] for line in caught.value.details[:5]] == [
        f"also: tag 't{n}'"[:14] for n in range(1, 6)
    ]
    assert caught.value.details[5:] == ("and 3 more",)


def test_entries_of_one_name_go_together() -> None:
    both = side("a", entry("v1", "amd64"), entry("other", "1"), entry("v1", "arm64"))
    groups = plan(EMPTY, both)
    assert [(g.tag.target_name, g.positions) for g in groups] == [("v1", (0, 2)), ("other", (1,))]
    turned = side("all", entry("v1", "arm64"), entry("v1", "amd64"))
    assert plan(turned, both)[0].tag.state == "unchanged"
    half = side("all", entry("v1", "arm64"))
    with pytest.raises(KitcacheError, match="tag 'v1'"):
        plan(half, both)
    more = side("all", *(entry("v1", platform) for platform in ("arm64", "amd64", "riscv64")))
    with pytest.raises(KitcacheError, match="tag 'v1'"):
        plan(more, both)
    assert plan(more, both, replaces=True)[0].tag.previous_digests == (str(digest("riscv64")),)
    (first, _) = plan(half, both, replaces=True)
    assert (first.tag.state, first.tag.previous_digests, len(first.copies)) == ("moved", (), 2)


def test_two_tags_that_become_one_have_to_be_one() -> None:
    a = side("a", entry("x", "1"), entry("y", "1"), entry("z", "2"))
    assert shown(plan(EMPTY, a, rename=("[xy]=main",))) == [
        ("x", "main", "new"),
        ("y", "main", "unchanged"),
        ("z", "z", "new"),
    ]
    with pytest.raises(KitcacheError, match="tag 'main'"):
        plan(EMPTY, a, rename=("main",))


def test_what_has_no_tag_gets_none() -> None:
    (group,) = plan(EMPTY, side("a", entry(None, "1")), rename=("{dir}-{tag}",))
    assert (group.tag.source_name, group.tag.target_name, group.copies) == (
        None,
        None,
        (CopiedEntry(0, 0),),
    )


@pytest.mark.parametrize("directory", ["\x1b", "\udcff"])
def test_a_new_name_has_to_be_one(directory: str) -> None:
    a = side("a", entry("main", "1"))._replace(name=directory)
    with pytest.raises(UsageError, match="is not a valid tag"):
        plan(EMPTY, a, rename=("{dir}-{tag}",))


def test_an_odd_name_that_stays_may_be_odd() -> None:
    assert shown(plan(EMPTY, side("a", entry("", "1")))) == [("", "", "new")]
    assert shown(plan(EMPTY, side("a", entry("\x1b", "1")))) == [("\x1b", "\x1b", "new")]


def test_an_image_is_known_by_its_own_name_too() -> None:
    image = {"image_name": "docker.io/library/app:1"}
    own, a = side("all", entry("x", "0", **image)), side("a", entry("1", "1", **image))
    with pytest.raises(KitcacheError, match=r"image 'docker\.io/library/app:1'"):
        plan(own, a)
    (group,) = plan(own, a, replaces=True)
    assert group.tag.previous_digests == (str(digest("0")),)
    (renamed,) = plan(own, a, rename=("{dir}-{tag}",))
    assert renamed.tag.state == "new"
    plain = side("all", entry("1", "1"))
    assert plan(plain, a)[0].tag.state == "new"
