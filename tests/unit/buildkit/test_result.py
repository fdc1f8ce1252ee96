"""buildkit/result.py: what a daemon answers, as a value."""

import base64
import json

import pytest

from kitcache.buildkit.publish import CacheResult
from kitcache.buildkit.result import BuildResult, decode_response, find_image_id, known_digest
from kitcache.gc.values import Tally

DESCRIPTOR = {"mediaType": "a/b", "digest": "sha256:0", "size": 3}
ENCODED = base64.b64encode(json.dumps(DESCRIPTOR).encode()).decode()


def test_a_descriptor_is_unpacked() -> None:
    assert decode_response({"containerimage.descriptor": ENCODED}) == {
        "containerimage.descriptor": DESCRIPTOR
    }


@pytest.mark.parametrize(
    "text",
    ["", "!", ENCODED[:-1], "e30", f" {ENCODED}", base64.b64encode(b"\xff").decode(), "{}"],
)
def test_a_descriptor_that_is_none_stays_as_it_is(text: str) -> None:
    key = "containerimage.descriptor"
    assert decode_response({key: text}) == {key: text}


def test_a_caches_manifest_is_unpacked_and_garbage_stays() -> None:
    for text, value in (('{"a": 1}', {"a": 1}), ("{", "{"), ("", "")):
        assert decode_response({"cache.manifest": text}) == {"cache.manifest": value}


def test_anything_else_stays_a_text_in_the_order_of_keys() -> None:
    found = decode_response({"b": "true", "image.name": "x,y", "a": '{"c": 1}'})
    assert found == {"b": "true", "image.name": "x,y", "a": '{"c": 1}'}
    assert list(found) == ["a", "b", "image.name"]


def result(digest: str | None = None, *codes: int, **metadata: str) -> BuildResult:
    caches = (
        CacheResult("cache", "t", "failed", None, Tally(0, 0), Tally(0, 0), None, "", code)
        for code in codes
    )
    named = {key.replace("_", "."): value for key, value in metadata.items()}
    return BuildResult("ref", digest, named, tuple(caches))


def test_what_docker_calls_an_image_depends_on_its_store() -> None:
    one, two = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    both = {"containerimage.digest": one, "containerimage.config.digest": two}
    assert find_image_id(both, is_in_containerd=True) == one
    assert find_image_id(both, is_in_containerd=False) == two
    for is_in_containerd in (True, False):
        assert (
            find_image_id(
                both | {"containerimage.config.digest": "\x1b"}, is_in_containerd=is_in_containerd
            )
            == one
        )
        for key, digest in both.items():
            assert find_image_id({key: digest}, is_in_containerd=is_in_containerd) == digest
        assert find_image_id({}, is_in_containerd=is_in_containerd) is None


def test_what_is_no_digest_is_no_image() -> None:
    """A daemon's word goes to stdout with -q, and into scripts."""
    assert known_digest("sha256:../../x") is None


def test_deep_json_in_an_answer_stays_text() -> None:
    deep = "[" * 100_000
    assert decode_response({"cache.manifest": deep})["cache.manifest"] == deep


def test_the_exit_code_is_the_worst_of_the_caches() -> None:
    assert result().exit_code == 0
    assert result(None, 0, 12, 3).exit_code == 12
