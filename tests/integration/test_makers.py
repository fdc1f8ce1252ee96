"""Layouts of skopeo, umoci, oras and buildah: collected, they are still whole to their maker.

Three of the four keep what a tag named before as an untagged entry. That is a root: it stays until
someone takes the entry out.
"""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from . import witness
from .kit import must

Need = Callable[..., None]


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Runs a maker's command, which must succeed; its standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def digest_of(layout: Path, tag: str) -> str:
    """The digest that a tag names."""
    (found,) = (e["digest"] for e in witness.entries(layout) if witness.ref_name(e) == tag)
    assert isinstance(found, str)
    return found


def reset_exactly(layout: Path) -> set[str]:
    """Resets, and proves that the garbage is gone and nothing else; the digests that went."""
    before, doomed = witness.blobs(layout), set(witness.garbage(layout))
    roots = witness.entries(layout)
    report = must("reset", layout, "--json").json
    assert set(witness.blobs(layout)) == before.keys() - doomed
    assert report["deleted"]["blobs"] == len(doomed)
    assert witness.entries(layout) == roots
    assert witness.look(layout).missing == frozenset()
    return doomed


def stray_blob(layout: Path) -> str:
    """Adds a blob that nothing refers to, as a copy cut off before its manifest leaves it."""
    data = f"a stray blob in {layout.name}".encode()
    digest = "sha256:" + sha256(data).hexdigest()
    witness.blob_path(layout, digest).write_bytes(data)
    return digest


# skopeo


def write_docker_archive(path: Path, files: dict[str, str]) -> Path:
    """An image as `docker save` writes it: skopeo's source without a registry or a daemon."""
    layer = tar_of({name: text.encode() for name, text in files.items()})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(layer).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [], "Layers": ["layer.tar"]}]
    parts = {"config.json": config, "manifest.json": manifest}
    members = {name: json.dumps(value).encode() for name, value in parts.items()}
    path.write_bytes(tar_of({**members, "layer.tar": layer}))
    return path


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def skopeo_copy(tmp_path: Path, layout: Path, tag: str, content: str) -> None:
    archive = write_docker_archive(tmp_path / f"{content}.tar", {"file": content})
    run("skopeo", "copy", f"docker-archive:{archive}", f"oci:{layout}:{tag}")


def read_with_skopeo(layout: Path, reference: str, out: Path) -> str:
    """Copies an image out whole, and reads the one file of its one layer."""
    run("skopeo", "copy", f"oci:{layout}:{reference}", f"dir:{out}")
    manifest = json.loads((out / "manifest.json").read_bytes())
    (layer,) = manifest["layers"]
    with tarfile.open(out / layer["digest"].removeprefix("sha256:")) as tar:
        file = tar.extractfile("file")
        assert file is not None
        return file.read().decode()


def test_skopeo(tmp_path: Path, need: Need) -> None:
    need("skopeo")
    layout = tmp_path / "layout"
    for tag, content in (("main", "one"), ("main", "two"), ("other", "three"), ("main", "four")):
        skopeo_copy(tmp_path, layout, tag, content)
    untagged = [e["digest"] for e in witness.entries(layout) if witness.ref_name(e) is None]
    assert len(untagged) == 2, "skopeo keeps what main named before"

    stray = stray_blob(layout)
    assert reset_exactly(layout) == {stray}
    assert set(untagged) <= witness.blobs(layout).keys()

    first = next(e for e in witness.entries(layout) if e["digest"] == untagged[0])
    only_there = witness.look_at(layout, first).reached
    must("untag", layout, untagged[0])
    assert reset_exactly(layout) == only_there
    assert untagged[1] in {e["digest"] for e in witness.entries(layout)}

    assert read_with_skopeo(layout, "main", tmp_path / "out-main") == "four"
    assert read_with_skopeo(layout, "other", tmp_path / "out-other") == "three"
    inspected = json.loads(run("skopeo", "inspect", f"oci:{layout}:main"))
    assert inspected["Digest"] == digest_of(layout, "main")
    skopeo_copy(tmp_path, layout, "main", "one")
    assert read_with_skopeo(layout, "main", tmp_path / "out-again") == "one"


def test_skopeo_delete_and_reset_agree(tmp_path: Path, need: Need) -> None:
    """skopeo removes what only a deleted tag used; after that there is nothing left to remove."""
    need("skopeo")
    layout = tmp_path / "layout"
    for tag in ("main", "other"):
        skopeo_copy(tmp_path, layout, tag, tag)
    run("skopeo", "delete", f"oci:{layout}:other")
    assert reset_exactly(layout) == set()
    assert read_with_skopeo(layout, "main", tmp_path / "out") == "main"


# umoci


def test_umoci(tmp_path: Path, need: Need) -> None:
    need("umoci")
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:main")
    file = tmp_path / "file"
    for content in ("one", "two", "three"):
        file.write_text(content)
        run("umoci", "insert", "--rootless", "--image", f"{layout}:main", file, f"/{content}")
    run("umoci", "tag", "--image", f"{layout}:main", "other")
    run("umoci", "config", "--image", f"{layout}:main", "--config.workingdir", "/srv")
    assert len(witness.garbage(layout)) == 6, "three manifests and configs were replaced"

    reset_exactly(layout)

    history = json.loads(run("umoci", "stat", "--image", f"{layout}:main", "--json"))["history"]
    assert [bool(step.get("empty_layer")) for step in history] == [False, False, False, True]
    for tag in ("main", "other"):
        run("umoci", "unpack", "--rootless", "--image", f"{layout}:{tag}", bundle)
        names = {path.name: path.read_text() for path in (bundle / "rootfs").iterdir()}
        assert names == {"one": "one", "two": "two", "three": "three"}
        shutil.rmtree(bundle)
    left = witness.blobs(layout)
    run("umoci", "gc", "--layout", layout)
    assert witness.blobs(layout) == left, "umoci's own collector finds nothing more"


def test_umoci_repacked_then_a_tag_removed(tmp_path: Path, need: Need) -> None:
    need("umoci")
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:base")
    run("umoci", "unpack", "--rootless", "--image", f"{layout}:base", bundle)
    for number in range(3):
        (bundle / "rootfs" / f"f{number}").write_text(f"content {number}")
        run("umoci", "repack", "--image", f"{layout}:v{number}", bundle)
    run("umoci", "rm", "--image", f"{layout}:v1")

    assert len(reset_exactly(layout)) == 2 + 1, "manifest, config, and the layer only v1 had"

    assert set(run("umoci", "ls", "--layout", layout).split()) == {"base", "v0", "v2"}
    shutil.rmtree(bundle)
    run("umoci", "unpack", "--rootless", "--image", f"{layout}:v2", bundle)
    assert {path.name for path in (bundle / "rootfs").iterdir()} == {"f0", "f1", "f2"}


# oras


def oras(*args: str, cwd: Path) -> str:
    return run("oras", *args, cwd=cwd)


def push(work: Path, target: str, content: str) -> None:
    (work / "file.txt").write_text(content)
    oras("push", "--oci-layout", target, "file.txt:text/plain", cwd=work)


def attach(work: Path, target: str, kind: str, content: str) -> str:
    """Attaches an artifact to what a reference names; the digest of its manifest."""
    (work / kind).write_text(content)
    options = ["--artifact-type", f"application/x.{kind}"]
    said = oras("attach", "--oci-layout", *options, target, f"{kind}:text/plain", cwd=work)
    return next(line.split()[-1] for line in said.splitlines() if line.startswith("Digest:"))


def referrers(work: Path, target: str) -> set[str]:
    said = oras("discover", "--oci-layout", "--format", "json", target, cwd=work)
    return {manifest["digest"] for manifest in json.loads(said)["manifests"] or []}


def pull(work: Path, target: str, out: str) -> dict[str, str]:
    oras("pull", "--oci-layout", target, "--output", out, cwd=work)
    return {path.name: path.read_text() for path in (work / out).iterdir()}


def test_oras_with_referrers(tmp_path: Path, need: Need) -> None:
    need("oras")
    layout = tmp_path / "layout"
    push(tmp_path, "layout:main", "one")
    old = digest_of(layout, "main")
    old_sbom = attach(tmp_path, "layout:main", "sbom", "what one is made of")
    push(tmp_path, "layout:main", "two")
    sbom = attach(tmp_path, "layout:main", "sbom", "what two is made of")
    signature = attach(tmp_path, f"layout@{sbom}", "signature", "signed")
    listed = {e["digest"] for e in witness.entries(layout) if witness.ref_name(e) is None}
    assert listed == {old, old_sbom, sbom, signature}, "oras lists all it has, untagged"

    stray = stray_blob(layout)
    assert reset_exactly(layout) == {stray}
    assert referrers(tmp_path, f"layout@{old}") == {old_sbom}

    must("untag", layout, old)
    assert reset_exactly(layout) == set(), "its own sbom, an entry, still has it as subject"
    must("untag", layout, old_sbom)
    gone = reset_exactly(layout)

    assert {old, old_sbom} <= gone
    assert pull(tmp_path, "layout:main", "out") == {"file.txt": "two"}
    assert referrers(tmp_path, "layout:main") == {sbom}
    assert referrers(tmp_path, f"layout@{sbom}") == {signature}
    assert pull(tmp_path, f"layout@{sbom}", "out-sbom") == {"sbom": "what two is made of"}
    assert pull(tmp_path, f"layout@{signature}", "out-sig") == {"signature": "signed"}
    push(tmp_path, "layout:main", "one")
    assert pull(tmp_path, "layout:main", "out-again") == {"file.txt": "one"}


def test_oras_copies_a_collected_layout_whole(tmp_path: Path, need: Need) -> None:
    need("oras")
    for content in ("one", "two", "three"):
        push(tmp_path, "layout:main", content)
        attach(tmp_path, "layout:main", "sbom", f"of {content}")
    layout = tmp_path / "layout"
    stray_blob(layout)
    reset_exactly(layout)
    options = ["--from-oci-layout", "--to-oci-layout", "--recursive"]
    oras("cp", *options, "layout:main", "copied:main", cwd=tmp_path)
    copied = tmp_path / "copied"
    assert witness.look(copied).missing == frozenset()
    assert reset_exactly(copied) == set(), "a fresh copy has no garbage"
    assert referrers(tmp_path, "copied:main") == referrers(tmp_path, "layout:main")


# buildah


class Buildah:
    """buildah with its own storage and no network helper."""

    def __init__(self, directory: Path) -> None:
        helpers = directory / "helpers"
        helpers.mkdir(parents=True)
        # buildah looks for its network helper before it knows that nothing will be run.
        (helpers / "netavark").symlink_to("/bin/true")
        config = directory / "containers.conf"
        config.write_text(f'[engine]\nhelper_binaries_dir = ["{helpers}"]\n')
        storage = ["--root", str(directory / "root"), "--runroot", str(directory / "run")]
        self.command = ["buildah", *storage, "--storage-driver", "vfs"]
        self.env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(directory),
            "CONTAINERS_CONF": str(config),
            "BUILDAH_ISOLATION": "chroot",
        }

    def __call__(self, *args: str | Path) -> str:
        return run(*self.command, *args, env=self.env).strip()

    def image(self, name: str, files: dict[str, str], work: Path) -> str:
        """Commits an image from scratch with one layer of these files."""
        container = self("from", "scratch")
        for path, content in files.items():
            (work / "content").write_text(content)
            self("add", container, work / "content", path)
        self("commit", "--rm", container, name)
        return name

    def read(self, source: str) -> dict[str, str]:
        """Pulls an image, and reads the files in its root."""
        container = self("from", self("pull", source).splitlines()[-1])
        mounted = Path(self("mount", container))
        found = {path.name: path.read_text() for path in mounted.iterdir() if path.is_file()}
        self("umount", container)
        self("rm", container)
        return found


@pytest.fixture
def buildah(tmp_path: Path, need: Need) -> Buildah:
    need("buildah", root=True)
    return Buildah(tmp_path / "maker")


def test_buildah(tmp_path: Path, buildah: Buildah) -> None:
    layout = tmp_path / "layout"
    for content in ("one", "two"):
        image = buildah.image(content, {"/file": content}, tmp_path)
        buildah("push", image, f"oci:{layout}:main")
    (replaced,) = (e["digest"] for e in witness.entries(layout) if witness.ref_name(e) is None)

    stray = stray_blob(layout)
    assert reset_exactly(layout) == {stray}
    assert replaced in witness.blobs(layout), "buildah keeps what main named before"
    must("untag", layout, replaced)
    assert replaced in reset_exactly(layout)

    reader = Buildah(tmp_path / "reader")
    assert reader.read(f"oci:{layout}:main") == {"file": "two"}
    buildah("push", "one", f"oci:{layout}:main")
    assert Buildah(tmp_path / "again").read(f"oci:{layout}:main") == {"file": "one"}


def test_buildah_manifest_list(tmp_path: Path, buildah: Buildah) -> None:
    """Two platforms under one tag, pushed twice; the older list goes with what only it had."""
    layout = tmp_path / "layout"
    for content in ("one", "two"):
        names = [buildah.image(f"{content}-{n}", {"/file": content + n}, tmp_path) for n in "ab"]
        buildah("manifest", "create", f"list-{content}")
        buildah("manifest", "add", "--arch", "amd64", f"list-{content}", names[0])
        buildah("manifest", "add", "--arch", "arm64", f"list-{content}", names[1])
        buildah("manifest", "push", "--all", f"list-{content}", f"oci:{layout}:multi")
    untagged = [e["digest"] for e in witness.entries(layout) if witness.ref_name(e) is None]
    stray = stray_blob(layout)
    assert reset_exactly(layout) == {stray}, "every entry is a root, the untagged ones too"
    assert untagged
    must("untag", layout, *untagged)
    gone = reset_exactly(layout)
    assert gone
    (root,) = witness.entries(layout)
    assert len(witness.look(layout).reached) == 1 + 2 * 3
    assert set(witness.blobs(layout)) == witness.look(layout).reached
    (listed,) = must("ls", layout, "--json").json["tags"]
    assert (listed["digest"], listed["kind"]) == (root["digest"], "image")
    assert set(listed["platforms"]) == {"linux/amd64", "linux/arm64"}
    reader = Buildah(tmp_path / "reader")
    assert reader.read(f"oci:{layout}:multi") == {"file": "twoa"}
