"""What cannot be exported to, or imported from: told in words, early, with nothing lost."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.privilege import NOBODY, give, make_read_only, small_disk
from tests.integration import kit as commands
from tests.integration import witness
from tests.integration.build.cachekit import (
    CACHEONLY,
    age_uploads,
    assert_cached,
    assert_imports,
    assert_swept,
    blobs,
    export,
    stages,
    tags,
)
from tests.integration.build.kit import Built, Kit, context
from tests.integration.contexts import steps
from tests.integration.daemon import cache_to

HAS_BEGUN = "[internal] load build definition"


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return stages(tmp_path / "context", app="app")


def refused(kit: Kit, where: Path, value: str, code: int, *words: str) -> Built:
    """Nothing is built, and nothing changes beside the words."""
    box = where.parent
    before = take_snapshot(box)
    built = kit.run(*CACHEONLY, f"--cache-to={value}", where)
    assert built.code == code, built
    for word in words:
        assert word in built.err, built
    assert HAS_BEGUN not in built.err
    assert differences(before, take_snapshot(box)) == []
    return built


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ("reset=yes", 'failed to parse reset attribute: "yes" is neither true nor false'),
        ("image-manifest=true,oci-mediatypes=false", "invalid configuration for remote cache"),
        ("compression=gzi", "unsupported compression type gzi"),
        ("compression-level=best", 'compression-level: "best" is not a whole number'),
    ],
)
def test_a_value_that_means_nothing(kit: Kit, where: Path, attrs: str, words: str) -> None:
    refused(kit, where, f"type=local,dest={where.parent}/cache,{attrs}", 2, words)


@pytest.mark.parametrize("value", ["type=local", "type=local,dest=", "type=local,src=cache"])
def test_no_dest(kit: Kit, where: Path, value: str) -> None:
    refused(kit, where, value, 2, "local cache exporter requires dest", "dest=DIR")


def test_what_looks_mistyped_is_told_and_the_build_goes_on(kit: Kit, where: Path) -> None:
    cache = where.parent / "cache"
    for app in ("1", "2"):
        stages(where, app=app)
        value = f"type=local,dest={cache},rest=true,mode=mx,compresion=zstd,ignore-error=ja"
        done = export(kit, where, cache, value)
    told = "\n".join(done.notices)
    assert "rest" in told
    assert "did you mean reset?" in told
    assert "mode=mx is neither min nor max and means min; did you mean max?" in told
    assert "did you mean compression?" in told
    assert "ignore-error=ja is neither true nor false and means false" in told
    assert len(done.notices) == 4
    for notice in done.notices:
        assert done.built.err.count(f"kitcache: warning: {notice}\n") == 1
    assert witness.garbage(cache), "rest=true is no reset"
    assert done.cache["reset"] is None


def test_a_dest_that_is_a_file(kit: Kit, where: Path) -> None:
    (where.parent / "cache").write_text("mine")
    refused(kit, where, cache_to(where.parent / "cache"), 10, "not a cache", "nothing was built")
    refused(kit, where, cache_to(where.parent / "cache" / "below"), 10, "nothing was built")


def test_a_dest_that_is_no_cache(kit: Kit, where: Path) -> None:
    refused(kit, where, cache_to(where, reset="true"), 10, "not a cache", "contains other files")


def test_a_dest_below_a_link_is_made_there(kit: Kit, where: Path) -> None:
    real, link = where.parent / "real", where.parent / "link"
    real.mkdir()
    link.symlink_to("real")
    done = export(kit, where, link / "a" / "cache", reset="true")
    assert done.cache["path"] == str(link / "a" / "cache")
    assert_swept(real / "a" / "cache")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size="8m", nr_inodes="200") as disk:
        yield disk


@pytest.mark.parametrize("is_there", [True, False])
def test_a_read_only_disk(kit: Kit, where: Path, disk: Path, is_there: bool) -> None:
    if is_there:
        export(kit, where, disk / "cache")
    make_read_only(disk)
    refused(kit, where, cache_to(disk / "cache"), 1, "Read-only file system", "hint: mount it")


def test_a_disk_that_is_full(kit: Kit, where: Path, disk: Path) -> None:
    export(kit, where, disk / "cache")
    fill(disk)
    refused(kit, where, cache_to(disk / "cache"), 1, "No space left on device", "hint: free")


def fill(disk: Path) -> None:
    with (disk / "fill").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def big(where: Path) -> Path:
    """A context whose second layer is more than the small disk holds."""
    context(where, "FROM scratch\nCOPY small /small\nCOPY big /big\n", small="small")
    (where / "big").write_bytes(os.urandom(12 << 20))
    return where


@pytest.mark.parametrize("is_optional", [False, True])
def test_a_disk_that_fills_up(kit: Kit, where: Path, disk: Path, is_optional: bool) -> None:
    """The old tag is as importable as before; ignore-error=true saves the build, not the export."""
    cache = disk / "cache"
    for app in ("garbage", "old"):
        export(kit, stages(where, app=app), cache, mode="max", image_manifest="true")
    index, before = (cache / "index.json").read_bytes(), blobs(cache)
    attrs = {"mode": "max", "reset": "true", "ignore_error": str(is_optional).lower()}
    failing = big(where.parent / "big")
    done = export(kit, failing, cache, code=0 if is_optional else 1, **attrs)
    assert HAS_BEGUN in done.built.err
    assert os.listdir(cache / "ingest") == []
    assert (cache / "index.json").read_bytes() == index
    assert before.items() <= done.after.items(), "there is no reset"
    if is_optional:
        assert (done.cache["outcome"], done.cache["reset"]) == ("failed", None)
        problem = "not published: cannot write a blob: No space left on device"
        assert f"kitcache: {cache}: tag 'latest': {problem}" in done.built.err
    else:
        assert done.metadata == {}
        assert f"kitcache: {cache}: cannot write a blob: No space left on device" in done.built.err
        assert "  no tag was changed, and nothing was deleted\n  hint: free" in done.built.err
    assert_imports(kit, where, cache)
    age_uploads(cache)
    commands.must("reset", cache)
    assert_swept(cache)


def test_a_cache_of_another_user_stays_theirs(kit: Kit, where: Path) -> None:
    cache = where.parent / "cache"
    export(kit, stages(where, app="old"), cache)
    (cache / "kitcache.lock").unlink()
    (cache / "ingest").rmdir()
    give(cache, NOBODY)
    export(kit, stages(where, app="new"), cache, reset="true")
    owners = {str(path): (path.stat().st_uid, path.stat().st_gid) for path in cache.rglob("*")}
    assert set(owners.values()) == {(NOBODY, NOBODY)}, owners


def test_a_src_that_is_missing_is_told_and_not_made(kit: Kit, where: Path) -> None:
    src = where.parent / "nowhere"
    built = kit.must(*CACHEONLY, f"--cache-from=type=local,src={src}", where)
    assert f"kitcache: warning: local cache import at {src} not found due to err: " in built.err
    assert not src.exists()


def missing(cache: Path, root: Path) -> None:
    root.unlink()


def torn(cache: Path, root: Path) -> None:
    data = root.read_bytes()
    root.chmod(stat.S_IRUSR | stat.S_IWUSR)
    root.write_bytes(data[: len(data) // 2])


def of_another_digest(cache: Path, root: Path) -> None:
    data = root.read_bytes()
    root.chmod(stat.S_IRUSR | stat.S_IWUSR)
    root.write_bytes(data[:-2] + b" }")


def no_index(cache: Path, root: Path) -> None:
    (cache / "index.json").write_bytes(b'{"manifests":')


DAMAGES = [
    (missing, "skipped: digest {digest} unavailable: ", "missing"),
    (torn, "skipped: digest {digest} unavailable: ", "bytes"),
    (of_another_digest, "skipped: digest {digest} unavailable: ", "digest"),
    (no_index, "skipped due to err: index.json is invalid or ambiguous", "JSON"),
]


@pytest.mark.parametrize(("damage", "skipped", "why"), DAMAGES)
def test_a_src_that_is_damaged_is_told_and_the_build_goes_on(
    kit: Kit, where: Path, damage: Callable[[Path, Path], None], skipped: str, why: str
) -> None:
    cache = where.parent / "cache"
    digest = export(kit, where, cache, mode="max").cache["digest"]
    damage(cache, witness.blob_path(cache, digest))
    built = kit.must(*CACHEONLY, f"--cache-from=type=local,src={cache}", where)
    (line,) = [line for line in built.err.splitlines() if "warning" in line]
    expected = f"kitcache: warning: local cache import at {cache} {skipped.format(digest=digest)}"
    assert line.startswith(expected)
    assert why in line


def test_a_tag_that_is_missing_is_told(kit: Kit, where: Path) -> None:
    cache = where.parent / "cache"
    export(kit, where, cache, tag="main")
    built = kit.must(*CACHEONLY, f"--cache-from=type=local,src={cache}", where)
    assert f"import at {cache} skipped: no digest found for tag latest" in built.err


def test_a_layer_that_is_missing_is_rebuilt_or_told(kit: Kit, where: Path) -> None:
    """The root is whole, so the import is offered; the daemon finds the hole."""
    cache = where.parent / "cache"
    export(kit, where, cache, mode="max", compression="uncompressed")
    for digest in witness.blobs(cache):
        path = witness.blob_path(cache, digest)
        if not path.read_bytes().startswith(b"{"):
            path.unlink()
    kit.daemon.prune()
    out = where.parent / "out"
    built = kit.run("-o", out, f"--cache-from=type=local,src={cache}", where)
    assert built.code in (0, 21), built
    assert built.code == 0 or "not found" in built.err, built


def test_a_src_on_a_read_only_disk_works_and_is_said_to_be_unprotected(
    kit: Kit, where: Path, disk: Path
) -> None:
    cache = disk / "cache"
    kit.daemon.export(where, cache, mode="max")
    make_read_only(disk)
    before = take_snapshot(disk)
    assert_cached(kit, where, f"type=local,src={cache}")
    built = kit.must(*CACHEONLY, f"--cache-from=type=local,src={cache}", where)
    assert f"warning: {cache}: the cache is not protected from a concurrent reset: " in built.err
    assert "Read-only file system" in built.err
    assert differences(before, take_snapshot(disk)) == []


def test_a_cache_too_big_to_import_is_told(kit: Kit, where: Path) -> None:
    """And BuildKit really imports none such: no step is CACHED."""
    cache = where.parent / "cache"
    export(kit, where, cache, mode="max", image_manifest="true")
    grow_config(cache)
    kit.daemon.prune()
    built = kit.must(*CACHEONLY, f"--cache-from=type=local,src={cache}", where)
    assert set(steps(built.err).values()) == {"DONE"}
    assert f"kitcache: warning: {cache}: the cacheconfig of sha256:" in built.err
    assert "BuildKit imports at most 1,048,576 bytes" in built.err
    assert set(tags(cache)) == {"latest"}


def grow_config(cache: Path) -> None:
    """The same cache with a cacheconfig of a mebibyte and a half: spaces mean nothing in it."""
    index = json.loads((cache / "index.json").read_bytes())
    (entry,) = index["manifests"]
    manifest = json.loads(witness.blob_path(cache, entry["digest"]).read_bytes())
    config = witness.blob_path(cache, manifest["config"]["digest"]).read_bytes()
    put(cache, manifest["config"], config[:-1] + b" " * (3 << 19) + b"}")
    put(cache, entry, json.dumps(manifest).encode())
    (cache / "index.json").write_text(json.dumps(index))


def put(cache: Path, descriptor: dict[str, Any], data: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    witness.blob_path(cache, digest).write_bytes(data)
    descriptor.update(digest=digest, size=len(data))
