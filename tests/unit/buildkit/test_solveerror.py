"""buildkit/solveerror.py: a status of the daemon, as an error that says where."""

import json
import pickle
from base64 import b64encode
from typing import Any

import pytest

from kitcache.buildkit.solveerror import build_failed
from kitcache.buildkit.status import BuildUpdate, BuildWarning, Vertex, VertexLog
from kitcache.buildkit.steps import StepTracker
from kitcache.buildkit.wire.grpc import Code, Detail, RpcError
from kitcache.cli.jsonout import encode_error
from kitcache.errors import SourceLocation
from tests.unit.buildkit.recordings import read_updates

TEXT = "FROM base\n# c\nRUN false\n"


def detail(name: str, value: object) -> Detail:
    return Detail(f"github.com/moby/buildkit/{name}", json.dumps(value).encode())


def source(*ranges: tuple[int, int], text: str = TEXT, **changes: Any) -> Detail:
    places = [{"start": {"line": first}, "end": {"line": last}} for first, last in ranges]
    data = b64encode(text.encode()).decode()
    value = {"info": {"filename": "Dockerfile", "data": data}, "ranges": places}
    return detail("errdefs.Source+json", value | changes)


def error(*details: Detail, message: str = "boom") -> RpcError:
    return RpcError(Code.UNKNOWN, message, details)


def two_failed() -> StepTracker:
    steps = StepTracker()
    steps.apply(
        BuildUpdate(
            tuple(
                Vertex(name, name=f"RUN {name}", started_ns=1, completed_ns=2, error="bad")
                for name in "ab"
            ),
            logs=(VertexLog("b", 2, b"one\ntwo"),),
        )
    )
    return steps


def test_a_real_failure() -> None:
    steps = StepTracker()
    for update in read_updates("failed"):
        steps.apply(update)
    digest = steps.steps[-1].key
    failed = build_failed(
        error(
            detail("errdefs.Vertex+json", {"digest": digest}),
            detail("stack.Stack+json", {"frames": []}),
            detail("gatewayapi.ExitMessage+json", {"Code": 3}),
            source((3, 3)),
            message="rpc error: code = Unknown desc = process did not complete",
        ),
        steps,
    )
    assert failed.problem == "failed to solve: process did not complete"
    assert failed.step == "[2/2] RUN --network=none busybox seq 30; echo oops >&2; exit 3"
    assert failed.log == (*(str(number) for number in range(1, 31)), "oops")
    assert failed.step_exit_code == 3
    assert failed.locations == (SourceLocation("Dockerfile", 3, 3, TEXT),)
    (note,) = failed.__notes__
    assert note.splitlines()[:2] == [f"step: {failed.step} (exit code 3)", "  12"]
    assert "  oops\nDockerfile:3\n----" in note
    assert f"   3 | >>> {TEXT.splitlines()[2]}\n" in note


def test_a_note_shows_what_a_terminal_may_see() -> None:
    steps = two_failed()
    steps.apply(BuildUpdate(logs=(VertexLog("a", 1, b"\tx\x1b[2Jy\n"),)))
    failed = build_failed(error(), steps, ref="r", notices=("odd",))
    assert failed.__notes__ == ["step: RUN a\n        x\\x1b[2Jy\nnotice: odd"]
    again = pickle.loads(pickle.dumps(failed))
    assert (again.__notes__, again.ref, again.notices) == (failed.__notes__, "r", ("odd",))
    assert not hasattr(build_failed(error(), StepTracker()), "__notes__")


def test_a_failure_as_json_says_all_that_it_knows() -> None:
    warnings = (BuildWarning("v", 1, "odd casing"),)
    failed = build_failed(error(), two_failed(), ref="r", warnings=warnings, notices=("n",))
    told = json.loads(encode_error(failed))["facts"]
    assert (told["step"], told["ref"], told["log"]) == ("RUN a", "r", [])
    assert (told["warnings"], told["notices"]) == (["odd casing"], ["n"])


def test_the_step_is_the_one_that_the_status_names() -> None:
    failed = build_failed(error(detail("errdefs.Vertex+json", {"digest": "b"})), two_failed())
    assert (failed.step, failed.log) == ("RUN b", ("one", "two"))


@pytest.mark.parametrize("details", [(), (detail("errdefs.Vertex+json", {"digest": "?"}),)])
def test_else_it_is_the_first_that_failed(details: tuple[Detail, ...]) -> None:
    assert build_failed(error(*details), two_failed()).step == "RUN a"


def test_without_a_step_there_is_none() -> None:
    failed = build_failed(error(), StepTracker())
    assert (failed.step, failed.log, failed.locations, failed.step_exit_code) == ("", (), (), None)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("boom", "failed to solve: boom"),
        ("failed to solve: boom", "failed to solve: boom"),
        ("rpc error: code = Unknown desc = failed to solve: boom", "failed to solve: boom"),
        (
            "a: rpc error: code = NotFound desc = rpc error: code = Internal desc = b",
            "failed to solve: a: b",
        ),
        ("", "failed to solve: status 2"),
    ],
)
def test_the_noise_of_grpc_is_left_out(message: str, problem: str) -> None:
    assert build_failed(error(message=message), StepTracker()).problem == problem


def test_each_place_is_named_once() -> None:
    details = (source((1, 1)), source((3, 2)), source((1, 1)))
    failed = build_failed(error(*details), StepTracker())
    assert [place[1:3] for place in failed.locations] == [(1, 1), (3, 3)]


def test_places_have_a_limit() -> None:
    many = (source((1, last)) for last in range(1, 50))
    assert len(build_failed(error(*many), StepTracker()).locations) == 10


def test_an_instruction_of_several_lines_is_one_place() -> None:
    failed = build_failed(error(source((2, 2), (3, 3), (1, 1))), StepTracker())
    assert [place[1:3] for place in failed.locations] == [(1, 3)]


@pytest.mark.parametrize(
    "malformed",
    [
        Detail("", b""),
        Detail("github.com/moby/buildkit/errdefs.Source+json", b"{"),
        Detail("github.com/moby/buildkit/errdefs.Source+json", b"\xff\xfe"),
        Detail("github.com/moby/buildkit/errdefs.Source+json", b"[" * 100_000),
        detail("errdefs.Source+json", []),
        detail("errdefs.Source+json", {"info": None, "ranges": None}),
        source((1, 1), info={"filename": 3, "data": "QQ=="}),
        source((1, 1), info={"filename": "f", "data": "?"}),
        source((1, 1), info={"filename": "f", "data": "\u00e9"}),
        source((1, 1), info={"filename": "f", "data": None}),
        source((0, 1)),
        source((-5, 1)),
        source((99, 99)),
        source(
            ranges=[None, 3, {"start": []}, {"start": {"line": "1"}}, {"start": {"line": True}}]
        ),
        detail("errdefs.Vertex+json", {"digest": ["a"]}),
        detail("errdefs.Vertex+json", 3),
        detail("gatewayapi.ExitMessage+json", {"Code": "3"}),
        detail("gatewayapi.ExitMessage+json", {"Code": True}),
    ],
)
def test_a_malformed_detail_is_left_out(malformed: Detail) -> None:
    details = (malformed, source((3, 3)), detail("gatewayapi.ExitMessage+json", {"Code": 7}))
    failed = build_failed(error(*details), StepTracker())
    assert failed.locations == (SourceLocation("Dockerfile", 3, 3, TEXT),)
    assert failed.step_exit_code == 7


@pytest.mark.parametrize(
    ("message", "hosts", "steps"),
    [
        ("push r.io/a: 401 Unauthorized", ["r.io"], ("docker login r.io",)),
        ("push r.io/a: 401 Unauthorized", ["r.io", "other.io"], ("docker login r.io",)),
        ("from https://auth: 401 Unauthorized", ["r.io"], ("docker login r.io",)),
        ("401 Unauthorized", ["r.io", "other.io"], ("docker login HOST",)),
        ("docker.io/a: insufficient_scope: no", ["docker.io"], ("docker login",)),
        ("push r.io/a: 500 Internal Server Error", ["r.io"], ()),
    ],
)
def test_a_registry_that_refuses_is_told_with_the_login(
    message: str, hosts: list[str], steps: tuple[str, ...]
) -> None:
    failed = build_failed(RpcError(Code.UNKNOWN, message), StepTracker(), hosts=hosts)
    assert failed.hints == steps
