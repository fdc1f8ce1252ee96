"""Every exporter, read with the tools that people have for what it writes."""

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kitcache import Client
from tests.integration.build.kit import Kit, context, read_entries, read_files
from tests.integration.daemon import Daemon
from tests.integration.listener import into_engine, listen_unix

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """A context of a directory, a program and a link; the image has a label."""
    made = context(tmp_path / "c", "FROM scratch\nLABEL who=me\nCOPY d /d\n", d__file="data")
    (made / "d" / "program").write_text("#!/bin/sh\n")
    (made / "d" / "program").chmod(0o755)
    (made / "d" / "link").symlink_to("file")
    return made


NAMES = ["d/", "d/file", "d/link", "d/program"]


def skopeo(*args: str | Path) -> dict[str, Any]:
    done = subprocess.run(["skopeo", *map(str, args)], check=True, capture_output=True)
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def listed(tar: Path) -> list[str]:
    done = subprocess.run(["tar", "tf", tar], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("word", ["{}", "type=local,dest={}"])
def test_a_directory(kit: Kit, where: Path, tmp_path: Path, word: str) -> None:
    out = tmp_path / "a" / "out"
    kit.must("--no-cache", "-o", word.format(out), where)
    assert sorted(os.listdir(out / "d")) == ["file", "link", "program"]
    assert (out / "d" / "program").stat().st_mode & 0o777 == 0o755
    assert os.readlink(out / "d" / "link") == "file"
    source = (where / "d" / "file").stat()
    assert (out / "d" / "file").stat().st_mtime_ns == source.st_mtime_ns


def test_a_directory_keeps_what_is_not_the_builds(kit: Kit, where: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    context(out, None, foreign="f", d__foreign="f", d__file="older")
    kit.must("-o", out, where)
    assert sorted(os.listdir(out)) == ["d", "foreign"]
    assert sorted(os.listdir(out / "d")) == ["file", "foreign", "link", "program"]
    assert (out / "d" / "file").read_text() == "data"
    assert (out / "d" / "foreign").read_text() == "f"


@pytest.mark.parametrize("options", [("-o", "-"), ("--output", "type=tar,dest=-")])
def test_a_tar_to_stdout(kit: Kit, where: Path, options: tuple[str, str]) -> None:
    built = kit.must(*options, where)
    entries = read_entries(built.stdout)
    assert sorted(entries) == [name.rstrip("/") for name in NAMES]
    assert entries["d/program"].mode == 0o755
    assert "exporting to client tarball" in built.err


def test_a_tar_to_a_file(kit: Kit, where: Path, tmp_path: Path) -> None:
    kit.must("-o", f"type=tar,dest={tmp_path / 'deep' / 'out.tar'}", where)
    assert listed(tmp_path / "deep" / "out.tar") == NAMES


def test_stdout_takes_one_result_and_no_directory(kit: Kit, where: Path) -> None:
    built = kit.run("-o", "-", "-o", "type=oci", where)
    assert (built.code, built.stdout) == (2, b"")
    assert "multiple outputs configured to write to stdout" in built.err
    built = kit.run("-o", "type=local,dest=-", where)
    assert (built.code, built.stdout) == (2, b"")
    assert "dest cannot be stdout for local exporter" in built.err


def test_an_oci_archive(kit: Kit, where: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.oci"
    kit.must("-t", "app:1.2", "-o", f"type=oci,dest={archive}", where)
    found = skopeo("inspect", f"oci-archive:{archive}")
    assert found["Labels"] == {"who": "me"}
    assert [layer["MIMEType"] for layer in found["LayersData"]] == [GZIP]
    piped = kit.must("-t", "app:1.2", "-o", "type=oci", where).stdout
    assert "index.json" in read_files(piped)


def test_an_oci_layout_with_a_tag_for_each_name(kit: Kit, where: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    tags = ("-t", "app:1.2", "-t", "example.com/team/app:test")
    zstd = "compression=zstd,force-compression=true"
    built = kit.must(*tags, "-o", f"type=oci,dest={layout},tar=false,{zstd}", where)
    for tag in ("1.2", "test"):
        found = skopeo("inspect", f"oci:{layout}:{tag}")
        assert found["Labels"] == {"who": "me"}, built
        assert [layer["MIMEType"] for layer in found["LayersData"]] == [ZSTD]
    listing = subprocess.run(
        ["umoci", "ls", "--layout", layout], check=True, capture_output=True, text=True
    )
    assert listing.stdout.split() == ["1.2", "test"]


def test_an_oci_layout_keeps_the_tags_it_has(kit: Kit, where: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    kit.must("-t", "app:1", "-o", f"type=oci,dest={layout},tar=false", where)
    kit.must("-t", "app:2", "--label", "who=you", "-o", f"type=oci,dest={layout},tar=false", where)
    assert skopeo("inspect", f"oci:{layout}:1")["Labels"] == {"who": "me"}
    assert skopeo("inspect", f"oci:{layout}:2")["Labels"] == {"who": "you"}


def test_an_image_and_a_cache_in_one_directory(kit: Kit, where: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    image, cache = f"type=oci,dest={both},tar=false", f"type=local,dest={both},tag=c,reset=true"
    built = kit.must("-t", "app:1", "-o", image, "--cache-to", cache, where)
    assert "nothing to delete" in built.err
    assert "not reset" not in built.err
    assert skopeo("inspect", f"oci:{both}:1")["Labels"] == {"who": "me"}
    again = kit.must("-t", "app:1", "-o", image, "--cache-to", cache, "--label", "who=you", where)
    assert "deleted 2 blobs" in again.err, "the first image and its config"


def test_an_archive_for_docker_load(kit: Kit, where: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    kit.must("-t", "archive:7", "-o", f"type=docker,dest={archive}", where)
    assert skopeo("inspect", f"docker-archive:{archive}")["Labels"] == {"who": "me"}
    assert "archive:7" in kit.daemon.must("load", "-i", str(archive))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ((), "loaded:1"),
        (("--load",), "loaded:2"),
        (("-o", "type=docker"), "loaded:3"),
        (("-o", "type=image"), "loaded:4"),
        (("-o", "type=moby"), "loaded:5"),
    ],
)
def test_an_image_of_the_engine(kit: Kit, where: Path, options: tuple[str, ...], name: str) -> None:
    kit.must("-t", name, *options, where)
    found = json.loads(kit.daemon.must("image", "inspect", name))[0]
    assert name in found["RepoTags"]
    assert found["Config"]["Labels"] == {"who": "me"}
    saved = kit.daemon.root / "saved.tar"
    kit.daemon.must("save", "-o", str(saved), name)
    with tarfile.open(saved) as archive:
        assert "index.json" in archive.getnames()
    saved.unlink()


def test_an_image_of_a_buildkitd_is_loaded_with_docker(kit: Kit, where: Path) -> None:
    path = kit.daemon.root / "buildkitd.sock"
    with listen_unix(path, into_engine(kit.daemon.socket)):
        kit.must("--addr", f"unix://{path}", "--load", "-t", "carried:1", where)
    path.unlink()
    assert '"who": "me"' in kit.daemon.must("image", "inspect", "carried:1")


def test_names_of_an_output_are_names_of_the_image(kit: Kit, where: Path) -> None:
    kit.must("-o", '"type=image","name=named:1,example.com/named:2"', where)
    found = json.loads(kit.daemon.must("image", "inspect", "named:1"))[0]
    assert {"example.com/named:2", "named:1"} <= set(found["RepoTags"])


def test_several_outputs_of_one_build(kit: Kit, where: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    built = kit.must(
        *("-t", "several:1", "--load", "-o", "-", "-o", out / "directory"),
        *("-o", f"type=oci,dest={out}/image.oci"),
        *("-o", f"type=oci,dest={out}/layout,tar=false"),
        where,
    )
    assert sorted(read_files(built.stdout)) == ["d/file", "d/link", "d/program"]
    assert (out / "directory" / "d" / "file").read_text() == "data"
    assert skopeo("inspect", f"oci-archive:{out}/image.oci")["Labels"] == {"who": "me"}
    assert skopeo("inspect", f"oci:{out}/layout:1")["Labels"] == {"who": "me"}
    assert "several:1" in kit.daemon.must("image", "inspect", "several:1")


def test_no_output_but_the_cache(kit: Kit, where: Path) -> None:
    before = set(kit.daemon.must("images", "--all", "--quiet", "--no-trunc").split())
    built = kit.must("-o", "type=cacheonly", "--label", "only=cache", where)
    assert "exporting" not in built.err
    assert set(kit.daemon.must("images", "--all", "--quiet", "--no-trunc").split()) == before


def test_a_time_of_the_source_makes_builds_alike(kit: Kit, where: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("first", "second"):
        out = f"type=oci,dest={tmp_path / name},rewrite-timestamp=true"
        iid = tmp_path / f"{name}.iid"
        epoch = {"SOURCE_DATE_EPOCH": "1000000000"}
        kit.must("--no-cache", "-o", out, "--iidfile", iid, where, env=epoch)
        digests.append(iid.read_text())
        os.utime(where / "d" / "file")
    assert digests[0] == digests[1] != ""
    created = skopeo("inspect", f"oci-archive:{tmp_path / 'first'}")["Created"]
    assert created == "2001-09-09T01:46:40Z"


def test_provenance_is_in_the_image_and_in_the_metadata(
    kit: Kit, where: Path, tmp_path: Path
) -> None:
    layout, metadata = tmp_path / "layout", tmp_path / "metadata"
    out = f"type=oci,dest={layout},tar=false"
    kit.must("--provenance=mode=max", "-o", out, "--metadata-file", metadata, where)
    found = json.loads(metadata.read_text())["buildx.build.provenance"]
    assert found["buildType"].startswith("https://mobyproject.org/buildkit")
    assert found["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]
    root = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    index = json.loads((layout / "blobs" / root.replace(":", "/")).read_text())
    kind = "vnd.docker.reference.type"
    kinds = [entry.get("annotations", {}).get(kind) for entry in index["manifests"]]
    assert kinds == [None, "attestation-manifest"]


def test_provenance_of_the_library(daemon: Daemon, where: Path, tmp_path: Path) -> None:
    with Client(f"unix://{daemon.socket}") as client:
        out = f"type=local,dest={tmp_path / 'out'}"
        asked = client.build(str(where), outputs=[out], attests={"provenance": "mode=max"})
        unasked = client.build(str(where), outputs=[out])
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["predicate"]
    assert list(asked.provenance) == [""]
    assert asked.provenance[""]["buildType"].startswith("https://mobyproject.org/buildkit")
    assert unasked.provenance == {}


def test_this_daemon_is_too_old_to_delete_what_a_build_did_not_produce(
    kit: Kit, where: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    built = kit.run("-o", "type=local,dest=out,mode=delete", where, cwd=tmp_path)
    assert built.code == 20
    assert "mode=delete requires" in built.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
