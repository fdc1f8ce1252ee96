"""Local caches of real builds: they do not grow, and each client imports what any wrote."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import witness
from tests.integration.build.cachekit import (
    assert_cached,
    assert_imports,
    assert_swept,
    assert_whole,
    export,
    stages,
    tags,
    tally,
)
from tests.integration.build.kit import Kit
from tests.integration.build.registry import Registry, login
from tests.integration.contexts import write_context
from tests.integration.daemon import cache_to

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER = {"image_manifest": "false", "oci_mediatypes": "false"}
FORMS = [
    ("min", "gzip", {}, OCI_INDEX, "buildx"),
    ("max", "zstd", {"image_manifest": "true"}, OCI_MANIFEST, "kitcache"),
    ("max", "uncompressed", DOCKER, DOCKER_LIST, "buildx"),
    ("min", "zstd", {"image_manifest": "true", "oci_mediatypes": "true"}, OCI_MANIFEST, "kitcache"),
]
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}


@pytest.mark.parametrize(
    ("mode", "compression", "form", "root_type", "client"),
    FORMS,
    ids=["-".join(f[:2]) for f in FORMS],
)
def test_export_change_export_with_reset_prune_import(
    kit: Kit,
    tmp_path: Path,
    mode: str,
    compression: str,
    form: dict[str, str],
    root_type: str,
    client: str,
) -> None:
    cache, where = tmp_path / "cache", tmp_path / "context"
    attrs = {"mode": mode, "compression": compression, "force_compression": "true", **form}
    name = f"{mode} {compression} {root_type}"
    first = export(kit, write_context(where, app=name, lock="1 " + name), cache, **attrs)
    assert first.cache["reset"] is None
    write_context(where, app="changed " + name, lock="1 " + name)
    second = export(kit, where, cache, reset="true", **attrs)

    removed = second.before.keys() - second.after.keys()
    assert len(removed) >= 4, "two layers, the config and the root of the first export"
    report = second.cache["reset"]
    assert report["deleted"] == tally(second.before, removed)
    assert report["kept"] == tally(second.after, second.after)
    assert second.cache["written"] == tally(second.after, second.after.keys() - second.before)
    assert second.cache["reused"] == tally(second.after, second.after.keys() & second.before)
    assert (report["outcome"], report["entry_count"]) == ("done", 1)
    said = [line for line in second.built.err.splitlines() if line.startswith(f"{cache}: ")]
    assert len(said) == 2
    assert f"exported tag 'latest': wrote {second.cache['written']['blobs']} blobs" in said[0]
    assert f"deleted {len(removed)} blobs" in said[1]

    assert_swept(cache)
    (root,) = witness.entries(cache)
    assert root["mediaType"] == root_type
    assert kinds_of_layers(cache) == {compression}
    assert_imports(kit, where, cache, client=client)


def kinds_of_layers(cache: Path) -> set[str]:
    heads = [witness.blob_path(cache, digest).read_bytes()[:4] for digest in witness.blobs(cache)]
    return {
        next((kind for kind, magic in MAGIC.items() if head.startswith(magic)), "uncompressed")
        for head in heads
        if not head.startswith(b"{")
    }


def test_a_directory_does_not_grow(kit: Kit, tmp_path: Path) -> None:
    cache, where = tmp_path / "cache", tmp_path / "context"
    sizes = []
    for number in range(6):
        stages(where, app=f"app {number}" * 1000, lock="lock" if number < 3 else "other")
        done = export(kit, where, cache, mode="max", compression="uncompressed", reset="true")
        assert done.cache["reset"]["deleted"]["blobs"] == (0, 3, 3, 5, 3, 3)[number]
        assert_swept(cache)
        sizes.append((len(done.after), sum(done.after.values())))
    assert {count for count, _ in sizes} == {5}
    # A creation time in the cacheconfig may end in zeros, which are left out.
    assert max(size for _, size in sizes) - min(size for _, size in sizes) < 200


def test_each_client_imports_what_both_wrote_into_one_directory(kit: Kit, tmp_path: Path) -> None:
    """In turn, and tags of the other client stay, with all that they reach."""
    cache = tmp_path / "cache"
    for tag, app in (("theirs", "1"), ("ours", "2"), ("theirs", "3"), ("ours", "4")):
        where = stages(tmp_path / tag, app=f"{tag} {app}")
        if tag == "ours":
            done = export(kit, where, cache, tag=tag, mode="max", reset="true")
            assert done.cache["reset"]["outcome"] == "done", done.built
            assert_swept(cache)
        else:
            kit.daemon.export(where, cache, tag=tag, mode="max")
            assert_whole(cache)
        assert tag in tags(cache)
    assert set(tags(cache)) == {"ours", "theirs"}
    assert_imports(kit, tmp_path / "theirs", cache, "theirs")
    assert_imports(kit, tmp_path / "ours", cache, "ours", client="buildx")


def test_a_digest_is_imported_without_a_tag(kit: Kit, tmp_path: Path) -> None:
    cache, where = tmp_path / "cache", stages(tmp_path / "context", app="by digest")
    first = export(kit, where, cache, mode="max").cache["digest"]
    export(kit, stages(where, app="another"), cache, mode="max")
    assert tags(cache)["latest"] != first
    assert_cached(kit, stages(where, app="by digest"), f"type=local,src={cache},digest={first}")


def test_notes_of_the_last_use(kit: Kit, tmp_path: Path) -> None:
    cache, where = tmp_path / "cache", stages(tmp_path / "context", app="notes")
    export(kit, where, cache, tag="main", mode="max")
    notes = cache / ".kitcache" / "tags.json"
    first = json.loads(notes.read_bytes())["tags"]
    assert first["main"]["imported_ns"] is None
    kit.must("-o", "type=cacheonly", f"--cache-from=type=local,src={cache},tag=main", where)
    second = json.loads(notes.read_bytes())["tags"]
    assert second["main"]["exported_ns"] == first["main"]["exported_ns"]
    assert second["main"]["imported_ns"] > first["main"]["exported_ns"]
    assert second["main"]["digest"] == tags(cache)["main"]


@pytest.mark.parametrize("bad", [b"{", b'{"tags":{"main":7}}', b"\xff\0"])
def test_damaged_notes_are_no_error(kit: Kit, tmp_path: Path, bad: bytes) -> None:
    cache, where = tmp_path / "cache", stages(tmp_path / "context", app="notes")
    (cache / ".kitcache").mkdir(parents=True)
    for name in ("tags.json", "skipped-sweeps"):
        (cache / ".kitcache" / name).write_bytes(bad)
    value = cache_to(cache, tag="main", reset="true")
    built = kit.must("-o", "type=cacheonly", f"--cache-to={value}", where)
    assert "warning" not in built.err
    assert json.loads((cache / ".kitcache" / "tags.json").read_bytes())["tags"]["main"]


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]
) -> Iterator[Registry]:
    need("docker-registry", "setpriv")
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def host(kit: Kit, registry: Registry) -> str:
    """Of a registry that the builds are logged in to."""
    auths = {"auths": {registry.host: {"auth": login()}}}
    (kit.config / "config.json").write_text(json.dumps(auths))
    return registry.host


def test_a_directory_and_a_registry_in_one_build(
    kit: Kit, registry: Registry, host: str, tmp_path: Path
) -> None:
    """In two forms: the daemon names one of both roots, and the directory gets its own."""
    cache, where = tmp_path / "cache", stages(tmp_path / "context", app="two kinds")
    ref = f"{host}/both:main"
    local = cache_to(cache, mode="max", image_manifest="true", reset="true")
    remote = f"type=registry,ref={ref},mode=max,image-manifest=false"
    done = export(kit, where, cache, local, remote)
    assert_swept(cache)
    (root,) = witness.entries(cache)
    assert (done.cache["digest"], root["mediaType"]) == (root["digest"], OCI_MANIFEST)
    assert registry.ask("both/manifests/main")["mediaType"] == OCI_INDEX
    assert_cached(kit, where, f"type=registry,ref={ref}")
    assert_imports(kit, where, cache)


def test_a_cache_in_its_image(kit: Kit, host: str, tmp_path: Path) -> None:
    where, ref = stages(tmp_path / "context", app="inline"), f"{host}/inline:1"
    kit.must("--cache-to=type=inline", "--tag", ref, "--push", "--network=none", where)
    assert_cached(kit, where, ref)
