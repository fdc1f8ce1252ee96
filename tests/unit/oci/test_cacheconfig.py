"""oci/cacheconfig.py: what BuildKit takes for a cacheconfig, and the same one made smaller."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from kitcache.oci.cacheconfig import (
    NO_PARENT,
    CacheConfig,
    Layer,
    LayerAnnotations,
    parse_time,
    read_cacheconfig,
    sources_first,
    trim_cacheconfig,
)
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from tests.objects.buckets import read_fixture

CREATED = "2026-05-04T10:00:00.5Z"
CREATED_NS = 1_777_888_800_500_000_000

Json = dict[str, Any]


def layer(number: int, parent: int | None = NO_PARENT, **more: Any) -> Json:
    found: Json = {"blob": f"sha256:{number:064x}", **more}
    return found if parent is None else {**found, "parent": parent}


def record(word: str, *inputs: list[int], layers: tuple[int, ...] = (), **more: Any) -> Json:
    made: Json = {"digest": word, **more}
    if inputs:
        made["inputs"] = [[{"link": link} for link in ways] for ways in inputs]
    if layers:
        made["layers"] = [{"layer": number, "createdAt": CREATED} for number in layers]
    return made


def encode(layers: list[Json], records: list[Json], **more: Any) -> bytes:
    return json.dumps({"layers": layers, "records": records, **more}).encode()


def refusal(data: bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        read_cacheconfig(data)
    return str(caught.value)


# A base, two steps upon it, and a stage of its own whose product the second step copies.
LAYERS = [layer(0), layer(1, 0), layer(2, 1), layer(9)]
RECORDS = [
    record("source"),
    record("base", [0], layers=(0,)),
    record("first", [1], layers=(1,)),
    record("stage", [0], layers=(3,)),
    record("second", [2], [3], layers=(2,)),
]
WHOLE = encode(LAYERS, RECORDS)


def test_a_result_is_the_chain_down_to_its_base() -> None:
    config = read_cacheconfig(WHOLE)
    (result,) = config.records[4].results
    assert result.chain == (0, 1, 2)
    assert result.created_ns == CREATED_NS
    assert [key for key, _ in config.results()] == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_a_parent_that_is_left_out_is_layer_0_as_in_go() -> None:
    config = read_cacheconfig(encode([layer(5), layer(6, None)], [record("a", layers=(1,))]))
    assert config.records[0].results[0].chain == (0, 1)


@pytest.mark.parametrize("order", [range(300), range(299, -1, -1), [150, 299, 0, 150, 149, 151]])
def test_chains_that_share_layers_are_whole_in_any_order(order: Sequence[int]) -> None:
    """Branches too: every third layer lies on the one three below it."""
    listed = [layer(n, n - 3 if n % 3 == 0 else n - 1) for n in range(300)]
    listed[0] = layer(0)
    found = read_cacheconfig(encode(listed, [record("a", layers=tuple(order))]))
    for top, result in zip(order, found.records[0].results, strict=True):
        chain = [*range(0, top - top % 3 + 1, 3), *range(top - top % 3 + 1, top + 1)]
        assert result.chain == tuple(chain)


def test_chains_name_their_layers_themselves() -> None:
    merged = record("merged", chains=[{"layers": [3, 1], "createdAt": CREATED}])
    config = read_cacheconfig(encode(LAYERS, [merged]))
    assert config.records[0].results[0].chain == (3, 1)


@pytest.mark.parametrize(
    ("layers", "records", "words"),
    [
        ([layer(0)], [record("a", layers=(1,))], "record 0 names layer 1 of 1"),
        ([layer(0)], [record("a", layers=(-1,))], "record 0 names layer -1 of 1"),
        ([layer(0, 1), layer(1, 0)], [record("a", layers=(0,))], "form a cycle"),
        ([layer(0, 7)], [record("a", layers=(0,))], "names layer 7 of 1"),
        ([], [record("a", [3])], "record 0 references record 3 of 1"),
        ([], [record("a", [1]), record("b", [0])], "form a cycle"),
        ([], [record("a", [0])], "form a cycle"),
        ([], [record("a", [])], "has an input without records"),
        ([{"blob": "sha256:beef"}], [], "the blob of layer 0"),
        ([], [record("a", chains=[{"layers": [0]}])], "names layer 0 of 0"),
        ([], [record("a") | {"digest": 7}], "'digest' of record 0 is a number"),
        ([layer(0)], [record("a") | {"layers": [{"layer": 0.5}]}], "a number of record 0"),
        ([layer(0)], [record("a") | {"layers": [{"createdAt": "soon"}]}], "a time of record 0"),
        ([], [record("a") | {"Digest": "b"}], "only some readers read 'Digest' as 'digest'"),
        ([], [7], "record 0 is a number, not an object"),
    ],
)
def test_what_buildkit_refuses_is_refused(
    layers: list[Json], records: list[Json], words: str
) -> None:
    assert words in refusal(encode(layers, records))


def test_what_no_result_names_is_not_looked_at() -> None:
    loose = encode([layer(0, 1), layer(1, 0), layer(2)], [record("a", layers=(2,))])
    assert read_cacheconfig(loose).records[0].results[0].chain == (2,)


def test_an_empty_document_is_an_empty_config() -> None:
    assert read_cacheconfig(b'{"layers":null}') == CacheConfig((), ())


def test_chains_that_would_fill_the_memory_are_refused() -> None:
    layers = [layer(n, n - 1) for n in range(3000)]
    records = [record("a", layers=tuple(range(3000)))]
    assert "are too long" in refusal(encode(layers, records))


def test_sources_come_before_what_is_reached_through_them() -> None:
    order = sources_first(read_cacheconfig(WHOLE).records)
    assert order.index(0) < order.index(1) < order.index(2) < order.index(4)
    assert order.index(3) < order.index(4)


def test_a_cut_keeps_what_its_results_need_and_no_more() -> None:
    cut = trim_cacheconfig(WHOLE, [(2, 0)])
    after = read_cacheconfig(cut.data)
    assert [r.digest for r in after.records] == ["source", "base", "first"]
    assert [len(r.results) for r in after.records] == [0, 0, 1]
    assert after.records[2].results[0].chain == (0, 1)
    assert cut.layers == {Digest("sha256", f"{n:064x}") for n in (0, 1)}
    assert cut.records == 3


def test_a_cut_renumbers_layers_and_records() -> None:
    after = read_cacheconfig(trim_cacheconfig(WHOLE, [(3, 0)]).data)
    assert [r.digest for r in after.records] == ["source", "stage"]
    assert after.records[1].sources == {0}
    assert after.layers[after.records[1].results[0].chain[0]].digest.hex == f"{9:064x}"


def test_a_cut_of_nothing_is_the_same_config() -> None:
    config = read_cacheconfig(WHOLE)
    assert (
        read_cacheconfig(trim_cacheconfig(WHOLE, [k for k, _ in config.results()]).data) == config
    )


def test_a_cut_of_everything_is_an_empty_config() -> None:
    cut = trim_cacheconfig(WHOLE, [])
    assert read_cacheconfig(cut.data) == CacheConfig((), ())
    assert cut.layers == frozenset()


def test_every_alternative_of_what_is_kept_stays() -> None:
    records = [record("a"), record("b"), record("c", [0, 1], layers=(0,))]
    after = read_cacheconfig(trim_cacheconfig(encode([layer(0)], records), [(2, 0)]).data)
    assert after.records[2].sources == {0, 1}


def test_of_several_results_only_some_may_stay() -> None:
    chained = {"layers": [0, 1], "createdAt": CREATED, "x": 1}
    data = encode([layer(0), layer(1, 0), layer(2)], [record("a", layers=(2, 0), chains=[chained])])
    after = json.loads(trim_cacheconfig(data, [(0, 1), (0, 2)]).data)
    assert after["records"] == [
        {"digest": "a", "layers": [{"layer": 0, "createdAt": CREATED}], "chains": [chained]}
    ]
    lone = json.loads(trim_cacheconfig(data, [(0, 0)]).data)
    assert "chains" not in lone["records"][0]


def test_a_chain_can_keep_a_layer_without_the_one_below_it() -> None:
    chained = record("a", chains=[{"layers": [1], "createdAt": CREATED}])
    data = encode([layer(0), layer(1, 0)], [chained, record("b", layers=(0,))])
    after = read_cacheconfig(trim_cacheconfig(data, [(0, 0)]).data)
    assert after.layers == (Layer(Digest("sha256", f"{1:064x}"), NO_PARENT),)


def test_what_nobody_knows_survives_a_cut() -> None:
    layers = [layer(0, annotations={"size": 7}), layer(1)]
    records = [record("s", more=[1]), record("a", [0], layers=(0,), more=2)]
    records[1]["inputs"][0][0]["selector"] = "sel"
    after = json.loads(trim_cacheconfig(encode(layers, records, new=True), [(1, 0)]).data)
    assert after["new"] is True
    assert after["layers"] == layers[:1]
    assert after["records"] == records


ANNOTATIONS = {"mediaType": "a/b", "diffID": "sha256:7", "size": 102, "createdAt": CREATED}


def test_the_annotations_that_object_stores_have_are_read() -> None:
    config = read_cacheconfig(encode([layer(0, annotations=ANNOTATIONS), layer(1)], []))
    assert [each.annotations for each in config.layers] == [
        LayerAnnotations("a/b", "sha256:7"),
        None,
    ]
    (empty,) = read_cacheconfig(encode([layer(0, annotations={})], [])).layers
    assert empty.annotations == LayerAnnotations("", "")


@pytest.mark.parametrize(
    "annotations",
    [
        7,
        "text",
        [],
        ANNOTATIONS | {"mediaType": 7},
        ANNOTATIONS | {"diffID": {}},
        ANNOTATIONS | {"size": "102"},
        ANNOTATIONS | {"createdAt": "yesterday"},
        ANNOTATIONS | {"DiffID": "sha256:8"},
    ],
)
def test_annotations_that_go_does_not_decode_are_refused(annotations: Any) -> None:
    """BuildKit decodes the whole document into one type, so it would import nothing."""
    assert "diffid" in refusal(encode([layer(0, annotations=annotations)], [])).lower() or (
        "annotations of layer 0" in refusal(encode([layer(0, annotations=annotations)], []))
    )


@pytest.mark.parametrize("kind", ["s3", "azblob"])
@pytest.mark.parametrize("name", ["main", "first", "feature/x"])
def test_a_cut_of_a_real_root_keeps_the_annotations_of_its_layers(kind: str, name: str) -> None:
    data = read_fixture(kind)[f"manifests/{name}"]
    known = {json.dumps(each["annotations"]) for each in json.loads(data)["layers"]}
    keys = [key for key, _ in read_cacheconfig(data).results()]
    assert trim_cacheconfig(data, keys).data == data
    for key in keys:
        cut = json.loads(trim_cacheconfig(data, [key]).data)
        assert 0 < len(cut["layers"]) < len(json.loads(data)["layers"])
        assert {json.dumps(each["annotations"]) for each in cut["layers"]} <= known


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T01:00:01+01:00", 10**9),
        ("1970-01-01T00:00:00.000001999Z", 1000),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("9999-99-99T00:00:00Z", None),
        (None, None),
        (7, None),
        ([], None),
    ],
)
def test_times(text: Any, ns: int | None) -> None:
    assert parse_time(text) == ns
