"""What is sent of a tree is what a slow reading of the rules says, for each path by itself."""

import functools
import tempfile
from pathlib import Path

from hypothesis import assume, example, given
from hypothesis import strategies as st

from kitcache.buildkit.session.dirroot import DirectoryRoot
from kitcache.buildkit.session.patterns import Selection
from kitcache.buildkit.session.walk import DirectoryTree as DiskTree
from kitcache.options.globs import BadPattern
from kitcache.options.ignore import Matcher, Seen
from tests.property.trees import NAMES, Tree, ignore_files, patterns, trees, walk_tree, write_tree

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)


def accepts(pattern: str, text: str) -> bool:
    """By backtracking over characters: no regular expression."""
    if not pattern:
        return not text
    if pattern.startswith("**"):
        rest = pattern[2:].removeprefix("/")
        if not rest:
            return "\n" not in text
        ends = [n + 1 for n, char in enumerate(text) if char == "/" and "\n" not in text[:n]]
        return any(accepts(rest, text[n:]) for n in [0, *ends])
    if pattern[0] == "*":
        ends = [n for n in range(len(text) + 1) if "/" not in text[:n]]
        return any(accepts(pattern[1:], text[n:]) for n in ends)
    if pattern[0] == "[":
        inside, _, rest = pattern[1:].partition("]")
        is_negated = inside.startswith("^")
        members = inside.removeprefix("^")
        return bool(text) and (text[0] in members) != is_negated and accepts(rest, text[1:])
    if pattern[0] == "?":
        return bool(text) and text[0] != "/" and accepts(pattern[1:], text[1:])
    pattern = pattern.removeprefix("\\")
    return text[:1] == pattern[0] and accepts(pattern[1:], text[1:])


def clean(pattern: str) -> tuple[bool, str]:
    kept: list[str] = []
    is_rooted = pattern.startswith("/")
    for name in pattern.split("/"):
        if name == ".." and kept and kept[-1] != "..":
            kept.pop()
        elif name == ".." and is_rooted:
            continue
        elif name not in ("", "."):
            kept.append(name)
    text = "/" * is_rooted + "/".join(kept) or "."
    return text.startswith("!"), text.removeprefix("!")


def chosen(lines: tuple[str, ...], path: str) -> bool:
    """Whether the patterns take a path, from its own and its parents' histories."""
    rules = [clean(line.strip()) for line in lines if line.strip()]

    @functools.cache
    def hit(number: int, name: str) -> bool:
        above = name.rpartition("/")[0]
        if above and hit(number, above):
            return True
        takes_back, text = rules[number]
        return takes_back == taken(number, name) and matches(text, name)

    def taken(count: int, name: str) -> bool:
        """After the first count rules."""
        hits = [n for n in range(count) if hit(n, name)]
        return bool(hits) and not rules[hits[-1]][0]

    return taken(len(rules), path)


def matches(text: str, name: str) -> bool:
    # Upstream compares the ends of texts without other wildcards, where a newline is any character.
    bare = text.removeprefix("**")
    if bare != text and not set(bare) & set("*?[]\\"):
        return name.endswith(bare) or name == bare.removeprefix("/")
    bare = text.removesuffix("**")
    if bare != text and not set(bare) & set("*?[]\\"):
        return name.startswith(bare)
    return accepts(text, name)


def usable(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Without those that BuildKit refuses, or whose brackets it reads in its own way."""
    kept = []
    for line in lines:
        try:
            Matcher((line,))
        except BadPattern:
            continue
        if "[b-a]" not in line and not any(odd in line for odd in ("[*]", "[?]")):
            kept.append(line)
    return tuple(kept)


@given(ignore_files, paths)
@example(["a", "!a/b", "*"], "a/b")
@example(["**/a.b"], "xa.b")
def test_a_path_is_judged_as_its_history_says(lines: list[str], path: str) -> None:
    rules = usable(tuple(lines))
    matcher = Matcher(rules)
    state: Seen | None = None
    names = path.split("/")
    for n in range(1, len(names) + 1):
        is_taken, state = matcher.match("/".join(names[:n]), state)
        assert is_taken == chosen(rules, "/".join(names[:n]))


@given(trees, ignore_files, st.none() | st.lists(patterns, min_size=1, max_size=3))
def test_a_walk_that_skips_finds_what_a_walk_of_all_would(
    tree: Tree, excludes: list[str], includes: list[str] | None
) -> None:
    out = usable(tuple(excludes))
    wanted = None if includes is None else usable(tuple(includes))
    assume(wanted is None or wanted)
    expected = set()
    for path, _ in walk_tree(tree):
        if (wanted is None or chosen(wanted, path)) and not (out and chosen(out, path)):
            names = path.split("/")
            expected |= {"/".join(names[:n]) for n in range(1, len(names) + 1)}
    with tempfile.TemporaryDirectory() as box:
        write_tree(Path(box), tree)
        with DirectoryRoot(box) as root:
            found = [entry.path for entry in DiskTree(root).entries(Selection(wanted, out))]
    assert set(found) == expected
    assert len(found) == len(expected)
