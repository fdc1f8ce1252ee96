"""session/content.py over a real connection: containerd's content service, as BuildKit uses it."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitcache.buildkit.proto import content_pb2 as pb
from kitcache.buildkit.session.stores import ContentStore, WritableContentStore
from kitcache.buildkit.wire.grpc import Code
from kitcache.gc.values import Tally
from kitcache.oci.digest import parse_digest
from kitcache.store.ingest import Ingester
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from tests.hostile.build import Box, Sample
from tests.unit.buildkit.session.exporter import Daemon, code_of, digest_of, make_cache, serving

DATA = bytes(range(256)) * 8192 + b"the end"
LONG_AGO_S = 1_000_000_000


@pytest.fixture
def empty(box: Box) -> Box:
    box.write_index(b'{"schemaVersion":2,"manifests":[]}')
    return box


@pytest.fixture
def layout(empty: Box) -> Iterator[Layout]:
    with open_store(empty.dir) as opened:
        opened.open_directories()
        yield opened


@pytest.fixture
def store(layout: Layout) -> Iterator[WritableContentStore]:
    intake = Ingester(layout)
    yield WritableContentStore(intake)
    intake.close()


@pytest.fixture
def daemon(store: WritableContentStore) -> Iterator[Daemon]:
    with serving({"local:here": store}) as channel:
        yield Daemon(channel, "local:here")


def blob(box: Box, data: bytes) -> Path:
    return box.path_of(digest_of(data))


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread is about to do."""
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.001)


def is_clean(box: Box) -> bool:
    return not os.listdir(box.dir / "ingest")


class TestWhichStore:
    def test_one_has_to_be_named(self, daemon: Daemon) -> None:
        daemon.metadata = ()
        assert code_of(daemon.info, digest_of(DATA)).code == Code.INVALID_ARGUMENT

    def test_an_unknown_one_is_named_in_the_answer(self, daemon: Daemon) -> None:
        daemon.metadata = (("buildkit-attachable-store-id", "local:there"),)
        error = code_of(daemon.info, digest_of(DATA))
        assert (error.code, error.message) == (
            Code.NOT_FOUND,
            "unknown store local:there: not found",
        )

    def test_the_first_of_several_counts(self, daemon: Daemon) -> None:
        daemon.metadata += (("buildkit-attachable-store-id", "local:there"),)
        assert daemon.statuses() == []


class TestWrite:
    def test_a_blob_comes_whole(
        self, empty: Box, daemon: Daemon, store: WritableContentStore
    ) -> None:
        upload = daemon.upload("layer-x", DATA)
        assert upload.stat().offset == 0
        for start in range(0, len(DATA), 300_000):
            upload.write(DATA[start : start + 300_000])
        answer = upload.commit()
        assert (answer.digest, answer.offset) == (digest_of(DATA), len(DATA))
        path = blob(empty, DATA)
        assert path.read_bytes() == DATA
        assert path.stat().st_mode & 0o777 == 0o444
        assert is_clean(empty)
        assert store.written == Tally(1, len(DATA))
        assert store.reused == Tally()

    def test_while_it_comes_a_reset_can_see_it(self, empty: Box, daemon: Daemon) -> None:
        upload = daemon.upload("layer-x", DATA)
        upload.stat()
        upload.write(DATA[:1000])
        (name,) = os.listdir(empty.dir / "ingest")
        assert len(name) == 64
        assert set(name) <= set("0123456789abcdef")
        folder = empty.dir / "ingest" / name
        assert sorted(os.listdir(folder)) == ["data", "ref", "startedat", "total", "updatedat"]
        assert (folder / "ref").read_text() == "layer-x"
        assert (folder / "total").read_text() == str(len(DATA))
        until(lambda: (folder / "data").read_bytes() == DATA[:1000])
        # The offset follows the bytes.
        until(lambda: daemon.statuses()[0].offset == 1000)
        (status,) = daemon.statuses()
        assert (status.ref, status.offset, status.total) == ("layer-x", 1000, len(DATA))

    def test_bytes_that_come_with_the_commit_count(self, empty: Box, daemon: Daemon) -> None:
        upload = daemon.upload("layer-x", DATA)
        upload.stat()
        upload.write(DATA[:10])
        upload.commit(data=DATA[10:])
        assert blob(empty, DATA).read_bytes() == DATA

    def test_an_empty_blob(self, empty: Box, daemon: Daemon) -> None:
        assert daemon.put("layer-empty", b"")
        assert blob(empty, b"").read_bytes() == b""
        assert not daemon.put("layer-empty", b"")

    def test_without_an_expected_digest_it_gets_the_one_it_has(
        self, empty: Box, daemon: Daemon
    ) -> None:
        upload = daemon.upload("layer-x", DATA, expected="")
        upload.stat()
        upload.write(DATA)
        assert upload.commit(expected="").digest == digest_of(DATA)
        assert blob(empty, DATA).read_bytes() == DATA

    def test_offset_zero_begins_again(self, empty: Box, daemon: Daemon) -> None:
        upload = daemon.upload("layer-x", DATA)
        upload.stat()
        upload.write(b"something else")
        upload.offset = 0
        upload.write(DATA)
        upload.commit()
        assert blob(empty, DATA).read_bytes() == DATA

    def test_another_offset_is_refused(self, empty: Box, daemon: Daemon) -> None:
        upload = daemon.upload("layer-x", DATA)
        upload.stat()
        upload.write(DATA[:10])
        upload.offset = 7
        error = code_of(upload.write, DATA)
        assert error.code == Code.OUT_OF_RANGE
        assert "write @7 must occur at current offset 10" in error.message
        until(lambda: is_clean(empty))

    @pytest.mark.parametrize(
        ("sent", "problem"),
        [(DATA[:-1], "unexpected commit size"), (DATA[:-1] + b"X", "unexpected commit digest")],
    )
    def test_other_bytes_than_promised_are_no_blob(
        self, empty: Box, daemon: Daemon, store: WritableContentStore, sent: bytes, problem: str
    ) -> None:
        upload = daemon.upload("layer-x", DATA)
        upload.stat()
        upload.write(sent)
        error = code_of(upload.commit)
        assert error.code == Code.FAILED_PRECONDITION
        assert problem in error.message
        assert os.listdir(empty.dir / "blobs" / "sha256") == []
        until(lambda: is_clean(empty))
        assert store.written == Tally()
        assert daemon.put("layer-x", DATA), "the ref is free again"

    def test_a_stream_that_ends_without_a_commit_leaves_nothing(
        self, empty: Box, daemon: Daemon
    ) -> None:
        for end in ("end", "cancel"):
            upload = daemon.upload("layer-x", DATA)
            upload.stat()
            upload.write(DATA)
            getattr(upload.stream, end)()
            until(lambda: is_clean(empty))
        assert daemon.put("layer-x", DATA)

    def test_a_ref_is_written_by_one_stream_at_a_time(self, empty: Box, daemon: Daemon) -> None:
        first, second = daemon.upload("layer-x", DATA), daemon.upload("layer-x", DATA)
        first.stat()
        assert code_of(second.stat).code == Code.UNAVAILABLE
        first.write(DATA)
        first.commit()
        assert not daemon.put("layer-x", DATA)

    def test_one_digest_under_two_refs_is_one_blob(
        self, empty: Box, daemon: Daemon, store: WritableContentStore
    ) -> None:
        first, second = daemon.upload("layer-x", DATA), daemon.upload("layer-y", DATA)
        for upload in (first, second):
            upload.stat()
            upload.write(DATA)
        first.commit()
        assert code_of(second.commit).code == Code.ALREADY_EXISTS
        assert (store.written, store.reused) == (Tally(1, len(DATA)), Tally())
        until(lambda: is_clean(empty))

    def test_the_first_message_needs_a_ref_and_a_digest_that_is_one(self, daemon: Daemon) -> None:
        assert code_of(daemon.put, "", DATA).code == Code.INVALID_ARGUMENT
        for expected in ("sha256:abc", "../../etc/passwd", "blake3:" + "0" * 64):
            upload = daemon.upload("layer-x", DATA, expected=expected)
            assert code_of(upload.stat).code == Code.INVALID_ARGUMENT

    def test_bytes_that_are_no_message_are_refused(self, daemon: Daemon) -> None:
        stream = daemon.open("Write")
        stream.send(b"\x0a\xff")
        assert code_of(stream.receive, 20).code == Code.INVALID_ARGUMENT

    def test_abort_ends_an_upload(self, empty: Box, daemon: Daemon) -> None:
        upload = daemon.upload("layer-x", DATA)
        upload.stat()
        daemon.call("Abort", pb.AbortRequest(ref="layer-x").SerializeToString())
        assert code_of(upload.write, DATA).code == Code.ABORTED
        until(lambda: is_clean(empty))
        unknown = pb.AbortRequest(ref="layer-x").SerializeToString()
        assert code_of(daemon.call, "Abort", unknown).code == Code.NOT_FOUND

    def test_the_lost_connection_leaves_nothing(
        self, empty: Box, store: WritableContentStore
    ) -> None:
        with serving({"local:here": store}) as channel:
            upload = Daemon(channel, "local:here").upload("layer-x", DATA)
            upload.stat()
            upload.write(DATA)
        until(lambda: is_clean(empty))
        assert store.progress() == ()


class TestWhatIsHereAlready:
    def test_it_need_not_come_and_gets_the_time_of_now(
        self, empty: Box, daemon: Daemon, store: WritableContentStore
    ) -> None:
        daemon.put("layer-x", DATA)
        os.utime(blob(empty, DATA), (LONG_AGO_S, LONG_AGO_S))
        assert not daemon.put("layer-y", DATA)
        assert blob(empty, DATA).stat().st_mtime > LONG_AGO_S
        assert is_clean(empty)

    @pytest.mark.parametrize("torn", [DATA[:-1], b"", DATA + b"more"])
    def test_a_torn_one_is_replaced(self, empty: Box, daemon: Daemon, torn: bytes) -> None:
        blob(empty, DATA).write_bytes(torn)
        assert daemon.put("layer-x", DATA)
        assert blob(empty, DATA).read_bytes() == DATA

    def test_a_short_one_is_proven(self, empty: Box, daemon: Daemon) -> None:
        """A manifest of the right length that lies would be a hole that no export mends."""
        blob(empty, b"manifest").write_bytes(b"MANIFEST")
        assert daemon.put(digest_of(b"manifest"), b"manifest")
        assert blob(empty, b"manifest").read_bytes() == b"manifest"

    def test_a_link_is_none(self, empty: Box, daemon: Daemon) -> None:
        elsewhere = empty.top / "elsewhere"
        elsewhere.write_bytes(DATA)
        blob(empty, DATA).symlink_to(elsewhere)
        assert code_of(daemon.info, digest_of(DATA)).code == Code.NOT_FOUND
        assert daemon.put("layer-x", DATA)
        assert not blob(empty, DATA).is_symlink()
        assert elsewhere.read_bytes() == DATA

    def test_a_directory_in_its_place_is_an_error(
        self, empty: Box, daemon: Daemon, store: WritableContentStore
    ) -> None:
        blob(empty, DATA).mkdir()
        error = code_of(daemon.put, "layer-x", DATA)
        assert error.code == Code.INTERNAL
        assert "cannot put a blob in its place: Is a directory" in error.message
        assert str(store.failure).startswith(str(empty.dir))
        until(lambda: is_clean(empty))


class TestRoot:
    def test_it_is_the_last_blob_under_its_bare_digest(
        self, daemon: Daemon, store: WritableContentStore
    ) -> None:
        assert store.root is None
        cache = make_cache([b"one", b"two"])
        assert daemon.export(cache) == [True] * 4
        assert store.root is not None
        assert (str(store.root.digest), store.root.size) == (cache.root, len(cache.blobs[-1][1]))

    def test_it_may_be_here_already(self, daemon: Daemon, layout: Layout) -> None:
        cache = make_cache([b"one", b"two"])
        daemon.export(cache)
        again = WritableContentStore(Ingester(layout))
        with serving({"local:again": again}) as channel:
            assert Daemon(channel, "local:again").export(cache) == [False] * 4
        assert again.root is not None
        assert str(again.root.digest) == cache.root
        assert again.reused.blobs == 4
        assert again.written == Tally()

    def test_a_layer_is_none(self, daemon: Daemon, store: WritableContentStore) -> None:
        daemon.put(f"layer-{digest_of(DATA)}", DATA)
        assert store.root is None


class TestRead:
    @pytest.fixture
    def reader(self, empty: Box, daemon: Daemon) -> Daemon:
        empty.blob(DATA)
        return daemon

    def test_all_of_it(self, reader: Daemon) -> None:
        assert reader.read(digest_of(DATA)) == DATA
        assert reader.read(digest_of(DATA), size=-1) == DATA

    @pytest.mark.parametrize("offset", [0, 1, 1 << 20, len(DATA) - 1])
    @pytest.mark.parametrize("size", [1, 512, 1 << 20])
    def test_a_window_may_reach_past_the_end(self, reader: Daemon, offset: int, size: int) -> None:
        assert reader.read(digest_of(DATA), offset, size) == DATA[offset : offset + size]

    def test_at_the_end_it_is_empty_and_well(self, reader: Daemon) -> None:
        assert reader.read(digest_of(DATA), len(DATA), 512) == b""

    @pytest.mark.parametrize("offset", [len(DATA) + 1, 1 << 40, -1])
    def test_beyond_it_there_is_nothing(self, reader: Daemon, offset: int) -> None:
        error = code_of(reader.read, digest_of(DATA), offset)
        assert error.code == Code.OUT_OF_RANGE

    def test_what_is_not_here_is_not_found(self, reader: Daemon) -> None:
        missing = digest_of(b"nowhere")
        for ask in (reader.read, reader.info):
            error = code_of(ask, missing)
            assert (error.code, error.message) == (Code.NOT_FOUND, f"content {missing}: not found")

    def test_info_tells_the_size(self, reader: Daemon) -> None:
        info = reader.info(digest_of(DATA))
        assert (info.digest, info.size) == (digest_of(DATA), len(DATA))
        assert info.created_at.seconds > 0

    def test_no_path_leads_out(self, reader: Daemon) -> None:
        for digest in ("sha256:../../../bystander", "../sha256:x", "sha256:", "", "sha512:a/b"):
            assert code_of(reader.read, digest).code == Code.INVALID_ARGUMENT


class TestAnImport:
    @pytest.fixture
    def importer(self, sample: Sample) -> Iterator[Daemon]:
        with open_store(sample.dir) as layout:
            layout.open_directories()
            with serving({"local:src": ContentStore(layout)}) as channel:
                yield Daemon(channel, "local:src")

    def test_it_reads(self, importer: Daemon, sample: Sample) -> None:
        path = sample.box.path_of(sample.main["digest"])
        assert importer.read(sample.main["digest"]) == path.read_bytes()

    def test_it_never_writes(self, importer: Daemon, sample: Sample) -> None:
        assert code_of(importer.put, "layer-x", DATA).code == Code.PERMISSION_DENIED
        request = pb.AbortRequest(ref="layer-x").SerializeToString()
        assert code_of(importer.call, "Abort", request).code == Code.NOT_FOUND
        assert importer.statuses() == []
        assert os.listdir(sample.dir / "ingest") == []

    @pytest.mark.parametrize(
        ("method", "code"),
        [
            ("Delete", Code.PERMISSION_DENIED),
            ("Update", Code.FAILED_PRECONDITION),
            ("List", Code.UNIMPLEMENTED),
        ],
    )
    def test_what_nobody_may(self, importer: Daemon, method: str, code: Code) -> None:
        assert code_of(importer.call, method, b"").code == code


def test_status_of_one_upload(daemon: Daemon) -> None:
    request = pb.StatusRequest(ref="layer-x").SerializeToString()
    assert code_of(daemon.call, "Status", request).code == Code.NOT_FOUND
    upload = daemon.upload("layer-x", DATA)
    upload.stat()
    found = pb.StatusResponse.FromString(daemon.call("Status", request)).status
    assert (found.ref, found.offset, found.total) == ("layer-x", 0, len(DATA))


def test_a_store_that_has_ended_takes_nothing(empty: Box, layout: Layout) -> None:
    intake = Ingester(layout)
    with serving({"local:here": WritableContentStore(intake)}) as channel:
        daemon = Daemon(channel, "local:here")
        upload = daemon.upload("layer-x", DATA)
        upload.stat()
        intake.close()
        upload.write(DATA)
        assert code_of(upload.commit).code == Code.INTERNAL
        assert code_of(daemon.put, "layer-y", DATA).code == Code.INTERNAL
    until(lambda: is_clean(empty))
    assert intake.find(parse_digest(digest_of(DATA)), 0) is None
