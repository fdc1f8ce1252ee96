"""Digests that are no digests: in index.json, in manifests, in a cacheconfig.

Laws: what is spelled wrongly never becomes a path; what cannot be resolved stops the reset.
"""

import os

import pytest

from tests.caches.snapshot import take_snapshot
from tests.hostile.build import CACHECONFIG, LAYER, MANIFEST, Sample, digest_of, encode
from tests.hostile.command import assert_refused, run, unchanged

HEX = "ab" * 32
SPELLINGS: dict[str, str] = {
    "dots": "sha256:../../../bystander",
    "dots for an algorithm": "../..:bystander",
    "an absolute path": "sha256:/etc/passwd",
    "a path as long as a digest": "sha256:" + ("../" * 22)[:64],
    "an algorithm with a slash": "sha256/..:" + HEX,
    "one digit short": "sha256:" + HEX[:-1],
    "one digit long": "sha256:" + HEX + "a",
    "no digits": "sha256:",
    "no algorithm": ":" + HEX,
    "no colon": HEX,
    "two colons": "sha256:sha256:" + HEX,
    "upper case": "sha256:" + HEX.upper(),
    "one upper-case digit": "sha256:" + HEX[:-1] + "B",
    "an upper-case algorithm": "SHA256:" + HEX,
    "not hex": "sha256:" + "g" * 64,
    "full-width digits": "sha256:" + "\uff11" * 64,
    "other digits": "sha256:" + "\u0661" * 64,
    "a line break behind": "sha256:" + HEX + "\n",
    "a line break for a digit": "sha256:" + HEX[:-1] + "\n",
    "a blank before": " sha256:" + HEX,
    "a zero byte": "sha256:" + HEX[:-1] + "\0",
    "empty": "",
    "sha512 as long as sha256": "sha512:" + HEX,
    "sha384 as long as sha512": "sha384:" + HEX * 2,
    "a lone surrogate": "sha256:" + "\ud800" * 64,
    "an escape": "sha256:\x1b[2J" + HEX[:60],
    "a megabyte": "sha256:" + "a" * (1 << 20),
}
UNKNOWN = ["blake3:" + HEX, "md5:" + HEX[:32], "sha1:" + HEX[:40], "multihash+base58:QmXYZ"]


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_root_spelled_wrongly_stops_everything(sample: Sample, name: str) -> None:
    sample.box.tag("odd", {"mediaType": MANIFEST, "digest": SPELLINGS[name], "size": 412})
    answer = assert_refused(sample.box.top, 12, "digest", tag="odd")
    assert len(answer.out) < 4000


@pytest.mark.parametrize("digest", UNKNOWN)
def test_a_root_of_an_unknown_algorithm_stops_everything(sample: Sample, digest: str) -> None:
    """Its bytes cannot be proven, so what it reaches cannot be known."""
    sample.box.tag("odd", {"mediaType": MANIFEST, "digest": digest, "size": 412})
    assert_refused(sample.box.top, 12, digest.partition(":")[0], tag="odd")


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_layer_spelled_wrongly_stops_everything(sample: Sample, name: str) -> None:
    """Whoever wrote this manifest may have meant any blob."""
    layer = {"mediaType": LAYER, "digest": SPELLINGS[name], "size": 412}
    manifest = sample.box.manifest([layer], sample.box.cacheconfig([]))
    sample.box.tag("odd", manifest)
    assert_refused(sample.box.top, 12, "layers[0]", tag="odd", chain=(manifest["digest"],))


@pytest.mark.parametrize("name", ["dots", "upper case", "one digit short", "a line break behind"])
def test_a_cacheconfig_that_spells_wrongly_touches_nothing_else(sample: Sample, name: str) -> None:
    """The manifest lists its layers itself: going on and refusing are both careful."""
    config = sample.box.document({"layers": [{"blob": SPELLINGS[name]}]}, CACHECONFIG)
    sample.box.tag("odd", sample.box.manifest([sample.layers[0]], config))
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code in {0, 12}
    gone = {
        line.removeprefix("gone: cache/blobs/sha256/")
        for line in unchanged(before, take_snapshot(sample.box.top))
    }
    assert gone == (sample.garbage if answer.code == 0 else set())


@pytest.mark.parametrize("digest", UNKNOWN)
def test_a_layer_of_an_unknown_algorithm_is_a_leaf(sample: Sample, digest: str) -> None:
    """It lies in a directory that nobody here touches; whether it is there is reported at most."""
    layer = {"mediaType": LAYER, "digest": digest, "size": 412}
    sample.box.tag("odd", sample.box.manifest([layer], sample.box.cacheconfig([])))
    path = sample.box.path_of(digest)
    path.parent.mkdir()
    path.write_text("unknown")
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code == 0, answer.err
    assert path.read_text() == "unknown"
    assert not sample.garbage & set(os.listdir(sample.dir / "blobs" / "sha256"))


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_the_longer_algorithms_are_judged_like_the_first(sample: Sample, algorithm: str) -> None:
    box = sample.box
    layer = box.blob(b"a live layer", algorithm=algorithm)
    dead = box.blob(b"a dead layer", algorithm=algorithm)
    data = encode({"layers": [layer]})
    box.tag("long", box.blob(data, MANIFEST, algorithm))
    answer = run(box.top, "reset", "cache", "--json")
    assert answer.code == 0, answer.err
    assert answer.value["deleted"]["blobs"] == len(sample.garbage) + 1
    assert box.path_of(layer["digest"]).exists()
    assert box.path_of(digest_of(data, algorithm)).exists()
    assert not box.path_of(dead["digest"]).exists()


def test_one_hex_under_two_algorithms_is_two_blobs(sample: Sample) -> None:
    """The name alone is no identity: sha512 garbage may begin like a live sha256 blob."""
    live = sample.layers[0]["digest"].partition(":")[2]
    folder = sample.dir / "blobs" / "sha512"
    folder.mkdir()
    (folder / (live + live)).write_text("dead")
    (folder / live).write_text("an odd name here")
    answer = run(sample.box.top, "reset", "cache", "--json")
    assert answer.code == 0
    assert os.listdir(folder) == [live]
    assert f"blobs/sha512/{live}" in answer.value["foreign"]
    assert sample.box.path_of(sample.layers[0]["digest"]).exists()


# No argument of a command can hold a NUL, half a surrogate pair or a megabyte.
ARGUMENTS = [
    name
    for name, word in SPELLINGS.items()
    if not {"\0", "\ud800"} & set(word) and len(word) <= 100_000
]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_why_answers_any_spelling(sample: Sample, name: str) -> None:
    word = SPELLINGS[name]
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "why", "cache", word)
    assert answer.code in {1, 2}
    assert answer.err.startswith("kitcache: ")
    assert unchanged(before, take_snapshot(sample.box.top)) == []


@pytest.mark.parametrize("name", ARGUMENTS)
def test_untag_of_any_spelling_changes_nothing(sample: Sample, name: str) -> None:
    word = SPELLINGS[name]
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "untag", "cache", word)
    assert answer.code in {1, 2}
    assert answer.err.startswith("kitcache: ")
    assert unchanged(before, take_snapshot(sample.box.top)) == []
