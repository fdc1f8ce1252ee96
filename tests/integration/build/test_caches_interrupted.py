"""What happens to a cache while a build uses it: the build is interrupted, others reset it.

The builds are stopped in the middle of an upload (SIGSTOP), so that nothing here is about time.
"""

import os
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hostile import crash, privilege
from tests.integration import kit as commands
from tests.integration import witness
from tests.integration.build.cachekit import (
    CACHEONLY,
    age_uploads,
    assert_imports,
    assert_swept,
    assert_whole,
    export,
    frozen_in_upload,
    running,
    stages,
    state_of,
    tags,
    wait_for,
)
from tests.integration.build.kit import Kit, context
from tests.integration.daemon import cache_to

BIG_BYTES = 32 * 1024 * 1024
BIG = "FROM scratch\nCOPY small /small\nCOPY big /big\nCOPY also_big /also_big\n"
EXPORT = {"tag": "new", "mode": "max", "compression": "uncompressed"}


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context with two layers that take a while to upload; the daemon has to get it only once."""
    where = context(tmp_path_factory.mktemp("context"), BIG, small=os.urandom(8).hex())
    for name in ("big", "also_big"):
        (where / name).write_bytes(os.urandom(1024 * 1024) * (BIG_BYTES // 1024 // 1024))
    return where


class Old(NamedTuple):
    """A cache with one tag, `old`, and garbage beside it."""

    cache: Path
    where: Path
    index: bytes

    def assert_unchanged(self, kit: Kit) -> None:
        assert (self.cache / "index.json").read_bytes() == self.index
        assert witness.look(self.cache).missing == frozenset()
        assert_imports(kit, self.where, self.cache, "old")


@pytest.fixture
def old(kit: Kit, tmp_path: Path) -> Old:
    cache, where = tmp_path / "cache", tmp_path / "old"
    for app in ("garbage", "old"):
        export(kit, stages(where, app=app), cache, tag="old", mode="max")
    assert witness.garbage(cache)
    return Old(cache, where, (cache / "index.json").read_bytes())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_takes_its_upload_away(
    kit: Kit, old: Old, big: Path, number: signal.Signals
) -> None:
    value = cache_to(old.cache, reset="true", **EXPORT)
    with frozen_in_upload(kit, big, old.cache, f"--cache-to={value}") as build:
        build.signal(number)
        build.thaw()
        ended = build.end()
    assert ended.code == 130, ended
    assert "cancelling the build on the daemon; Ctrl-C again leaves at once" in ended.err
    assert "the build was cancelled on the daemon" in ended.err
    assert "exported tag" not in ended.err
    assert os.listdir(old.cache / "ingest") == []
    old.assert_unchanged(kit)
    done = export(kit, old.where, old.cache, tag="other", mode="max", reset="true")
    assert done.cache["reset"]["outcome"] == "done"
    assert_swept(old.cache)


def test_a_killed_export_leaves_garbage_that_a_later_reset_removes(
    kit: Kit, old: Old, big: Path
) -> None:
    value = cache_to(old.cache, reset="true", **EXPORT)
    with frozen_in_upload(kit, big, old.cache, f"--cache-to={value}") as build:
        build.signal(signal.SIGKILL)
        build.end()
    (left,) = os.listdir(old.cache / "ingest")
    old.assert_unchanged(kit)
    before = witness.blobs(old.cache)
    answer = commands.kitcache("reset", old.cache, "--json")
    assert answer.code == 11, "that upload was written just now"
    assert witness.blobs(old.cache) == before
    age_uploads(old.cache)
    done = export(kit, old.where, old.cache, tag="other", mode="max", reset="true")
    assert done.cache["reset"]["ingests_deleted"]["blobs"] == 1, left
    assert_swept(old.cache)
    assert set(tags(old.cache)) == {"old", "other"}


def test_a_reset_waits_for_an_export_or_names_it(kit: Kit, old: Old, big: Path) -> None:
    """Garbage that the export reuses leaves no trace but its lock; it stays."""
    export(kit, big, old.cache, **EXPORT)
    commands.must("untag", old.cache, "new")
    garbage = witness.garbage(old.cache)
    witness.blob_path(old.cache, max(garbage, key=lambda digest: garbage[digest])).unlink()
    garbage = witness.garbage(old.cache)
    value = cache_to(old.cache, **EXPORT)
    with frozen_in_upload(kit, big, old.cache, f"--cache-to={value}") as build:
        refused = commands.kitcache("reset", old.cache, "--lock-timeout", "0", "--json")
        assert refused.code == 11, refused
        assert refused.json["facts"]["holder_pid"] == build.pid
        assert "kitcache build" in refused.json["facts"]["holder_command"]
        assert f"kitcache.lock is held by process {build.pid}" in refused.json["message"]
        assert witness.garbage(old.cache) == garbage

        command = commands.command("reset", old.cache)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            line = waiting.stderr.readline()
            assert f"waiting up to 30 s for process {build.pid}" in line
            assert waiting.poll() is None
            build.thaw()
            ended = build.end()
            assert ended.code == 0, ended
            waiting.communicate()
            assert waiting.returncode == 0
    assert "1 blob, " in ended.err, "all but one layer was there"
    assert set(tags(old.cache)) == {"old", "new"}
    assert_swept(old.cache)
    assert garbage.keys() & witness.blobs(old.cache).keys(), "the new tag is made of that garbage"


def test_a_running_import_keeps_what_it_imports(kit: Kit, old: Old, big: Path) -> None:
    """From a reset, and from the reset=true of a build that takes its tag away."""
    export(kit, big, old.cache, **EXPORT)
    kit.daemon.prune()
    source = f"--cache-from=type=local,src={old.cache},tag=new"
    with running(kit, "-o", "-", "--network=none", source, big) as build:
        assert build.process.stdout is not None
        head = os.read(build.process.stdout.fileno(), 1)  # the rest is more than the pipe holds
        refused = commands.kitcache("reset", old.cache, "--lock-timeout", "0", "--json")
        assert refused.code == 11, refused
        assert refused.json["facts"]["holder_pid"] == build.pid
        imported = witness.look(old.cache).reached
        done = export(kit, old.where, old.cache, tag="new", mode="max", reset="true")
        assert done.cache["outcome"] == "published"
        assert done.cache["reset"]["outcome"] == "skipped"
        assert f"held by process {build.pid}" in done.cache["reset"]["reason"]
        assert imported <= witness.blobs(old.cache).keys()
        ended = build.end()
    assert ended.code == 0, ended
    assert "CACHED" in ended.err
    assert len(head + ended.stdout) > 2 * BIG_BYTES
    commands.must("reset", old.cache)
    assert_swept(old.cache)


def test_a_blob_that_others_take_during_the_export_is_noticed(
    kit: Kit, old: Old, big: Path
) -> None:
    """Before publishing: the tag is not touched, and nothing is removed."""
    value = cache_to(old.cache, reset="true", **{**EXPORT, "tag": "old"})
    before = witness.blobs(old.cache)
    with frozen_in_upload(kit, big, old.cache, f"--cache-to={value}", after=1) as build:
        taken = min(witness.blobs(old.cache).keys() - before.keys())
        witness.blob_path(old.cache, taken).unlink()
        build.thaw()
        ended = build.end()
    assert ended.code == 12, ended
    words = f"tag 'old': not published: blob {taken[:19]}"
    assert f"kitcache: {old.cache}: {words}" in ended.err
    assert "is missing" in ended.err
    assert before.items() <= witness.blobs(old.cache).items()
    old.assert_unchanged(kit)
    done = export(kit, old.where, old.cache, tag="other", mode="max", reset="true")
    assert done.cache["reset"]["outcome"] == "done"
    assert_swept(old.cache)


def test_a_blob_that_others_take_with_publishing_is_told(
    kit: Kit, old: Old, tmp_path: Path
) -> None:
    """After it: the tag is there, with a hole that the next export mends.

    strace stops the build in the very moment in which index.json has become the new one.
    """
    missing = crash.missing_tool()
    if missing:
        privilege.cannot(missing)
    where = stages(tmp_path / "context", app="published")
    inject = "inject=rename,renameat,renameat2:signal=SIGSTOP"
    strace = ("strace", "-f", "-qq", "-o", os.devnull, "-P", "index.json", "-e", inject)
    value = cache_to(old.cache, tag="new", mode="max", reset="true")
    before = witness.blobs(old.cache)
    with running(kit, *CACHEONLY, f"--cache-to={value}", where, through=strace) as build:
        wait_for(lambda: (old.cache / "index.json").read_bytes() != old.index, build)
        child = child_of(build.pid)
        wait_for(lambda: state_of(child) in "Tt", build)
        assert_whole(old.cache)
        lost = min(witness.blobs(old.cache).keys() - before.keys())
        witness.blob_path(old.cache, lost).unlink()
        os.kill(child, signal.SIGCONT)
        ended = build.end()
    assert ended.code == 12, ended
    assert "tag 'new': published, but another client has deleted blobs of it: " in ended.err
    assert lost[:19] in ended.err
    assert before.items() <= witness.blobs(old.cache).items(), "it is not reset"
    assert witness.look(old.cache).missing == {lost}
    export(kit, where, old.cache, tag="new", mode="max", reset="true")
    assert_swept(old.cache)


def child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
