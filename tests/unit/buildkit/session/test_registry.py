"""Registry logins as docker keeps them; nothing of them is ever shown."""

import base64
import json
import os
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from kitcache.buildkit.proto.session_pb2 import CredentialsRequest, CredentialsResponse
from kitcache.buildkit.session.registry import (
    CREDENTIALS,
    Credentials,
    DockerConfig,
    auth_handlers,
)
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.errors import Cancelled
from tests.unit.buildkit.calls import served

HUB = "https://index.docker.io/v1/"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def pair(login: Credentials | None) -> tuple[str, str] | None:
    return (login.username, login.secret) if login else None


class Home:
    """config: a DockerConfig of what is in config.json by now. warnings: what it told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.warnings: list[str] = []

    def config(self, content: Any, timeout_s: float = 20.0) -> DockerConfig:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.root / "config.json").write_text(text)
        return DockerConfig(str(self.root), self.warnings.append, helper_timeout_s=timeout_s)

    def helper(self, name: str, code: str) -> None:
        program = self.root / f"docker-credential-{name}"
        program.write_text(f"#!{sys.executable}\nimport sys\nhost = sys.stdin.read()\n{code}\n")
        program.chmod(0o755)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded("me:pass:word")}, ("me", "pass:word")),
        ({"auth": encoded("me:x\0\0")}, ("me", "x")),
        ({"username": "me", "password": "x"}, ("me", "x")),
        ({"auth": encoded("you:y"), "username": "me", "password": "x"}, ("you", "y")),
        ({"auth": encoded("me:x"), "identitytoken": "tok"}, ("", "tok")),
        ({}, None),
        ({"auth": 5}, None),
        (7, None),
    ],
)
def test_a_login_in_the_file(home: Home, entry: Any, expected: tuple[str, str] | None) -> None:
    assert pair(home.config({"auths": {"reg:5000": entry}}).credentials("reg:5000")) == expected
    assert home.warnings == []


@pytest.mark.parametrize("key", ["reg", "https://reg", "http://reg/", "https://reg/v2/", "reg/v1/"])
def test_keys_may_have_a_scheme_and_a_path(home: Home, key: str) -> None:
    config = home.config({"auths": {key: {"auth": encoded("me:x")}}})
    assert pair(config.credentials("reg")) == ("me", "x")
    assert config.credentials("reg:5000") is None
    assert config.credentials("re") is None


def test_the_exact_key_comes_first(home: Home) -> None:
    auths = {"https://reg": {"auth": encoded("old:x")}, "reg": {"auth": encoded("new:x")}}
    assert pair(home.config({"auths": auths}).credentials("reg")) == ("new", "x")


@pytest.mark.parametrize("host", ["registry-1.docker.io", "docker.io", "index.docker.io"])
@pytest.mark.parametrize("key", [HUB, "index.docker.io"])
def test_docker_hub_has_a_key_of_its_own(home: Home, host: str, key: str) -> None:
    config = home.config({"auths": {key: {"auth": encoded("me:x")}}})
    assert pair(config.credentials(host)) == ("me", "x")


def test_a_helper_is_asked_by_the_key_on_its_stdin_once(home: Home) -> None:
    log = home.root / "log"
    home.helper(
        "box",
        f"open({str(log)!r}, 'a').write(f'{{sys.argv[1]}} {{host}}\\n')\n"
        'print(\'{"ServerURL": "u", "Username": "me", "Secret": "s"}\')',
    )
    config = home.config({"credsStore": "box", "auths": {"reg": {"auth": encoded("no:no")}}})
    assert pair(config.credentials("reg")) == ("me", "s")
    assert pair(config.credentials("reg")) == ("me", "s")
    assert pair(config.credentials("registry-1.docker.io")) == ("me", "s")
    assert log.read_text().splitlines() == ["get reg", f"get {HUB}"]


def test_a_hosts_own_helper_comes_before_the_store(home: Home) -> None:
    for name in ("one", "all"):
        home.helper(name, f'print(\'{{"Username": "{name}", "Secret": "s"}}\')')
    config = home.config({"credsStore": "all", "credHelpers": {"reg": "one"}})
    assert pair(config.credentials("reg")) == ("one", "s")
    assert pair(config.credentials("other")) == ("all", "s")


def test_a_token_user_is_an_identity_token(home: Home) -> None:
    home.helper("box", 'print(\'{"Username": "<token>", "Secret": "tok"}\')')
    assert pair(home.config({"credsStore": "box"}).credentials("reg")) == ("", "tok")


def test_a_helper_that_knows_no_login_is_no_trouble(home: Home) -> None:
    home.helper("box", "print('credentials not found in native keychain'); sys.exit(1)")
    assert home.config({"credsStore": "box"}).credentials("reg") is None
    assert home.warnings == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("print('secret'); sys.exit('secret')", "exit code 1"),
        ("print('secret')", "not a JSON object"),
        ("print('[\"secret\"]')", "not a JSON object"),
        ("print('[' * 100000)", "not a JSON object"),
        ("import time; time.sleep(600)", "no answer in 0.5 s"),
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(home: Home, code: str, problem: str) -> None:
    home.helper("box", code)
    config = home.config({"credsStore": "box"}, timeout_s=0.5 if "sleep" in code else 20)
    assert config.credentials("reg") is None
    assert config.credentials("reg") is None
    (warning,) = home.warnings
    assert "no login for reg: docker-credential-box: " in warning
    assert problem in warning
    assert "secret" not in warning


def test_a_helper_that_still_runs_ends_with_the_build(home: Home) -> None:
    mark = home.root / "pid"
    home.helper(
        "box",
        f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)",
    )
    cancel = Event()
    (home.root / "config.json").write_text(json.dumps({"credsStore": "box"}))
    config = DockerConfig(str(home.root), home.warnings.append, cancel=cancel)

    def cancel_once_it_runs() -> None:
        while not mark.exists() or not mark.read_text():
            time.sleep(0.01)
        cancel.set()

    thread = Thread(target=cancel_once_it_runs)
    thread.start()
    with pytest.raises(Cancelled):
        config.credentials("reg")
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert home.warnings == []


@pytest.mark.parametrize("name", ["gone", "a\0b", "../x", "\x1b[31m"])
def test_a_helper_that_is_not_there_is_a_warning(home: Home, name: str) -> None:
    assert home.config({"credsStore": name}).credentials("reg") is None
    (warning,) = home.warnings
    assert "docker-credential-" in warning
    assert warning.isprintable()


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', "\0", "[" * 100_000])
def test_a_garbled_config_is_one_warning_that_quotes_nothing(home: Home, content: str) -> None:
    config = home.config(content + "c2VjcmV0" if content == "{" else content)
    assert config.credentials("reg") is None
    (warning,) = home.warnings
    assert "config.json" in warning
    assert "c2VjcmV0" not in warning


def test_no_config_is_no_trouble(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert DockerConfig(str(tmp_path / "no"), warnings.append).credentials("reg") is None
    assert warnings == []


@pytest.mark.parametrize("auth", ["!", "bm9jb2xvbg==", "/w==", "é"])
def test_a_garbled_login_is_a_warning_that_quotes_nothing(home: Home, auth: str) -> None:
    assert home.config({"auths": {"reg": {"auth": auth}}}).credentials("reg") is None
    (warning,) = home.warnings
    assert "the login for reg" in warning
    assert auth not in warning


@pytest.mark.parametrize("content", [{"auths": []}, {"credHelpers": 5, "credsStore": ["x"]}])
def test_parts_of_another_type_count_as_absent(home: Home, content: Any) -> None:
    assert home.config(content).credentials("reg") is None


def test_a_login_is_never_shown() -> None:
    login = Credentials("me", "hunter2")
    for shown in (repr(login), str(login), f"{login}", f"{[login]}", f"{login!s}"):
        assert "hunter2" not in shown
        assert "me" not in shown


def test_the_daemon_gets_the_login_of_the_host_it_asks_for() -> None:
    logins = {"reg": Credentials("me", "x"), "tok": Credentials("", "t")}
    handlers = auth_handlers(logins.get)
    with served(handlers) as channel:
        answers = []
        for host in ("reg", "tok", "other"):
            request = CredentialsRequest(host=host).SerializeToString()
            found = CredentialsResponse.FromString(
                channel.unary(CREDENTIALS, request, timeout_s=20)
            )
            answers.append((found.username, found.secret))
    assert answers == [("me", "x"), ("", "t"), ("", "")]


@pytest.mark.parametrize("method", ["FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"])
def test_the_other_methods_are_not_served_so_that_credentials_are_asked_for(method: str) -> None:
    handlers = auth_handlers(lambda host: None)
    with served(handlers) as channel:
        with pytest.raises(RpcError) as caught:
            channel.unary(f"/moby.filesync.v1.Auth/{method}", b"", timeout_s=20)
        assert caught.value.code == Code.UNIMPLEMENTED
