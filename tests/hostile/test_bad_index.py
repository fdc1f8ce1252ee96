"""index.json in every state that a crash, a truncation or a stranger can leave it in.

Law: whoever cannot tell the roots removes nothing, and says what is wrong with the list.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.caches.snapshot import take_snapshot
from tests.caches.steps import Stage
from tests.hostile.build import REF_NAME, Json, Sample, encode
from tests.hostile.command import assert_civil, assert_refused, run, unchanged

CAP_BYTES = 64 << 20
Damage = Callable[[Sample], bytes]


def whole(sample: Sample) -> bytes:
    return encode(sample.box.index_document())


def with_entry(**fields: object) -> Damage:
    """The index with fields of its first entry replaced; `...` takes one out."""

    def make(sample: Sample) -> bytes:
        document = sample.box.index_document()
        entry = {**document["manifests"][0], **fields}
        document["manifests"][0] = {k: v for k, v in entry.items() if v is not ...}
        return encode(document)

    return make


def with_first(entry: object) -> Damage:
    """The index with something else in place of its first entry."""

    def make(sample: Sample) -> bytes:
        document = sample.box.index_document()
        document["manifests"][0] = entry
        return encode(document)

    return make


def with_manifests(value: object) -> Damage:
    return lambda sample: encode(sample.box.index_document() | {"manifests": value})


def respelled(old: str, new: str) -> Damage:
    """The first time that a key is written, it is written otherwise."""
    return lambda sample: whole(sample).replace(f'"{old}":'.encode(), f'"{new}":'.encode(), 1)


def doubled(key: str, value: object) -> Damage:
    """A second value for a key, right behind the first brace that holds it."""

    def make(sample: Sample) -> bytes:
        text = whole(sample).decode()
        place = text.index(f'"{key}":')
        return f'{text[:place]}"{key}":{json.dumps(value)},{text[place:]}'.encode()

    return make


NOT_JSON: dict[str, Damage] = {
    "empty": lambda sample: b"",
    "blank": lambda sample: b" \n",
    "half-written": lambda sample: whole(sample)[: len(whole(sample)) // 2],
    "cut by one byte": lambda sample: whole(sample)[:-1],
    "tail of an older file": lambda sample: whole(sample) + b'"}]}',
    "words": lambda sample: b"this is no index",
    "zeros after a crash": lambda sample: b"\0" * len(whole(sample)),
    "not UTF-8": lambda sample: whole(sample).replace(b"main", b"m\xffin"),
    "UTF-16": lambda sample: whole(sample).decode().encode("utf-16"),
    "NaN": lambda sample: whole(sample).replace(b'"schemaVersion":2', b'"schemaVersion":NaN'),
    "single quotes": lambda sample: whole(sample).replace(b'"', b"'"),
    "nested lists, open": lambda sample: b"[" * 200_000,
    "nested lists, closed": lambda sample: b"[" * 200_000 + b"]" * 200_000,
    "nested objects": lambda sample: b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "nested below an unknown field": lambda sample: whole(sample).replace(
        b"{", b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b",", 1
    ),
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_an_index_that_is_no_json_stops_everything(sample: Sample, name: str) -> None:
    sample.box.write_index(NOT_JSON[name](sample))
    assert_refused(sample.box.top, 12, "index.json")


MALFORMED: dict[str, Damage] = {
    "a list": lambda sample: encode([sample.box.index_document()]),
    "a number": lambda sample: b"2",
    "null": lambda sample: b"null",
    "text": lambda sample: b'"index"',
    "no manifests": lambda sample: b'{"schemaVersion":2}',
    "manifests are an object": with_manifests({}),
    "manifests are text": with_manifests("none"),
    "manifests are a number": with_manifests(0),
    "manifests are false": with_manifests(False),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_an_index_of_another_shape_stops_everything(sample: Sample, name: str) -> None:
    sample.box.write_index(MALFORMED[name](sample))
    assert_refused(sample.box.top, 12, "index.json")


AMBIGUOUS: dict[str, tuple[Damage, str]] = {
    "manifests twice": (doubled("manifests", []), "manifests"),
    "manifests twice, empty last": (
        lambda sample: whole(sample)[:-1] + b',"manifests":[]}',
        "manifests",
    ),
    "Manifests": (respelled("manifests", "Manifests"), "Manifests"),
    "a long s": (respelled("manifests", "manife\u017fts"), "manife"),
    "both cases": (lambda sample: whole(sample)[:-1] + b',"MANIFESTS":[]}', "MANIFESTS"),
    "Digest": (respelled("digest", "Digest"), "Digest"),
    "a long s in digest": (respelled("digest", "dige\u017ft"), "dige"),
    "digest twice": (doubled("digest", "sha256:" + "0" * 64), "digest"),
    "SIZE": (respelled("size", "SIZE"), "SIZE"),
    "size twice": (doubled("size", 1), "size"),
    "ref name twice": (doubled(REF_NAME, "other"), REF_NAME),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_index_that_two_readers_read_differently_stops_everything(
    sample: Sample, name: str
) -> None:
    damage, word = AMBIGUOUS[name]
    sample.box.write_index(damage(sample))
    assert_refused(sample.box.top, 12, "index.json", word)


ENTRIES: dict[str, tuple[Damage, str | None]] = {
    "null": (with_first(None), None),
    "a number": (with_first(7), None),
    "text": (with_first("sha256:" + "0" * 64), None),
    "a list": (with_first([]), None),
    "empty": (with_first({}), None),
    "no digest": (with_entry(digest=...), "main"),
    "digest null": (with_entry(digest=None), "main"),
    "digest a number": (with_entry(digest=7), "main"),
    "digest a list": (with_entry(digest=["sha256:" + "0" * 64]), "main"),
    "no size": (with_entry(size=...), "main"),
    "size text": (with_entry(size="412"), "main"),
    "size true": (with_entry(size=True), "main"),
    "size a fraction": (with_entry(size=412.5), "main"),
    "size negative": (with_entry(size=-1), "main"),
    "size enormous": (with_entry(size=1 << 62), "main"),
    "size beyond 64 bits": (with_entry(size=1 << 80), "main"),
    "mediaType a number": (with_entry(mediaType=7), "main"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_the_wrong_type_stops_everything(sample: Sample, name: str) -> None:
    damage, tag = ENTRIES[name]
    sample.box.write_index(damage(sample))
    assert_refused(sample.box.top, 12, "index.json" if tag is None else "", tag=tag)


ODD_ANNOTATIONS: dict[str, object] = {
    "a list": [],
    "text": "main",
    "a number for the ref name": {REF_NAME: 7},
    "null": None,
    "a list for the ref name": {REF_NAME: ["main"]},
}


@pytest.mark.parametrize("name", ODD_ANNOTATIONS)
def test_odd_annotations_cost_no_blob(sample: Sample, name: str) -> None:
    """A name is not needed to keep what an entry reaches; refusing is as careful."""
    sample.box.write_index(with_entry(annotations=ODD_ANNOTATIONS[name])(sample))
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code in {0, 12}
    assert sample.live <= set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_manifests_null_is_an_empty_list(sample: Sample) -> None:
    """So Go reads it, and BuildKit would; nothing reaches a blob then."""
    sample.box.write_index(with_manifests(None)(sample))
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code == 0
    assert answer.value["deleted"]["blobs"] == len(sample.live | sample.garbage)
    assert os.listdir(sample.dir / "blobs" / "sha256") == []


def test_a_missing_index_beside_blobs_stops_everything(sample: Sample) -> None:
    (sample.dir / "index.json").unlink()
    assert_refused(sample.box.top, 12, "index.json", "missing")


def test_an_index_over_the_cap_is_not_even_parsed(sample: Sample) -> None:
    with Stage(sample.dir) as stage:
        stage.do([["pad", "index.json", CAP_BYTES + 1]])
    assert_refused(sample.box.top, 13, "index.json", f"{CAP_BYTES:,}")


def test_an_endless_sparse_index_is_not_even_read(sample: Sample) -> None:
    with Stage(sample.dir) as stage:
        stage.do([["grow", "index.json", 1 << 42]])
    assert_refused(sample.box.top, 13, "index.json", f"{CAP_BYTES:,}")


def test_an_index_right_at_the_cap_is_read(sample: Sample) -> None:
    with Stage(sample.dir) as stage:
        stage.do([["pad", "index.json", CAP_BYTES], ["age", "index.json", 60]])
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code == 0
    assert answer.value["deleted"]["blobs"] == len(sample.garbage)


def test_an_index_of_two_million_values_is_not_even_parsed(sample: Sample) -> None:
    sample.box.write_index(b'{"manifests":[' + b"0," * 2_000_000 + b"0]}")
    assert_refused(sample.box.top, 13, "index.json", "of at most 1,000,000")


INSTEAD: dict[str, list[list[str]]] = {
    "a symlink": [["rename", "index.json", "../index"], ["symlink", "index.json", "../index"]],
    "a dangling symlink": [["remove", "index.json"], ["symlink", "index.json", "../nowhere"]],
    "a directory": [["remove", "index.json"], ["mkdir", "index.json"]],
    "a pipe": [["remove", "index.json"], ["fifo", "index.json"]],
    "a socket": [["remove", "index.json"], ["socket", "index.json"]],
}


@pytest.mark.parametrize("name", INSTEAD)
def test_an_index_that_is_no_file_is_refused(sample: Sample, name: str) -> None:
    with Stage(sample.dir) as stage:
        stage.do(INSTEAD[name])
    assert_refused(
        sample.box.top, 13, "index.json", "symbolic link" if "sym" in name else "regular"
    )


def test_a_torn_index_is_read_again_before_it_counts(sample: Sample) -> None:
    """BuildKit overwrites in place: a reader that comes in between waits a moment."""
    sound = (sample.dir / "index.json").read_bytes()
    (sample.dir / "index.json").write_bytes(sound[:40])
    before = take_snapshot(sample.box.top)
    with Stage(sample.dir) as stage:
        heal_once_read(stage, sample.dir / "index.json", sound)
        answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code == 0
    assert answer.value["deleted"]["blobs"] == len(sample.garbage)
    changes = unchanged(before, take_snapshot(sample.box.top))
    assert len(changes) == len(sample.garbage) + 1


def heal_once_read(stage: Stage, index: Path, sound: bytes) -> None:
    """Makes the index whole as soon as the reset has its lock, which is when it reads it."""
    lock = index.with_name("kitcache.lock")

    def heal() -> None:
        while not lock.exists():
            time.sleep(0.001)
        index.write_bytes(sound)

    timer = threading.Timer(0, heal)
    stage.timers.append(timer)
    timer.start()


DEEP_FIELDS: dict[str, Json] = {
    "unknown": {"x": [[[[{"a": [1, 2, {"digest": "no digest"}]}]]]]},
    "annotations": {"annotations": {"a": "b", "A": "c"}},
}


@pytest.mark.parametrize("name", DEEP_FIELDS)
def test_fields_that_nobody_knows_are_no_hindrance(sample: Sample, name: str) -> None:
    sample.box.write_index(encode(sample.box.index_document() | DEEP_FIELDS[name]))
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code == 0
    assert answer.value["deleted"]["blobs"] == len(sample.garbage)


@pytest.mark.parametrize("command", ["du", "ls"])
@pytest.mark.parametrize("name", ["empty", "half-written", "not UTF-8", "nested lists, closed"])
def test_looking_at_a_damaged_index_says_so(sample: Sample, command: str, name: str) -> None:
    """du and ls print what they can, and exit 12: the picture is incomplete."""
    sample.box.write_index(NOT_JSON[name](sample))
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, command, "cache")
    in_json = run(sample.box.top, command, "cache", "--json")
    assert (answer.code, in_json.code) == (12, 12)
    assert "index.json" in answer.out + answer.err
    assert in_json.value["exit_code"] == 12
    assert unchanged(before, take_snapshot(sample.box.top)) == []


@pytest.mark.parametrize("name", ["empty", "half-written", "nested lists, closed"])
def test_untag_leaves_a_damaged_index_alone(sample: Sample, name: str) -> None:
    sample.box.write_index(NOT_JSON[name](sample))
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "untag", "cache", "main")
    assert answer.code == 12
    assert_civil(answer)
    assert "index.json" in answer.err
    assert unchanged(before, take_snapshot(sample.box.top)) == []


TEMP = "index.json.kitcache-new"


@pytest.mark.parametrize("kind", ["write", "symlink", "dangling", "mkdir", "fifo"])
def test_what_lies_where_untag_writes_is_not_followed(sample: Sample, kind: str) -> None:
    """Where there can be no .kitcache/: what was killed leaves a file there, others anything."""
    (sample.dir / ".kitcache").write_text("")
    (sample.box.top / "victim").write_text("precious")
    steps = {
        "write": ["write", TEMP, "half"],
        "symlink": ["symlink", TEMP, "../victim"],
        "dangling": ["symlink", TEMP, "../made-by-accident"],
        "mkdir": ["mkdir", TEMP],
        "fifo": ["fifo", TEMP],
    }
    with Stage(sample.dir) as stage:
        stage.do([steps[kind]])
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "untag", "cache", "main")
    after = take_snapshot(sample.box.top)
    assert answer.code == (1 if kind == "mkdir" else 0)
    changed = ["cache/index.json"] if answer.code == 0 else []
    gone = [f"cache/{TEMP}"] if answer.code == 0 else []
    assert [n for n in before if n in after and before[n] != after[n]] == changed
    assert [n for n in before if n not in after] == gone
    assert not after.keys() - before.keys() - {"cache/kitcache.lock", "cache/index.json.lock"}


def test_the_subject_of_the_index_may_be_absent_and_keeps_what_it_reaches(sample: Sample) -> None:
    path = sample.dir / "index.json"
    document = json.loads(path.read_bytes())
    document["subject"] = document["manifests"].pop(0)
    path.write_text(json.dumps(document))
    assert run(sample.box.top, "reset", "cache").code == 0
    assert sample.box.path_of(sample.main["digest"]).exists()
    document["subject"]["digest"] = "sha256:" + "a" * 64
    path.write_text(json.dumps(document))
    answer = run(sample.box.top, "reset", "--dry-run", "--json", "cache")
    assert answer.code == 0
    assert [leaf["digest"] for leaf in answer.value["missing_blobs"]] == ["sha256:" + "a" * 64]


READERS = ["ls cache", "du cache", "why cache {}"]


@pytest.mark.parametrize("command", READERS)
def test_a_command_that_removes_nothing_does_not_talk_of_it(sample: Sample, command: str) -> None:
    sample.box.write_index(b'{"manifests"')
    answer = run(sample.box.top, *command.format(sample.main["digest"]).split())
    assert answer.code == 12
    assert "nothing was" not in answer.err
    assert "kitcache verify cache --repair" in answer.err
