"""cli/buildrequest.py: the command line of `kitcache build` as values."""

from pathlib import Path

import pytest

from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.cli.buildrequest import find_tls, make_request
from kitcache.errors import UsageError
from kitcache.options.build import BuildRequest
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.options.outputs import Output
from tests.unit.cli.test_buildoptions import parse

ENVIRON = {"TOKEN": "hush", "PATH": "/bin"}


def make(*words: str, environ: dict[str, str] | None = None) -> BuildRequest:
    return make_request(parse(*words), ENVIRON if environ is None else environ)


def refuse(*words: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        make(*words)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_context_alone_is_all_defaults() -> None:
    assert make(".") == BuildRequest()


def test_every_option_has_its_field() -> None:
    words = (
        "-f f --target t --platform linux/amd64,linux/arm64 --platform linux/amd64"
        " --build-arg A=1=2 --build-arg PATH --build-arg GONE --build-arg A=3"
        " --label l=v --label bare --build-context b=c --secret id=s,env=TOKEN --pull"
        " --no-cache --no-cache-filter x --network none --add-host a:1.2.3.4,b:1.2.3.5"
        " --allow network.host,security.insecure --shm-size 1k --ulimit core=1"
        " -t app -o out --cache-to type=local,dest=d,reset=true --cache-from me/app"
        " --provenance mode=max --sbom=true ctx"
    )
    request = make(*words.split())
    assert [(secret.id, secret.data) for secret in request.secrets] == [("s", b"hush")]
    assert request == BuildRequest(
        context="ctx",
        dockerfile="f",
        target="t",
        platforms=("linux/amd64", "linux/arm64"),
        build_args=(("A", "3"), ("PATH", "/bin")),
        labels=(("l", "v"), ("bare", "")),
        build_contexts=(("b", "c"),),
        secrets=request.secrets,
        pull=True,
        no_cache=True,
        no_cache_filter=("x",),
        network="none",
        add_hosts=("a:1.2.3.4", "b:1.2.3.5"),
        allow=("network.host", "security.insecure"),
        shm_size=1024,
        ulimits=("core=1:1",),
        tags=("docker.io/library/app:latest",),
        outputs=(Output("local", "out"),),
        cache_to=(CacheExport("local", dest="d", reset=True),),
        cache_from=(CacheImport("registry", (("ref", "me/app"),)),),
        attests=(("provenance", "mode=max"), ("sbom", "")),
    )


def test_an_argument_without_a_value_is_the_environments_or_none() -> None:
    words = ("--build-arg", "A=", "--build-arg", "TOKEN", "--build-arg", "GONE", ".")
    assert make(*words).build_args == (("A", ""), ("TOKEN", "hush"))


def test_the_environment_sets_the_epoch_and_the_platform_unless_it_is_given() -> None:
    environ = {"SOURCE_DATE_EPOCH": "0", "DOCKER_DEFAULT_PLATFORM": "linux/arm64"}
    request = make(".", environ=environ)
    assert request.build_args == (("SOURCE_DATE_EPOCH", "0"),)
    assert request.platforms == ("linux/arm64",)
    words = ("--build-arg", "SOURCE_DATE_EPOCH=1", "--platform", "linux/amd64", ".")
    request = make(*words, environ=environ)
    assert request.build_args == (("SOURCE_DATE_EPOCH", "1"),)
    assert request.platforms == ("linux/amd64",)


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        ("--push", (Output("registry"),)),
        ("--load", (Output("docker"),)),
        ("--push --load", (Output("registry"), Output("docker"))),
        ("--push -o type=image", (Output("image", None, (("push", "true"),)),)),
        ("--push -o type=registry", (Output("registry"),)),
        ("--push -o out", (Output("local", "out"), Output("registry"))),
        ("--load -o type=docker", (Output("docker"),)),
        ("--load -o type=docker,dest=x", (Output("docker", "x"), Output("docker"))),
        ("-o a -o= -o -", (Output("local", "a"), Output("tar", "-"))),
    ],
)
def test_push_and_load_add_an_output(words: str, outputs: tuple[Output, ...]) -> None:
    assert make("-t", "app", *words.split(), ".").outputs == outputs


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--cache-to type=local .", "--cache-to: local cache exporter requires dest"),
        ("--cache-from type=local .", "--cache-from: local cache importer requires src"),
        ("-o type=local .", "--output: dest is required for local exporter"),
        ("-t A .", '--tag: invalid tag "A": repository name must be lowercase'),
        ("--secret src=x .", "--secret: secret missing ID"),
        ("--build-arg =x .", "--build-arg: '=x' has no key"),
        ("--label =x .", "--label: '=x' has no key"),
        ("--build-context x .", "--build-context: invalid context value: x, expected key=value"),
        ("--attest mode=max .", "--attest: attestation type not specified"),
        ("--provenance yes .", "--provenance: invalid value yes"),
        ("--sbom yes .", "--sbom: invalid value yes"),
        ("--shm-size lots .", "--shm-size: invalid size: 'lots'"),
        ("--ulimit x=1 .", "--ulimit: invalid ulimit type: x"),
        ("--platform local .", "--platform: local is not a platform of the daemon"),
        ("--add-host x .", "invalid host x"),
        ("--push .", "tag is needed when pushing to registry"),
        ("--network bridge .", 'network mode "bridge" not supported by buildkit'),
    ],
)
def test_an_error_names_the_option(words: str, problem: str) -> None:
    assert refuse(*words.split()).problem == problem


def test_an_error_keeps_its_advice() -> None:
    assert refuse("--cache-to", "type=local", ".").hints == ("add dest=DIR",)


@pytest.mark.parametrize(
    ("words", "step"),
    [
        ("--cache-to local,dest=c .", "write type=local,dest=DIR"),
        ("--cache-from local,src=c .", "write type=local,src=DIR"),
        ("--cache-to type=local,dest=c,reset=yes .", "write true or false"),
        ("--cache-to type=local,dest=c,compression-level=x .", "kitcache build --help"),
        ("--provenance yes .", "write true, false or mode=max"),
        ("--sbom yes .", "write true, false or generator=IMAGE"),
    ],
)
def test_an_error_without_advice_gets_some(words: str, step: str) -> None:
    assert refuse(*words.split()).hints == (step,)


def test_provenance_can_be_declined() -> None:
    assert make("--provenance=false", ".").attests == ()


def test_an_empty_secret_is_warned_of_and_none_is_shown() -> None:
    request = make("--secret", "id=a,env=GONE", "--secret", "id=b,env=TOKEN", ".")
    (warning,) = request.warnings
    assert warning.startswith("secret a is empty")
    assert "hush" not in repr(request)


def test_credentials_of_caches_come_from_the_environment() -> None:
    environ = {"ACTIONS_RUNTIME_TOKEN": "hush", "ACTIONS_CACHE_URL": "u"}
    request = make("--cache-to", "type=gha", "--cache-from", "type=gha", ".", environ=environ)
    assert dict(request.cache_to[0].attrs)["token"] == "hush"
    assert dict(request.cache_from[0].attrs)["token"] == "hush"
    assert "hush" not in repr(request)


def test_certificates_of_a_directory_and_of_files(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    assert find_tls(parse(".")) is None
    assert find_tls(parse("--tlsdir", str(tmp_path), ".")) == TlsConfig(ca, cert, key)
    words = ("--tlsdir", str(tmp_path), "--tlscacert", "mine", "--tlsservername", "n", ".")
    assert find_tls(parse(*words)) == TlsConfig("mine", cert, key, "n")
    with pytest.raises(UsageError, match="without its key"):
        find_tls(parse("--tlscert", "x", "."))
