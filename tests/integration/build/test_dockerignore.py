"""What an ignore file leaves out of an image: the same with us as with `docker buildx build`.

Trees and ignore files are random, and always the same: each is a named context of one build.
"""

import hashlib
import random
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.build.kit import SCRATCH, Entry, Kit, context, read_entries
from tests.property.trees import NAMES, File, Link, Tree, walk_tree, write_tree

BATCH = 60
EMPTY = hashlib.sha256().hexdigest()
PLAIN = ("a", "b", "ab", "a.b", "ba")


class Case(NamedTuple):
    """A tree, and the lines of the ignore file in it."""

    tree: Tree
    lines: list[str]


def make_tree(rng: random.Random, depth: int = 0) -> Tree:
    tree: Tree = {}
    for name in rng.sample(NAMES if rng.random() < 0.2 else PLAIN, rng.randint(1, 5 - depth)):
        if depth < 3 and rng.random() < 0.5:
            tree[name] = make_tree(rng, depth + 1)
        elif rng.random() < 0.15:
            tree[name] = Link(rng.choice(("a", "../b", "/", "nowhere")))
        else:
            mode = rng.choice((0o644, 0o600, 0o755, 0o4755, 0o444))
            tree[name] = File(rng.randbytes(rng.randint(0, 99)), mode)
    return tree


def make_pattern(rng: random.Random, paths: list[str]) -> str:
    """A path of the tree, or a part of one, blurred: so that it meets something, and not all."""
    parts = rng.choice(paths).split("/")
    parts = parts[: rng.randint(1, len(parts))]
    for at, part in enumerate(parts):
        blurred = ("*", "?", "**", f"{part[0]}*", f"*{part[-1]}", f"?{part[1:]}", "[^a]", "[ab]*")
        if rng.random() < 0.3:
            parts[at] = rng.choice(blurred)
    ends = ("", "", "", "/", "/*", "/**")
    starts = ("", "", "", "**/", "/", "./")
    return rng.choice(starts) + "/".join(parts) + rng.choice(ends)


def make_case(seed: int) -> Case:
    rng = random.Random(seed)
    tree = make_tree(rng)
    paths = [path for path, _ in walk_tree(tree)]
    lines = [make_pattern(rng, paths) for _ in range(rng.randint(1, 5))]
    return Case(tree, [rng.choice(("", "", "!")) + line for line in lines])


def write_case(root: Path, case: Case) -> None:
    write_tree(root, case.tree)
    (root / ".dockerignore").write_text("\n".join(case.lines) + "\n")


def below(entries: dict[str, Entry], number: int) -> dict[str, Entry]:
    """What came of a tree, by its paths."""
    top = f"{number}/"
    return {name.removeprefix(top): e for name, e in entries.items() if name.startswith(top)}


def with_data(root: Path, entries: dict[str, Entry]) -> dict[str, Entry]:
    """The same entries, with what the files on disk hold."""
    return {
        name: entry._replace(data=hashlib.sha256((root / name).read_bytes()).hexdigest())
        if entry.kind == tarfile.REGTYPE
        else entry
        for name, entry in entries.items()
    }


def test_random_trees_and_ignore_files(kit: Kit, tmp_path: Path) -> None:
    cases = [make_case(seed) for seed in range(BATCH)]
    words: list[str] = ["--no-cache", "-o", "-"]
    dockerfile = ["FROM scratch"]
    for number, case in enumerate(cases):
        write_case(tmp_path / f"tree{number}", case)
        words += ["--build-context", f"tree{number}={tmp_path / f'tree{number}'}"]
        dockerfile.append(f"COPY --from=tree{number} . /{number}/")
    where = context(tmp_path / "c", "\n".join(dockerfile))
    ours = kit.must(*words, where)
    theirs = kit.buildx(*words, where)
    assert theirs.code == 0, theirs
    found, expected = read_entries(ours.stdout), read_entries(theirs.stdout)
    assert len(expected) > BATCH
    for number, case in enumerate(cases):
        theirs_below = below(expected, number)
        # Where a `!` is undone by a later line, buildx sends some files as empty ones.
        whole = with_data(tmp_path / f"tree{number}", theirs_below)
        assert below(found, number) == whole, case
        assert {name for name in whole if whole[name] != theirs_below[name]} <= {
            name for name in whole if theirs_below[name].data == EMPTY
        }
    assert list(found) == list(expected)


@pytest.mark.parametrize("number", range(5))
def test_a_random_tree_as_the_context_itself(kit: Kit, tmp_path: Path, number: int) -> None:
    case = make_case(BATCH + number)
    where = tmp_path / "c"
    write_case(where, case)
    dockerfile = context(tmp_path / "d", SCRATCH) / "Dockerfile"
    words = ("--no-cache", "-f", dockerfile, "-o", "-", where)
    theirs = kit.buildx(*words)
    assert theirs.code == 0, theirs
    expected = with_data(where, read_entries(theirs.stdout))
    assert read_entries(kit.must(*words).stdout) == expected, case


IGNORED = {
    "": ["Dockerfile", "a", "d", "d/e", "d/e/f", "d/x.log", "x.log"],
    "*.log": ["Dockerfile", "a", "d", "d/e", "d/e/f", "d/x.log"],
    "**/*.log": ["Dockerfile", "a", "d", "d/e", "d/e/f"],
    "*\n!d/e/f": ["d", "d/e", "d/e/f"],
    "d\n!d/x.log\nDockerfile": ["a", "d", "d/x.log", "x.log"],
    "# d\n /d/ \n./x.log": ["Dockerfile", "a"],
    "\ufeffd": ["Dockerfile", "a", "x.log"],
    "*": [],
}


@pytest.mark.parametrize("lines", IGNORED)
def test_ignore_files_that_people_write(kit: Kit, tmp_path: Path, lines: str) -> None:
    where = context(tmp_path / "c", SCRATCH, a="a", x_log="x", d__x_log="x", d__e__f="f")
    (where / ".dockerignore").write_text(f"{lines}\n.dockerignore\n")
    assert sorted(read_entries(kit.must("-o", "-", where).stdout)) == IGNORED[lines]


def test_the_ignore_file_of_a_dockerfile_goes_first(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", SCRATCH, a="a", b="b", _dockerignore="a\nD*\n.*")
    context(where, None, Dockerfile_dockerignore="b\nD*\n.*")
    context(where, None, sub__Dockerfile=SCRATCH, sub__Dockerfile_dockerignore="sub\nD*\n.*")
    assert sorted(kit.files(where)) == ["a", "sub/Dockerfile", "sub/Dockerfile.dockerignore"]
    assert kit.files("-f", where / "sub" / "Dockerfile", where) == {"a": b"a", "b": b"b"}
    elsewhere = context(tmp_path / "elsewhere", SCRATCH)
    assert "b" in kit.files("-f", elsewhere / "Dockerfile", where)
    context(elsewhere, None, Dockerfile_dockerignore="*\n!b")
    assert kit.files("-f", elsewhere / "Dockerfile", where) == {"b": b"b"}


def test_the_dockerfile_may_be_ignored(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", SCRATCH, a="a", _dockerignore="Dockerfile\n.dockerignore")
    assert kit.files(where) == {"a": b"a"}


def test_what_was_ignored_cannot_be_copied(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", "FROM scratch\nCOPY a /\n", a="a", _dockerignore="a")
    built = kit.run("-o", "-", where)
    assert built.code == 21
    assert '"/a": not found' in built.err


def test_a_pattern_that_is_none_fails_as_with_buildx(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", SCRATCH, a="a", _dockerignore="a[")
    built, theirs = kit.run("-o", "-", where), kit.buildx("-o", "-", where)
    assert built.code == 21
    said = theirs.err.strip().splitlines()[-1].rpartition(": ")[2]
    assert said in built.err
