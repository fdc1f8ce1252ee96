"""health/salvage.py: what a lost index.json can be made of, and sizes that were wrong."""

import json

import pytest

from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.index import IMAGE_NAME, INDEX_TYPE, read_entries
from kitcache.oci.links import Link
from kitcache.upkeep.health.indexrecovery import (
    MANIFEST_TYPE,
    Document,
    RecoveredEntry,
    choose_entries,
    correct_sizes,
    glean_entries,
    make_index,
    read_root,
)
from tests.hostile.build import CACHECONFIG, INDEX, LAYER, MANIFEST, REF_NAME, Json, encode
from tests.unit.gc.surveys import digest


def entry(word: str, tag: str | None = None, **more: object) -> Json:
    named = {} if tag is None else {"annotations": {REF_NAME: tag}}
    return {"mediaType": MANIFEST, "digest": str(digest(word)), "size": 7, **named, **more}


def index(*entries: Json) -> bytes:
    return encode({"schemaVersion": 2, "manifests": list(entries)})


def names(
    gleaned: tuple[RecoveredEntry, ...] | list[RecoveredEntry],
) -> list[tuple[str | None, Digest]]:
    return [(one.names[0], one.digest) for one in gleaned]


WHOLE = index(entry("a", "main"), entry("b", "dev"), entry("c", "pr"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (WHOLE, "abc"),
        (b"\xef\xbb\xbf" + WHOLE, "abc"),
        (WHOLE[:-2], "abc"),
        (WHOLE[:-3], "ab"),
        (WHOLE[: WHOLE.index(b"dev") + 9], "ab"),
        (WHOLE[: WHOLE.index(b"dev") + 3], "a"),
        (WHOLE[: WHOLE.index(b"main")], ""),
        (WHOLE[WHOLE.index(b"main") :], "bc"),
        (WHOLE.replace(b'"dev"', b'"d\x00v"'), "ac"),
        (b"[" + WHOLE + b"]", "abc"),
        (WHOLE.replace(b'"schemaVersion":2', b'"n":NaN,"schemaVersion":2'), "abc"),
        (index(entry("a"), entry("b", "dev")), "b"),
        (index(entry("a", "main", digest=7), entry("b", "dev", digest="sha256:ab")), ""),
        (index(entry("a", "main", annotations=[]), entry("b", "dev", size="7")), "b"),
        (b"", ""),
        (b"{" * 60 + WHOLE, "abc"),
        (b"{" * 10_000 + WHOLE, ""),
        (b'{"a":' * 10_000, ""),
        (b"null {} []", ""),
    ],
)
def test_what_can_be_read_of_a_torn_index_is_read(data: bytes, words: str) -> None:
    assert [one.digest for one in glean_entries(data)] == [digest(word) for word in words]


def test_a_gleaned_entry_has_what_the_old_one_said() -> None:
    both = {REF_NAME: "main", IMAGE_NAME: "docker.io/app:1", "org.example": "x"}
    old = entry("a", annotations=both, size=99, platform={"os": "linux"}, unknown=[1])
    (found,) = glean_entries(index(old))
    assert found == (old, digest("a"), "index")
    assert found.names == ("main", "docker.io/app:1")


@pytest.mark.parametrize(
    "odd",
    [
        {"size": "7"},
        {"size": 1.5},
        {"mediaType": 7},
        {"Digest": "sha256:0"},
        {"unknown": float("inf")},
        {"unknown": float("nan")},
    ],
)
def test_of_an_entry_that_nobody_could_read_stays_what_can_be_told(odd: Json) -> None:
    (found,) = glean_entries(index(entry("a", "main") | odd))
    size = 7 if type(odd.get("size", 7)) is int else 0
    media_type = "" if "mediaType" in odd else MANIFEST
    assert found.item == entry("a", "main") | {"size": size, "mediaType": media_type}


def test_an_entry_may_have_an_image_name_alone() -> None:
    old = entry("a", annotations={IMAGE_NAME: "docker.io/app:1"})
    assert [one.item for one in glean_entries(index(old))] == [old]


def test_what_shares_a_name_comes_back_as_it_was() -> None:
    """Two images with one ref name, as containerd writes them, and two platforms of one image."""
    old = [
        entry("a", annotations={REF_NAME: "1", IMAGE_NAME: "docker.io/app:1"}),
        entry("b", annotations={REF_NAME: "1", IMAGE_NAME: "docker.io/web:1"}),
        entry("c", "main", platform={"os": "linux", "architecture": "amd64"}),
        entry("d", "main", platform={"os": "linux", "architecture": "arm64"}),
    ]
    documents = {digest(word): document() for word in "abcd"}
    chosen = choose_entries(index(*old)[:-1], {}, (), documents)
    assert json.loads(make_index(chosen))["manifests"] == old
    assert {one.named_by for one in chosen} == {"index"}
    # Another copy may have such ones as well; what has its name here already stays away.
    copied = choose_entries(index(old[0])[:-1], {}, [index(*old), index(*old)], documents)
    assert [one.item for one in copied] == old
    assert [one.named_by for one in copied] == ["index", "copy", "copy", "copy"]


DESCRIBED = {"mediaType": LAYER, "digest": str(digest("layer")), "size": 1}
CONFIG = DESCRIBED | {"mediaType": CACHECONFIG}


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"mediaType": MANIFEST, "config": CONFIG, "layers": [DESCRIBED]}, MANIFEST),
        ({"config": CONFIG, "layers": [DESCRIBED]}, MANIFEST_TYPE),
        ({"mediaType": INDEX, "manifests": [DESCRIBED, CONFIG]}, INDEX),
        ({"manifests": []}, INDEX_TYPE),
        ({"config": {"Env": []}, "rootfs": {}}, None),
        ({"config": {"Env": []}, "layers": []}, None),
        ({"layers": [{"blob": str(digest("layer"))}], "records": []}, None),
        ({"mediaType": "text/plain", "manifests": []}, None),
        ({"mediaType": 7, "manifests": []}, None),
        ({"mediaType": MANIFEST, "config": 7}, None),
        ([], None),
        ("{", None),
    ],
)
def test_a_root_is_known_by_what_it_says_or_has(document: object, media_type: str | None) -> None:
    data = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    found = read_root(data)
    assert (found.media_type if found else None) == media_type
    if found is not None:
        assert found.size == len(data)


def document(*children: str, subject: str = "") -> Document:
    below = [Link(Descriptor(MANIFEST, digest(word), 1), "manifest") for word in children]
    if subject:
        below.append(Link(Descriptor(MANIFEST, digest(subject), 1), "subject"))
    return Document(MANIFEST, 5, tuple(below))


def test_each_root_that_nothing_contains_gets_an_entry() -> None:
    documents = {
        digest("top"): document("child"),
        digest("child"): document(),
        digest("alone"): document(),
        digest("referrer"): document(subject="alone"),
    }
    chosen = choose_entries(b"", {}, (), documents)
    roots = {digest("top"), digest("alone"), digest("referrer")}
    assert {one.digest for one in chosen} == roots
    for one in chosen:
        named = {REF_NAME: f"recovered-{one.digest.hex[:12]}"}
        item = {"mediaType": MANIFEST, "digest": str(one.digest), "size": 5, "annotations": named}
        assert one == (item, one.digest, "unknown")


def test_names_come_from_the_old_file_then_from_notes_then_from_copies() -> None:
    documents = {digest(word): document() for word in "abcdef"}
    old = index(entry("a", "main"), entry("a", "alias"), entry("f", "main"))
    noted = {
        "main": str(digest("b")),
        "dev": str(digest("b")),
        "odd": "no digest",
        "gone": "sha256:0",
    }
    others = [
        index(entry("c", "main"), entry("d", "pr"), entry("d", "pr-alias"), entry("x", "far"))
    ]
    chosen = choose_entries(old, noted, others, documents)
    assert names(list(chosen)) == [
        ("main", digest("a")),
        ("alias", digest("a")),
        ("main", digest("f")),
        ("dev", digest("b")),
        ("pr", digest("d")),
        ("pr-alias", digest("d")),
        *((f"recovered-{d.hex[:12]}", d) for d in sorted(map(digest, "ce"))),
    ]
    knew = ["index", "index", "index", "records", "copy", "copy", "unknown", "unknown"]
    assert [one.named_by for one in chosen] == knew


def test_a_name_goes_to_its_last_export_where_the_old_root_is_gone() -> None:
    documents = {digest("new"): document()}
    chosen = choose_entries(
        index(entry("old", "main")), {"main": str(digest("new"))}, (), documents
    )
    assert names(list(chosen)) == [("main", digest("new"))]
    # Without a note the name stays with what is gone: a repair says so.
    assert names(list(choose_entries(index(entry("old", "main")), {}, (), {}))) == [
        ("main", digest("old"))
    ]


def test_two_roots_with_one_beginning_get_two_names() -> None:
    twins = [Digest("sha256", f"{'a' * 12}{n:052}") for n in range(2)]
    chosen = choose_entries(b"", {}, (), dict.fromkeys(twins, document()))
    assert len({one.names for one in chosen}) == 2


SIZES = {digest("a"): 7, digest("b"): 8}


@pytest.mark.parametrize("size", [9, -1, "7", None, 7.5, True, 2**80])
def test_a_wrong_size_is_corrected(size: object) -> None:
    data = index(entry("b", "dev", size=8), entry("a", "main", size=size, extra=1))
    corrected, positions = correct_sizes(data, SIZES.get)
    assert positions == {1}
    assert json.loads(corrected)["manifests"] == [
        entry("b", "dev", size=8),
        entry("a", "main", size=7, extra=1),
    ]
    assert all(one.descriptor for one in read_entries(corrected))


def test_what_is_right_or_beyond_help_keeps_its_bytes() -> None:
    data = index(
        entry("a", "main"),
        entry("missing", "gone", size=1),
        entry("b", "odd", mediaType=7, size=1),
        entry("a", "no", digest=None),
    )
    assert correct_sizes(data, SIZES.get) == (data, frozenset())
    assert correct_sizes(b'{"manifests":null}', SIZES.get)[1] == frozenset()


def test_one_that_is_beyond_help_does_not_stop_another() -> None:
    data = index(entry("b", "odd", mediaType=7, size=1), entry("a", "main", size=1))
    corrected, positions = correct_sizes(data, SIZES.get)
    assert positions == {1}
    sizes = [one["size"] for one in json.loads(corrected)["manifests"]]
    assert sizes == [1, 7]
    assert parse_digest(json.loads(corrected)["manifests"][1]["digest"]) == digest("a")


def test_of_roots_without_a_name_the_newest_comes_first() -> None:
    """Tools that know no name of a tag take the first entry."""
    words = ("one", "two", "three")
    documents = {digest(word): document()._replace(written_ns=len(word)) for word in words}
    chosen = choose_entries(index(entry("x", "kept")), {}, (), documents)
    first = sorted([digest("one"), digest("two")])
    assert [one.digest for one in chosen] == [digest("x"), digest("three"), *first]
