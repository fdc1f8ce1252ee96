"""cli/rawjson.py: what buildx would print of the same news."""

import json

import pytest

from kitcache.buildkit.status import (
    BuildUpdate,
    BuildWarning,
    ProgressGroup,
    Range,
    SourceFile,
    Transfer,
    Vertex,
    VertexLog,
    read_update,
)
from kitcache.cli.rawjson import RawJson, encode_update
from tests.unit.buildkit.recordings import read_recording
from tests.unit.cli.progress import Output


@pytest.mark.parametrize("name", ["build", "failed"])
def test_it_is_what_buildx_printed(name: str) -> None:
    for printed, message in read_recording(name):
        encoded = encode_update(read_update(message))
        assert json.loads(encoded) == printed
        assert list(json.loads(encoded)) == list(printed)


def test_what_is_empty_is_left_out_where_go_does_so() -> None:
    zero = "0001-01-01T00:00:00Z"
    update = BuildUpdate(
        (Vertex("", group=ProgressGroup("", "", weak=False)),),
        (Transfer("", ""),),
        (VertexLog("", 0, b""),),
        (BuildWarning("", 0, "", source=SourceFile("", b"", ""), ranges=(Range(0, 0, 0, 0),)),),
    )
    assert json.loads(encode_update(update)) == {
        "vertexes": [{"progressGroup": {}}],
        "statuses": [{"id": "", "current": 0, "timestamp": zero}],
        "logs": [{"data": "", "timestamp": zero}],
        "warnings": [{"sourceInfo": {}, "range": [{"start": {}, "end": {}}]}],
    }
    assert encode_update(BuildUpdate()) == "{}"


def test_warnings_and_groups() -> None:
    source = SourceFile("Dockerfile", b"FROM x\n", "Dockerfile")
    warning = BuildWarning("v", 1, "a\udcff", ("d",), "u", source, (Range(1, 2, 3, 0),))
    update = BuildUpdate(
        (Vertex("v", group=ProgressGroup("g", "n", weak=True)),), warnings=(warning,)
    )
    assert json.loads(encode_update(update)) == {
        "vertexes": [{"digest": "v", "progressGroup": {"id": "g", "name": "n", "weak": True}}],
        "warnings": [
            {
                "vertex": "v",
                "level": 1,
                "short": "Yf8=",
                "detail": ["ZA=="],
                "url": "u",
                "sourceInfo": {
                    "filename": "Dockerfile",
                    "data": "RlJPTSB4Cg==",
                    "language": "Dockerfile",
                },
                "range": [{"start": {"line": 1, "character": 2}, "end": {"line": 3}}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (7, "1970-01-01T00:00:00.000000007Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (-62_135_596_800 * 10**9, "0001-01-01T00:00:00Z"),
        (-50_000_000_000 * 10**9, "0385-07-25T07:06:40Z"),
        (1 << 100, None),
        (-(1 << 100), None),
    ],
)
def test_times(time_ns: int, text: str | None) -> None:
    (vertex,) = json.loads(encode_update(BuildUpdate((Vertex("v", started_ns=time_ns),))))[
        "vertexes"
    ]
    assert vertex.get("started") == text


def test_an_update_is_a_line_of_ascii_at_once() -> None:
    out = Output()
    display = RawJson(out)
    display.update(BuildUpdate((Vertex("v", name="é\n\u2028\ud800"),)))
    line = out.new()
    assert line.isascii()
    assert line.count("\n") == 1
    display.note("a remark")
    display.tick()
    display.close()
    assert out.new() == ""
