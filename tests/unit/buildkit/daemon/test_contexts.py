"""Docker contexts, as docker's client keeps them."""

import pytest

from kitcache.buildkit.daemon.address import find_daemon
from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.errors import NoDaemon
from tests.unit.buildkit.daemon.home import Home


def test_a_context_brings_its_host_and_its_certificates(home: Home) -> None:
    home.add_context("far", "tcp://far:2376", ca="CA", cert="C", key="K")
    found = find_daemon(home.environ | {"DOCKER_CONTEXT": "far"})
    assert (found.url, found.origin, found.is_engine) == (
        "tcp://far:2376",
        "docker context 'far'",
        True,
    )
    names = ("ca.pem", "cert.pem", "key.pem")
    assert found.tls == TlsConfig(*(home.certificate("far", name) for name in names))


def test_a_context_may_skip_the_proof(home: Home) -> None:
    home.add_context("far", "tcp://far:2376", skip_verify=True)
    assert find_daemon(home.environ | {"DOCKER_CONTEXT": "far"}).tls == TlsConfig(verify=False)


def test_the_configuration_may_be_elsewhere(home: Home) -> None:
    home.add_context("far", "tcp://far:2376")
    environ = {"DOCKER_CONFIG": str(home.config), "DOCKER_CONTEXT": "far"}
    assert find_daemon(environ).url == "tcp://far:2376"


@pytest.mark.parametrize("name", ["gone", "../../etc", "\udcff"])
def test_a_missing_context_is_named(home: Home, name: str) -> None:
    with pytest.raises(NoDaemon, match="it does not exist") as caught:
        find_daemon(home.environ | {"DOCKER_CONTEXT": name})
    assert "docker context ls" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"Endpoints": {"docker": 1}}', "\0", "[" * 9])
def test_a_garbled_context_is_named(home: Home, content: str) -> None:
    home.add_context("far", "tcp://far:1")
    path = next(home.config.glob("contexts/meta/*/meta.json"))
    path.write_text(content)
    with pytest.raises(NoDaemon, match="docker context 'far'"):
        find_daemon(home.environ | {"DOCKER_CONTEXT": "far"})


def test_a_context_without_the_key_of_its_certificate_is_named(home: Home) -> None:
    home.add_context("far", "tcp://far:1", ca="CA", cert="C")
    with pytest.raises(NoDaemon, match="certificate without its key"):
        find_daemon(home.environ | {"DOCKER_CONTEXT": "far"})


def test_a_garbled_config_is_no_reason_to_build_elsewhere(home: Home) -> None:
    home.write("config.json", '{"auths": {"r": {"auth": "c2VjcmV0"}}')
    with pytest.raises(NoDaemon, match="is not JSON") as caught:
        find_daemon(home.environ)
    assert "c2VjcmV0" not in str(caught.value)
    assert find_daemon(home.environ | {"DOCKER_HOST": "tcp://h:1"}).url == "tcp://h:1"
