"""buildkit/inputs.py: contexts and the Dockerfile, as the daemon will ask for them."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest

from kitcache.buildkit.inputs import (
    Inputs,
    OciLayout,
    find_inputs,
    is_archive,
    is_remote,
    parse_build_context,
)
from kitcache.errors import UsageError
from kitcache.options.build import BuildRequest

# As buildx and the Dockerfile frontend tell them apart (dfgitutil.ParseGitRef, isHTTPURL).
REMOTE = (
    "http://example.com/context.tar.gz", "https://example.com/", "https://github.com/me/app.git",
    "https://github.com/me/app.git#main:sub/dir", "https://github.com/me/app.git?branch=x",
    "git://example.com/app", "GIT://example.com/app", "ssh://git@example.com/app.git",
    "git@github.com:me/app.git", "git@github.com:me/app.git#v1:dir", "github.com/me/app",
    "github.com/me/app.git#main", "example.com:app", "10.0.0.1:app",
)  # fmt: skip
LOCAL = (
    "", ".", "..", "/", "app", "./a:b", "../github.com/me/app", "/srv/a:b", "a/b:c", "app.git",
    "github.com", "example.com/app.git", "ftp://example.com/app.git", "docker-image://alpine",
    "oci-layout://dir", "host:/abs", "host:", "a b:c",
)  # fmt: skip
DIRECTORIES = {".", "app", "app/docker", "/srv/build", "lib"}
DIGEST = f"sha256:{'0' * 64}"


def find(request: BuildRequest, **known: object) -> Inputs:
    return find_inputs(request, DIRECTORIES.__contains__, **known)  # type: ignore[arg-type]


def refuse(request: BuildRequest, **known: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        find(request, **known)
    return caught.value


@pytest.mark.parametrize("text", REMOTE)
def test_the_daemon_fetches_these(text: str) -> None:
    assert is_remote(text)


@pytest.mark.parametrize("text", LOCAL)
def test_these_are_paths(text: str) -> None:
    assert not is_remote(text)


def test_a_directory_holds_its_dockerfile() -> None:
    inputs = find(BuildRequest("app"))
    assert inputs == Inputs(
        (("filename", "Dockerfile"),), (("context", "app"), ("dockerfile", "app"))
    )


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [
        ("Containerfile", ".", "Containerfile"),
        ("app/docker/Dockerfile.dev", "app/docker", "Dockerfile.dev"),
        ("/Dockerfile", "/", "Dockerfile"),
        ("../x", "..", "x"),
    ],
)
def test_a_dockerfile_elsewhere(path: str, folder: str, name: str) -> None:
    inputs = find(BuildRequest("app", dockerfile=path))
    assert dict(inputs.attrs) == {"filename": name}
    assert dict(inputs.sources) == {"context": "app", "dockerfile": folder}


def test_a_dockerfile_on_stdin() -> None:
    inputs = find(BuildRequest("app", dockerfile="-"))
    assert inputs.stdin == "dockerfile"
    assert dict(inputs.attrs) == {"dockerfilekey": "dockerfile", "filename": "Dockerfile"}
    assert dict(inputs.sources) == {"context": "app"}


def test_a_tar_on_stdin_is_uploaded() -> None:
    request = BuildRequest("-", dockerfile="docker/Dockerfile")
    inputs = find(request, stdin_is_archive=True, upload_id="abc")
    assert inputs.stdin == "context"
    assert dict(inputs.attrs) == {
        "context": "http://buildkit-session/abc",
        "filename": "docker/Dockerfile",
    }
    assert inputs.sources == ()


def test_a_dockerfile_alone_on_stdin_has_an_empty_context() -> None:
    inputs = find(BuildRequest("-"))
    assert (inputs.stdin, inputs.sources) == ("dockerfile", ())
    assert dict(inputs.attrs)["dockerfilekey"] == "dockerfile"


def test_a_remote_context_brings_its_dockerfile() -> None:
    url = "https://github.com/me/app.git#main"
    inputs = find(BuildRequest(url, dockerfile="docker/Dockerfile"))
    assert inputs == Inputs((("context", url), ("filename", "docker/Dockerfile")))


def test_a_remote_context_with_a_dockerfile_of_ours() -> None:
    url = "https://example.com/app.tar"
    absolute = find(BuildRequest(url, dockerfile="/srv/build/Dockerfile"))
    assert dict(absolute.attrs)["dockerfilekey"] == "dockerfile"
    assert dict(absolute.sources) == {"dockerfile": "/srv/build"}
    piped = find(BuildRequest(url, dockerfile="-"))
    assert dict(piped.attrs)["context"] == url
    assert piped.stdin == "dockerfile"


def test_a_directory_of_that_name_goes_before_a_url() -> None:
    inputs = find_inputs(BuildRequest("github.com/me/app"), lambda path: True)
    assert dict(inputs.sources)["context"] == "github.com/me/app"


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (BuildRequest(""), 'please specify build context (e.g. "." for the current directory)'),
        (
            BuildRequest("-", dockerfile="-"),
            "invalid argument: can't use stdin for both build context and dockerfile",
        ),
        (
            BuildRequest("-", dockerfile="Dockerfile"),
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
        ),
        (BuildRequest("nowhere"), 'unable to prepare context: path "nowhere" not found'),
        (BuildRequest("app", dockerfile="lib"), "the Dockerfile is a directory"),
        (
            BuildRequest("app", dockerfile="https://example.com/Dockerfile"),
            "a Dockerfile is not fetched from a URL",
        ),
        (
            BuildRequest("app", build_contexts=(("base", "alpine"),)),
            "failed to get build context base: alpine is not a directory",
        ),
        (
            BuildRequest("app", build_contexts=(("base", "target:x"),)),
            "failed to get build context base: target:x names a target of a bake file",
        ),
    ],
)
def test_refusals(request_: BuildRequest, problem: str) -> None:
    assert refuse(request_).problem == problem


def test_named_contexts() -> None:
    named = (
        ("lib", "lib"),
        ("context", "app/docker"),
        ("alpine", "docker-image://alpine:3.20"),
        ("src", "https://github.com/me/lib.git"),
    )
    inputs = find(BuildRequest("app", build_contexts=named))
    attrs = dict(inputs.attrs)
    assert attrs["context:lib"] == "local:lib"
    assert attrs["context:context"] == "local:_context"
    assert attrs["context:alpine"] == "docker-image://alpine:3.20"
    assert attrs["context:src"] == "https://github.com/me/lib.git"
    assert attrs["frontend.caps"] == "moby.buildkit.frontend.contexts+forward"
    assert dict(inputs.sources) == {
        "context": "app", "dockerfile": "app", "lib": "lib", "_context": "app/docker",
    }  # fmt: skip


def test_an_oci_layout_waits_for_its_digest() -> None:
    places = {
        "oci-layout://dir": ("dir", "latest", None),
        "oci-layout:///srv/d:v1": ("/srv/d", "v1", None),
        f"oci-layout://dir@{DIGEST}": ("dir", "latest", DIGEST),
        f"oci-layout://a@b:v2@{DIGEST}": ("a@b", "v2", DIGEST),
        "oci-layout://dir@home": ("dir@home", "latest", None),
    }
    for place, (path, tag, digest) in places.items():
        (layout,) = find(BuildRequest("app", build_contexts=(("base", place),))).layouts
        assert layout == OciLayout("base", "context-0", path, tag, digest)
        assert layout.attr(DIGEST) == ("context:base", f"oci-layout://context-0:{tag}@{DIGEST}")


def test_layouts_have_stores_of_their_own() -> None:
    named = (("a", "oci-layout://x"), ("b", "oci-layout://x:1"))
    layouts = find(BuildRequest("app", build_contexts=named)).layouts
    assert len({layout.store for layout in layouts}) == 2


def test_a_git_query_is_told_to_the_frontend() -> None:
    url = "https://github.com/me/app.git?branch=x"
    caps = dict(find(BuildRequest(url)).attrs)["frontend.caps"]
    assert caps == "moby.buildkit.frontend.gitquerystring"
    both = find(BuildRequest("app", build_contexts=(("src", url),)))
    assert dict(both.attrs)["frontend.caps"] == (
        "moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.gitquerystring+forward"
    )
    assert "frontend.caps" not in dict(find(BuildRequest("https://example.com/a.tar?x=1")).attrs)


def test_names_of_contexts_are_shortened() -> None:
    assert parse_build_context("docker.io/library/alpine:latest=x") == ("alpine", "x")
    assert parse_build_context("alpine:3=docker-image://a=b") == ("alpine:3", "docker-image://a=b")
    with pytest.raises(UsageError, match="invalid context value: x, expected key=value"):
        parse_build_context("x")
    with pytest.raises(UsageError, match="invalid context name A: repository name must be lower"):
        parse_build_context("A=x")


def test_archives_are_told_from_dockerfiles() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("Dockerfile"))
    plain = buffer.getvalue()
    for data in (plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain)):
        assert is_archive(data[:1024])
    damaged = plain[:100] + b"x" + plain[101:]
    for data in (b"", b"FROM scratch\n" * 100, plain[:511], damaged[:1024], bytes(1024)):
        assert not is_archive(data)
