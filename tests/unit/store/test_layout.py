"""store/layout.py: what is a cache directory, what is refused, and when a blob is believed."""

import errno
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest

from kitcache.errors import Damaged, KitcacheError, NotACache, Unreadable, Unsafe
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.layout import Layout, open_directory, open_file
from kitcache.store.open import open_store
from tests.hostile.build import Box, Sample


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(path.parent)
            server.bind(path.name)
        finally:
            os.fchdir(here)
            os.close(here)


def make_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "bystander")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


ODD = [make_fifo, make_socket, make_link, make_dangling_link, Path.mkdir]


@pytest.fixture
def opened(box: Box) -> Iterator[Layout]:
    with open_store(box.dir) as layout:
        layout.open_directories()
        yield layout


def test_a_layout_knows_its_name_and_its_directories(sample: Sample) -> None:
    with open_store(sample.dir) as layout:
        assert layout.path == str(sample.dir)
        assert os.path.samestat(os.fstat(layout.root_fd), sample.dir.stat())
        assert (layout.blobs, layout.blobs_fd, layout.ingest_fd) == ({}, None, None)
        layout.open_directories()
        assert layout.blobs.keys() == {"sha256"}


def test_it_closes_what_it_opened(sample: Sample) -> None:
    before = os.listdir("/proc/self/fd")
    with open_store(sample.dir) as layout:
        layout.open_directories()
        layout.open_directories()
    assert os.listdir("/proc/self/fd") == before


def test_a_refused_directory_is_closed_too(sample: Sample) -> None:
    (sample.dir / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Unsafe):
        open_store(sample.dir)
    assert os.listdir("/proc/self/fd") == before


def test_dir_itself_may_be_a_link(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("cache")
    with open_store(tmp_path / "link") as layout:
        assert os.path.samestat(os.fstat(layout.root_fd), sample.dir.stat())


def test_directories_are_opened_anew(box: Box) -> None:
    with open_store(box.dir) as layout:
        layout.open_directories()
        (box.dir / "blobs" / "sha512").mkdir()
        (box.dir / "blobs" / "blake3").mkdir()
        (box.dir / "ingest").rmdir()
        assert layout.blobs.keys() == {"sha256"}
        layout.open_directories()
        assert layout.blobs.keys() == {"sha256", "sha512"}
        assert layout.ingest_fd is None


def test_no_such_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, problem in (
        ("nowhere", "no such directory"),
        ("file", "it is not a directory"),
        ("file/below", "it is not a directory"),
    ):
        with pytest.raises(NotACache, match=f"not a cache: {problem}"):
            open_store(tmp_path / name)


def test_a_directory_without_either_file_is_no_cache(box: Box) -> None:
    (box.dir / "oci-layout").unlink()
    with pytest.raises(NotACache, match=r"it has neither oci-layout nor index.json"):
        open_store(box.dir)


def test_one_of_the_two_files_is_enough(sample: Sample) -> None:
    (sample.dir / "oci-layout").unlink()
    open_store(sample.dir).__exit__(None, None, None)


def test_a_path_that_no_system_opens(tmp_path: Path) -> None:
    with pytest.raises(NotACache, match="embedded null"):
        open_store(tmp_path / "a\0b")
    with pytest.raises(KitcacheError, match="cannot be opened: File name too long") as caught:
        open_store(tmp_path / ("x" * 5000))
    assert type(caught.value) is KitcacheError


@pytest.mark.parametrize(
    "content",
    [
        '{"imageLayoutVersion":"1.0.0"}',
        '{"imageLayoutVersion":"1.1"}',
        ' {"imageLayoutVersion":"1","x":[]}\n',
    ],
)
def test_version_1_is_known(box: Box, content: str) -> None:
    (box.dir / "oci-layout").write_text(content)
    open_store(box.dir).__exit__(None, None, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"imageLayoutVersion":"2.0.0"}', "of version '2.0.0'; known is 1.0.0"),
        ('{"imageLayoutVersion":"10.0"}', "of version '10.0'"),
        ('{"imageLayoutVersion":""}', "unreadable"),
        ('{"imageLayoutVersion":1}', "unreadable"),
        ("", "unreadable"),
        ("{}", "unreadable"),
        ("[]", "unreadable"),
        ('{"imageLayoutVersion":null}', "unreadable"),
        ("\x00" * 10, "unreadable"),
        ("[" * 60_000, "unreadable"),
    ],
)
def test_another_version_is_refused(box: Box, content: str, says: str) -> None:
    (box.dir / "oci-layout").write_text(content)
    os.utime(box.dir / "oci-layout", (1e9, 1e9))
    with pytest.raises(Unsafe, match=f"oci-layout is {says}"):
        open_store(box.dir)


def test_an_oci_layout_that_is_just_being_written_is_waited_for(box: Box) -> None:
    """BuildKit truncates it, and writes it anew; on a busy machine that takes a while."""
    (box.dir / "oci-layout").write_text("")
    writer = Timer(0.4, (box.dir / "oci-layout").write_text, ['{"imageLayoutVersion":"1.0.0"}'])
    writer.start()
    open_store(box.dir).__exit__(None, None, None)
    writer.join()


@pytest.mark.parametrize("make", ODD)
@pytest.mark.parametrize("name", ["oci-layout", "kitcache.lock", "index.json"])
def test_a_file_below_dir_is_a_regular_one(
    box: Box, opened: Layout, name: str, make: Callable[[Path], None]
) -> None:
    (box.dir / name).unlink(missing_ok=True)
    make(box.dir / name)
    what = "a symbolic link" if (box.dir / name).is_symlink() else "not a regular file"
    with pytest.raises(Unsafe, match=f"{name} is {what}"):
        open_file(opened, name)


def test_a_file_that_is_not_there_is_none(opened: Layout) -> None:
    assert open_file(opened, "kitcache.lock") is None


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "blobs/sha512", "ingest"])
@pytest.mark.parametrize("is_link", [True, False])
def test_a_directory_below_dir_is_a_real_one(box: Box, name: str, is_link: bool) -> None:
    path = box.dir / name
    if path.exists():
        path.rename(box.top / "moved")
    if is_link:
        path.symlink_to(box.top / "moved", target_is_directory=True)
    else:
        path.touch()
    what = "a symbolic link" if is_link else "not a directory"
    with open_store(box.dir) as layout, pytest.raises(Unsafe, match=f": {name} is {what}"):
        layout.open_directories()


def test_a_blob_is_believed_after_digest_and_size(box: Box, opened: Layout) -> None:
    digest = parse_digest(box.blob(b"blob")["digest"])
    assert opened.read_blob(digest, 4) == b"blob"
    assert opened.read_blob(digest, None) == b"blob"


def test_sha512_is_believed_too(box: Box) -> None:
    digest = parse_digest(box.blob(b"blob", algorithm="sha512")["digest"])
    with open_store(box.dir) as layout:
        layout.open_directories()
        assert layout.read_blob(digest, 4) == b"blob"


@pytest.mark.parametrize(
    ("content", "size", "kind", "says"),
    [
        (b"blo", 4, "wrong-size", r"is truncated \(3 of 4 bytes\)"),
        (b"", 4, "wrong-size", r"is truncated \(0 of 4 bytes\)"),
        (b"blobs", 4, "wrong-size", r"is too long \(5 of 4 bytes\)"),
        (b"blub", 4, "wrong-digest", "does not match its digest"),
        (b"blo", None, "wrong-digest", "does not match its digest"),
        (None, 4, "missing", "is missing"),
    ],
)
def test_a_blob_that_is_not_what_it_is_called(
    box: Box, opened: Layout, content: bytes | None, size: int | None, kind: str, says: str
) -> None:
    digest = box.blob(b"blob")["digest"]
    box.damage(digest, content)
    with pytest.raises(Damaged, match=says) as caught:
        opened.read_blob(parse_digest(digest), size)
    assert caught.value.kind == kind


@pytest.mark.parametrize("make", ODD)
def test_a_blob_is_a_regular_file(box: Box, opened: Layout, make: Callable[[Path], None]) -> None:
    digest = Digest("sha256", hashlib.sha256(b"").hexdigest())
    make(box.path_of(str(digest)))
    with pytest.raises(Damaged, match="is not a regular file") as caught:
        opened.read_blob(digest, None)
    assert caught.value.kind == "not-a-file"
    found = opened.stat_blob(digest)
    assert found is not None
    assert found.kind == ("symlink" if box.path_of(str(digest)).is_symlink() else "other")


def test_an_algorithm_without_a_directory_has_no_blobs(opened: Layout) -> None:
    digest = Digest("sha384", "0" * 96)
    assert opened.stat_blob(digest) is None
    with pytest.raises(Damaged, match="is missing"):
        opened.read_blob(digest, 4)


def test_an_unknown_algorithm_proves_nothing(box: Box, opened: Layout) -> None:
    (box.dir / "blobs" / "blake3").mkdir()
    (box.dir / "blobs" / "blake3" / "aa").write_bytes(b"blob")
    opened.open_directories()
    with pytest.raises(Damaged, match="blake3 cannot be checked") as caught:
        opened.read_blob(Digest("blake3", "aa"), 4)
    assert caught.value.kind == "unknown-algorithm"


def test_the_cap_is_64_mib_and_refuses_before_anything_is_read(box: Box, opened: Layout) -> None:
    digest = Digest("sha256", "0" * 64)
    with box.path_of(str(digest)).open("wb") as file:
        file.write(b"{")
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(Unsafe, match="67,108,865 of at most 67,108,864 bytes"):
        opened.read_blob(digest, None)


def test_a_binary_blob_is_neither_read_nor_proven_if_so_asked(box: Box, opened: Layout) -> None:
    digest = box.blob(b"{}")["digest"]
    box.damage(digest, b"\x1f\x8b" * 50)
    known = parse_digest(digest)
    assert opened.read_blob(known, 100, unless_binary=True) is None
    with pytest.raises(Damaged, match="does not match its digest"):
        opened.read_blob(known, 100)


def test_what_could_be_json_is_proven_all_the_same(box: Box, opened: Layout) -> None:
    digest = box.blob(b"{}")["digest"]
    assert opened.read_blob(parse_digest(digest), 2, unless_binary=True) == b"{}"
    box.damage(digest, b"{x")
    with pytest.raises(Damaged, match="does not match its digest"):
        opened.read_blob(parse_digest(digest), 2, unless_binary=True)


def test_a_look_at_a_blob_reads_no_content(box: Box, opened: Layout) -> None:
    digest = box.blob(b"blob")["digest"]
    path = box.path_of(digest)
    os.utime(path, ns=(7, 12_345_678_901))
    changed_ns = path.stat().st_ctime_ns
    assert opened.stat_blob(parse_digest(digest)) == (4, 12_345_678_901, changed_ns, "file", 1)
    os.link(path, box.top / "another name")
    changed_ns = path.stat().st_ctime_ns
    assert opened.stat_blob(parse_digest(digest)) == (4, 12_345_678_901, changed_ns, "file", 2)
    assert opened.stat_blob(Digest("sha256", "0" * 64)) is None


def test_a_blob_to_read_from_is_a_regular_file(box: Box, opened: Layout) -> None:
    blob = parse_digest(box.blob(b"blob")["digest"])
    fd = opened.open_blob(blob)
    assert fd is not None
    assert os.pread(fd, 10, 0) == b"blob"
    os.close(fd)
    fds = os.listdir("/proc/self/fd")
    assert opened.open_blob(Digest("sha256", "0" * 64)) is None
    assert opened.open_blob(Digest("sha512", "0" * 128)) is None
    for number, make in enumerate((Path.mkdir, make_fifo, make_link, make_dangling_link)):
        odd = Digest("sha256", f"{number:064x}")
        make(box.path_of(str(odd)))
        assert opened.open_blob(odd) is None
    assert os.listdir("/proc/self/fd") == fds


def test_a_blob_that_may_not_be_read_is_an_error(
    box: Box, opened: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = parse_digest(box.blob(b"blob")["digest"])

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Unreadable, match="cannot be read: Permission denied"):
        opened.open_blob(blob)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_process_lacks_is_no_fault_of_a_blob(
    box: Box, opened: Layout, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Else a repair would put aside what is whole."""
    blob = parse_digest(box.blob(b"blob")["digest"])

    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    for look in (opened.open_blob, lambda digest: opened.read_blob(digest, 4)):
        with pytest.raises(KitcacheError, match="cannot read a blob") as caught:
            look(blob)
        assert type(caught.value) is KitcacheError


def test_a_file_that_vanishes_where_a_directory_belongs(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is seen by open, and gone when stat looks at it: no test can hit that moment."""
    (sample.dir / "stage").touch()

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError

    with open_store(sample.dir) as store:
        monkeypatch.setattr(os, "stat", gone)
        with pytest.raises(Unsafe, match="stage is not a directory"):
            open_directory(store, "stage", store.root_fd)
