import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kitcache.buildkit.session.dirroot import DirectoryRoot
from kitcache.buildkit.session.packets import FileStat
from kitcache.buildkit.session.patterns import Selection
from kitcache.buildkit.session.walk import DirectoryTree, identity, unreadable
from kitcache.errors import KitcacheError


def entries(path: Path, selection: Selection | None = None) -> dict[str, FileStat]:
    with DirectoryRoot(str(path)) as root:
        return {e.path: e for e in DirectoryTree(root).entries(selection or Selection())}


def test_depth_first_and_names_by_their_bytes(tmp_path: Path) -> None:
    for name in ("a/x", "a.b", "a-", "é", "z", "B"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(entries(tmp_path)) == ["B", "a", "a/x", "a-", "a.b", "z", "é"]


def test_mode_size_and_time_are_go_s(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    file.chmod(0o4751)
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d").chmod(0o1777)
    found = entries(tmp_path)
    assert found["f"] == FileStat("f", 0o751 | 1 << 23, 3, 1_700_000_000_123_456_789)
    assert found["d"].mode == 0o777 | 1 << 31 | 1 << 20
    assert found["d"].size == 0


def test_links_are_entries_and_never_entered(tmp_path: Path) -> None:
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "loop").symlink_to("loop")
    found = entries(tmp_path)
    assert [(e.path, e.linkname, e.is_symlink) for e in found.values()] == [
        ("loop", "loop", True),
        ("up", "..", True),
    ]


def test_a_hard_link_names_the_first_name_that_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    for name in ("b", "c"):
        os.link(tmp_path / "a", tmp_path / name)
    found = entries(tmp_path, Selection(None, ("a",)))
    assert [(e.path, e.linkname, e.size) for e in found.values()] == [("b", "", 3), ("c", "b", 3)]


def test_pipes_and_sockets_are_no_obstacle(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = entries(tmp_path)
    assert found["fifo"].mode == 0o640 | 1 << 25
    # The type is cleared: it arrives as a file, and is empty.
    assert found["socket"].is_file
    with DirectoryRoot(str(tmp_path)) as root:
        socket_file = DirectoryTree(root).open("socket")
        assert socket_file is not None
        assert socket_file.read(10) == b""
        assert DirectoryTree(root).open("fifo") is None


def test_extended_attributes_come_along(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    try:
        os.setxattr(tmp_path / "f", "user.kit", b"\0x")
        os.setxattr(tmp_path / "f", "user.com.apple", b"1")
    except OSError:
        pytest.skip("the file system has no attributes")
    assert entries(tmp_path)["f"].xattrs == (("user.kit", b"\0x"), ("user.com.apple", b"1"))


def test_parents_come_once_something_below_them_is_sent(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/x", "d/e/f"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(entries(tmp_path, Selection(("**/c",)))) == ["a", "a/b", "a/b/c"]
    assert list(entries(tmp_path, Selection(None, ("*", "!d/e/f")))) == ["d", "d/e", "d/e/f"]


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").touch()
    (tmp_path / "link").symlink_to("real")
    assert list(entries(tmp_path / "link")) == ["f"]


def test_a_very_deep_tree_needs_few_open_directories(tmp_path: Path) -> None:
    depth = 300
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("z", os.O_CREAT, dir_fd=fd))
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    most = 0
    with DirectoryRoot(str(tmp_path)) as root:
        for count, _entry in enumerate(DirectoryTree(root).entries(Selection()), 1):
            if before and count % 50 == 0:
                most = max(most, len(os.listdir("/proc/self/fd")) - before)
    assert count == 2 * depth
    assert most <= 10


@contextmanager
def no_number_left() -> Iterator[None]:
    """No further file can be opened, but in the place of one that is closed."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    return tmp_path


def test_where_too_many_files_are_open_those_that_are_kept_make_room(three: Path) -> None:
    with DirectoryRoot(str(three)) as root:
        for name in ("a", "b"):
            root.directory(name)
        with no_number_left():
            found = [entry.path for entry in DirectoryTree(root).entries(Selection())]
    assert found == ["a", "a/f", "b", "b/f", "c", "c/f"]
    with DirectoryRoot(str(three)) as root:
        for name in ("a", "b", "c"):
            root.directory(name)
        with no_number_left():
            file = DirectoryTree(root).open("c/f")
            assert file is not None
            assert file.read(9) == b"c"
            file.close()


def test_where_no_room_can_be_made_no_ignore_file_would_help(three: Path) -> None:
    with (
        DirectoryRoot(str(three)) as root,
        no_number_left(),
        pytest.raises(KitcacheError, match="Too many open files") as caught,
    ):
        list(DirectoryTree(root).entries(Selection()))
    assert "ulimit -n" in caught.value.hints[0]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO])
def test_what_may_not_be_read_can_be_left_out(number: int) -> None:
    error = unreadable("context", "f", OSError(number, os.strerror(number)))
    advises = error.hints == ("make it readable, or list it in .dockerignore",)
    assert advises == (number != errno.EIO)


def test_a_file_is_read_as_long_as_it_was_when_opened(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with DirectoryRoot(str(tmp_path)) as root:
        file = DirectoryTree(root).open("f")
        assert file is not None
        with (tmp_path / "f").open("ab") as more:
            more.write(b"def")
        assert file.read(100) == b"abc"
        assert file.read(100) == b""
        file.close()


def test_a_directory_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    root_path = tmp_path / "root"
    (root_path / "d").mkdir(parents=True)
    (root_path / "d/secret").touch()
    with DirectoryRoot(str(root_path)) as root:
        (root_path / "d").rename(tmp_path / "moved")
        (root_path / "d").symlink_to(outside)
        assert DirectoryTree(root).open("d/secret") is None
        assert [e.path for e in DirectoryTree(root).entries(Selection())] == ["d"]


def test_what_is_left_out_is_told_of_where_it_would_have_been_sent(tmp_path: Path) -> None:
    for name in ("a/cache/blob", "b/f"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "link").symlink_to("../a/cache")
    left_out = {identity((tmp_path / "a/cache").stat()): "CACHE"}

    def walk(selection: Selection) -> tuple[list[str], list[str]]:
        told: list[str] = []
        with DirectoryRoot(str(tmp_path)) as root:
            found = [e.path for e in DirectoryTree(root, left_out, told.append).entries(selection)]
        return found, told

    assert walk(Selection()) == (["a", "b", "b/f", "b/link"], ["CACHE"])
    assert walk(Selection(("b/f",))) == (["b", "b/f"], [])
    assert walk(Selection(None, ("*", "!**/f"))) == (["b", "b/f"], [])
