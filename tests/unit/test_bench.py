"""`python -m bench --quick` runs every row; its trees are what they say. Asserts no time."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench import page, table
from bench.__main__ import ROWS, main
from bench.clock import BenchError, Missing, Run, Side, alternate, run
from bench.dockerd import LazyDaemon
from bench.place import QUICK, Place, check_swept
from bench.trees import holes, make_tree
from tests.integration.daemon import why_unavailable

ROOT = Path(__file__).parents[2]
TMPFS = "/dev/shm"
BUILDS = ("export", "import", "files", "file", "noop", "wrap")
NOT = "not measured: "


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc)")
@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="needs /proc")
def test_a_quick_run_measures_every_row_and_leaves_nothing(tmp_path: Path) -> None:
    slow, sheet = tmp_path / "slow", tmp_path / "page.md"
    sheet.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    command = [sys.executable, "-m", "bench", "--quick"]
    with tempfile.TemporaryDirectory(dir=TMPFS if os.path.isdir(TMPFS) else tmp_path) as fast:
        options = ["--tmpfs", fast, "--disk", str(slow), "--page", str(sheet)]
        done = subprocess.run(
            command + options, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        left = os.listdir(fast) + os.listdir(slow)
    assert done.returncode == 0, done.stderr
    written = sheet.read_text()
    measured = [line for line in written.splitlines() if line.startswith("| ")]
    reason = why_unavailable()
    more = 11 if reason else 11 + len(BUILDS)
    # Headings; read, lock and copy are two rows each, verify and objects are five.
    assert len(measured) == 2 + len(ROWS) + more
    skipped = {line.rpartition("measured: ")[2].strip(" |") for line in measured if NOT in line}
    known = {
        "umoci is not installed",
        "weed is not installed",
        "rclone is not installed",
        "this machine is too busy to watch a lock",
        reason,
    }
    assert skipped <= known
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert left == []


def test_a_tree_is_whole_and_as_large_as_it_says(tmp_path: Path) -> None:
    tree = make_tree(str(tmp_path / "tree"), 1234, 250)
    names = set(os.listdir(tree.blob_dir))
    assert (len(names), len(tree.live), tree.live <= names) == (1234, 250, True)
    assert holes(tree.path) == []
    with pytest.raises(BenchError, match="1234 blobs are left of 250"):
        check_swept(tree)


def test_a_hole_in_a_tree_is_seen(tmp_path: Path) -> None:
    tree = make_tree(str(tmp_path / "tree"), 50, 20)
    texts = {name: Path(tree.blob_dir, name).read_bytes() for name in tree.live}
    gone = next(name for name, text in texts.items() if text.startswith(b"layer"))
    torn = next(name for name, text in texts.items() if text.startswith(b'{"layers"'))
    Path(tree.blob_dir, gone).unlink()
    Path(tree.blob_dir, torn).unlink()
    Path(tree.blob_dir, torn).write_bytes(b"wrong-size")
    assert holes(tree.path) == [f"sha256:{torn} has other bytes", f"sha256:{gone} is gone"]


def test_a_failing_command_is_no_measurement() -> None:
    with pytest.raises(BenchError, match="exit 3: it broke"):
        run(python("import sys; sys.stderr.write('it broke'); sys.exit(3)"))


def test_the_quietest_rounds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = iter([1.0, 0.0, 0.0, 0.0, 0.1, 0.2])
    seconds = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    monkeypatch.setattr("bench.clock.run", lambda argv, **_: Run(next(seconds), next(noise), ""))
    sides = [Side("ours", lambda: ["a"]), Side("theirs", lambda: ["b"])]
    assert alternate(sides, rounds=2, spare=5) == [[3.0, 5.0], [4.0, 6.0]]


def test_a_row_says_met_or_by_how_much_it_was_missed() -> None:
    met = table.ratio_row("a", [1.0, 3.0, 2.0], "b", [1.0, 2.0, 2.0], 1.2)
    missed = table.ratio_row("a", [1.5], "b", [1.0], 1.2)
    assert (met.result, met.spread, met.verdict) == ("1.00 x", "1.00 to 1.50", "met")
    assert missed.verdict == "missed by 0.30"
    assert table.value_row("a", [4.0, 9.0, 1.0], "ms", 5).verdict == "met"
    assert table.value_row("a", [6.0], "ms", 5).verdict == "missed by 1.0"


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    sheet = tmp_path / "page.md"
    sheet.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the lines"):
        page.write_between_marks(str(sheet), [], [])
    assert sheet.read_text() == "no marks"


def test_a_row_that_does_not_fit_says_so(tmp_path: Path) -> None:
    place = Place(str(tmp_path), str(tmp_path), str(tmp_path), QUICK, LazyDaemon())
    with pytest.raises(Missing, match="1,000,000,000,000 blobs need"):
        place.tree(place.tmpfs, 10**12)
    assert os.listdir(tmp_path) == []


def test_a_row_that_nobody_knows_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])
    assert "no such row: nonsense" in capsys.readouterr().err
