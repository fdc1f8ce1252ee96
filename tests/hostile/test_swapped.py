"""Who may write to .kitcache/ cannot have another's file changed, whoever runs kitcache."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile import pair, stages, swapping
from tests.hostile.command import run_command
from tests.hostile.test_repair_crash import broken_cache
from tests.property.disk import settle
from tests.unit.buildkit.session.sender import deliver, stat

LIMIT = f"{5 * stages.LAYER_BYTES - 1}B"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that nothing is done to."""
    (path := tmp_path / "victim").write_bytes(b"of another")
    path.chmod(0o640)
    os.utime(path, (1, 1))
    before = path.stat()
    yield path
    after = path.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert (after.st_ctime_ns, after.st_nlink) == (before.st_ctime_ns, before.st_nlink)
    assert path.read_bytes() == b"of another"


def tags(top: Path) -> Path:
    return stages.make_stages(top).dir


def broken(top: Path) -> Path:
    return broken_cache(top).dir


@pytest.mark.parametrize(
    ("make", "words", "pattern"),
    [
        (tags, ("trim", "cache", "main", "--max-used-space", LIMIT), "blob.*"),
        (tags, ("prune", "cache", "--trim", "--keep-tag", "main", "--max-used-space", LIMIT), "*"),
        (broken, ("verify", "cache", "--repair"), "blob.*"),
    ],
)
def test_a_link_in_place_of_a_new_file_leads_nowhere(
    tmp_path: Path,
    victim: Path,
    make: Callable[[Path], Path],
    words: tuple[str, ...],
    pattern: str,
) -> None:
    cache = make(tmp_path)
    settle(cache)
    (log := tmp_path / "log").touch()
    run_command(
        [sys.executable, "-m", swapping.__name__, *map(str, (cache, pattern, victim, log)), *words],
        tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert "blob." in log.read_text()


def test_a_link_in_place_of_a_new_pipe_leads_nowhere(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out := tmp_path / "out").mkdir()

    def swap() -> None:
        (new,) = out.iterdir()
        new.unlink()
        new.symlink_to(victim)

    pair.after(monkeypatch, "os.mknod", swap)
    error = deliver(out, stat("p", 0o606 | 1 << 25))
    assert error is not None
    assert error.message == f'{out}: "p" would be written through a symlink or a file'
    assert list(out.iterdir()) == []
