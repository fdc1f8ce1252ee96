"""buildkit/request.py: BuildRequest as the fields of a Solve."""

import json
from pathlib import Path

import pytest

from kitcache.buildkit.inputs import Inputs
from kitcache.buildkit.request import (
    check_request,
    frontend_attrs,
    read_proxies,
)
from kitcache.errors import UsageError
from kitcache.options.build import BuildRequest
from kitcache.options.caches import CacheExport, CacheImport, parse_cache_export
from kitcache.options.outputs import Output

HERE = Inputs((("filename", "Dockerfile"),))


def attrs(request: BuildRequest, **known: object) -> dict[str, str]:
    known.setdefault("is_engine", False)
    return frontend_attrs(check_request(request), HERE, **known)  # type: ignore[arg-type]


def exports(request: BuildRequest) -> tuple[CacheExport, ...]:
    return check_request(request).request.cache_to


def refuse(request: BuildRequest) -> UsageError:
    with pytest.raises(UsageError) as caught:
        check_request(request)
    return caught.value


def test_a_plain_build_says_nothing_that_was_not_asked_for() -> None:
    assert attrs(BuildRequest()) == {"filename": "Dockerfile"}
    check_request(BuildRequest())


def test_every_choice_has_its_attribute() -> None:
    request = BuildRequest(
        target="prod",
        build_args=(("A", "1"), ("B", "")),
        labels=(("l", "x=y"),),
        platforms=("linux/amd64", "linux/arm64"),
        no_cache_filter=("one", "two"),
        pull=True,
        add_hosts=("a:1.2.3.4", "b=[::1]", "c:::2"),
        network="none",
        attests=(("provenance", "mode=max"), ("sbom", "")),
        shm_size=64,
        ulimits=("nofile=1:2", "core=0:0"),
    )
    assert attrs(request) == {
        "filename": "Dockerfile",
        "target": "prod",
        "build-arg:A": "1",
        "build-arg:B": "",
        "label:l": "x=y",
        "platform": "linux/amd64,linux/arm64",
        "no-cache": "one,two",
        "image-resolve-mode": "pull",
        "add-hosts": "a=1.2.3.4,b=::1,c=::2",
        "force-network-mode": "none",
        "attest:provenance": "mode=max",
        "attest:sbom": "",
        "shm-size": "64",
        "ulimit": "nofile=1:2,core=0:0",
    }


def test_no_cache_is_for_all_stages_whatever_the_filter() -> None:
    assert attrs(BuildRequest(no_cache=True))["no-cache"] == ""
    assert attrs(BuildRequest(no_cache=True, no_cache_filter=("a",)))["no-cache"] == ""


def test_an_engine_prefers_its_own_images_unless_told_to_pull() -> None:
    assert attrs(BuildRequest(), is_engine=True)["image-resolve-mode"] == "local"
    assert attrs(BuildRequest(pull=True), is_engine=True)["image-resolve-mode"] == "pull"


def test_several_platforms_on_demand() -> None:
    one = BuildRequest(build_args=(("BUILDKIT_MULTI_PLATFORM", "1"),))
    assert attrs(one)["multi-platform"] == "true"


def test_the_imports_are_in_an_attribute_too() -> None:
    entries = [("local", {"src": "token", "digest": "sha256:0"}), ("gha", {"url": "é"})]
    text = attrs(BuildRequest(), cache_imports=entries)["cache-imports"]
    assert json.loads(text) == [
        {"Type": "local", "Attrs": {"src": "token", "digest": "sha256:0"}},
        {"Type": "gha", "Attrs": {"url": "é"}},
    ]


def proxies_of(directory: Path, proxies: object, host: str = "") -> tuple[tuple[str, str], ...]:
    (directory / "config.json").write_text(json.dumps({"proxies": proxies}))
    return read_proxies(str(directory), host)


def test_proxies_give_way_to_the_builds_own_arguments(tmp_path: Path) -> None:
    request = BuildRequest(build_args=(("HTTP_PROXY", "mine"),))
    proxies = proxies_of(tmp_path, {"default": {"httpProxy": "theirs"}})
    found = attrs(request, proxies=proxies)
    assert found["build-arg:HTTP_PROXY"] == "mine"
    assert found["build-arg:http_proxy"] == "theirs"


def test_proxies_are_dockers(tmp_path: Path) -> None:
    config = {
        "default": {"httpProxy": "a", "noProxy": "b", "ftpProxy": ""},
        "tcp://x:1": {"httpsProxy": "c"},
    }
    assert dict(proxies_of(tmp_path, config, "unix:///run/docker.sock")) == {
        "HTTP_PROXY": "a", "http_proxy": "a", "NO_PROXY": "b", "no_proxy": "b",
    }  # fmt: skip
    assert dict(proxies_of(tmp_path, config, "tcp://x:1")) == {
        "HTTPS_PROXY": "c", "https_proxy": "c",
    }  # fmt: skip
    for junk in (None, [], {"default": 1}, {"default": {"httpProxy": 1}}):
        assert proxies_of(tmp_path, junk) == ()


def test_the_gateway_of_the_host() -> None:
    request = BuildRequest(add_hosts=("host.docker.internal:host-gateway",))
    assert attrs(request, host_gateway="172.17.0.1")["add-hosts"] == (
        "host.docker.internal=172.17.0.1"
    )
    with pytest.raises(UsageError, match="unable to derive the IP value for host-gateway"):
        attrs(request)


@pytest.mark.parametrize("host", ["a", "a:", ":1.2.3.4", "a:b", "a:1.2.3", "a=fe80::1%eth0", "::1"])
def test_what_is_no_host(host: str) -> None:
    assert refuse(BuildRequest(add_hosts=(host,))).problem == f"invalid host {host}"


def test_entitlements() -> None:
    def entitlements(request: BuildRequest) -> tuple[str, ...]:
        return check_request(request).entitlements

    assert entitlements(BuildRequest()) == ()
    host = BuildRequest(network="host", allow=("security.insecure",))
    assert entitlements(host) == ("security.insecure", "network.host")
    both = BuildRequest(network="host", allow=("network.host", "device=a,alias=b"))
    assert entitlements(both) == ("network.host", "device=a,alias=b")
    error = refuse(BuildRequest(allow=("network-host",)))
    assert error.problem == "unknown entitlement network-host"
    assert error.hints == ("did you mean network.host?",)
    assert refuse(BuildRequest(allow=("network.host=1",))).exit_code == 2


def test_networks_and_platforms_are_checked_before_a_daemon_is_asked() -> None:
    error = refuse(BuildRequest(network="nnoe"))
    assert error.problem == 'network mode "nnoe" not supported by buildkit'
    assert error.hints == ("did you mean none?",)
    for platform in ("linux/", "a/b/c/d", "linux amd64", ""):
        assert "invalid platform" in refuse(BuildRequest(platforms=(platform,))).problem
    check_request(BuildRequest(platforms=("linux/arm/v7", "arm64", "windows(10.0.1)/amd64")))
    assert "tag is needed" in refuse(BuildRequest(outputs=(Output("registry"),))).problem


def test_githubs_cache_is_left_out_outside_of_github() -> None:
    idle, active = parse_cache_export("type=gha"), parse_cache_export("type=gha,url=u,token=t")
    assert exports(BuildRequest(cache_to=(idle, active))) == (active,)
    kept = CacheImport("local", src="x")
    checked = check_request(BuildRequest(cache_from=(CacheImport("gha"), kept)))
    assert checked.request.cache_from == (kept,)


def test_an_inline_cache_by_build_argument() -> None:
    args = (("BUILDKIT_INLINE_CACHE", "1"),)
    assert exports(BuildRequest(build_args=args)) == (CacheExport("inline"),)


def test_the_same_export_twice_is_refused_unless_it_is_local() -> None:
    one = parse_cache_export("type=registry,ref=a,mode=max")
    same = parse_cache_export("type=registry,ref=a,mode=min")
    other = parse_cache_export("type=registry,ref=b")
    assert (
        refuse(BuildRequest(cache_to=(one, same))).problem == "duplicate cache exports [registry]"
    )
    check_request(BuildRequest(cache_to=(one, other)))
    local = parse_cache_export("type=local,dest=a")
    check_request(BuildRequest(cache_to=(local, local._replace(tag="b"), local)))


def test_what_an_engine_needs_its_image_store_for() -> None:
    def need(request: BuildRequest) -> str:
        return check_request(request).image_store_need

    assert need(BuildRequest(tags=("a",))) == ""
    assert need(BuildRequest(outputs=(Output("local", "out"),))) == ""
    request = BuildRequest(
        cache_to=(CacheExport("inline"), CacheExport("local", dest="d")),
        outputs=(Output("oci", "x"),),
        platforms=("linux/amd64", "linux/arm64"),
        attests=(("sbom", ""),),
    )
    assert need(request) == "cache export type=local"
    assert need(request._replace(cache_to=())) == "output type=oci"
    pushed = request._replace(cache_to=(), tags=("a",), outputs=(Output("registry"),))
    assert need(pushed) == "a push to a registry"
    assert need(pushed._replace(outputs=())) == "several platforms"
    assert need(pushed._replace(outputs=(), platforms=())) == "attestation type=sbom"
