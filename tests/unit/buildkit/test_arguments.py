"""buildkit/arguments.py: the library checks its values as the command line checks its texts."""

import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kitcache.buildkit import client as client_module
from kitcache.buildkit.arguments import check_values
from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.client import Client
from kitcache.buildkit.session.registry import Credentials
from kitcache.errors import UsageError
from kitcache.options import caches
from kitcache.options.build import BuildRequest
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.options.outputs import Output
from kitcache.options.secrets import Secret
from tests.hostile.fake_daemon import FakeDaemon

GITHUB = {"ACTIONS_RUNTIME_TOKEN": "hush", "ACTIONS_CACHE_URL": "https://one"}
AMAZON = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"}


def export(**fields: Any) -> dict[str, Any]:
    return {"cache_to": CacheExport(**{"kind": "local", "dest": "c", **fields})}


def source(**fields: Any) -> dict[str, Any]:
    return {"cache_from": [CacheImport(**{"kind": "local", "src": "c", **fields})]}


# Each with the argument that its error names.
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("context is of type int, not str", {"context": 3}),
    ("target is of type NoneType, not str", {"target": None}),
    ("no_cache is of type str, not bool", {"no_cache": "false"}),
    ("build_args: the value of 'v' is of type int, not str", {"build_args": {"v": 3}}),
    ("build_args is of type list, not a mapping", {"build_args": ["A=1"]}),
    ("build_args: a name is empty", {"build_args": {"": "x"}}),
    ("labels: the name 1 is of type int", {"labels": {1: "x"}}),
    ("build_contexts: the value of 'a' is of type int", {"build_contexts": {"a": 1}}),
    ("build_args: the name 'A=1' has an equals sign", {"build_args": {"A=1": ""}}),
    ("build_contexts: invalid context name UP", {"build_contexts": {"UP": "."}}),
    ("platforms[0] is of type int", {"platforms": [1]}),
    ('invalid platform "linux amd64"', {"platforms": "linux/arm64,linux amd64"}),
    ("tags: invalid", {"tags": ["app", "APP"]}),
    ("stdin is for bytes, and this is a text file", {"stdin": io.StringIO("FROM scratch")}),
    ("credentials is of type Credentials", {"credentials": Credentials("me", "hush")}),
    ("prune_policy is of type str, not PrunePolicy", {"prune_policy": "cache.toml"}),
    ("tags is of type int, not str or a list", {"tags": 1}),
    ("secrets is of type str, not Secret or a list", {"secrets": "id=a,src=b"}),
    ("secrets[1] is of type tuple, not Secret", {"secrets": [Secret("a", "b"), ("a", "hush")]}),
    ("outputs: dest is required for local exporter", {"outputs": Output("local")}),
    ("outputs: dest is required for local exporter", {"outputs": "type=local"}),
    ('outputs: exporter "lcoal" could not be found', {"outputs": [Output("lcoal", "x")]}),
    ('outputs: "registry" is a kind of output', {"outputs": "registry"}),
    ("outputs is of type dict, not Output, str, Path or a list", {"outputs": {"type": "local"}}),
    ("cache_to is of type dict, not CacheExport, str or a list", {"cache_to": {"type": "local"}}),
    ("cache_from[0] is of type dict", {"cache_from": [{"type": "local"}]}),
    ('cache_to: local cache export: unknown attribute "mdoe"; did',
        export(attrs=(("mdoe", "max"),))),
    ("cache_from: local cache import: unknown attribute", source(attrs=(("tga", "x"),))),
    ("cache_to: local cache export: mode=mx is neither", export(attrs=(("mode", "mx"),))),
    ('cache_to: unknown cache type "Locl"; did you mean local?', export(kind="Locl")),
    ("cache_to: local cache exporter requires dest", export(dest="")),
    ("cache_from: local cache importer requires src", source(src="")),
    ("cache_to: the tag is empty", export(tag="")),
    ("cache_to: the tag is empty", {"cache_to": "type=local,dest=c,tag="}),
    ("cache_from: the tag is empty", source(tag="")),
    ("cache_from: the tag is empty", {"cache_from": "type=local,src=c,tag="}),
    ("cache_to.reset is of type str, not bool", export(reset="no")),
    ("cache_to: local cache exporter requires dest", {"cache_to": "type=local,dets=c"}),
    ("cache_from is of type CacheExport", {"cache_from": CacheExport("inline")}),
    ("attests: the value of 'provenance' is of type int", {"attests": {"provenance": 1}}),
    ("attests: invalid value disabled=perhaps", {"attests": {"sbom": "disabled=perhaps"}}),
]  # fmt: skip


@pytest.fixture(scope="module")
def daemon() -> Iterator[FakeDaemon]:
    with FakeDaemon() as daemon:
        yield daemon


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


@pytest.mark.parametrize(("says", "arguments"), REFUSED)
def test_what_means_nothing_is_refused_by_name_and_reaches_no_daemon(
    daemon: FakeDaemon, context: Path, says: str, arguments: dict[str, Any]
) -> None:
    before = len(daemon.solves)
    with Client(daemon.address) as client, pytest.raises(UsageError) as caught:
        client.build(**{"context": context, **arguments})
    assert str(caught.value).startswith(says)
    assert "hush" not in str(caught.value)
    assert len(daemon.solves) == before


def test_a_request_of_ones_own_is_checked_too(daemon: FakeDaemon) -> None:
    pairs = (("A",),)
    requests: list[tuple[str, dict[str, Any]]] = [
        (r"request\.build_args\[0\] is not a pair", {"build_args": pairs}),
        (r"request\.labels: the name \[\] is of type list", {"labels": [([], "x")]}),
        (r"request\.tags is of type str, not a list", {"tags": "app"}),
        (r"request\.outputs\[0\] is of type str, not Output", {"outputs": ["type=tar"]}),
        (r"request\.shm_size is of type bool, not int", {"shm_size": True}),
    ]
    with Client(daemon.address) as client:
        for says, fields in requests:
            with pytest.raises(UsageError, match=f"^{says}"):
                client.run(BuildRequest(**fields), BuildOptions())


def test_names_and_values_are_a_mapping_or_pairs(daemon: FakeDaemon, context: Path) -> None:
    export = CacheExport("local", {"mode": "max"}, dest=context / "cache")
    with Client(daemon.address) as client:
        client.build(context, cache_to=export, build_args={"A": "1"})
        client.run(
            BuildRequest(str(context), build_args=(("A", "1"),), cache_to=(export,)), BuildOptions()
        )
    for solve in daemon.solves[-2:]:
        assert solve.cache.exports[0].attrs["mode"] == "max"
        assert solve.frontend_attrs["build-arg:A"] == "1"


def test_a_path_is_as_good_as_a_text(tmp_path: Path) -> None:
    at: Any = tmp_path
    request = check_values(
        BuildRequest(
            outputs=(Output("local", at), at),
            cache_to=(CacheExport("local", dest=at),),
            cache_from=(CacheImport("local", src=at),),
        )
    )
    outputs = (output.dest for output in request.outputs)
    assert {*outputs, request.cache_to[0].dest, request.cache_from[0].src} == {str(tmp_path)}


def test_settling_twice_changes_nothing() -> None:
    request = BuildRequest(
        outputs=(Output("tar"), Output("registry")),
        cache_to=(CacheExport("local", dest="d"),),
        attests=(("provenance", "mode=max"), ("sbom", "true"), ("x", "disabled=true")),
    )
    once = check_values(request)
    assert once.outputs[0].dest == "-"
    assert once.attests == (("provenance", "mode=max"), ("sbom", ""))
    assert check_values(once) == once


def test_a_text_is_parsed_once_and_a_request_is_checked_once(
    daemon: FakeDaemon, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def count(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def counted(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*args, **options)

        monkeypatch.setattr(module, name, counted)

    count(caches, "split_fields")
    count(caches, "warn_unknown")
    count(client_module, "check_request")
    with Client(daemon.address) as client:
        client.build(context, cache_to=f"type=local,dest={context}/cache", outputs="type=cacheonly")
    assert calls == {"split_fields": 1, "warn_unknown": 1, "check_request": 1}


OFF: list[dict[str, str | bool]] = [
    {"provenance": "false"}, {"provenance": "disabled=true"}, {"provenance": False},
    {"sbom": "false"}, {"sbom": "0"}, {"sbom": "mode=max,disabled=1"},
]  # fmt: skip


def attests_sent(daemon: FakeDaemon, context: Path, asked: dict[str, str | bool]) -> dict[str, str]:
    with Client(daemon.address) as client:
        client.build(context, attests=asked)
    attrs = daemon.solves[-1].frontend_attrs
    return {name: value for name, value in attrs.items() if name.startswith("attest:")}


@pytest.mark.parametrize("asked", OFF, ids=str)
def test_an_attestation_that_is_switched_off(
    daemon: FakeDaemon, context: Path, asked: dict[str, str | bool]
) -> None:
    assert attests_sent(daemon, context, asked) == {}


def test_an_attestation_that_is_switched_on(daemon: FakeDaemon, context: Path) -> None:
    asked: dict[str, str | bool] = {"provenance": "mode=max", "sbom": True}
    sent = {"attest:provenance": "mode=max", "attest:sbom": ""}
    assert attests_sent(daemon, context, asked) == sent
    assert attests_sent(daemon, context, {"sbom": "true"}) == {"attest:sbom": ""}


def test_what_a_text_names_is_what_the_command_line_reads(
    daemon: FakeDaemon, context: Path
) -> None:
    with Client(daemon.address) as client:
        client.build(
            context,
            platforms="linux/amd64, linux/arm64",
            build_contexts={"docker.io/library/base:latest": context},
        )
    attrs = daemon.solves[-1].frontend_attrs
    assert attrs["platform"] == "linux/amd64,linux/arm64"
    assert [name for name in attrs if name.startswith("context:")] == ["context:base"]


def test_credentials_of_caches_come_from_the_environment_that_is_given(
    daemon: FakeDaemon, context: Path
) -> None:
    with Client(daemon.address) as client:
        result = client.build(
            context,
            cache_to=["type=gha", CacheExport("s3", (("bucket", "b"),))],
            cache_from=CacheImport("gha"),
            environ={**GITHUB, **AMAZON},
        )
    assert result.notices[1:] == ()
    sent = daemon.solves[-1].cache
    assert [(e.type, e.attrs["token" if e.type == "gha" else "secret_access_key"])
            for e in (*sent.exports, *sent.imports)] == [
        ("gha", "hush"), ("s3", "hush"), ("gha", "hush"),
    ]  # fmt: skip


def test_a_cache_without_credentials_is_left_out_with_the_true_reason(
    daemon: FakeDaemon, context: Path
) -> None:
    for environ, why in ((None, "no environ= to find"), ({}, "nor ACTIONS_RUNTIME_TOKEN")):
        with Client(daemon.address) as client:
            result = client.build(
                context, cache_to="type=gha", cache_from=CacheImport("gha"), environ=environ
            )
        told = [notice for notice in result.notices if why in notice]
        assert [notice.split(":")[0] for notice in told] == ["gha cache export", "gha cache import"]
        assert not daemon.solves[-1].cache.exports


def test_from_env_finds_what_the_command_line_finds(daemon: FakeDaemon, context: Path) -> None:
    proxies = {"default": {"httpProxy": "http://proxy:1"}}
    (context / "config.json").write_text(json.dumps({"proxies": proxies}))
    environ = {
        "BUILDKIT_HOST": daemon.address.url,
        "DOCKER_CONFIG": str(context),
        **GITHUB,
    }
    with Client.from_env(environ) as client:
        assert (client.address.url, client.address.origin) == (daemon.address.url, "BUILDKIT_HOST")
        client.build(context, cache_to="type=gha", build_args={"A": "1"})
        assert "hush" not in repr(vars(client))
    solve = daemon.solves[-1]
    assert solve.frontend_attrs["build-arg:HTTP_PROXY"] == "http://proxy:1"
    assert solve.cache.exports[0].attrs["token"] == "hush"


@pytest.mark.parametrize("seconds", [-1, math.nan, -math.inf, "5", True])
def test_a_timeout_that_means_nothing_is_named(
    daemon: FakeDaemon, context: Path, seconds: float
) -> None:
    with pytest.raises(UsageError, match=r"^timeout_s is "):
        Client(daemon.address, timeout_s=seconds)
    with Client(daemon.address) as client:
        with pytest.raises(UsageError, match=r"^timeout_s is "):
            client.build(context, timeout_s=seconds)
        with pytest.raises(UsageError, match=r"^options.lock_timeout_s is "):
            client.run(BuildRequest(str(context)), BuildOptions(lock_timeout_s=seconds))
        build = client.start(BuildRequest(str(context)), BuildOptions())
        for wait in (build.result, build.next_update):
            with pytest.raises(UsageError, match=r"^timeout_s is "):
                wait(seconds)
        build.result()


@pytest.mark.parametrize("seconds", [1e300, math.inf, pytest.param(10**400, id="400 digits")])
def test_a_timeout_may_be_longer_than_any_clock(
    daemon: FakeDaemon, context: Path, seconds: float
) -> None:
    with Client(daemon.address, timeout_s=seconds) as client:
        client.info()
        client.build(context, timeout_s=seconds)
        build = client.start(BuildRequest(str(context)), BuildOptions())
        assert build.next_update(seconds) is None  # the fake daemon has no news
        assert build.result(seconds).ref
