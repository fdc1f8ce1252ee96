"""An output with mode=delete: the directory is what was sent, and nothing beside it changes."""

import os
from pathlib import Path

import pytest

from kitcache.buildkit.wire.grpc import RpcError
from tests.unit.buildkit.session.sender import DIR, LINK, Sent, deliver, file, stat

WHOLE = (("buildkit-exporter-multi-platform", "1"),)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A directory with more in it than what is sent, and with things in the way."""
    out = tmp_path / "out"
    for name in ("kept/old/deep/f", "kept/f", "gone/a/b", "in-the-way/f/g", "outside/mine"):
        path = (tmp_path if name == "outside/mine" else out) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    (out / "link").symlink_to("../outside")
    (out / "kept" / "link").symlink_to("../../outside/mine")
    os.mkfifo(out / "kept" / "fifo")
    return out


def mirror(out: Path, *entries: Sent) -> RpcError | None:
    return deliver(out, *entries, is_mirror=True, metadata=WHOLE)


def listing(top: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(top)): path.read_text() if path.is_file() else None
        for path in sorted(top.rglob("*"))
    }


def test_the_rest_is_deleted_and_what_is_in_the_way_is_replaced(out: Path) -> None:
    error = mirror(
        out,
        file("in-the-way", b"new"),
        stat("kept", DIR | 0o755),
        file("kept/f", b"new"),
        stat("kept/hard", 0o644, linkname="kept/f"),
        stat("link", DIR | 0o750),
        file("link/f", b"new"),
        stat("soft", LINK | 0o777, linkname="nowhere"),
    )
    assert error is None
    assert listing(out) == {
        "in-the-way": "new",
        "kept": None,
        "kept/f": "new",
        "kept/hard": "new",
        "link": None,
        "link/f": "new",
        "soft": None,
    }
    assert not (out / "link").is_symlink()
    assert (out / "kept").stat().st_mtime_ns == 10**18
    assert listing(out.parent / "outside") == {"mine": "old"}


def test_an_empty_result_empties_the_directory(out: Path) -> None:
    assert mirror(out) is None
    assert listing(out) == {}
    assert listing(out.parent / "outside") == {"mine": "old"}


@pytest.mark.parametrize("metadata", [(), (("buildkit-exporter-multi-platform", "0"),)])
def test_a_daemon_that_may_send_it_in_parts_deletes_nothing(
    out: Path, metadata: tuple[tuple[str, str], ...]
) -> None:
    before = listing(out)
    error = deliver(out, file("f", b"new"), is_mirror=True, metadata=metadata)
    assert error is not None
    assert "mode=delete requires BuildKit 0.31" in error.message
    assert listing(out) == before


def test_a_tree_that_does_not_come_whole_deletes_nothing(out: Path) -> None:
    before = listing(out)
    error = mirror(out, file("a", b"new"), stat("b", 0o644, linkname="never sent"))
    assert error is not None
    assert listing(out) == before


def test_without_it_nothing_is_deleted(out: Path) -> None:
    before = listing(out)
    assert deliver(out, file("f", b"new"), metadata=WHOLE) is None
    assert listing(out) == before | {"f": "new"}
