"""What a daemon is asked: the fields of the Solve, as another implementation of gRPC reads them.

For what dockerd's BuildKit cannot do, this is the proof; what it can do is proven by doing it.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from tests.integration import kit as command_line
from tests.integration.build import kit
from tests.integration.build.kit import Built, context
from tests.integration.build.recorder import Recorder, recording


class Asked:
    """Runs `kitcache build` at a recorder. solve: what that was asked the last time."""

    def __init__(self, recorder: Recorder, address: str, where: Path) -> None:
        self.recorder = recorder
        self.where = where
        self._address = address
        self._env = {"HOME": str(where.parent), "PATH": "/usr/bin:/bin"}

    def run(self, *args: str, env: Mapping[str, str] | None = None) -> Built:
        self.recorder.solves.clear()
        self.recorder.sessions.clear()
        command = command_line.command("build", "--addr", self._address, *args, self.where)
        return kit.run_command(command, env={**self._env, **(env or {})})

    def must(self, *args: str, env: Mapping[str, str] | None = None) -> Built:
        built = self.run(*args, env=env)
        assert built.code == 0, built
        return built

    @property
    def attrs(self) -> dict[str, str]:
        return dict(self.recorder.solve.frontend_attrs)

    def exports(self) -> list[tuple[str, dict[str, str]]]:
        return [(e.type, dict(e.attrs)) for e in self.recorder.solve.cache.exports]

    def imports(self) -> list[tuple[str, dict[str, str]]]:
        return [(e.type, dict(e.attrs)) for e in self.recorder.solve.cache.imports]

    def exporters(self) -> list[tuple[str, dict[str, str]]]:
        return [(e.type, dict(e.attrs)) for e in self.recorder.solve.exporters]


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    where = context(tmp_path / "c")
    with tempfile.TemporaryDirectory() as box, recording(Path(box) / "s") as recorder:
        yield Asked(recorder, f"unix://{box}/s", where)


def test_a_plain_build_asks_for_next_to_nothing(asked: Asked) -> None:
    built = asked.must()
    solve = asked.recorder.solve
    assert solve.frontend == "dockerfile.v0"
    assert asked.attrs == {"filename": "Dockerfile"}
    assert (asked.exports(), asked.imports(), asked.exporters()) == ([], [], [])
    assert list(solve.entitlements) == []
    assert "no output was requested" in built.err


def test_the_session_is_the_one_of_the_solve_and_names_what_it_serves(asked: Asked) -> None:
    asked.must("-o", "-")
    (metadata,) = asked.recorder.sessions
    expose = "x-docker-expose-session-"
    found = dict(metadata)
    assert found[f"{expose}uuid"] == asked.recorder.solve.session
    assert len(found[f"{expose}sharedkey"]) == 64
    methods = {value for key, value in metadata if key == f"{expose}grpc-method"}
    assert methods == {
        "/grpc.health.v1.Health/Check",
        "/moby.filesync.v1.Auth/Credentials",
        "/moby.filesync.v1.FileSend/DiffCopy",
        "/moby.filesync.v1.FileSync/DiffCopy",
        "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    }


def test_every_option_of_the_frontend(asked: Asked) -> None:
    asked.must(
        *("--target", "t", "--build-arg", "A=1", "--label", "l=2", "--pull", "--no-cache"),
        *("--platform", "linux/amd64,linux/arm64", "--add-host", "h:10.0.0.1"),
        *("--network", "none", "--shm-size", "1m", "--ulimit", "nofile=1:2"),
        *("--build-context", "b=docker-image://busybox"),
        *("--build-context", "g=https://example.com/r.git"),
        *("--sbom", "generator=example.com/scanner:1", "--provenance", "mode=max"),
    )
    assert asked.attrs == {
        "filename": "Dockerfile",
        "target": "t",
        "build-arg:A": "1",
        "label:l": "2",
        "image-resolve-mode": "pull",
        "no-cache": "",
        "platform": "linux/amd64,linux/arm64",
        "add-hosts": "h=10.0.0.1",
        "force-network-mode": "none",
        "shm-size": "1048576",
        "ulimit": "nofile=1:2",
        "context:b": "docker-image://busybox",
        "context:g": "https://example.com/r.git",
        "frontend.caps": "moby.buildkit.frontend.contexts+forward",
        "attest:sbom": "generator=example.com/scanner:1",
        "attest:provenance": "mode=max",
    }


@pytest.mark.parametrize(
    ("options", "attrs"),
    [
        (("--sbom=true",), {"attest:sbom": ""}),
        (("--attest", "type=sbom,generator=x"), {"attest:sbom": "generator=x"}),
        (("--provenance=true",), {"attest:provenance": ""}),
        (("--provenance=false", "--sbom=false"), {}),
        (("--no-cache-filter", "a,b"), {"no-cache": "a,b"}),
    ],
)
def test_options_that_are_short_for_others(
    asked: Asked, options: tuple[str, ...], attrs: dict[str, str]
) -> None:
    asked.must(*options)
    assert asked.attrs == {"filename": "Dockerfile", **attrs}


def test_entitlements_are_asked_for(asked: Asked) -> None:
    asked.must("--network", "host", "--allow", "security.insecure,device=vendor.com/d=1")
    assert list(asked.recorder.solve.entitlements) == [
        "security.insecure",
        "device=vendor.com/d=1",
        "network.host",
    ]
    assert asked.attrs["force-network-mode"] == "host"


GITHUB = {
    "ACTIONS_RUNTIME_TOKEN": "gh-token",
    "ACTIONS_CACHE_URL": "https://gh.example/v1/",
    "ACTIONS_RESULTS_URL": "https://gh.example/v2/",
}
AWS = {
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "hush-aws",
    "AWS_SESSION_TOKEN": "hush-session",
}
S3 = "type=s3,region=eu-west-1,bucket=b,name=n;m"


def test_a_cache_of_github(asked: Asked) -> None:
    spec = ("--cache-to", "type=gha,mode=max,scope=s", "--cache-from", "type=gha,scope=s")
    built = asked.must(*spec, env=GITHUB)
    url = {"token": "gh-token", "url": "https://gh.example/v1/"}
    ((kind, export),) = asked.exports()
    assert kind == "gha"
    assert export.items() >= {**url, "mode": "max", "scope": "s"}.items()
    ((kind, given),) = asked.imports()
    assert kind == "gha"
    assert given.items() >= {**url, "scope": "s"}.items()
    assert json.loads(asked.attrs["cache-imports"]) == [{"Type": "gha", "Attrs": given}]
    assert "gh-token" not in built.out + built.err


def test_a_cache_of_github_is_left_out_elsewhere(asked: Asked) -> None:
    asked.must("--cache-to", "type=gha,mode=max", "--cache-from", "type=gha")
    assert (asked.exports(), asked.imports()) == ([], [])
    assert "cache-imports" not in asked.attrs


def test_a_cache_in_s3(asked: Asked) -> None:
    built = asked.must("--cache-to", S3, "--cache-from", S3, env=AWS)
    attrs = {
        "region": "eu-west-1",
        "bucket": "b",
        "name": "n;m",
        "access_key_id": "id",
        "secret_access_key": "hush-aws",
        "session_token": "hush-session",
    }
    assert asked.exports() == [("s3", attrs)]
    assert asked.imports() == [("s3", attrs)]
    assert "hush" not in built.out + built.err


def test_reset_of_a_cache_in_s3_is_not_sent(asked: Asked) -> None:
    nowhere = f"{S3},endpoint_url=http://127.0.0.1:1,retry_max_attempts=1"
    built = asked.must("--cache-to", f"{nowhere},reset=true,mode=max", env=AWS)
    ((kind, attrs),) = asked.exports()
    assert (kind, attrs["mode"], attrs["name"]) == ("s3", "max", "n;m")
    assert "reset" not in attrs
    assert "unknown attribute" not in built.err
    assert "hush" not in built.out + built.err
    path = "s3://b/?region=eu-west-1&endpoint_url=http://127.0.0.1:1&retry_max_attempts=1"
    assert f"{path}: exported 'n'\n{path}: exported 'm'\n{path}: not reset: " in built.err


def test_a_failed_build_sweeps_no_bucket(asked: Asked) -> None:
    asked.recorder.failure = (grpc.StatusCode.UNKNOWN, 'unknown cache exporter: "s3"')
    built = asked.run("--cache-to", f"{S3},reset=true", env=AWS)
    assert built.code == 21
    assert 'unknown cache exporter: "s3"' in built.err
    assert "s3://" not in built.err


def test_a_reset_of_an_unknown_bucket_is_refused_before_the_build(asked: Asked) -> None:
    built = asked.run("--cache-to", "type=s3,region=r,reset=true", env=AWS)
    assert (built.code, asked.recorder.solves) == (2, [])
    assert "bucket ($AWS_BUCKET) not set for s3 cache\n  nothing was built\n" in built.err


def test_a_policy_does_not_need_the_bucket(asked: Asked, tmp_path: Path) -> None:
    """The daemon may have it in its environment."""
    (tmp_path / "cache.toml").write_text("keep-last = 1\n")
    policy = ("--prune-policy", str(tmp_path / "cache.toml"))
    built = asked.must("--cache-to", "type=s3,region=r", *policy, env=AWS)
    assert "the policy does not apply to type=s3: bucket ($AWS_BUCKET) not set" in built.err


def test_a_cache_in_azure(asked: Asked) -> None:
    spec = "type=azblob,account_url=https://a.example,name=n,secret_access_key=hush-azure"
    built = asked.must("--cache-to", f"{spec},mode=max", "--cache-from", spec)
    attrs = {
        "account_url": "https://a.example",
        "name": "n",
        "secret_access_key": "hush-azure",
    }
    assert asked.exports() == [("azblob", {**attrs, "mode": "max"})]
    assert asked.imports() == [("azblob", attrs)]
    assert "hush" not in built.out + built.err


def test_caches_in_a_registry_and_inline(asked: Asked) -> None:
    asked.must(
        *("--cache-to", "type=registry,ref=example.com/c:1,mode=max,ignore-error=true"),
        *("--cache-to", "type=inline", "--cache-from", "example.com/c:1"),
        *("--cache-from", "type=registry,ref=example.com/c:2"),
    )
    assert asked.exports() == [
        ("registry", {"ref": "example.com/c:1", "mode": "max", "ignore-error": "true"}),
        ("inline", {}),
    ]
    assert asked.imports() == [
        ("registry", {"ref": "example.com/c:1"}),
        ("registry", {"ref": "example.com/c:2"}),
    ]


def test_a_local_cache_is_named_by_a_token_and_not_by_its_path(
    asked: Asked, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    spec = f"type=local,dest={cache},tag=t,mode=max,reset=true,compression=zstd"
    asked.must("--cache-to", spec, "--cache-to", f"type=local,dest={cache},mode=min")
    (first, second) = asked.exports()
    assert first[0] == second[0] == "local"
    assert {key: first[1][key] for key in first[1] if key != "dest"} == {
        "mode": "max",
        "compression": "zstd",
    }
    assert first[1]["dest"] != second[1]["dest"]
    assert str(tmp_path) not in str(asked.recorder.solve)


def test_exporters_of_a_buildkitd(asked: Asked, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked.must(
        *("-t", "app", "-t", "example.com/app:2", "--push"),
        *("-o", f"type=local,dest={out}/d,platform-split=true"),
        *("-o", f"type=tar,dest={out}/t"),
        *("-o", f"type=docker,dest={out}/docker"),
        *("-o", f"type=oci,dest={out}/oci,compression=zstd,annotation.a=b"),
        *("-o", "type=image,unpack=true"),
    )
    names = "docker.io/library/app:latest,example.com/app:2"
    assert asked.exporters() == [
        ("local", {"platform-split": "true"}),
        ("tar", {}),
        ("docker", {"name": names}),
        ("oci", {"name": names, "compression": "zstd", "annotation.a": "b"}),
        ("image", {"name": names, "unpack": "true", "push": "true"}),
    ]
    solve = asked.recorder.solve
    assert solve.exporter_deprecated == "local"
    assert dict(solve.exporter_attrs_deprecated) == {"platform-split": "true"}
    assert str(tmp_path) not in str(solve)


def test_a_push_alone(asked: Asked) -> None:
    asked.must("-t", "example.com/app", "--push")
    ((kind, attrs),) = asked.exporters()
    assert kind == "image"
    assert attrs == {"name": "example.com/app:latest", "push": "true", "unpack": "false"}


def test_a_load_from_a_buildkitd_needs_docker(asked: Asked) -> None:
    built = asked.run("--load", "-t", "app", env={"PATH": "/nonexistent"})
    assert built.code == 20
    assert "the image cannot be loaded: docker cannot be started" in built.err
    assert asked.recorder.solves == []


def test_no_secret_is_in_what_is_asked(asked: Asked) -> None:
    asked.must("--secret", "id=s,env=HUSH", env={"HUSH": "hush-secret"})
    assert "hush-secret" not in str(asked.recorder.solve) + str(asked.recorder.sessions)
