"""Secret and Credentials: no tool that shows, compares or stores values gets at what they hold."""

import copy
import json
import pickle
import pprint
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.session.registry import Credentials
from kitcache.errors import UsageError
from kitcache.options.build import BuildRequest
from kitcache.options.secrets import Secret
from tests.hostile.command import run_command

WORD = "hunter2"
VALUES = {"secret": Secret("id", data=WORD.encode()), "login": Credentials(WORD, WORD)}


def reachable(value: Any) -> Iterable[str]:
    """What a walk over attributes, slots and items comes to, as text."""
    seen = [value]
    for name in dir(type(value)):
        if name.startswith("_") and name not in ("__doc__", "__module__"):
            seen += [getattr(value, name, None)]
    return [repr(each) for each in seen if not isinstance(each, FunctionType)]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_it_is_shown_nowhere(value: Any) -> None:
    request = BuildRequest(secrets=(value,))
    told = [*reachable(value), str(value), f"{value}", pprint.pformat(value), repr([value])]
    told += [repr(request), repr(request._asdict()), pprint.pformat(request._asdict())]
    told += [repr(BuildOptions(credentials=lambda _: value))]
    assert WORD not in "\n".join(told)
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_it_is_stored_and_iterated_nowhere(value: Any) -> None:
    request = BuildRequest(secrets=(value,))
    for work in (vars, iter, len, list, json.dumps, pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            work(value)
        assert WORD not in str(caught.value)
    for whole in (request, request._asdict(), {"request": request}):
        with pytest.raises(TypeError, match="not JSON serializable"):
            json.dumps(whole)
    with pytest.raises(AttributeError):
        value.data = b""
    with pytest.raises(AttributeError):
        del value._secret


def test_two_of_the_same_content_are_not_equal() -> None:
    assert Secret("a", data=b"x") != Secret("a", data=b"x")
    assert Credentials("a", "x") != Credentials("a", "x")
    assert VALUES["secret"] == VALUES["secret"]


def test_what_it_is_for_works() -> None:
    secret, login = Secret("id", data=b"x"), Credentials("me", "y")
    assert (secret.id, secret.path, secret.data) == ("id", None, b"x")
    assert (login.username, login.secret) == ("me", "y")
    assert Secret("id", Path("a/b")).path == "a/b"


FAILING = """
from kitcache import BuildRequest, Credentials, Secret


def test_secret() -> None:
    one, other = make()
    assert BuildRequest(secrets=(one[0],)) == BuildRequest(secrets=(other[0],))


def test_login() -> None:
    one, other = make()
    assert one[1] == other[1]


def make():
    words = ["hunt" + "er2", "hunt" + "er3"]
    return [(Secret("id", data=word.encode()), Credentials("me", word)) for word in words]
"""


def test_a_failed_assertion_of_pytest_shows_none(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILING)
    words = [sys.executable, "-m", "pytest", "-vv", "-l", "-n0", "-p", "no:cacheprovider"]
    said = run_command([*words, "test_it.py"], tmp_path).out
    assert "2 failed" in said
    assert "hunter" not in said


def locals_of_the_last_frame(error: BaseException) -> str:
    """What a crash reporter prints of the frame that raised: one of ours, not the caller's."""
    (*_, last) = traceback.walk_tb(error.__traceback__)
    return "".join(traceback.StackSummary.extract([last], capture_locals=True).format())


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "neither": (("x",), "Secret('x'): neither path nor data is given"),
    "None": (("x", None, None), "Secret('x'): neither path nor data is given"),
    "both": (("x", "p", b"d"), "Secret('x'): both path and data are given"),
    "text": (("x", None, WORD), "Secret('x'): data is of type str, not bytes"),
    "bytes as a path": (("x", b"p"), "Secret('x'): path is not the path of a file"),
    "no name": (("", "p"), "Secret: id is not a name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_secret_that_means_nothing_is_refused(name: str) -> None:
    args, problem = REFUSED[name]
    with pytest.raises(UsageError) as caught:
        Secret(*args)
    assert caught.value.problem == problem
    assert caught.value.hints


def test_a_login_that_means_nothing_is_refused() -> None:
    nobody: Any = None
    for args, name in (((nobody, WORD), "username"), ((WORD, nobody), "secret")):
        with pytest.raises(UsageError, match=f"{name} is of type NoneType") as caught:
            Credentials(*args)
        assert WORD not in locals_of_the_last_frame(caught.value)


def test_the_locals_of_a_refusal_show_none() -> None:
    text: Any = WORD
    with pytest.raises(UsageError) as caught:
        Secret("x", data=text)
    assert WORD not in locals_of_the_last_frame(caught.value)
