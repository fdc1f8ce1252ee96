"""Push and pull with a login, against a real registry: as docker keeps logins, and never shown."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitcache import Client
from kitcache.buildkit.session.registry import Credentials
from tests.integration.build.cachekit import running, wait_for
from tests.integration.build.kit import Built, Kit, context
from tests.integration.build.registry import PASSWORD, USER, Registry, login, write_helper
from tests.integration.contexts import steps
from tests.integration.daemon import BASE, Daemon

WRONG = "wrong-sesame-4712"


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]
) -> Iterator[Registry]:
    need("docker-registry", "setpriv")
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return context(tmp_path / "c", "FROM scratch\nCOPY file /\n", file=tmp_path.name)


def log_in(kit: Kit, registry: Registry, password: str = PASSWORD) -> None:
    auths = {"auths": {registry.host: {"auth": login(password)}}}
    (kit.config / "config.json").write_text(json.dumps(auths))


def hidden(built: Built) -> bool:
    shown = built.out + built.err
    return not any(word in shown for word in (PASSWORD, WRONG, login(), login(WRONG)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("push", ("--push",)),
        ("kind", ("--output", "type=registry")),
        ("attr", ("--output", "type=image,push=true")),
    ],
)
def test_a_push_with_the_login_of_config_json(
    kit: Kit, registry: Registry, where: Path, name: str, options: tuple[str, ...]
) -> None:
    log_in(kit, registry)
    iid = where.parent / "iid"
    built = kit.must("-t", f"{registry.host}/team/{name}:1", *options, "--iidfile", iid, where)
    manifests = f"team/{name}/manifests"
    assert registry.ask(f"{manifests}/{iid.read_text()}") == registry.ask(f"{manifests}/1")
    assert hidden(built)


def test_a_push_of_several_names_and_platforms(kit: Kit, registry: Registry, where: Path) -> None:
    log_in(kit, registry)
    names = (f"{registry.host}/many:1", f"{registry.host}/many/more:2")
    platforms = ("--platform", "linux/amd64,linux/arm64")
    kit.must("-t", names[0], "-t", names[1], *platforms, "--push", where)
    for path in ("many/manifests/1", "many/more/manifests/2"):
        found = [entry["platform"]["architecture"] for entry in registry.ask(path)["manifests"]]
        assert found == ["amd64", "arm64"]


def test_a_push_without_a_tag_by_digest(kit: Kit, registry: Registry, where: Path) -> None:
    log_in(kit, registry)
    metadata = where.parent / "metadata"
    output = f"type=image,name={registry.host}/by-digest,push-by-digest=true,push=true"
    kit.must("-o", output, "--metadata-file", metadata, where)
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    assert registry.ask(f"by-digest/manifests/{digest}")["layers"]
    assert registry.tags("by-digest") == []


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_a_push_with_the_login_of_a_helper(
    kit: Kit, registry: Registry, where: Path, tmp_path: Path, key: str
) -> None:
    write_helper(tmp_path / "bin", registry.host)
    helpers = {"credHelpers": {registry.host: "kit"}, "credsStore": "kit"}
    (kit.config / "config.json").write_text(json.dumps({key: helpers[key]}))
    path = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    name = f"helped/{key.lower()}"
    built = kit.must("-t", f"{registry.host}/{name}:1", "--push", where, env=path)
    assert registry.tags(name) == ["1"]
    assert hidden(built)


def test_a_wrong_password_is_a_clear_error_that_does_not_tell_it(
    kit: Kit, registry: Registry, where: Path
) -> None:
    log_in(kit, registry, WRONG)
    built = kit.run("-t", f"{registry.host}/wrong:1", "--push", where)
    assert built.code == 21
    assert f"failed to push {registry.host}/wrong:1" in built.err
    assert "401 Unauthorized" in built.err
    assert f"\n  hint: docker login {registry.host}\n" in built.err
    assert hidden(built)


def test_no_login_at_all(kit: Kit, registry: Registry, where: Path) -> None:
    built = kit.run("-t", f"{registry.host}/none:1", "--push", where)
    assert built.code == 21
    assert f"{registry.host}/none:1" in built.err
    assert "no basic auth credentials" in built.err or "401 Unauthorized" in built.err
    assert f"\n  hint: docker login {registry.host}\n" in built.err


def test_a_cache_and_a_base_image_that_want_a_login(
    kit: Kit, registry: Registry, where: Path, tmp_path: Path
) -> None:
    advice = f"docker login {registry.host}"
    cache = f"type=registry,ref={registry.host}/cache:1"
    assert f"401 Unauthorized; {advice}\n" in kit.must("--cache-from", cache, where).err
    base = context(tmp_path / "base", f"FROM {registry.host}/base:1\n")
    for failing in (("--cache-to", cache, where), (base,)):
        built = kit.run(*failing)
        assert built.code == 21
        assert f"\n  hint: {advice}\n" in built.err


def test_a_helper_that_is_not_there_is_named(kit: Kit, registry: Registry, where: Path) -> None:
    (kit.config / "config.json").write_text(json.dumps({"credsStore": "gone"}))
    built = kit.run("-t", f"{registry.host}/none:1", "--push", where)
    assert built.code == 21
    warning = f"warning: no login for {registry.host}: docker-credential-gone: the program is not"
    assert warning in built.err


def test_a_helper_that_hangs_ends_with_a_cancelled_build(
    kit: Kit, registry: Registry, where: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    helper = tmp_path / "bin" / "docker-credential-hang"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\necho $$ > {mark}.new\nmv {mark}.new {mark}\nexec sleep 600\n")
    helper.chmod(0o755)
    (kit.config / "config.json").write_text(json.dumps({"credsStore": "hang"}))
    kit.env["PATH"] = f"{helper.parent}{os.pathsep}{os.environ['PATH']}"
    with running(kit, "-t", f"{registry.host}/hangs:1", "--push", where) as build:
        wait_for(mark.exists, build)
        build.signal(signal.SIGINT)
        assert build.end().code == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_only_the_registry_in_question_gets_a_login(
    daemon: Daemon, kit: Kit, registry: Registry, where: Path
) -> None:
    asked: list[str] = []

    def credentials(host: str) -> Credentials | None:
        asked.append(host)
        return Credentials(USER, PASSWORD)

    with Client(f"unix://{daemon.socket}") as client:
        result = client.build(
            str(where),
            tags=[f"{registry.host}/library:1"],
            outputs=["type=registry"],
            credentials=credentials,
        )
    assert set(asked) == {registry.host}
    pushed = registry.ask("library/manifests/1")
    assert registry.ask(f"library/manifests/{result.image_id}") == pushed
    assert PASSWORD not in repr(result)


def test_pull_asks_the_registry_again(kit: Kit, registry: Registry, tmp_path: Path) -> None:
    log_in(kit, registry)
    name = f"{registry.host}/pulled:1"
    user = context(tmp_path / "user", f"FROM {name}\n")
    first = context(tmp_path / "first", "FROM scratch\nCOPY version /\n", version="first")
    second = context(tmp_path / "second", "FROM scratch\nCOPY version /\n", version="second")
    kit.must("-t", name, "--load", first)
    kit.must("-t", name, "--push", second)
    # A push goes into the engine's images, too.
    kit.must("-t", name, "--load", first)
    assert kit.files(user) == {"version": b"first"}
    assert kit.files("--pull", user) == {"version": b"second"}


def test_a_context_from_a_registry(kit: Kit, registry: Registry, tmp_path: Path) -> None:
    log_in(kit, registry)
    name = f"{registry.host}/context:1"
    kit.must("-t", name, "--push", context(tmp_path / "c", "FROM scratch\nCOPY f /\n", f="data"))
    user = context(tmp_path / "user", "FROM scratch\nCOPY --from=other f /g\n")
    assert kit.files("--build-context", f"other=docker-image://{name}", user) == {"g": b"data"}


def test_a_cache_in_a_registry(kit: Kit, registry: Registry, tmp_path: Path) -> None:
    log_in(kit, registry)
    ref = f"{registry.host}/cache:main"
    where = context(tmp_path / "c", f"FROM {BASE}\nRUN echo {tmp_path.name} > /made\n")
    options = ("--network=none", "-o", "type=cacheonly")
    kit.must(*options, "--cache-to", f"type=registry,ref={ref},mode=max", where)
    assert registry.tags("cache") == ["main"]
    kit.daemon.prune()
    built = kit.must(*options, "--cache-from", ref, where)
    assert list(steps(built.err).values()) == ["CACHED"]
    assert f"importing cache manifest from {ref}" in built.err


def test_a_cache_that_is_not_in_the_registry_is_a_notice(
    daemon: Daemon, registry: Registry, where: Path
) -> None:
    ref = f"{registry.host}/nosuch:main"
    with Client(f"unix://{daemon.socket}") as client:
        result = client.build(
            where,
            outputs="type=cacheonly",
            cache_from=f"type=registry,ref={ref}",
            credentials=lambda _: Credentials(USER, PASSWORD),
        )
    (notice,) = result.notices
    assert notice.startswith(f"importing cache manifest from {ref} failed, so it was not used")
