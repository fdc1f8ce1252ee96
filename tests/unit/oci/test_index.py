"""oci/index.py: which entries index.json has, and the same document without some of them."""

import hashlib
import json
from typing import Any

import pytest

from kitcache.oci.descriptor import REF_NAME
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from kitcache.oci.index import (
    EMPTY_INDEX,
    IMAGE_NAME,
    CopiedEntry,
    NewEntry,
    RemovedEntry,
    add_entries,
    copy_entries,
    edit_entries,
    find_entry,
    read_entries,
    remove_entries,
)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def name(word: str) -> str:
    return f"sha256:{hashlib.sha256(word.encode()).hexdigest()}"


def entry(word: str, ref_name: str | None = None, **more: Any) -> dict[str, Any]:
    tagged = {} if ref_name is None else {"annotations": {REF_NAME: ref_name}}
    return {"mediaType": MANIFEST, "digest": name(word), "size": 7} | tagged | more


def index(*entries: Any, **more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": list(entries)} | more).encode()


def drop(data: bytes, *names: str) -> tuple[Any, tuple[RemovedEntry, ...]]:
    after, dropped = remove_entries(data, names)
    return json.loads(after), dropped


def test_entries_come_in_order_tagged_or_not() -> None:
    first, second = read_entries(index(entry("a", "main"), entry("b")))
    assert (first.ref_name, second.ref_name) == ("main", None)
    assert first.descriptor is not None
    assert str(first.descriptor.digest) == name("a")
    assert first.problem == second.problem == ""


def test_two_entries_may_have_one_tag() -> None:
    assert [e.ref_name for e in read_entries(index(entry("a", "x"), entry("b", "x")))] == ["x", "x"]


def test_null_is_an_empty_list() -> None:
    assert read_entries(b'{"manifests": null}') == ()
    assert read_entries(b'{"manifests": []}') == ()


def test_the_subject_of_the_index_comes_last() -> None:
    entries = read_entries(index(entry("a", "main"), subject=entry("s", "main")))
    assert [e.ref_name for e in entries] == ["main", None], "it is no entry, and has no name"
    assert [str(e.descriptor.digest) for e in entries if e.descriptor] == [name("a"), name("s")]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("main", "entry 1 is text, not an object"),
        (None, "entry 1 is null, not an object"),
        ({}, "the digest of entry 1"),
        (entry("b") | {"digest": "sha256:../../x"}, "the digest of entry 1"),
        (entry("b") | {"size": "7"}, "the size of entry 1 is text"),
        (entry("b") | {"mediaType": []}, "the media type of entry 1 is a list"),
    ],
)
def test_a_malformed_entry_is_returned_with_its_problem(bad: Any, problem: str) -> None:
    sound, broken = read_entries(index(entry("a", "main"), bad))
    assert sound.descriptor is not None
    assert broken.descriptor is None
    assert broken.problem.startswith(problem)


def test_a_malformed_entry_keeps_its_tag() -> None:
    (broken,) = read_entries(index(entry("a", "main") | {"size": -1}))
    assert (broken.ref_name, broken.problem) == ("main", "the size of entry 0 is negative")


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (b"", "not-json", "not JSON"),
        (b'{"schemaVersion":2,"manif', "not-json", "not JSON"),
        (b'\xef\xbb\xbf{"manifests":[]}', "not-json", "not JSON"),
        (b'{"manifests":[],"x":"\xff"}', "not-json", "not JSON"),
        (b'{"manifests":[],"x":NaN}', "not-json", "not JSON"),
        ('{"manifests":[]}'.encode("utf-16"), "not-json", "not JSON"),
        (b'{"manifests":' + b"[" * 200_000, "too-nested", "too deeply"),
        (b"[]", "malformed", "index.json is a list"),
        (b"null", "malformed", "index.json is null"),
        (b"{}", "malformed", "it has no field 'manifests'"),
        (b'{"manifests":{}}', "malformed", "'manifests' is an object, not a list"),
        (b'{"manifests":[],"manifests":[]}', "ambiguous", "'manifests' occurs 2 times"),
        (b'{"Manifests":[]}', "ambiguous", "only some readers read 'Manifests' as 'manifests'"),
        ('{"manifest\u017f":[]}'.encode(), "ambiguous", "as 'manifests'"),
        (b'{"manifests":[],"MediaType":"x"}', "ambiguous", "as 'mediaType'"),
        (b'{"manifests":[],"subject":null,"subject":null}', "ambiguous", "occurs 2 times"),
    ],
)
def test_what_is_no_index_or_not_the_same_one_to_everybody(
    data: bytes, kind: str, says: str
) -> None:
    with pytest.raises(DocumentError, match=says) as caught:
        read_entries(data)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "doubled",
    ['"Digest":"x"', '"digest":"x"', '"SIZE":1', '"Annotations":{}', '"annotations":{}'],
)
def test_an_entry_that_two_readers_read_differently_is_refused(doubled: str) -> None:
    sound = json.dumps(entry("a", "main"))
    data = f'{{"manifests":[{sound[:-1]},{doubled}}}]}}'.encode()
    with pytest.raises(DocumentError, match=r"only some readers|occurs 2 times") as caught:
        read_entries(data)
    assert caught.value.kind == "ambiguous"


def test_a_ref_name_given_twice_is_refused() -> None:
    twice = f'{{"{REF_NAME}":"a","{REF_NAME}":"b"}}'
    sound = json.dumps(entry("a"))
    with pytest.raises(DocumentError, match=r"entry 0 has the annotation .* twice"):
        read_entries(f'{{"manifests":[{sound[:-1]},"annotations":{twice}}}]}}'.encode())


def test_unknown_fields_may_have_any_case() -> None:
    assert len(read_entries(index(entry("a", X=1, x=2), Y=1, y=2))) == 1


def test_every_entry_of_that_tag_goes_and_no_other() -> None:
    data = index(entry("a", "x"), entry("b", "main"), entry("c", "x"), entry("d"))
    after, dropped = drop(data, "x")
    assert after["manifests"] == [entry("b", "main"), entry("d")]
    assert dropped == (RemovedEntry("x", name("a")), RemovedEntry("x", name("c")))


def test_a_whole_digest_names_entries_too() -> None:
    data = index(entry("a"), entry("a", "main"), entry("b"))
    after, dropped = drop(data, name("a"))
    assert after["manifests"] == [entry("b")]
    assert dropped == (RemovedEntry(None, name("a")), RemovedEntry("main", name("a")))


@pytest.mark.parametrize("word", ["mai", "MAIN", "main ", name("a")[:20], name("a")[7:], "other"])
def test_a_part_of_a_name_names_nothing(word: str) -> None:
    data = index(entry("a", "main"))
    after, dropped = drop(data, word)
    assert (after, dropped) == (json.loads(data), ())


def test_a_malformed_entry_can_be_taken_out_by_its_tag() -> None:
    after, dropped = drop(index(entry("a", "bad") | {"size": -1, "digest": 7}, entry("b")), "bad")
    assert after["manifests"] == [entry("b")]
    assert dropped == (RemovedEntry("bad", None),)


def test_an_entry_without_tag_or_digest_has_no_name_to_take_it_out_by() -> None:
    data = index(None, 7, {}, entry("b"))
    after, dropped = drop(data, "", name("b"))
    assert after["manifests"] == [None, 7, {}]
    assert dropped == (RemovedEntry(None, name("b")),)


def test_everything_else_survives() -> None:
    data = index(
        entry("a", "x"),
        entry("b", "main", data="AAAA", platform={"os": "linux"}, future={"deep": [1, None]}),
        mediaType="application/vnd.oci.image.index.v1+json",
        annotations={"org.example": "\u00fc\ud800", "\x1b": ""},
        numbers=[0, -1, 2**64, 10**40, 0.1, 1.5e300, -0.0, True, None],
        empty={},
    )
    after, _ = drop(data, "x")
    wanted = json.loads(data)
    del wanted["manifests"][0]
    assert after == wanted
    assert list(after) == list(wanted)
    assert repr(after["numbers"]) == repr(wanted["numbers"])


def test_the_rewrite_is_plain_json_on_one_line() -> None:
    encoded, _ = remove_entries(index(entry("a", "x"), tag="\u00fc"), ("x",))
    assert encoded == b'{"schemaVersion":2,"manifests":[],"tag":"\\u00fc"}'


def test_a_number_that_cannot_be_written_back_is_refused() -> None:
    data = index(entry("a", "x")).replace(b'"schemaVersion": 2', b'"schemaVersion": 1e999')
    with pytest.raises(DocumentError, match="the number 1e999 cannot be written back"):
        remove_entries(data, ("x",))


def test_null_stays_readable() -> None:
    assert drop(b'{"manifests": null}', "x") == ({"manifests": []}, ())


def test_what_cannot_be_read_is_not_rewritten() -> None:
    with pytest.raises(DocumentError, match="as 'manifests'"):
        remove_entries(b'{"Manifests":[]}', ("x",))


def named(word: str, image_name: str, ref_name: str | None = None) -> dict[str, Any]:
    names = {IMAGE_NAME: image_name} | ({} if ref_name is None else {REF_NAME: ref_name})
    return entry(word, annotations=names)


def put(data: bytes | None, *entries: NewEntry) -> list[tuple[str, str | None]]:
    found = read_entries(add_entries(data, entries))
    return [(str(e.descriptor.digest), e.ref_name) for e in found if e.descriptor]


def new(word: str, ref_name: str, image_name: str | None = None) -> NewEntry:
    return NewEntry(MANIFEST, name(word), 7, ref_name, image_name)


def test_an_empty_index_is_one() -> None:
    assert read_entries(EMPTY_INDEX) == ()


def test_an_import_finds_an_image_name_before_a_ref_name_and_the_first_of_each() -> None:
    entries = read_entries(
        index(entry("a", "x"), named("b", "x"), entry("c", "x"), named("d", "x"), entry("e", "y"))
    )
    assert [find_entry(entries, tag) for tag in ("x", "y", "z")] == [entries[1], entries[4], None]


def test_the_subject_of_an_index_is_no_tag() -> None:
    assert find_entry(read_entries(index(subject=entry("a", "x"))), "x") is None


def test_an_entry_comes_last_and_in_place_of_those_with_its_tag() -> None:
    data = index(entry("a", "x"), entry("b", "y"), entry("c", "x"))
    assert put(data, new("d", "x")) == [(name("b"), "y"), (name("d"), "x")]
    assert put(None, new("d", "x")) == [(name("d"), "x")]


def test_an_image_of_that_ref_name_stays_beside_a_cache() -> None:
    data = index(named("a", "docker.io/library/i:x", "x"))
    assert put(data, new("b", "x")) == [(name("a"), "x"), (name("b"), "x")]
    image = new("c", "x", "docker.io/library/i:x")
    assert put(data, new("b", "x"), image) == [(name("b"), "x"), (name("c"), "x")]


def test_what_is_there_already_leaves_the_bytes_as_they_are() -> None:
    data = index(entry("a", "x"), entry("b", "y")) + b"  "
    assert add_entries(data, (new("a", "x"),)) is data
    twice = index(entry("a", "x"), entry("a", "x"))
    assert put(twice, new("a", "x")) == [(name("a"), "x")]


def test_null_becomes_a_list() -> None:
    assert put(b'{"schemaVersion":2,"manifests":null}', new("a", "x")) == [(name("a"), "x")]


def test_an_index_that_cannot_be_read_is_not_written_to() -> None:
    with pytest.raises(DocumentError, match="not JSON"):
        add_entries(b"{", (new("a", "x"),))


MOVED = Digest("sha256", "7" * 64)


def test_an_edit_drops_and_moves_in_one_document() -> None:
    second = entry("b", "y", platform={"os": "linux"}, data="e30=")
    data = index(entry("a", "x"), second, entry("c"), kept=True)
    after = json.loads(edit_entries(data, remove=[0], move={1: (MOVED, 5)}))
    moved = entry("b", "y", platform={"os": "linux"}) | {"digest": str(MOVED), "size": 5}
    assert after["manifests"] == [moved, entry("c")]
    assert after["kept"] is True


def test_an_edit_of_nothing_changes_no_meaning() -> None:
    data = index(entry("a", "x"), entry("b"))
    assert json.loads(edit_entries(data)) == json.loads(data)


def test_an_edit_refuses_what_cannot_be_relied_upon() -> None:
    with pytest.raises(DocumentError):
        edit_entries(b'{"manifests": [], "Manifests": []}', remove=[0])
    with pytest.raises(IndexError):
        edit_entries(index(entry("a")), move={1: (MOVED, 5)})


def test_copies_take_the_place_of_what_goes_by_their_names() -> None:
    data = index(entry("a", "x"), entry("b", "y"), entry("c", "x"), 7, entry("d"), kept={"a": 1})
    sources = (index(entry("e", "x", platform={"os": "linux"}, acme=[None])), index(entry("f")))
    after = json.loads(copy_entries(data, sources, [CopiedEntry(0, 0), CopiedEntry(1, 0)]))
    new = entry("e", "x", platform={"os": "linux"}, acme=[None])
    assert after["manifests"] == [entry("b", "y"), 7, entry("d"), new, entry("f")]
    assert after["kept"] == {"a": 1}


def test_a_copy_by_another_name_keeps_all_but_its_names() -> None:
    notes = {REF_NAME: "x", IMAGE_NAME: "docker.io/library/x:x", "acme": "kept"}
    data = index(entry("a", annotations=notes), entry("b", annotations=None), entry("c", "old"))
    copies = [CopiedEntry(0, 0, "new"), CopiedEntry(0, 1, "old")]
    after = json.loads(copy_entries(data, [data], copies))["manifests"]
    assert after[:2] == json.loads(data)["manifests"][:2]
    assert [item["annotations"] for item in after[2:]] == [
        {REF_NAME: "new", "acme": "kept"},
        {REF_NAME: "old"},
    ]


def test_an_images_name_is_a_name_too() -> None:
    def image(word: str, ref_name: str) -> dict[str, Any]:
        return entry(word, annotations={REF_NAME: ref_name, IMAGE_NAME: "docker.io/library/x:1"})

    data = index(image("a", "1"), entry("b", "docker.io/library/x:1"))
    after = json.loads(copy_entries(data, [index(image("c", "2"))], [CopiedEntry(0, 0)]))
    assert after["manifests"] == [entry("b", "docker.io/library/x:1"), image("c", "2")]


def test_copies_into_no_index_begin_one() -> None:
    after = json.loads(copy_entries(None, [index(entry("a", "x"))], [CopiedEntry(0, 0)]))
    assert after == json.loads(EMPTY_INDEX) | {"manifests": [entry("a", "x")]}


def test_copies_of_nothing_change_no_meaning() -> None:
    data = index(entry("a", "x"), entry("b"))
    assert json.loads(copy_entries(data, [], [])) == json.loads(data)
    with pytest.raises(DocumentError):
        copy_entries(b'{"manifests": [], "Manifests": []}', [], [])
    with pytest.raises(IndexError):
        copy_entries(data, [data], [CopiedEntry(0, 2)])


def test_a_thousand_entries_that_cannot_be_read_are_kept_and_more_are_no_index() -> None:
    assert len(read_entries(json.dumps({"manifests": [0] * 1000}).encode())) == 1000
    with pytest.raises(DocumentError, match="more than 1,000 of its entries") as caught:
        read_entries(json.dumps({"manifests": [0] * 1001}).encode())
    assert caught.value.kind == "malformed"


def test_many_names_are_dropped_from_many_entries() -> None:
    """With a set of the names made anew for each entry this takes half a minute."""
    items = [
        {"digest": "sha256:" + "0" * 64, "size": 1, "annotations": {REF_NAME: f"{n}"}}
        for n in range(20_000)
    ]
    data = json.dumps({"manifests": items}).encode()
    after, dropped = remove_entries(data, tuple(map(str, range(19_999))))
    assert [entry.ref_name for entry in read_entries(after)] == ["19999"]
    assert len(dropped) == 19_999
