"""Below an opened directory no call takes a name and follows links: the law of the source itself.

Else who may write there swaps a file for a link, and root changes what the link leads to.
"""

import ast
import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import kitcache

TOP = Path(kitcache.__file__).parent
# Without follow_symlinks=False each of these does its work on what a link leads to.
FOLLOWING = frozenset(("access", "chmod", "chown", "link", "stat", "utime"))
# These take a name, or the fd of what is open already.
TAKE_A_NAME = FOLLOWING | {
    *("chdir", "chflags", "fwalk", "getxattr", "listdir", "listxattr", "makedirs", "mkdir"),
    *("mkfifo", "mknod", "open", "pathconf", "readlink", "remove", "removedirs", "removexattr"),
    *("rename", "renames", "replace", "rmdir", "scandir", "setxattr", "statvfs", "symlink"),
    *("truncate", "unlink", "walk"),
}
# Here all that is below DIR, or below the directory of an output, goes by open directories.
STRICT = ("store/", "gc/", "upkeep/", "buildkit/session/unpack.py")
KNOWN = {
    # DIR itself may be a link: whoever names it says where it is.
    (
        "store/layout.py",
        "open_checked",
        "os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)",
    ),
    ("store/create.py", "_make_directories", "os.mkdir(path, 493)"),
    ("store/transfer.py", "is_on_file_system_of", "os.stat(path)"),
    ("buildkit/session/unpack.py", "unpack", "os.makedirs(path, exist_ok=True)"),
    # Files outside of caches, which the user names.
    ("store/userfiles.py", "read_to_end", "os.open(path, _FLAGS)"),
    ("store/userfiles.py", "_open_regular", "os.open(path, _FLAGS)"),
    ("store/userfiles.py", "replace_user_file", "os.open(temporary, _NEW_FLAGS, mode)"),
    ("store/userfiles.py", "replace_user_file", "os.rename(temporary, path)"),
    ("store/userfiles.py", "replace_user_file", "os.unlink(temporary)"),
    # A look at whether a link leads to a file, and how long that is: nothing is decided by it.
    (
        "store/directory.py",
        "follow_symlink",
        "os.stat(digest.hex, dir_fd=self.blobs[digest.algorithm])",
    ),
    # In a directory that was made just now, in which nobody else may write.
    ("wrap/staging.py", "_seed", "os.mkdir(f'blobs/{algorithm}', 493, dir_fd=stage.root_fd)"),
    # A descriptor of what is open.
    ("store/scan.py", "_scan", "os.scandir(own)"),
}  # fmt: skip


class Call(NamedTuple):
    module: str
    function: str
    node: ast.Call

    @property
    def name(self) -> str:
        return ast.unparse(self.node.func).removeprefix("os.")

    @property
    def keywords(self) -> dict[str, str]:
        return {word.arg or "**": ast.unparse(word.value) for word in self.node.keywords}

    @property
    def first(self) -> str:
        return ast.unparse(self.node.args[0]) if self.node.args else ""

    @property
    def is_below(self) -> bool:
        return any(word.endswith("dir_fd") for word in self.keywords)

    @property
    def takes_an_fd(self) -> bool:
        word = self.first
        return word.endswith("fd") or word.startswith(("os.open(", "'/proc/", "f'/proc/"))

    def __str__(self) -> str:
        return f"{self.module}:{self.node.lineno}: {ast.unparse(self.node)}"


def calls() -> Iterator[Call]:
    """Every call of the os module, and of open, with the function that it is in."""
    for path in sorted(TOP.rglob("*.py")):
        module = path.relative_to(TOP).as_posix()
        yield from _calls_of(module, "", ast.parse(path.read_text()))


def _calls_of(module: str, function: str, node: ast.AST) -> Iterator[Call]:
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, ast.FunctionDef)
        yield from _calls_of(module, child.name if is_function else function, child)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called == "open" or (called.startswith("os.") and called[3:] in TAKE_A_NAME):
            yield Call(module, function, node)


def follows_links(call: Call) -> bool:
    """Whether a call below an open directory works on what a link leads to."""
    if (
        "/" in call.first.replace("rpartition('/')", "")
        or call.keywords.get("follow_symlinks") == "True"
    ):
        return True
    if call.name == "open":
        module = import_module(f"kitcache.{call.module[:-3].replace('/', '.')}")
        flags = eval(ast.unparse(call.node.args[1]), vars(module))
        return not flags & os.O_NOFOLLOW
    if call.name in FOLLOWING and call.first != "'.'":
        return call.keywords.get("follow_symlinks") != "False"
    return False


EVERY = tuple(calls())


def is_known(call: Call) -> bool:
    return (call.module, call.function, ast.unparse(call.node)) in KNOWN


def test_no_name_is_followed_below_an_open_directory() -> None:
    below = [call for call in EVERY if call.is_below and not is_known(call)]
    assert [str(call) for call in below if follows_links(call)] == []


def test_what_is_below_dir_goes_by_open_directories_alone() -> None:
    strict = [c for c in EVERY if c.module.startswith(STRICT) and not c.is_below]
    assert [str(c) for c in strict if not c.takes_an_fd and not is_known(c)] == []


def test_no_other_way_to_a_file_is_taken_there() -> None:
    """What these modules do goes by names, each of which is looked up from the root again."""
    for path in TOP.rglob("*.py"):
        if path.relative_to(TOP).as_posix().startswith(STRICT):
            tree = ast.parse(path.read_text())
            names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
            names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
            if path.name == "stages.py":  # rmtree with dir_fd goes by open directories
                names -= {"shutil"}
            if path.parent.name == "objects":  # files without a name, of no cache directory
                names -= {"tempfile"}
            assert not names & {"pathlib", "shutil", "glob", "tempfile", "io.open"}, path


def test_a_tree_is_removed_by_open_directories() -> None:
    assert shutil.rmtree.avoids_symlink_attacks
    for path in TOP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "shutil.rmtree":
                assert "dir_fd" in {word.arg for word in node.keywords}, path


def test_each_exception_is_still_one() -> None:
    found = {(c.module, c.function, ast.unparse(c.node)) for c in EVERY}
    assert found >= KNOWN


@pytest.mark.parametrize(
    "source",
    [
        "os.chmod(name, 0o444, dir_fd=fd)",
        "os.utime(name, dir_fd=fd)",
        "os.stat(name, dir_fd=fd)",
        "os.link(a, b, src_dir_fd=fd, dst_dir_fd=fd)",
        "os.open(name, os.O_RDONLY, dir_fd=fd)",
        "os.mkdir(f'blobs/{name}', dir_fd=fd)",
    ],
)
def test_the_law_sees_what_it_forbids(source: str) -> None:
    (call,) = _calls_of("store/layout.py", "", ast.parse(source))
    assert follows_links(call)
