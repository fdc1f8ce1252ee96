"""store/ingest.py: a blob on its way in. What a daemon sees of it: session/test_content.py."""

import errno
import hashlib
import os
import re
import resource
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitcache.errors import KitcacheError, Unsafe
from kitcache.oci.digest import Digest
from kitcache.store import ingest as module
from kitcache.store.ingest import DigestMismatch, Ingester
from kitcache.store.layout import Layout
from kitcache.store.write import sync_blobs
from tests.hostile.build import Sample

DATA = b"some bytes of a layer " * 1000
DIGEST = Digest("sha256", hashlib.sha256(DATA).hexdigest())
LONG_DATA = DATA * 50


@pytest.fixture
def intake(layout: Layout) -> Iterator[Ingester]:
    opened = Ingester(layout)
    yield opened
    opened.close()


def path_of(sample: Sample, digest: Digest) -> Path:
    return sample.dir / "blobs" / digest.algorithm / digest.hex


def put(intake: Ingester, data: bytes, ref: str = "layer-x") -> tuple[Digest, bool]:
    upload = intake.begin(ref, "sha256", len(data))
    upload.write(data)
    return upload.commit(len(data), None)


def ingests(sample: Sample) -> list[str]:
    return os.listdir(sample.dir / "ingest")


def test_its_files_are_containerds(sample: Sample, intake: Ingester) -> None:
    upload = intake.begin("layer-x", "sha256", 100)
    upload.write(b"half")
    (name,) = ingests(sample)
    folder = sample.dir / "ingest" / name
    assert re.fullmatch("[0-9a-f]{64}", name)
    assert (folder / "data").read_bytes() == b"half"
    assert (folder / "ref").read_bytes() == b"layer-x"
    assert (folder / "total").read_bytes() == b"100"
    for field in ("startedat", "updatedat"):
        assert re.fullmatch(
            r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", (folder / field).read_text()
        )
    upload.abort()
    upload.abort()
    assert ingests(sample) == []


def test_an_unknown_total_has_no_file(sample: Sample, intake: Ingester) -> None:
    upload = intake.begin("layer-x", "sha256", 0)
    assert not (sample.dir / "ingest" / ingests(sample)[0] / "total").exists()
    upload.abort()


def test_two_uploads_of_one_ref_have_two_names(sample: Sample, intake: Ingester) -> None:
    uploads = [intake.begin("layer-x", "sha256", 0) for _ in range(2)]
    assert len(ingests(sample)) == 2
    for upload in uploads:
        upload.write(DATA)
    assert [upload.commit(0, DIGEST)[1] for upload in uploads] == [True, False]
    assert ingests(sample) == []


def test_updatedat_is_renewed_now_and_then(
    sample: Sample, intake: Ingester, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = intake.begin("layer-x", "sha256", 0)
    folder = sample.dir / "ingest" / ingests(sample)[0]
    started = (folder / "updatedat").read_text()
    upload.write(b"x")
    assert (folder / "updatedat").read_text() == started
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 11)
    upload.write(b"x")
    renewed = (folder / "updatedat").read_text()
    assert renewed > started
    assert len(renewed) == len(started)
    assert (folder / "startedat").read_text() == started
    upload.abort()


def test_a_write_costs_one_system_call(intake: Ingester, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = intake.begin("layer-x", "sha256", 0)
    calls = []
    for name in ("write", "pwrite", "open", "stat", "fstat", "fsync", "utime"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, real=real, name=name, **k: (calls.append(name), real(*a, **k))[1]
        )
    upload.write(DATA)
    assert calls == ["write"]
    upload.abort()


def test_a_short_write_goes_on(intake: Ingester, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    upload = intake.begin("layer-x", "sha256", 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:1000]))
        upload.write(DATA)
    assert upload.commit(len(DATA), DIGEST) == (DIGEST, True)


def test_bytes_are_on_the_disk_before_they_have_a_name_and_names_after_sync(
    sample: Sample, intake: Ingester, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        calls.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), sample.dir))
        real_fsync(fd)

    def rename(*args: str, **fds: int) -> None:
        calls.append("rename")
        real_rename(*args, **fds)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    put(intake, DATA)
    assert [call.rpartition("/")[2] for call in calls] == ["data", "rename"]
    calls.clear()
    sync_blobs(intake.layout)
    assert calls == ["blobs/sha256", "blobs", "."]


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_another_algorithm_has_a_directory_of_its_own(
    sample: Sample, intake: Ingester, algorithm: str
) -> None:
    digest = Digest(algorithm, hashlib.new(algorithm, DATA).hexdigest())
    upload = intake.begin("layer-x", algorithm, 0)
    upload.write(DATA)
    assert upload.commit(0, digest) == (digest, True)
    assert path_of(sample, digest).read_bytes() == DATA
    assert intake.find(digest, 0) == len(DATA)


def test_a_mismatch_keeps_nothing(sample: Sample, intake: Ingester) -> None:
    before = os.listdir(sample.dir / "blobs" / "sha256")
    for total, expected in ((1, None), (0, Digest("sha256", "0" * 64)), (0, Digest("sha512", "0"))):
        upload = intake.begin("layer-x", "sha256", 0)
        upload.write(DATA)
        with pytest.raises(DigestMismatch, match="unexpected commit"):
            upload.commit(total, expected)
    assert ingests(sample) == []
    assert os.listdir(sample.dir / "blobs" / "sha256") == before


class TestFind:
    def test_what_is_whole_gets_the_time_of_now(self, sample: Sample, intake: Ingester) -> None:
        put(intake, DATA)
        os.utime(path_of(sample, DIGEST), (0, 0))
        assert intake.find(DIGEST, len(DATA)) == len(DATA)
        assert path_of(sample, DIGEST).stat().st_mtime > 0

    def test_a_time_that_is_not_ours_to_set_stays(
        self, sample: Sample, intake: Ingester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(intake, DATA)

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "no")

        monkeypatch.setattr(os, "utime", refuse)
        assert intake.find(DIGEST, len(DATA)) == len(DATA)

    @pytest.mark.parametrize("size", [0, len(DATA)])
    def test_a_short_one_that_lies_is_not_there(
        self, sample: Sample, intake: Ingester, size: int
    ) -> None:
        path_of(sample, DIGEST).write_bytes(DATA[:-1] + b"X")
        assert intake.find(DIGEST, size) is None

    def test_a_long_one_is_believed_by_its_length_if_that_is_known(
        self, sample: Sample, intake: Ingester
    ) -> None:
        digest = Digest("sha256", hashlib.sha256(LONG_DATA).hexdigest())
        path_of(sample, digest).write_bytes(LONG_DATA[:-1] + b"X")
        assert len(LONG_DATA) > module.ALWAYS_HASHED_BYTES
        assert intake.find(digest, len(LONG_DATA)) == len(LONG_DATA)
        assert intake.find(digest, 0) is None
        assert intake.find(digest, len(LONG_DATA) - 1) is None

    def test_what_cannot_be_read_is_not_there(
        self, sample: Sample, intake: Ingester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(intake, DATA)

        def refuse(*_: object, **__: object) -> int:
            raise PermissionError(errno.EACCES, "no")

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            assert intake.find(DIGEST, 0) is None


class TestFailures:
    @pytest.mark.parametrize("step", ["mkdir", "open", "write"])
    def test_a_full_disk_at_the_beginning(
        self, sample: Sample, intake: Ingester, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(KitcacheError, match="cannot begin an upload in ingest/: No space"):
                intake.begin("layer-x", "sha256", 0)
        assert ingests(sample) == []
        assert put(intake, DATA)[1]

    @pytest.mark.parametrize("step", ["fsync", "rename", "fchmod"])
    def test_a_failure_at_the_end(
        self, sample: Sample, intake: Ingester, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(KitcacheError, match="cannot put a blob in its place") as caught:
                put(intake, DATA)
        assert caught.value.path == str(sample.dir)
        assert ingests(sample) == []
        assert intake.find(DIGEST, 0) is None

    def test_a_write_that_fails_ends_the_upload(
        self, sample: Sample, intake: Ingester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = intake.begin("layer-x", "sha256", 0)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(KitcacheError, match="cannot write a blob: No space left"):
                upload.write(DATA)
        assert ingests(sample) == []
        for step in (lambda: upload.write(DATA), upload.truncate, lambda: upload.commit(0, None)):
            with pytest.raises(KitcacheError, match="the upload was ended"):
                step()

    @pytest.mark.parametrize("name", ["ingest", "blobs", "blobs/sha256"])
    def test_a_link_in_the_way_is_refused(self, sample: Sample, layout: Layout, name: str) -> None:
        outside = sample.box.top / "outside"
        (sample.dir / name).rename(outside)
        (sample.dir / name).symlink_to(outside)
        with pytest.raises(Unsafe, match="is a symbolic link"):
            Ingester(layout)

    def test_without_a_free_file_descriptor(self, layout: Layout) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(KitcacheError, match="Too many open files"):
                Ingester(layout)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_after_close_nothing_begins_and_what_was_under_way_ends(
        self, sample: Sample, layout: Layout
    ) -> None:
        before = len(os.listdir("/proc/self/fd"))
        intake = Ingester(layout)
        upload = intake.begin("layer-x", "sha256", 0)
        intake.close()
        intake.close()
        assert ingests(sample) == [], "also where its own thread never gets to it"
        with pytest.raises(KitcacheError, match="the export has ended"):
            intake.begin("layer-y", "sha256", 0)
        with pytest.raises(KitcacheError, match="the upload was ended"):
            upload.write(DATA)
        assert ingests(sample) == []
        assert len(os.listdir("/proc/self/fd")) == before


class TestOwners:
    def test_directories_are_made_as_the_cache_is(self, sample: Sample, layout: Layout) -> None:
        (sample.dir / "ingest").rmdir()
        sample.dir.chmod(0o2775)
        umask = os.umask(0o077)
        try:
            layout.open_directories()
            intake = Ingester(layout)
            put(intake, DATA)
            intake.close()
        finally:
            os.umask(umask)
        assert stat.S_IMODE((sample.dir / "ingest").stat().st_mode) == 0o2775
        assert stat.S_IMODE(path_of(sample, DIGEST).stat().st_mode) == 0o444

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
    def test_root_leaves_what_the_owner_of_the_cache_can_use(
        self, sample: Sample, layout: Layout
    ) -> None:
        os.chown(sample.dir / "index.json", 1234, 2345)
        (sample.dir / "ingest").rmdir()
        intake = Ingester(layout)
        upload = intake.begin("layer-x", "sha512", 0)
        (name,) = ingests(sample)
        folder = sample.dir / "ingest" / name
        upload.write(DATA)
        mine = [
            folder.parent,
            folder,
            *folder.iterdir(),
            path_of(sample, Digest("sha512", "x")).parent,
        ]
        for path in [*mine[:-1]]:
            assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345), path
        digest, _ = upload.commit(0, None)
        for path in (mine[-1], path_of(sample, digest)):
            assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345), path
        intake.close()
