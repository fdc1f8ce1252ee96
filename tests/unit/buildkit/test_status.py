"""buildkit/status.py: a message of the Status stream as values."""

import pytest

from kitcache.buildkit.proto import control_pb2
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


def response() -> control_pb2.StatusResponse:
    """Something of everything; its name is what a test can spoil."""
    full = control_pb2.StatusResponse()
    vertex = full.vertexes.add(
        digest="sha256:v", inputs=["sha256:a", "sha256:b"], name="NAME", cached=True, error="e"
    )
    vertex.started.seconds, vertex.started.nanos = 5, 7
    vertex.completed.seconds = -1
    vertex.progress_group.id, vertex.progress_group.weak = "g", True
    status = full.statuses.add(id="s", vertex="sha256:v", name="n", current=-4, total=1 << 40)
    status.timestamp.SetInParent()
    full.logs.add(vertex="sha256:v", stream=2, msg=b"\xff\n")
    warning = full.warnings.add(
        vertex="sha256:v", level=1, short=b"sh\xffort", detail=[b"d1", b"d2"], url="u"
    )
    warning.info.filename, warning.info.data, warning.info.language = "Dockerfile", b"F", "L"
    place = warning.ranges.add()
    place.start.line, place.start.character, place.end.line = 3, 1, -4
    return full


EXPECTED = BuildUpdate(
    (
        Vertex(
            "sha256:v",
            ("sha256:a", "sha256:b"),
            "NAME",
            True,
            5_000_000_007,
            -1_000_000_000,
            "e",
            ProgressGroup("g", "", True),
        ),
    ),
    (Transfer("s", "sha256:v", "n", -4, 1 << 40, 0, None, None),),
    (VertexLog("sha256:v", 2, b"\xff\n", None),),
    (
        BuildWarning(
            "sha256:v",
            1,
            "sh\udcffort",
            ("d1", "d2"),
            "u",
            SourceFile("Dockerfile", b"F", "L"),
            (Range(3, 1, -4, 0),),
        ),
    ),
)


def test_every_field_arrives() -> None:
    assert read_update(response().SerializeToString()) == EXPECTED


def test_what_is_missing_is_empty_and_times_are_none() -> None:
    empty = control_pb2.StatusResponse()
    empty.vertexes.add()
    empty.statuses.add()
    empty.logs.add()
    empty.warnings.add()
    assert read_update(empty.SerializeToString()) == BuildUpdate(
        (Vertex(""),), (Transfer("", ""),), (VertexLog("", 0, b""),), (BuildWarning("", 0, ""),)
    )
    assert read_update(b"") == BuildUpdate()


def test_a_name_that_is_no_utf8_costs_its_bad_bytes_and_nothing_else() -> None:
    message = response().SerializeToString().replace(b"NAME", b"N\xff\xc3E")
    vertex = EXPECTED.vertexes[0]._replace(name="N\ufffd\ufffdE")
    assert read_update(message) == EXPECTED._replace(vertexes=(vertex,))


@pytest.mark.parametrize("name", [b"NAME", b"N\xffME"])
def test_unknown_fields_are_skipped(name: bytes) -> None:
    # 15: a varint, 14: bytes, 13: 32 bits; and a known field with a wire type that is not its own.
    unknown = b"\x78\x05" + b"\x72\x02hi" + b"\x6dabcd" + b"\x08\x01"
    message = response().SerializeToString().replace(b"NAME", name) + unknown
    assert len(read_update(message).vertexes) == 1


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x05ab", b"\x0a\x03\x0a\x05a"])
def test_what_is_no_message_is_a_value_error(message: bytes) -> None:
    with pytest.raises(ValueError, match="not a message of the Status stream"):
        read_update(message)
