"""What goes wrong: the exit code, the place, the way out, and nothing else."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.build.kit import Kit, context
from tests.integration.daemon import BASE, Daemon


def test_a_mistake_in_the_dockerfile_is_shown_where_it_is(kit: Kit, tmp_path: Path) -> None:
    built = kit.run(context(tmp_path / "c", "FROM scratch\nCOPPY a b\nLABEL a=b\n"))
    assert built.code == 21
    assert "Dockerfile:2\n" in built.err
    assert "   2 | >>> COPPY a b\n" in built.err
    assert "kitcache: failed to solve: dockerfile parse error on line 2: unknown instr" in built.err


def test_a_dockerfile_elsewhere_is_named_as_it_is_called(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", None, sub__my_file="FROM scratch\nCOPY nowhere /\n")
    built = kit.run("-f", where / "sub" / "my.file", where)
    assert built.code == 21
    assert "my.file:2\n" in built.err
    assert "   2 | >>> COPY nowhere /\n" in built.err
    assert '"/nowhere": not found' in built.err


def test_an_image_that_is_nowhere(kit: Kit, tmp_path: Path) -> None:
    built = kit.run(context(tmp_path / "c", "FROM nowhere.invalid/image:1\n"))
    assert built.code == 21
    assert "nowhere.invalid/image:1" in built.err.splitlines()[-1]


def test_a_stage_that_is_none(kit: Kit, tmp_path: Path) -> None:
    built = kit.run("--target", "gone", context(tmp_path / "c"))
    assert built.code == 21
    assert 'target stage "gone" could not be found' in built.err


@pytest.mark.parametrize(
    "cache", ["type=s3,bucket=b,region=r", "type=azblob,account_url=https://a.example"]
)
def test_an_engine_exports_to_no_object_store(cache: str, kit: Kit, tmp_path: Path) -> None:
    built = kit.run("--cache-to", f"{cache},reset=true", context(tmp_path / "c"))
    assert built.code == 21
    kind = cache.partition(",")[0].removeprefix("type=")
    assert f'unknown cache exporter: "{kind}"' in built.err.splitlines()[-1]
    assert "not reset" not in built.err


def test_a_missing_dockerfile(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", None)
    built = kit.run(where)
    assert built.code == 1
    assert f"kitcache: {where}/Dockerfile: there is no Dockerfile\n  nothing was built" in built.err
    built = kit.run("-f", where / "other", where)
    assert built.code == 1
    assert f"{where}/other: there is no Dockerfile" in built.err


def test_a_context_that_is_not_there(kit: Kit, tmp_path: Path) -> None:
    built = kit.run(tmp_path / "gone")
    assert built.code == 2
    assert f'path "{tmp_path}/gone" not found' in built.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--targt", "x"), "unknown option --targt; did you mean --target?"),
        (("--ssh", "default"), "--ssh is an option of docker buildx build that kitcache does not"),
        (("--memory=1g",), "--memory is an option of docker buildx build that kitcache does not"),
        (("--network", "bridge"), 'network mode "bridge" not supported by buildkit'),
        (("--add-host", "box"), "invalid host box"),
        (("--platform", "linux/"), 'invalid platform "linux/"'),
        (("-t", "UPPER"), 'invalid tag "UPPER": repository name must be lowercase'),
        (("-o", "type=loca"), 'exporter "loca" could not be found'),
        (("--cache-to", "type=local,dest=x,reset=yes"), "reset"),
        (("--secret", "src=x"), "secret missing ID"),
        (("--push",), "tag is needed when pushing to registry"),
        (("--progress", "loud"), "loud"),
    ],
)
def test_words_that_mean_nothing(
    kit: Kit, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    built = kit.run(*options, context(tmp_path / "c"))
    assert (built.code, built.stdout) == (2, b""), built
    assert said in built.err
    assert "#1" not in built.err, "something was built"


def test_a_daemon_that_is_not_there(kit: Kit, tmp_path: Path) -> None:
    built = kit.run("--addr", f"unix://{tmp_path}/s", context(tmp_path / "c"))
    assert built.code == 20
    assert f"unix://{tmp_path}/s: there is no such socket" in built.err
    built = kit.run(context(tmp_path / "c"), env={"DOCKER_HOST": f"unix://{tmp_path}/t"})
    assert built.code == 20
    assert "DOCKER_HOST" in built.err


def test_places_that_cannot_be_written(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c")
    (tmp_path / "file").touch()
    for options, said in (
        (("-o", tmp_path / "file"), f"{tmp_path}/file: destination directory is a file"),
        (("-o", f"type=tar,dest={tmp_path}"), f"{tmp_path}: destination file is a directory"),
        (("-o", f"type=oci,dest={tmp_path}/file,tar=false"), f"{tmp_path}/file: "),
        (("--cache-to", f"type=local,dest={tmp_path}/file"), f"{tmp_path}/file: "),
        (("-o", f"type=oci,dest={where},tar=false"), f"{where}: "),
    ):
        built = kit.run(*options, where)
        assert built.code in (1, 2, 10), built
        assert said in built.err
        assert "#1" not in built.err, "something was built"
    assert (tmp_path / "file").read_bytes() == b""
    assert os.listdir(where) == ["Dockerfile"]


def test_a_metadata_file_that_cannot_be_written(kit: Kit, tmp_path: Path) -> None:
    metadata = tmp_path / "gone" / "metadata"
    built = kit.run("--metadata-file", metadata, "-o", "type=cacheonly", context(tmp_path / "c"))
    assert built.code == 1
    assert f"{metadata}: cannot be written: No such file or directory" in built.err


@pytest.fixture(scope="module")
def old_store(daemon: Daemon) -> Iterator[Daemon]:
    """A docker engine as it is by default: without the containerd image store."""
    with Daemon(containerd_store=False) as running:
        yield running


NEEDS_IT = {
    "cache export type=local": ("--cache-to", "type=local,dest={}/cache"),
    "cache export type=registry": ("--cache-to", "type=registry,ref=127.0.0.1:1/c"),
    "a push to a registry": ("-t", "127.0.0.1:1/x", "--push"),
    "output type=oci": ("-o", "type=oci,dest={}/out"),
    "several platforms": ("--platform", "linux/amd64,linux/arm64", "-o", "-"),
    "attestation type=provenance": ("--provenance=mode=max",),
}


def test_an_engine_without_the_containerd_store(old_store: Daemon, tmp_path: Path) -> None:
    kit = Kit(old_store, tmp_path / "home")
    where = context(tmp_path / "c", "FROM scratch\nCOPY f /\n", f="data")
    for what, options in NEEDS_IT.items():
        built = kit.run(*(word.format(tmp_path) for word in options), where)
        assert built.code == 20, built
        assert f"cannot do {what}: its containerd image store is off" in built.err
        assert '"features": {"containerd-snapshotter": true}' in built.err
        assert "#1" not in built.err, "something was built"
    assert not (tmp_path / "cache").exists()
    kit.must("-t", "plain:1", "--label", "a=b", where)
    labels = ("image", "inspect", "plain:1", "--format", "{{json .Config.Labels}}")
    assert old_store.must(*labels) == '{"a":"b"}\n'
    assert kit.files(where) == {"f": b"data"}
    kit.must("-o", tmp_path / "out", where)
    assert (tmp_path / "out" / "f").read_text() == "data"
    iid = kit.must("-q", where).out.strip()
    assert old_store.must("image", "inspect", iid)
    old_store.base_image()
    context(where, f"FROM {BASE}\nCOPY f /\n")
    kit.must("-t", "plain:2", where)
