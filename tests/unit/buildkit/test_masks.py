"""buildkit/masks.py: what a daemon says, without what it was sent."""

from base64 import b64encode

import pytest

from kitcache.buildkit.masks import Mask, make_mask
from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.status import (
    BuildUpdate,
    BuildWarning,
    ProgressGroup,
    Transfer,
    Vertex,
    VertexLog,
)

URL = "https://us%40er:hunter%2F2!@host/x"


def mask(**attrs: str) -> Mask:
    return make_mask(control_pb2.SolveRequest(frontend_attrs=attrs))


@pytest.mark.parametrize(
    "said",
    [
        "https://us%40er:hunter%2F2!@host/y",
        "http://us@er:hunter/2!@host",
        "us%40er:hunter%2F2%21@host",
        "curl -u us@er:hunter/2!",
        "the password hunter/2! is wrong",
        "Basic " + b64encode(b"us@er:hunter/2!").decode(),
    ],
)
def test_however_a_secret_comes_back(said: str) -> None:
    hidden = mask(context=URL).text(said)
    assert "hunter" not in hidden
    assert b64encode(b"us@er:hunter/2!").decode() not in hidden
    assert "…" in hidden


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (control_pb2.SolveRequest(frontend_attrs={"context": URL}), URL),
        (
            control_pb2.SolveRequest(frontend_attrs={"build-arg:http_proxy": "u:p@proxy:1"}),
            "u:p@proxy",
        ),
        (
            control_pb2.SolveRequest(
                cache=control_pb2.CacheOptions(
                    exports=[control_pb2.CacheEntry(type="s3", attrs={"secret_access_key": "AK"})]
                )
            ),
            "AK",
        ),
        (
            control_pb2.SolveRequest(
                exporters=[control_pb2.Exporter(type="image", attrs={"annotation.x": URL})]
            ),
            "hunter/2!",
        ),
        (
            control_pb2.SolveRequest(frontend_attrs={"context": "https://0123456789ab@host"}),
            "0123456789ab",
        ),
        (
            control_pb2.SolveRequest(
                frontend_attrs={"context": "https://0123456789ab:x-oauth-basic@host"}
            ),
            "0123456789ab",
        ),
    ],
)
def test_wherever_it_was_sent(request_: control_pb2.SolveRequest, said: str) -> None:
    assert said not in make_mask(request_).text(f"a {said} b")


def test_a_short_password_is_no_word_to_hide_everywhere() -> None:
    known = mask(context="https://me:docker@host/x")
    assert known.text("docker me@ docker:1") == "docker me@ docker:1"
    assert known.text("me:docker@host") == "…@host"


def test_news_in_all_their_parts() -> None:
    known = mask(context=URL)
    update = BuildUpdate(
        (
            Vertex(
                "d", (), f"load {URL}", error=f"no {URL}", group=ProgressGroup("g", URL, weak=False)
            ),
        ),
        (Transfer(URL, "d", f"get {URL}"),),
        (VertexLog("d", 1, f"got {URL}\n".encode()),),
        (BuildWarning("d", 1, f"at {URL}", (URL,)),),
    )
    assert "hunter" in repr(update)
    hidden = known.update(update)
    assert "hunter" not in repr(hidden)
    assert hidden.vertexes[0].name == "load https://…@host/x"
    assert hidden.logs[0].data == "got https://…@host/x\n".encode()


@pytest.mark.parametrize("size", range(1, 40))
def test_a_log_that_is_cut_anywhere(size: int) -> None:
    known = mask(context=URL)
    data = f"a {URL} b us%40er:hun".encode()
    told = b""
    for at in range(0, len(data), size):
        update = known.update(
            BuildUpdate(logs=(VertexLog("d", 1, data[at : at + size]), VertexLog("e", 1, b"us")))
        )
        told += b"".join(log.data for log in update.logs if log.vertex == "d")
    assert told == "a https://…@host/x b ".encode()
    ended = known.update(BuildUpdate((Vertex("d", completed_ns=1),)))
    assert ended.logs == (VertexLog("d", 1, b"us%40er:hun"),)
    assert [log.vertex for log in known.rest().logs] == ["e"]
    assert known.rest() == BuildUpdate()


def test_without_a_secret_logs_pass_as_they_are() -> None:
    update = BuildUpdate(
        (Vertex("d", name="RUN x"),), logs=(VertexLog("d", 1, b"http://a:b@c\xff"),)
    )
    assert mask(context="https://host/x").update(update) == update


def test_json_of_any_shape() -> None:
    value = {URL: [URL, 1, None, {"a": URL}], "n": 1.5}
    hidden = "https://…@host/x"
    assert mask(context=URL).value(value) == {hidden: [hidden, 1, None, {"a": hidden}], "n": 1.5}
