"""index.json with an entry put into it: the entry is found, all others are as they were."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kitcache.oci.index import IMAGE_NAME, NewEntry, add_entries, find_entry, read_entries

REF_NAME = "org.opencontainers.image.ref.name"
TAGS = st.sampled_from(["latest", "main", "pr-7", ""]) | st.text(max_size=8)
HEX = st.integers(0, 9).map(lambda n: f"sha256:{n:064x}")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@st.composite
def new_entries(draw: st.DrawFn) -> NewEntry:
    image_name = draw(st.none() | st.sampled_from(["docker.io/library/a:1", "b"]))
    return NewEntry(MANIFEST, draw(HEX), draw(st.integers(0, 2**40)), draw(TAGS), image_name)


@st.composite
def indexes(draw: st.DrawFn) -> dict[str, Any]:
    entries = []
    for new in draw(st.lists(new_entries(), max_size=5)):
        names = {REF_NAME: new.ref_name}
        if new.image_name is not None:
            names[IMAGE_NAME] = new.image_name
        extra = draw(st.sampled_from([{}, {"platform": {"os": "linux"}}, {"x-unknown": [1.5]}]))
        item = {"mediaType": new.media_type, "digest": new.digest, "size": new.size}
        entries.append(item | extra | draw(st.sampled_from([{}, {"annotations": names}])))
    more = draw(st.sampled_from([{}, {"mediaType": "x"}, {"unknown": {"deep": None}}]))
    return {"schemaVersion": 2, "manifests": entries} | more


def others(document: dict[str, Any], new: NewEntry) -> list[Any]:
    """The entries that it does not replace."""

    def is_rival(item: dict[str, Any]) -> bool:
        names = item.get("annotations", {})
        if new.image_name is not None:
            return bool(names.get(IMAGE_NAME) == new.image_name)
        return IMAGE_NAME not in names and names.get(REF_NAME) == new.ref_name

    return [item for item in document["manifests"] if not is_rival(item)]


@given(indexes(), new_entries())
def test_the_entry_is_found_and_nothing_else_changes(
    document: dict[str, Any], new: NewEntry
) -> None:
    after = json.loads(add_entries(json.dumps(document).encode(), (new,)))
    mine = [item for item in after["manifests"] if item not in others(document, new)]
    assert others(after, new) == others(document, new)
    assert [(item["digest"], item["size"]) for item in mine] in ([(new.digest, new.size)], [])
    rest = {key: value for key, value in after.items() if key != "manifests"}
    assert rest == {key: value for key, value in document.items() if key != "manifests"}
    entries = read_entries(json.dumps(after).encode())
    assert any(
        (entry.ref_name, entry.image_name, str(entry.descriptor.digest))
        == (new.ref_name, new.image_name, new.digest)
        for entry in entries
        if entry.descriptor
    )


@given(indexes(), new_entries())
def test_twice_is_once(document: dict[str, Any], new: NewEntry) -> None:
    once = add_entries(json.dumps(document).encode(), (new,))
    assert add_entries(once, (new,)) == once


@given(st.lists(new_entries(), max_size=4))
def test_the_last_of_a_tag_is_what_an_import_finds(entries: list[NewEntry]) -> None:
    plain = [entry._replace(image_name=None) for entry in entries]
    found = read_entries(add_entries(None, tuple(plain)))
    assert len(found) == len({entry.ref_name for entry in plain})
    for tag in {entry.ref_name for entry in plain}:
        wanted = [entry for entry in plain if entry.ref_name == tag][-1]
        entry = find_entry(found, tag)
        assert entry is not None
        assert entry.descriptor is not None
        assert str(entry.descriptor.digest) == wanted.digest
