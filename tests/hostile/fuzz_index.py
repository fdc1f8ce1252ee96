"""Fuzzes `kitcache.oci.index`: any bytes as index.json.

Laws: nothing but DocumentError is raised; what is accepted reads the same in Go's decoder and
in a strict one; an entry taken out is the only thing that changes.
"""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from kitcache.oci.document import DocumentError
from kitcache.oci.index import IndexEntry, read_entries, remove_entries
from tests.hostile.build import REF_NAME
from tests.hostile.fuzz_links import GOOD, VALUES, thorough

NAMES = st.sampled_from(["main", "dev", "v1.0", "", "ümlaut"])
TAGGED = st.builds(lambda d, name: d | {"annotations": {REF_NAME: name}}, GOOD, NAMES)
SOUND = st.lists(st.one_of(GOOD, TAGGED), max_size=5).map(
    lambda entries: {"schemaVersion": 2, "manifests": entries}
)
KEYS = st.sampled_from(["manifests", "Manifests", "manife\u017fts", "MANIFESTS", "x"])
EXTRA = st.dictionaries(st.text(min_size=12, max_size=14), VALUES, max_size=3)


def attempt(data: bytes) -> tuple[IndexEntry, ...] | None:
    try:
        return read_entries(data)
    except DocumentError:
        return None


@thorough
@given(st.binary(max_size=300))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b'{"manifests":[{"size":' + b"9" * 5000 + b"}]}")
@example(b'{"manifests":[{"size":1e999}]}')
@example(b'{"manifests":NaN}')
@example(b'{"manifests":["\\ud800"]}')
def fuzz_bytes(data: bytes) -> None:
    attempt(data)


@thorough
@given(st.lists(st.tuples(KEYS, VALUES), max_size=4))
def fuzz_keys(pairs: list[tuple[str, Any]]) -> None:
    """Accepted is only what both kinds of reader take for the same list."""
    body = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs)
    if attempt(f"{{{body}}}".encode()) is not None:
        spelled = [key for key, _ in pairs if key != "x"]
        assert spelled == ["manifests"]


@thorough
@given(SOUND, EXTRA)
def fuzz_sound(document: dict[str, Any], extra: dict[str, Any]) -> None:
    """Every entry of a sound index is read, in order, whatever else stands in the document."""
    entries = attempt(json.dumps(extra | document).encode())
    assert entries is not None
    assert [e.descriptor and str(e.descriptor.digest) for e in entries] == [
        entry["digest"] for entry in document["manifests"]
    ]


@thorough
@given(SOUND, st.integers(0, 4), VALUES)
def fuzz_one_bad_entry(document: dict[str, Any], place: int, bad: Any) -> None:
    """A bad entry hides no other: it is there, with its problem, or the whole is refused."""
    document["manifests"].insert(place, bad)
    entries = attempt(json.dumps(document).encode())
    if entries is not None:
        assert len(entries) == len(document["manifests"])
        assert all(entry.descriptor is not None or entry.problem for entry in entries)


@thorough
@given(st.data(), SOUND, st.integers(0, 2000))
def fuzz_cut(data: st.DataObject, document: dict[str, Any], place: int) -> None:
    """A file that was cut anywhere is never taken for an index."""
    whole = json.dumps(document).encode()
    assert attempt(whole[: min(place, len(whole) - 1)]) is None


@thorough
@given(SOUND, EXTRA, NAMES)
def fuzz_drop(document: dict[str, Any], extra: dict[str, Any], name: str) -> None:
    """Dropping a tag takes its entries, and leaves every other field and entry as it was."""
    before = extra | document
    try:
        after, dropped = remove_entries(json.dumps(before).encode(), (name,))
    except DocumentError:
        return
    rest = [e for e in document["manifests"] if e.get("annotations", {}).get(REF_NAME) != name]
    assert equal(json.loads(after), before | {"manifests": rest})
    assert len(dropped) == len(document["manifests"]) - len(rest)


def equal(one: Any, other: Any) -> bool:
    """Equal as JSON; NaN never is, so compare the text."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
