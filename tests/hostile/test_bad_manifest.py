"""Manifests that are missing, torn, lying, too large or nested too deeply.

Law: a picture with a hole removes nothing; the message leads to the hole and out of it.
"""

import os
import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.caches.steps import Stage
from tests.hostile.build import (
    CACHECONFIG,
    IMAGE_CONFIG,
    INDEX,
    MANIFEST,
    Json,
    Sample,
    digest_of,
    encode,
)
from tests.hostile.command import assert_refused, run

CAP_BYTES = 64 << 20
NESTING = 32
Harm = Callable[[Sample, str], None]


class Hurt(NamedTuple):
    """One way to hurt a blob: what is done, the word of the message, the kind in the JSON."""

    harm: Harm
    word: str
    kind: str


def lose(sample: Sample, digest: str) -> None:
    sample.box.damage(digest, None)


def cut(sample: Sample, digest: str) -> None:
    sample.box.damage(digest, sample.box.path_of(digest).read_bytes()[:-10])


def empty(sample: Sample, digest: str) -> None:
    sample.box.damage(digest, b"")


def lengthen(sample: Sample, digest: str) -> None:
    sample.box.damage(digest, sample.box.path_of(digest).read_bytes() + b" ")


def lie(sample: Sample, digest: str) -> None:
    """As long as before and still JSON, but it could hide layers."""
    data = sample.box.path_of(digest).read_bytes()
    sample.box.damage(digest, data.replace(b"sha256:", b"sha256;", 1))


def link(sample: Sample, digest: str) -> None:
    steps(sample, digest, ["rename", "{}", "../pool/it"], ["symlink", "{}", "../../../pool/it"])


def pipe(sample: Sample, digest: str) -> None:
    steps(sample, digest, ["remove", "{}"], ["fifo", "{}"])


def directory(sample: Sample, digest: str) -> None:
    steps(sample, digest, ["remove", "{}"], ["mkdir", "{}"])


def socket(sample: Sample, digest: str) -> None:
    steps(sample, digest, ["remove", "{}"], ["socket", "{}"])


def steps(sample: Sample, digest: str, *todo: list[str]) -> None:
    name = str(sample.box.path_of(digest).relative_to(sample.dir))
    with Stage(sample.dir) as stage:
        stage.do([[word.replace("{}", name) for word in step] for step in todo])


HURTS: dict[str, Hurt] = {
    "missing": Hurt(lose, "missing", "missing"),
    "wrong-size": Hurt(cut, "truncated", "wrong-size"),
    "empty": Hurt(empty, "truncated (0 of ", "wrong-size"),
    "too long": Hurt(lengthen, "too long", "wrong-size"),
    "lying": Hurt(lie, "does not match its digest", "wrong-digest"),
    "a symlink": Hurt(link, "a symlink, which kitcache does not follow", "not-a-file"),
    "a pipe": Hurt(pipe, "not a regular file", "not-a-file"),
    "a directory": Hurt(directory, "not a regular file", "not-a-file"),
    "a socket": Hurt(socket, "not a regular file", "not-a-file"),
}


@pytest.mark.parametrize("name", HURTS)
def test_a_hurt_manifest_stops_everything(sample: Sample, name: str) -> None:
    hurt = HURTS[name]
    digest = sample.main["digest"]
    hurt.harm(sample, digest)
    assert_refused(
        sample.box.top, 12, hurt.word, "(manifest", tag="main", chain=(digest,), kind=hurt.kind
    )


@pytest.mark.parametrize("name", HURTS)
def test_a_hurt_nested_manifest_is_found_by_its_path(sample: Sample, name: str) -> None:
    """The tag is fine, the index under it is fine, and one platform's manifest is not."""
    hurt = HURTS[name]
    box = sample.box
    arm = box.manifest([box.blob(b"an arm layer")])
    platform = {"platform": {"os": "linux", "architecture": "arm64"}}
    inner = box.index_of([arm | platform])
    outer = box.index_of([sample.dev, inner])
    box.tag("multi", outer)
    hurt.harm(sample, arm["digest"])
    assert_refused(
        box.top,
        12,
        hurt.word,
        "(index",
        "linux/arm64",
        tag="multi",
        chain=(outer["digest"], inner["digest"], arm["digest"]),
        kind=hurt.kind,
    )


@pytest.mark.parametrize("name", HURTS)
def test_a_hurt_nested_index_stops_everything(sample: Sample, name: str) -> None:
    hurt = HURTS[name]
    inner = sample.box.index_of([sample.dev])
    outer = sample.box.index_of([inner])
    sample.box.tag("nested", outer)
    hurt.harm(sample, inner["digest"])
    chain = (outer["digest"], inner["digest"])
    assert_refused(sample.box.top, 12, hurt.word, tag="nested", chain=chain, kind=hurt.kind)


@pytest.mark.parametrize("difference", [-1, 1, 1 << 40])
def test_a_root_of_another_size_stops_everything(sample: Sample, difference: int) -> None:
    size = sample.main["size"] + difference
    sample.box.entries[0]["size"] = size
    sample.box.write_index(encode(sample.box.index_document()))
    assert_refused(
        sample.box.top,
        12,
        f"{size:,}",
        tag="main",
        chain=(sample.main["digest"],),
        kind="wrong-size",
    )


@pytest.mark.parametrize("name", ["missing", "wrong-size", "lying"])
def test_the_way_out_that_a_refusal_names_leads_out(sample: Sample, name: str) -> None:
    """The first command under `next`, run as it is printed, and the reset works."""
    HURTS[name].harm(sample, sample.main["digest"])
    refusal = assert_refused(sample.box.top, 12, tag="main")
    commands = [step for step in refusal.value["hints"] if step.startswith("kitcache ")]
    assert commands
    (way_out,) = [shlex.split(command)[1:] for command in commands if "untag" in command]
    out = run(sample.box.top, *way_out)
    assert out.code == 0, out.err
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code == 0, answer.err
    left = set(os.listdir(sample.dir / "blobs" / "sha256"))
    assert {layer["digest"].partition(":")[2] for layer in sample.layers[1:]} <= left
    assert not left & sample.garbage


@pytest.mark.parametrize("tag", ["two words", "it's", "-n", "$(touch oops)", "ümlaut", "a;b"])
def test_the_way_out_is_quoted_for_a_shell(sample: Sample, tag: str) -> None:
    lost = sample.box.manifest([sample.box.blob(b"lost")])
    sample.box.tag(tag, lost)
    lose(sample, lost["digest"])
    refusal = run(sample.box.top, "reset", "cache", "--json").value
    assert refusal["facts"]["tag"] == tag
    (step,) = [step for step in refusal["hints"] if " untag " in step]
    out = run(sample.box.top, *shlex.split(step)[1:])
    assert out.code == 0, out.err
    assert run(sample.box.top, "reset", "cache").code == 0


def test_several_hurt_tags_are_all_told_of(sample: Sample) -> None:
    lose(sample, sample.main["digest"])
    cut(sample, sample.dev["digest"])
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code == 12
    assert "'main'" in answer.err
    assert re.search(r"'dev'|and 1 more|2 entries|another", answer.err), answer.err


MANGLED: dict[str, tuple[Json | bytes, str]] = {
    "no JSON": (b"this is no manifest", "JSON"),
    "a list": (b"[]", "a list"),
    "layers are text": ({"layers": "none"}, "layers"),
    "layers are an object": ({"layers": {}}, "layers"),
    "a layer is null": ({"layers": [None]}, "layers[0]"),
    "a layer is a number": ({"layers": [7]}, "layers[0]"),
    "a layer without digest": ({"layers": [{"size": 1}]}, "layers[0]"),
    "config is a list": ({"config": [], "layers": []}, "config"),
    "a negative size": ({"layers": [{"digest": "sha256:" + "0" * 64, "size": -1}]}, "negative"),
}


@pytest.mark.parametrize("name", MANGLED)
def test_a_manifest_whose_own_bytes_are_wrong_stops_everything(sample: Sample, name: str) -> None:
    """Its digest is right: it was written like that."""
    body, word = MANGLED[name]
    data = body if isinstance(body, bytes) else encode(body)
    sample.box.tag("odd", sample.box.blob(data, MANIFEST))
    assert_refused(sample.box.top, 12, word, tag="odd", chain=(digest_of(data),))


@pytest.mark.parametrize("media_type", [MANIFEST, INDEX, "application/x", ""])
def test_a_manifest_nested_beyond_reading_stops_everything(sample: Sample, media_type: str) -> None:
    data = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    sample.box.tag("odd", sample.box.blob(data, media_type))
    assert_refused(sample.box.top, 12, "deep", "'odd'", digest_of(data)[7:19])


@pytest.mark.parametrize("field", ["Layers", "LAYERS", "layer\u017f"])
def test_a_manifest_in_other_letters_loses_no_layer(sample: Sample, field: str) -> None:
    """Go takes keys in any case, so BuildKit sees these layers: keep them, or refuse."""
    hidden = sample.box.blob(b"seen by Go alone")
    body = {"schemaVersion": 2, "config": sample.box.cacheconfig([]), field: [hidden]}
    sample.box.tag("odd", sample.box.document(body, MANIFEST))
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code in {0, 12}
    assert sample.box.path_of(hidden["digest"]).exists()


@pytest.mark.parametrize("order", [1, -1])
def test_a_manifest_with_doubled_layers_loses_neither(sample: Sample, order: int) -> None:
    one, two = [sample.box.blob(text) for text in (b"first reading", b"second reading")][::order]
    config = sample.box.cacheconfig([])
    data = b'{"config":%b,"layers":[%b],"layers":[%b]}' % tuple(map(encode, (config, one, two)))
    sample.box.tag("odd", sample.box.blob(data, MANIFEST))
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code in {0, 12}
    assert sample.box.path_of(one["digest"]).exists()
    assert sample.box.path_of(two["digest"]).exists()


@pytest.mark.parametrize("media_type", [MANIFEST, INDEX])
def test_a_structural_blob_over_the_cap_is_refused(sample: Sample, media_type: str) -> None:
    """Refused by its size; nobody reads 64 MiB to find out."""
    data = encode({"layers": [], "manifests": []}) + b" " * CAP_BYTES
    sample.box.tag("huge", sample.box.blob(data, media_type))
    assert_refused(sample.box.top, 13, f"{CAP_BYTES:,}", "'huge'", digest_of(data)[7:19])


def test_a_structural_blob_right_at_the_cap_is_read(sample: Sample) -> None:
    layer = sample.box.blob(b"below a mountain of blanks")
    data = encode({"layers": [layer]})
    data += b" " * (CAP_BYTES - len(data))
    sample.box.tag("huge", sample.box.blob(data, MANIFEST))
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code == 0, answer.err
    assert sample.box.path_of(layer["digest"]).exists()


def nested(sample: Sample, levels: int) -> Json:
    descriptor = sample.dev
    for _ in range(levels):
        descriptor = sample.box.index_of([descriptor])
    return descriptor


def test_indexes_nested_without_end_are_refused(sample: Sample) -> None:
    sample.box.tag("deep", nested(sample, 200))
    assert_refused(sample.box.top, 13, f"{NESTING}", "'deep'")


def test_a_manifest_of_a_million_values_is_not_even_parsed(sample: Sample) -> None:
    numbers = sample.box.blob(b'{"layers":[' + b"0," * 1_000_000 + b"0]}", MANIFEST)
    sample.box.tag("numbers", numbers)
    assert_refused(sample.box.top, 13, "of at most 1,000,000", tag="numbers")


def test_a_long_chain_of_subjects_is_no_way_around_the_cap(sample: Sample) -> None:
    descriptor = sample.dev
    for _ in range(200):
        descriptor = sample.box.manifest([], subject=descriptor)
    sample.box.tag("signed", descriptor)
    assert_refused(sample.box.top, 13, f"{NESTING}", "'signed'")


def test_indexes_nested_just_so_are_followed(sample: Sample) -> None:
    sample.box.tag("deep", nested(sample, NESTING - 2))
    sample.box.entries = sample.box.entries[2:]
    sample.box.write_index(encode(sample.box.index_document()))
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code == 0, answer.err
    assert sample.box.path_of(sample.layers[2]["digest"]).exists()
    assert not sample.box.path_of(sample.layers[0]["digest"]).exists()


@pytest.mark.parametrize("command", [["reset"], ["du"], ["ls"], ["why"]])
def test_a_diamond_is_walked_once_a_blob(sample: Sample, command: list[str]) -> None:
    """Each of 30 indexes lists the next one twice: a billion paths, 30 blobs."""
    descriptor = sample.dev
    for _ in range(30):
        both = [descriptor | {"platform": {"os": "linux", "architecture": a}} for a in "xy"]
        descriptor = sample.box.index_of(both)
    sample.box.tag("diamond", descriptor)
    layer = [sample.layers[2]["digest"]] if command == ["why"] else []
    answer = run(sample.box.top, *command, "cache", *layer, "--json")
    assert answer.code == 0, answer.err
    if command == ["why"]:
        assert answer.value["has_more_paths"] is True


LEAVES: dict[str, str] = {"cacheconfig": CACHECONFIG, "image config": IMAGE_CONFIG}


@pytest.mark.parametrize("name", LEAVES)
def test_a_missing_config_is_reported_and_stops_nothing(sample: Sample, name: str) -> None:
    """The manifest lists its layers itself."""
    layer = sample.box.blob(b"listed")
    config = sample.box.document({"layers": [{"blob": layer["digest"]}]}, LEAVES[name])
    sample.box.tag("bare", sample.box.manifest([layer], config))
    lose(sample, config["digest"])
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code == 0
    assert answer.value["deleted"]["blobs"] == len(sample.garbage)
    missing = [(leaf["digest"], leaf["ref_name"]) for leaf in answer.value["missing_blobs"]]
    assert missing == [(config["digest"], "bare")]


def test_a_missing_cacheconfig_is_damage_where_only_it_names_the_layers(sample: Sample) -> None:
    """BuildKit's older form: an index of layers and a cacheconfig, here without the layers."""
    layer = sample.box.blob(b"named by the cacheconfig alone")
    config = sample.box.cacheconfig([layer])
    index = sample.box.index_of([config])
    sample.box.tag("old", index)
    lose(sample, config["digest"])
    chain = (index["digest"], config["digest"])
    assert_refused(sample.box.top, 12, "missing", tag="old", chain=chain, kind="missing")


def test_a_missing_layer_is_reported_and_stops_nothing(sample: Sample) -> None:
    lost = sample.layers[1]["digest"]
    lose(sample, lost)
    answer = run(sample.box.top, "reset", "cache")
    in_json = run(sample.box.top, "reset", "cache", "--json")
    assert (answer.code, in_json.code) == (0, 0)
    assert "missing" in answer.out + answer.err
    leaves = {(leaf["digest"], leaf["ref_name"]) for leaf in in_json.value["missing_blobs"]}
    assert leaves >= {(lost, "main")}
    assert not sample.garbage & set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_a_missing_subject_is_reported_and_stops_nothing(sample: Sample) -> None:
    absent = {"mediaType": MANIFEST, "digest": "sha256:" + "ab" * 32, "size": 400}
    sample.box.tag("signature", sample.box.manifest([], subject=absent))
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code == 0
    assert answer.value["deleted"]["blobs"] == len(sample.garbage)
    assert [leaf["digest"] for leaf in answer.value["missing_blobs"]] == [absent["digest"]]


@pytest.mark.parametrize("command", ["du", "ls"])
def test_looking_at_a_hurt_tag_shows_the_others(sample: Sample, command: str) -> None:
    lose(sample, sample.main["digest"])
    answer = run(sample.box.top, command, "cache")
    in_json = run(sample.box.top, command, "cache", "--json")
    assert (answer.code, in_json.code) == (12, 12)
    assert "main" in answer.out + answer.err
    assert "dev" in answer.out
    assert "dev" in [tag["ref_name"] for tag in in_json.value["tags"]]
    assert in_json.value["damage"]


def test_documents_of_unknown_kind_are_followed_however_long_their_chain(sample: Sample) -> None:
    """Each names the next as its config: hints, which are kept where they are there."""
    descriptor = sample.box.blob(b"the last one", "application/x")
    last = descriptor["digest"]
    for _ in range(1500):
        descriptor = sample.box.document({"config": descriptor}, "application/x")
    sample.box.tag("chained", sample.box.manifest([descriptor]))
    for command in (["reset"], ["why", last], ["ls"], ["du"]):
        answer = run(sample.box.top, command[0], "cache", *command[1:])
        assert answer.code == 0, answer.err
    assert sample.box.path_of(last).exists()
