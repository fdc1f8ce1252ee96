"""Builders of buildx, by name or chosen by `docker buildx use`."""

from pathlib import Path

import pytest

from kitcache.buildkit.daemon.address import Address, find_daemon
from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.errors import NoDaemon, UsageError
from tests.unit.buildkit.daemon.home import Home

DOCKER = "unix:///var/run/docker.sock"


def test_a_container_is_reached_through_the_docker_that_has_it(home: Home) -> None:
    home.add_builder("Box", "docker-container", DOCKER)
    home.add_builder("far", "docker-container", "away")
    found = find_daemon(home.environ, builder="Box")
    assert found == Address(
        "docker-container://buildx_buildkit_box0",
        "builder 'Box', from the argument builder",
        None,
        False,
        (*f"docker --host={DOCKER} exec -i buildx_buildkit_box0".split(), "buildctl", "dial-stdio"),
        is_builder=True,
    )
    assert find_daemon(home.environ, builder="far").command[1] == "--context=away"


def test_names_are_the_same_in_any_case(home: Home) -> None:
    home.add_builder("Box", "docker-container", DOCKER)
    assert find_daemon(home.environ, builder="bOX").url.endswith("box0")


def test_a_remote_builder_brings_its_certificates(home: Home) -> None:
    home.add_builder("r", "remote", "tcp://b:1", cacert="/ca", cert="/c", key="/k", servername="s")
    found = find_daemon(home.environ, builder="r")
    assert (found.url, found.is_engine, found.tls) == (
        "tcp://b:1",
        False,
        TlsConfig("/ca", "/c", "/k", "s"),
    )
    home.add_builder("p", "remote", "docker-container://bk", servername="s")
    assert find_daemon(home.environ, builder="p").command[0] == "docker"


def test_a_context_is_a_builder_too(home: Home) -> None:
    home.add_context("far", "tcp://far:2375")
    found = find_daemon(home.environ, builder="far")
    assert (found.url, found.is_engine) == ("tcp://far:2375", True)
    home.add_builder("wrap", "docker", "far")
    assert find_daemon(home.environ, builder="wrap").url == "tcp://far:2375"
    elsewhere = home.environ | {"DOCKER_HOST": "tcp://h:1", "DOCKER_CONTEXT": "far"}
    assert find_daemon(elsewhere, builder="default").url == "tcp://h:1"


def test_default_without_docker_host_is_a_docker_socket_never_a_buildkitd(
    home: Home, tmp_path: Path
) -> None:
    run = Path(home.environ["XDG_RUNTIME_DIR"])
    (run / "buildkit").mkdir(parents=True)
    (run / "buildkit/buildkitd.sock").touch()
    (run / "docker.sock").touch()
    assert find_daemon(home.environ, builder="default").url.endswith("docker.sock")


def test_the_first_node_builds_and_the_rest_is_said(home: Home) -> None:
    home.add_builder("two", "remote", "tcp://a:1", "tcp://b:1")
    found = find_daemon(home.environ, builder="two")
    assert found.url == "tcp://a:1"
    assert found.origin.endswith("the first of its 2 nodes")


def test_the_chosen_builder_counts_only_for_the_docker_it_was_chosen_for(home: Home) -> None:
    home.add_builder("bob", "remote", "tcp://bob:1")
    home.use_builder("bob", "tcp://h:1")
    here = home.environ | {"DOCKER_HOST": "tcp://h:1"}
    there = home.environ | {"DOCKER_HOST": "tcp://other:1"}
    assert find_daemon(here).url == "tcp://bob:1"
    assert find_daemon(there).url == "tcp://other:1"
    home.use_builder("bob", "tcp://h:1", is_global=True)
    assert find_daemon(there).url == "tcp://bob:1"
    home.use_builder("", "tcp://h:1")
    assert find_daemon(here).url == "tcp://h:1"


def test_a_builder_may_be_chosen_for_a_context(home: Home) -> None:
    home.add_builder("bob", "remote", "tcp://bob:1")
    home.add_context("far", "tcp://far:1")
    home.default_builder("bob", "far")
    assert find_daemon(home.environ | {"DOCKER_CONTEXT": "far"}).url == "tcp://bob:1"


def test_a_chosen_builder_that_is_gone_is_forgotten(home: Home) -> None:
    here = home.environ | {"DOCKER_HOST": "tcp://h:1"}
    home.use_builder("gone", "tcp://h:1")
    assert find_daemon(here).url == "tcp://h:1"
    home.write("buildx/current", "{")
    assert find_daemon(here).url == "tcp://h:1"


def test_buildx_may_keep_its_builders_elsewhere(home: Home, tmp_path: Path) -> None:
    home.add_builder("bob", "remote", "tcp://bob:1")
    moved = tmp_path / "elsewhere"
    (home.config / "buildx").rename(moved)
    environ = home.environ | {"BUILDX_CONFIG": str(moved), "BUILDX_BUILDER": "bob"}
    assert find_daemon(environ).url == "tcp://bob:1"


@pytest.mark.parametrize("name", ["gone", "../current", "a/b", "-x", "0"])
def test_an_unknown_builder_is_the_users_mistake(home: Home, name: str) -> None:
    home.use_builder("x", "y")
    with pytest.raises(UsageError, match="was not found"):
        find_daemon(home.environ | {"BUILDX_BUILDER": name})


def test_a_driver_that_we_lack_is_named(home: Home) -> None:
    home.add_builder("k", "kubernetes", "kubernetes:///k")
    with pytest.raises(NoDaemon, match="driver 'kubernetes' is not supported"):
        find_daemon(home.environ, builder="k")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"Driver": "remote"}', "it has no node"),
        ('{"Driver": "remote", "Nodes": {"a": 1}}', "it has no node"),
        ('{"Driver": "remote", "Nodes": [1]}', "it has no node"),
        ('{"Driver": 1, "Nodes": [{}]}', "driver '' is not supported"),
        ('{"Driver": "remote", "Nodes": [{"Endpoint": 5}]}', "not the address of a daemon"),
    ],
)
def test_a_garbled_builder_is_named(home: Home, content: str, problem: str) -> None:
    home.write("buildx/instances/bad", content)
    with pytest.raises((NoDaemon, UsageError), match=problem) as caught:
        find_daemon(home.environ, builder="bad")
    assert "bad" in str(caught.value)
