from pathlib import Path

import pytest

from kitcache.buildkit.session.dirroot import DirectoryRoot
from kitcache.buildkit.session.followpaths import resolve_followpaths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("dir/x", "dir/y", "other/z", "we[ird]/w"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name, target in (
        ("link", "dir"),
        ("chain", "link"),
        ("dir/up", "../other"),
        ("dir/near", "x"),
        ("absolute", "/dir/x"),
        ("out", "../../../dir/y"),
        ("loop", "pool"),
        ("pool", "loop"),
        ("self", "self/self"),
        ("top", "/"),
        ("odd", "we[ird]"),
    ):
        (tmp_path / name).symlink_to(target)
    return tmp_path


def followed(root: Path, *paths: str) -> tuple[str, ...] | None:
    with DirectoryRoot(str(root)) as opened:
        return resolve_followpaths(opened, paths)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("dir/x", ("dir/x",)),
        ("/dir/x/", ("dir/x",)),
        ("./dir/../other", ("other",)),
        ("../dir", ("dir",)),
        ("missing/a", ("missing/a",)),
        ("link", ("dir", "link")),
        ("link/x", ("dir/x", "link")),
        ("chain/x", ("chain", "dir/x", "link")),
        ("link/up/z", ("dir/up", "link", "other/z")),
        ("dir/near", ("dir/near", "dir/x")),
        ("absolute", ("absolute", "dir/x")),
        ("out", ("dir/y", "out")),
        ("loop", ("loop", "pool")),
        ("lin*", ("dir", "lin*")),
        ("lin*/x", ("dir/x", "lin*")),
        ("d*/x", ("d*/x",)),
        ("dir/u[p]", ("dir/u[p]", "other")),
        ("\\link", ("\\link", "dir")),
        ("odd/w", ("odd", "we\\[ird\\]/w")),
        ("[", ("[",)),
    ],
)
def test_every_link_on_the_way_is_included(
    root: Path, path: str, expected: tuple[str, ...]
) -> None:
    assert followed(root, path) == expected


def test_two_paths_through_one_link_are_both_followed(root: Path) -> None:
    assert followed(root, "link/x", "link/y") == ("dir/x", "dir/y", "link")


def test_a_link_into_itself_ends(root: Path) -> None:
    found = followed(root, "self")
    assert found is not None
    assert "self" in found


@pytest.mark.parametrize("path", [".", "/", "", "top", "dir/.."])
def test_the_root_itself_is_everything(root: Path, path: str) -> None:
    assert followed(root, "dir/x", path) is None


def test_nothing_to_follow_is_nothing(root: Path) -> None:
    assert followed(root) == ()
