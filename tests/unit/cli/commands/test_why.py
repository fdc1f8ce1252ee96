"""kitcache why: the path to a blob, and codes for questions that have no answer."""

from tests.hostile.build import Sample
from tests.hostile.command import run


def test_the_path_from_a_tag(sample: Sample) -> None:
    digest = sample.layers[0]["digest"]
    answer = run(sample.box.top, "why", "cache", digest)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].startswith(f"{digest}: 140 B, written ")
    assert "  tag 'main'" in lines
    assert f"    > layer {digest}" in lines


def test_garbage(sample: Sample) -> None:
    answer = run(sample.box.top, "why", "cache", min(sample.garbage)[:12])
    assert (answer.code, answer.out.splitlines()[1]) == (0, "  unreachable: no tag reaches it")


def test_no_such_blob_and_no_such_form(sample: Sample) -> None:
    answer = run(sample.box.top, "why", "cache", "0" * 64)
    assert (answer.code, answer.out) == (1, "")
    assert "no blob matches" in answer.err
    answer = run(sample.box.top, "why", "cache", "zzz")
    assert (answer.code, answer.out) == (2, "")
    assert "'zzz' is not a digest" in answer.err


def test_an_error_in_json_names_the_directory(sample: Sample) -> None:
    value = run(sample.box.top, "why", "--json", "cache", "0" * 64).value
    assert (value["error"], value["path"]) == ("NotFound", "cache")
