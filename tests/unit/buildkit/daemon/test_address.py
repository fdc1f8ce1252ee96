"""Which daemon is meant, whatever is said in however many places."""

from pathlib import Path

import pytest

from kitcache.buildkit.daemon.address import (
    Address,
    Socket,
    default_sockets,
    find_daemon,
    first_existing,
    parse_address,
)
from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.errors import NoDaemon, UsageError
from tests.unit.buildkit.daemon.home import Home

DOCKER = "unix:///var/run/docker.sock"


def test_each_place_gives_way_to_the_one_before_it(home: Home) -> None:
    home.add_context("away", "tcp://away:2375")
    home.add_builder("bob", "remote", "tcp://bob:1")
    home.add_builder("eve", "remote", "tcp://eve:1")
    home.add_builder("kim", "remote", "tcp://kim:1")
    home.write("config.json", {"currentContext": "away"})
    home.default_builder("kim", "tcp://docker:1")
    places = [
        ("the argument addr", {}, "tcp://addr:1"),
        ("builder 'bob', from the argument builder", {}, "tcp://bob:1"),
        ("BUILDKIT_HOST", {"BUILDKIT_HOST": "tcp://host:1"}, "tcp://host:1"),
        ("builder 'eve', from BUILDX_BUILDER", {"BUILDX_BUILDER": "eve"}, "tcp://eve:1"),
        ("builder 'kim', from docker buildx use", {"DOCKER_HOST": "tcp://docker:1"}, "tcp://kim:1"),
        ("DOCKER_HOST", {"DOCKER_HOST": "tcp://engine:1"}, "tcp://engine:1"),
        ("docker context 'here'", {"DOCKER_CONTEXT": "here"}, "unix:///here.sock"),
        ("docker context 'away'", {}, "tcp://away:2375"),
    ]
    home.add_context("here", "unix:///here.sock")
    for index, (origin, _, url) in enumerate(places):
        environ = dict(home.environ)
        for _, said, _ in reversed(places[index:]):
            environ |= said
        found = find_daemon(
            environ,
            addr="tcp://addr:1" if index < 1 else None,
            builder="bob" if index < 2 else None,
        )
        assert (found.origin, found.url) == (origin, url)


def test_the_usual_sockets_come_last_docker_before_buildkitd(home: Home) -> None:
    run = Path(home.environ["XDG_RUNTIME_DIR"])
    assert [(str(path), is_engine) for path, _, is_engine in default_sockets(home.environ)] == [
        ("/var/run/docker.sock", True),
        (f"{run}/docker.sock", True),
        ("/run/buildkit/buildkitd.sock", False),
        (f"{run}/buildkit/buildkitd.sock", False),
    ]
    assert len(default_sockets({})) == 2


def test_the_first_socket_that_is_there_is_taken(tmp_path: Path) -> None:
    sockets = tuple(Socket(str(tmp_path / name), name, name == "b") for name in "abc")
    with pytest.raises(NoDaemon, match="neither docker nor buildkitd") as caught:
        first_existing(sockets)
    assert all(f"{tmp_path / name} does not exist" in str(caught.value) for name in "abc")
    (tmp_path / "b").touch()
    (tmp_path / "c").touch()
    assert first_existing(sockets) == Address(f"unix://{tmp_path}/b", "b", None, True)


def test_what_docker_says_is_an_engine_and_what_buildkit_says_is_probed(home: Home) -> None:
    engine = find_daemon(home.environ | {"DOCKER_HOST": "tcp://h:1"})
    assert engine.is_engine is True
    assert find_daemon(home.environ, addr="unix:///x").is_engine is None
    assert find_daemon(home.environ | {"BUILDKIT_HOST": "tcp://h:1"}).is_engine is None


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("docker-container://bk", "docker exec -i bk buildctl dial-stdio"),
        ("docker-container://bk?context=c", "docker --context=c exec -i bk buildctl dial-stdio"),
        ("podman-container://bk", "podman exec -i bk buildctl dial-stdio"),
        (
            "nerdctl-container://bk?namespace=n",
            "nerdctl --namespace=n exec -i bk buildctl dial-stdio",
        ),
        (
            "kube-pod://p?context=c&namespace=n&container=x",
            "kubectl --context=c --namespace=n exec --container=x -i p -- buildctl dial-stdio",
        ),
        ("ssh://u@h:22", "ssh -T -l u -p 22 -- h buildctl dial-stdio"),
        ("ssh://h/run/b.sock", "ssh -T -- h buildctl --addr unix:///run/b.sock dial-stdio"),
    ],
)
def test_a_program_reaches_what_no_socket_does(url: str, command: str) -> None:
    found = parse_address(url, "--addr")
    assert found == Address(url, "--addr", None, False, tuple(command.split()))


def test_an_engine_behind_ssh_is_reached_through_its_docker(home: Home) -> None:
    found = find_daemon(home.environ | {"DOCKER_HOST": "ssh://me@far"})
    assert found.is_engine
    assert " ".join(found.command) == "ssh -T -l me -- far docker system dial-stdio"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("/run/docker.sock", "write unix:///run/docker.sock"),
        ("npipe:////./pipe/docker_engine", "unknown form"),
        ("unix://", "names no socket"),
        ("tcp://h", "host and a port"),
        ("tcp://:1", "host and a port"),
        ("tcp://h:99999", "is not a number up to 65535"),
        ("tcp://h:x", "is not a number up to 65535"),
        ("docker-container://", "names no container"),
        ("docker-container://a?contxt=b", "unknown parameter 'contxt'"),
        ("docker-container://--privileged", "cannot be given to a program"),
        ("docker-container://a?context=-x", "cannot be given to a program"),
        ("kube-pod://a%20b", "cannot be given to a program"),
        ("ssh://", "names no host"),
        ("ssh://-oProxyCommand=x", "cannot be given to a program"),
        ("ssh://h/a;b", "cannot be given to a program"),
    ],
)
def test_an_address_that_means_nothing_is_refused_with_the_forms(url: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(url, "--addr")
    assert problem in str(caught.value)
    assert "unix://PATH" in str(caught.value)
    assert caught.value.path == "--addr"


@pytest.mark.parametrize("url", ["ssh://me:hunter2@h", "tcp://me:hunter2@h:1"])
def test_a_password_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError, match="does not belong there") as caught:
        parse_address(url, "BUILDKIT_HOST")
    assert "hunter2" not in str(caught.value)


def test_certificates_are_for_tcp(home: Home) -> None:
    tls = TlsConfig("ca.pem")
    assert find_daemon(home.environ, addr="tcp://h:1", tls=tls).tls == tls
    with pytest.raises(UsageError, match=r"for tcp:// only"):
        find_daemon(home.environ, addr="unix:///x", tls=tls)
    with pytest.raises(UsageError, match="without its key"):
        find_daemon(home.environ, addr="tcp://h:1", tls=TlsConfig("ca.pem", "cert.pem"))


def test_docker_tls_variables_count_for_docker_host(home: Home) -> None:
    home.write("ca.pem", "CA")
    environ = home.environ | {"DOCKER_HOST": "tcp://h:2376"}
    assert find_daemon(environ).tls is None
    verified = find_daemon(environ | {"DOCKER_TLS_VERIFY": "1"})
    assert verified.tls == TlsConfig(str(home.config / "ca.pem"))
    assert find_daemon(environ | {"DOCKER_TLS": "1"}).tls == TlsConfig(
        str(home.config / "ca.pem"), verify=False
    )
    certs = home.write("certs/ca.pem", "CA").parent
    (certs / "cert.pem").write_text("C")
    (certs / "key.pem").write_text("K")
    mutual = find_daemon(environ | {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certs)})
    assert mutual.tls == TlsConfig(
        *(str(certs / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    )
    local = environ | {"DOCKER_HOST": DOCKER, "DOCKER_TLS_VERIFY": "1"}
    assert find_daemon(local).tls is None


def test_docker_host_may_leave_out_scheme_and_port(home: Home) -> None:
    assert find_daemon(home.environ | {"DOCKER_HOST": "h:2375"}).url == "tcp://h:2375"
    assert find_daemon(home.environ | {"DOCKER_HOST": "tcp://h"}).url == "tcp://h"
