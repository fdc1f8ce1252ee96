"""Caches that dockerd's BuildKit exports: they shrink to what is live, and still import."""

import datetime as dt
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from itertools import product
from pathlib import Path

import pytest

from . import witness
from .contexts import MULTI_PLATFORM, STEPS, import_build, steps, write_context
from .daemon import Daemon, DaemonError, cache_to
from .kit import kitcache, must

FORMS = {
    "index": {"image_manifest": "false", "oci_mediatypes": "true"},
    "manifest": {"image_manifest": "true", "oci_mediatypes": "true"},
    "docker-list": {"image_manifest": "false", "oci_mediatypes": "false"},
}
ROOT_TYPES = {
    "index": "application/vnd.oci.image.index.v1+json",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "docker-list": "application/vnd.docker.distribution.manifest.list.v2+json",
}
COMPRESSIONS = ("gzip", "zstd", "uncompressed")
# mode=min with each form and each compression once; mode=max with all pairs of them.
CASES = [("min", *pair) for pair in zip(FORMS, COMPRESSIONS, strict=True)]
CASES += [("max", *pair) for pair in product(FORMS, COMPRESSIONS)]


@pytest.mark.parametrize(("mode", "form", "compression"), CASES, ids=map("-".join, CASES))
def test_a_grown_cache_shrinks_and_still_imports(
    daemon: Daemon, tmp_path: Path, mode: str, form: str, compression: str
) -> None:
    cache, name = tmp_path / "cache", f"{mode} {form} {compression}"
    attrs = {"mode": mode, "compression": compression, "force_compression": "true", **FORMS[form]}
    rounds = [("main", "a", "1"), ("release", "b", "2"), ("main", "c", "3")]
    for tag, app, lock in rounds:
        context = write_context(tmp_path / tag, app=f"{name} {app}\n", lock=f"{name} {lock}\n")
        daemon.export(context, cache, tag=tag, **attrs)
    roots = witness.entries(cache)
    assert [witness.ref_name(root) for root in roots] == ["release", "main"]
    assert {root["mediaType"] for root in roots} == {ROOT_TYPES[form]}
    before, doomed = witness.blobs(cache), witness.garbage(cache)
    assert len(doomed) >= 5, "the first export of main is garbage now"
    index = (cache / "index.json").read_bytes()

    foretold = must("reset", cache, "--dry-run", "--json").json
    assert witness.blobs(cache) == before, "a dry run removes nothing"
    report = must("reset", cache, "--json").json

    assert witness.blobs(cache) == {d: s for d, s in before.items() if d not in doomed}
    assert report["deleted"] == {"blobs": len(doomed), "bytes": sum(doomed.values())}
    assert report["kept"] == {
        "blobs": len(before) - len(doomed),
        "bytes": sum(before.values()) - sum(doomed.values()),
    }
    assert (report["outcome"], report["entry_count"], report["missing_blobs"]) == ("done", 2, [])
    assert {**foretold, "outcome": "done", "seconds": report["seconds"]} == report
    assert (cache / "index.json").read_bytes() == index
    assert must("reset", cache, "--json").json["deleted"] == {"blobs": 0, "bytes": 0}
    for tag, app, lock in rounds[1:]:
        assert_imports(daemon, tmp_path / tag, cache, tag)
        assert (tmp_path / tag / "out" / "result").read_text() == f"{name} {app}\n{name} {lock}\n"


def test_each_layer_of_a_stage_survives(daemon: Daemon, tmp_path: Path) -> None:
    """mode=max keeps the steps of other stages too, and a build of that stage pulls them."""
    cache, context = tmp_path / "cache", tmp_path / "context"
    for lock in ("one", "two"):
        daemon.export(write_context(context, app="app", lock=lock), cache, mode="max")
    assert witness.garbage(cache)
    must("reset", cache)
    daemon.prune()
    source = f"type=local,src={cache}"
    output = f"type=local,dest={tmp_path / 'out'}"
    progress = daemon.build(context, "--target=deps", f"--cache-from={source}", f"-o={output}")
    assert steps(progress) == {
        "[deps 2/3] COPY lock /lock": "CACHED",
        "[deps 3/3] RUN cat /lock > /deps": "CACHED",
    }
    assert (tmp_path / "out" / "deps").read_text() == "two"


def test_du_ls_and_why_say_what_is_there(daemon: Daemon, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for tag, app in (("main", "one"), ("main", "two"), ("other", "three")):
        context = write_context(tmp_path / "context", app=app, lock="same")
        daemon.export(context, cache, tag=tag, mode="max", image_manifest="true")
    sizes, doomed = witness.blobs(cache), witness.garbage(cache)
    live = {digest: size for digest, size in sizes.items() if digest not in doomed}
    seen = {
        witness.ref_name(entry): witness.look_at(cache, entry).reached
        for entry in witness.entries(cache)
    }

    usage = must("du", cache, "--json").json
    assert usage["live"] == {"blobs": len(live), "bytes": sum(live.values())}
    assert usage["reclaimable"] == {"blobs": len(doomed), "bytes": sum(doomed.values())}
    for tag, other in zip(usage["tags"], reversed(usage["tags"]), strict=True):
        its, others = seen[tag["ref_name"]], seen[other["ref_name"]]
        assert tag["unique"] == tally(its - others, sizes)
        assert tag["shared"] == tally(its & others, sizes)

    listing = must("ls", cache, "--json").json
    assert [(tag["ref_name"], tag["kind"]) for tag in listing["tags"]] == [
        ("main", "cache"),
        ("other", "cache"),
    ]
    for tag in listing["tags"]:
        assert tag["blobs"] == len(seen[tag["ref_name"]])
        assert tag["layers"] == len(seen[tag["ref_name"]]) - 2  # the manifest and the cacheconfig
        assert tag["created_from"] == "cacheconfig"
        assert abs(as_epoch(tag["created"]) - time.time()) < 3600

    for digests, names in (
        (seen["main"] - seen["other"], {"main"}),
        (seen["main"] & seen["other"], {"main", "other"}),
    ):
        answer = must("why", cache, min(digests), "--json").json
        assert {path["ref_name"] for path in answer["paths"]} == names
        assert (answer["present"], answer["unreachable"]) == (True, False)
    dead = must("why", cache, min(doomed), "--json").json
    assert (dead["unreachable"], dead["paths"]) == (True, [])


def test_untagging_everything_empties_the_cache_and_it_fills_again(
    daemon: Daemon, tmp_path: Path
) -> None:
    cache, context = tmp_path / "cache", write_context(tmp_path / "context", app="a", lock="l")
    daemon.export(context, cache, tag="one", mode="max")
    daemon.export(context, cache, tag="two", mode="min")
    assert len(witness.entries(cache)) == 2
    must("untag", cache, "one", "two")
    assert witness.entries(cache) == []
    assert witness.blobs(cache), "untag removes no blob"
    must("reset", cache)
    assert witness.blobs(cache) == {}
    daemon.export(context, cache, tag="one", mode="max")
    assert_imports(daemon, context, cache, "one")


def test_an_untagged_root_in_a_real_cache_goes_with_what_only_it_used(
    daemon: Daemon, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for tag in ("keep", "drop"):
        context = write_context(tmp_path / tag, app=tag, lock="same")
        daemon.export(context, cache, tag=tag, mode="max")
    keep, drop = (witness.look_at(cache, entry).reached for entry in witness.entries(cache))
    assert keep & drop, "the tags share layers"
    assert drop - keep
    must("untag", cache, "drop")
    must("reset", cache)
    assert set(witness.blobs(cache)) == keep
    assert_imports(daemon, tmp_path / "keep", cache, "keep")


def test_two_exports_that_differ_leave_a_tag_that_reset_refuses(
    daemon: Daemon, tmp_path: Path
) -> None:
    """BuildKit answers with one descriptor for both exports: one directory gets the other's."""
    context = write_context(tmp_path / "context", app="a", lock="l")
    one, two = tmp_path / "one", tmp_path / "two"
    daemon.export(context, one, mode="max", image_manifest="true")
    both = [f"--cache-to={cache_to(one, mode='max', image_manifest='true')}"]
    both += [f"--cache-to={cache_to(two, mode='min', oci_mediatypes='false')}"]
    write_context(context, app="b", lock="l")
    daemon.build(context, "--output=type=cacheonly", *both)
    damaged = one if witness.look(one).missing else two
    (root,) = witness.look(damaged).missing
    before = witness.blobs(damaged)

    answer = kitcache("reset", damaged)

    assert answer.code == 12, answer
    assert "latest" in answer.err
    assert root.removeprefix("sha256:")[:12] in answer.err
    assert witness.blobs(damaged) == before
    must("untag", damaged, "latest")
    must("reset", damaged)
    assert witness.blobs(damaged) == {}
    daemon.export(context, damaged, mode="max")
    assert_imports(daemon, context, damaged, "latest")


def test_two_tags_from_one_build_lose_nothing_that_was_published(
    daemon: Daemon, tmp_path: Path
) -> None:
    """BuildKit publishes the last of two tags for one directory; what it publishes stays."""
    cache, context = tmp_path / "cache", write_context(tmp_path / "context", app="a", lock="l")
    both = [f"--cache-to={cache_to(cache, tag=tag, mode='max')}" for tag in ("one", "two")]
    daemon.build(context, "--output=type=cacheonly", *both)
    before, published = witness.blobs(cache), witness.entries(cache)
    assert published
    must("reset", cache)
    assert witness.look(cache).missing == frozenset()
    assert set(witness.blobs(cache)) == witness.look(cache).reached
    assert witness.blobs(cache).items() <= before.items()
    for entry in published:
        assert_imports(daemon, context, cache, str(witness.ref_name(entry)))


@pytest.mark.parametrize("is_nested", [False, True], ids=["index", "index-in-index"])
def test_images_for_several_platforms_with_attestations(
    daemon: Daemon, tmp_path: Path, is_nested: bool
) -> None:
    """index.json → index → manifests and attestations → layers; the older image goes whole."""
    layout, context = tmp_path / "layout", tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    output = f"--output=type=oci,tar=false,dest={layout},name=img:1"
    for content in ("one", "two"):
        (context / "file").write_text(content)
        daemon.build(context, f"--platform={MULTI_PLATFORM}", "--provenance=mode=min", output)
    if is_nested:
        nest(layout)
    (entry,) = witness.entries(layout)
    assert entry["mediaType"] == ROOT_TYPES["index"]
    doomed = witness.garbage(layout)
    assert len(doomed) >= 6
    must("reset", layout)
    assert set(witness.blobs(layout)) == witness.look(layout).reached
    assert not doomed.keys() & witness.blobs(layout).keys()

    daemon.prune()
    user = tmp_path / "user"
    user.mkdir()
    (user / "Dockerfile").write_text("FROM base\n")
    for platform in MULTI_PLATFORM.split(","):
        out = user / platform
        base = f"--build-context=base=oci-layout://{layout}@{entry['digest']}"
        daemon.build(user, base, f"--platform={platform}", f"--output=type=local,dest={out}")
        assert (out / "file").read_text() == "two"
    (listed,) = must("ls", layout, "--json").json["tags"]
    assert listed["kind"] == "image"
    assert set(MULTI_PLATFORM.split(",")) <= set(listed["platforms"])


def test_an_export_killed_in_mid_upload(daemon: Daemon, tmp_path: Path) -> None:
    """What it left under ingest/ is respected while fresh, and goes once it is old."""
    cache, context = tmp_path / "cache", write_context(tmp_path / "context", app="a", lock="l")
    daemon.export(context, cache, mode="max")
    kill_in_mid_upload(daemon, write_big_context(tmp_path / "big"), cache)
    before = witness.blobs(cache)

    assert kitcache("reset", cache, "--json").code == 11, "an upload was written just now"
    assert witness.blobs(cache) == before
    age(cache / "ingest", seconds=7200)
    report = must("reset", cache, "--json").json

    assert report["ingests_deleted"]["blobs"] >= 1
    assert list((cache / "ingest").iterdir()) == []
    assert set(witness.blobs(cache)) == witness.look(cache).reached
    assert_imports(daemon, write_context(context, app="a", lock="l"), cache, "latest")
    write_context(context, app="after", lock="l")
    daemon.export(context, cache, mode="max")
    assert_imports(daemon, context, cache, "latest")


def test_a_layer_that_is_gone_would_be_noticed(daemon: Daemon, tmp_path: Path) -> None:
    """The proof that `assert_imports` proves something."""
    cache, context = tmp_path / "cache", write_context(tmp_path / "context", app="a", lock="l")
    daemon.export(context, cache, mode="max", image_manifest="true")
    (root,) = witness.entries(cache)
    reached = witness.look(cache).reached
    layers = reached - {root["digest"]} - {d for d in reached if is_json(cache, d)}
    for digest in layers:
        witness.blob_path(cache, digest).unlink()
    with pytest.raises((AssertionError, DaemonError)):
        assert_imports(daemon, context, cache, "latest")


def nest(layout: Path) -> None:
    """Puts an index between index.json and the one index that it lists."""
    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = index["manifests"]
    inner = {key: entry[key] for key in ("mediaType", "digest", "size")}
    outer = {"schemaVersion": 2, "mediaType": entry["mediaType"], "manifests": [inner]}
    data = json.dumps(outer).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    witness.blob_path(layout, digest).write_bytes(data)
    entry.update(digest=digest, size=len(data))
    (layout / "index.json").write_text(json.dumps(index))


def assert_imports(daemon: Daemon, context: Path, cache: Path, tag: str) -> None:
    """A build that knows nothing but the cache has every step CACHED, and its result is whole."""
    out = context / "out"
    shutil.rmtree(out, ignore_errors=True)
    states = import_build(daemon, context, cache, tag, out)
    assert len(states) == STEPS, states
    assert set(states.values()) == {"CACHED"}, states
    expected = (context / "app").read_text() + (context / "lock").read_text()
    assert (out / "result").read_text() == expected


def kill_in_mid_upload(daemon: Daemon, context: Path, cache: Path) -> None:
    """Exports, and kills the client once an upload under ingest/ has grown to some size."""
    cache_option = f"--cache-to={cache_to(cache, mode='max', compression='uncompressed')}"
    command = daemon.build_command(context, "--output=type=cacheonly", cache_option)
    client = subprocess.Popen(
        ["docker", *command],
        env=daemon.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # buildx is a child of docker: both are to die
    )
    try:
        while not any(size_of(data) > 1_000_000 for data in (cache / "ingest").glob("*/data")):
            assert client.poll() is None, "the export ended before it could be killed"
    finally:
        os.killpg(client.pid, signal.SIGKILL)
        client.wait()
    assert list((cache / "ingest").iterdir())


def write_big_context(directory: Path) -> Path:
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY big /big\n")
    (directory / "big").write_bytes(bytes(50_000_000))
    return directory


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def age(directory: Path, *, seconds: int) -> None:
    """Dates a tree back, as if nothing had touched it for so long."""
    then = time.time() - seconds
    for path in [*directory.rglob("*"), directory]:
        os.utime(path, (then, then))
    for name in ("startedat", "updatedat"):
        for path in directory.glob(f"*/{name}"):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(then))
            path.write_text(stamp)
            os.utime(path, (then, then))


def tally(digests: frozenset[str], sizes: dict[str, int]) -> dict[str, int]:
    return {"blobs": len(digests), "bytes": sum(sizes[digest] for digest in digests)}


def is_json(layout: Path, digest: str) -> bool:
    return witness.blob_path(layout, digest).read_bytes().startswith(b"{")


def as_epoch(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()
