"""Random directory trees and ignore files: for the sync's own laws, and beside a real BuildKit."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st


class File(NamedTuple):
    """A regular file."""

    data: bytes
    mode: int = 0o644


class Link(NamedTuple):
    """A symbolic link."""

    target: str


Node = File | Link | dict[str, "Node"]
Tree = dict[str, Node]

# Few, so that patterns meet them; some that sort apart in bytes and in paths, or mean something.
NAMES = ("a", "b", "ab", "a.b", "a-", "B", "é", "x y", "b\n", "[ab]", "*", "!a", "#a", ".git")
PIECES = ("a", "b", "B", "é", ".", "*", "?", "**", "[ab]", "[^a]", "[b-a]", "\\*", " ", "-", "!")

names = st.sampled_from(NAMES)
files = st.builds(
    File, st.binary(max_size=300), st.sampled_from((0o644, 0o600, 0o755, 0o4755, 0o444))
)
links = st.builds(Link, st.sampled_from(("a", "b/a", "..", "/", "/a", "../../b", "nowhere", "ab")))
trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(names, files | links, max_size=4),
    lambda inner: st.dictionaries(names, files | links | inner, max_size=4),
    max_leaves=12,
)
components = st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join) | names
patterns = st.builds(
    lambda takes_back, first, parts, last: "!" * takes_back + first + "/".join(parts) + last,
    st.booleans(),
    st.sampled_from(("", "", "**/", "/", "./")),
    st.lists(components, min_size=1, max_size=3),
    st.sampled_from(("", "", "/", "/*", "/**")),
)
ignore_files = st.lists(patterns, max_size=5)


def write_tree(root: Path, tree: Tree) -> None:
    """The tree on disk; root is made, too."""
    root.mkdir(exist_ok=True)
    for name, node in tree.items():
        path = root / name
        match node:
            case File():
                path.write_bytes(node.data)
                path.chmod(node.mode)
            case Link():
                path.symlink_to(node.target)
            case _:
                write_tree(path, node)


def walk_tree(tree: Tree, above: str = "") -> Iterator[tuple[str, Node]]:
    """Every path with what is there, in no order that matters."""
    for name, node in tree.items():
        path = f"{above}{name}"
        yield path, node
        if isinstance(node, dict):
            yield from walk_tree(node, path + "/")


def read_tree(root: Path) -> Tree:
    """What is on disk."""
    tree: Tree = {}
    for entry in os.scandir(root):
        if entry.is_symlink():
            tree[entry.name] = Link(os.readlink(entry.path))
        elif entry.is_dir():
            tree[entry.name] = read_tree(Path(entry.path))
        else:
            mode = stat.S_IMODE(entry.stat().st_mode)
            tree[entry.name] = File(Path(entry.path).read_bytes(), mode)
    return tree
