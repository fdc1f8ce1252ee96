"""Each exit code, provoked from outside; and docs/exit-codes.md says what the classes say."""

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from kitcache import errors
from tests.hostile.build import IMAGE_CONFIG, Sample, make_sample
from tests.hostile.command import Answer, run
from tests.hostile.privilege import NOBODY, give, reachable_box, run_as
from tests.hostile.stages import MAIN, put_cache

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "exit-codes.md"
SCRIPT = ROOT / "scripts" / "exit_codes.py"

Case = tuple[str, int, tuple[str, ...]]


def damage_main(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], None)


def link_blobs(sample: Sample) -> None:
    (sample.dir / "blobs").rename(sample.box.top / "pool")
    (sample.dir / "blobs").symlink_to("../pool")


def start_upload(sample: Sample) -> None:
    sample.box.ingest("under way", age_s=1)


def add_steps(sample: Sample) -> None:
    """A cache that could be trimmed, and an image."""
    sample.box.tag("steps", put_cache(sample.box, MAIN))
    config = sample.box.document({"os": "linux"}, IMAGE_CONFIG)
    sample.box.tag("image", sample.box.manifest([sample.layers[0]], config))


def nothing(sample: Sample) -> None:
    """The sample as it is."""


CASES: dict[str, tuple[str, int, Callable[[Sample], None], tuple[str, ...]]] = {
    "a name that no system opens": ("KitcacheError", 1, nothing, ("reset", "x" * 5000)),
    "no such tag": ("NotFound", 1, nothing, ("untag", "cache", "nope")),
    "no such blob": ("NotFound", 1, nothing, ("why", "cache", "0" * 64)),
    "no such option": ("UsageError", 2, nothing, ("reset", "--what", "cache")),
    "no such tag to name": ("NotFound", 1, nothing, ("tag", "cache", "nope", "new")),
    "no name for a tag": ("UsageError", 2, nothing, ("tag", "cache", "main", "")),
    "a cache into itself": ("UsageError", 2, nothing, ("merge", "cache", "cache")),
    "two things by one name": (
        "KitcacheError",
        1,
        nothing,
        ("merge", "--rename", "one", "cache", "new"),
    ),
    "no age": ("UsageError", 2, nothing, ("reset", "--min-age", "soon", "cache")),
    "a copy for no repair": ("UsageError", 2, nothing, ("verify", "--from", "b", "cache")),
    "a cache as its own copy": (
        "UsageError",
        2,
        nothing,
        ("verify", "--repair", "--from", "cache", "cache"),
    ),
    "no digest": ("UsageError", 2, nothing, ("why", "cache", "?")),
    "no directory": ("NotACache", 10, nothing, ("du", "nowhere")),
    "some directory": ("NotACache", 10, nothing, ("reset", ".")),
    "an upload under way": ("Busy", 11, start_upload, ("reset", "cache")),
    "an option beside a policy file": (
        "UsageError",
        2,
        nothing,
        ("prune", "--policy", "p.toml", "--keep-last", "1", "cache"),
    ),
    "no policy file": ("KitcacheError", 1, nothing, ("prune", "--policy", "p.toml", "cache")),
    "a limit below one step": (
        "LimitNotReached",
        14,
        add_steps,
        ("trim", "cache", "steps", "--max-used-space", "1kB"),
    ),
    "an image to trim": (
        "KitcacheError",
        1,
        add_steps,
        ("trim", "cache", "image", "--max-used-space", "1kB"),
    ),
    "no size": (
        "UsageError",
        2,
        nothing,
        ("trim", "cache", "main", "--max-used-space", "5 gigs"),
    ),
    "a missing manifest": ("Damaged", 12, damage_main, ("reset", "cache")),
    "a missing manifest in a dry run": (
        "Damaged",
        12,
        damage_main,
        ("reset", "--dry-run", "cache"),
    ),
    "a further name for what is damaged": (
        "Damaged",
        12,
        damage_main,
        ("tag", "cache", "main", "x"),
    ),
    "a damaged source": ("Damaged", 12, damage_main, ("merge", "cache", "new")),
    "blobs is a link": ("Unsafe", 13, link_blobs, ("reset", "cache")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_failure_has_the_code_of_its_class(sample: Sample, name: str) -> None:
    error, code, prepare, words = CASES[name]
    prepare(sample)
    answer = run(sample.box.top, *words)
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith("kitcache: ")
    in_json = run(sample.box.top, *words, "--json")
    assert (in_json.code, in_json.err) == (code, "")
    assert (in_json.value["error"], in_json.value["exit_code"]) == (error, code)
    assert getattr(errors, error).exit_code == code


def test_success(sample: Sample) -> None:
    for words in (
        ("reset", "--dry-run", "cache"),
        ("reset", "cache"),
        ("reset", "cache"),
        ("du", "cache"),
        ("ls", "cache"),
        ("why", "cache", min(sample.live)),
        ("untag", "cache", "dev"),
        ("tag", "cache", "main", "new"),
        ("merge", "cache", "all"),
        ("verify", "cache"),
        ("prune", "cache"),
        ("prune", "--keep-last", "5", "cache"),
        ("completion", "bash"),
        ("--version",),
        ("reset", "--help"),
        ("build", "--help"),
    ):
        assert run(sample.box.top, *words).code == 0


def test_a_limit_that_is_not_reached(sample: Sample) -> None:
    """It is done as far as it may be, so --json has the answer, not an error."""
    words = ("prune", "--max-used-space", "1kB", "--keep-tag", "*", "cache")
    answer = run(sample.box.top, *words)
    assert answer.code == errors.LimitNotReached.exit_code == 14
    assert answer.out.startswith("cache\n")
    assert "kitcache: cache: the kept tags need 2.0 kB" in answer.err
    in_json = run(sample.box.top, *words, "--json")
    assert (in_json.code, in_json.value["exit_code"], in_json.err) == (14, 14, "")
    assert in_json.value["schema"] == "kitcache.prune/1"


def test_a_verification_that_finds_something(sample: Sample) -> None:
    for prepare in (
        lambda: sample.box.damage(min(f"sha256:{name}" for name in sample.garbage), b"bad"),
        lambda: sample.box.damage(sample.layers[0]["digest"], None),
        lambda: damage_main(sample),
        (sample.dir / "index.json").unlink,
    ):
        prepare()
        answer = run(sample.box.top, "verify", "--json", "cache")
        assert (answer.code, answer.value["exit_code"]) == (12, 12)
        assert answer.value["schema"] == "kitcache.verify/1"


def test_what_is_only_reported_is_no_failure(sample: Sample) -> None:
    sample.box.damage(sample.layers[0]["digest"], None)
    sample.box.ingest("slow", age_s=600)
    (sample.dir / "notes").touch()
    assert run(sample.box.top, "reset", "cache").code == 0
    assert run(sample.box.top, "du", "cache").code == 0
    assert run(sample.box.top, "ls", "cache").code == 0


def test_an_incomplete_picture(sample: Sample) -> None:
    damage_main(sample)
    for command in ("du", "ls"):
        answer = run(sample.box.top, command, "--json", "cache")
        assert (answer.code, answer.value["exit_code"]) == (12, 12)
        assert answer.value["schema"] != "kitcache.error/1"


@contextmanager
def stubborn_cache(tmp_path: Path) -> Iterator[tuple[Sample, Callable[..., Answer]]]:
    """A cache whose blobs its user may not remove, and kitcache run by that user."""
    is_root = os.geteuid() == 0
    with reachable_box() if is_root else nullcontext(tmp_path) as top:
        sample = make_sample(top)
        (sample.dir / "kitcache.lock").touch(0o644)
        (sample.dir / "blobs" / "sha256").chmod(0o555)
        if is_root:
            give(top, NOBODY)
        try:
            yield (
                sample,
                lambda *words: run_as(NOBODY, top, *words) if is_root else run(top, *words),
            )
        finally:
            (sample.dir / "blobs" / "sha256").chmod(0o755)


def test_done_in_part(tmp_path: Path) -> None:
    with stubborn_cache(tmp_path) as (sample, run_here):
        answer = run_here("reset", "cache")
        assert answer.code == 3
        assert "cache: deleted nothing; kept " in answer.out
        assert "; 4 not deleted (" in answer.out
        assert "  no file was deleted; reachable blobs are unchanged\n" in answer.err
        assert "kitcache: cache: 4 files could not be deleted" in answer.err
        assert f"blobs/sha256/{min(sample.garbage)}: Permission denied" in answer.err
        in_json = run_here("reset", "--json", "cache")
        assert (in_json.code, in_json.value["exit_code"]) == (3, 3)
        assert (in_json.value["schema"], in_json.value["not_deleted_count"]) == (
            "kitcache.reset/1",
            4,
        )


def test_a_lock_that_is_not_had(sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for words in (
            ("reset", "cache"),
            ("untag", "cache", "main"),
            ("tag", "cache", "main", "new"),
            ("merge", "cache", "all"),
        ):
            answer = run(sample.box.top, *words, "--lock-timeout", "0", "--json")
            assert (answer.code, answer.value["error"]) == (11, "Busy")
            assert answer.value["facts"]["holder_pid"] == os.getpid()
        assert run(sample.box.top, "du", "cache").code == 0


def test_ctrl_c(sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-m", "kitcache", "reset", "cache"],
            cwd=sample.box.top,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        assert b"waiting up to" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


def test_of_several_directories_the_highest_code_counts(sample: Sample) -> None:
    for name in ("unsafe", "damaged", "fine"):
        (sample.box.top / name).mkdir()
        other = make_sample(sample.box.top / name)
        if name == "unsafe":
            link_blobs(other)
        elif name == "damaged":
            damage_main(other)
    fine, nowhere, damaged, unsafe = "fine/cache", "nowhere", "damaged/cache", "unsafe/cache"
    for dirs, code in (
        ([fine], 0),
        ([nowhere, fine], 10),
        ([fine, damaged, nowhere], 12),
        ([unsafe, damaged, nowhere, fine], 13),
    ):
        answer = run(sample.box.top, "du", "--json", *dirs)
        assert answer.code == code
        assert [value["path"] for value in answer.values] == dirs
        assert max(value["exit_code"] for value in answer.values) == code


def test_no_daemon(sample: Sample) -> None:
    answer = run(sample.box.top, "build", "--addr", "unix:///nowhere/docker.sock", ".")
    assert (answer.code, answer.out) == (20, "")
    assert answer.err.startswith("kitcache: unix:///nowhere/docker.sock: ")
    assert "nothing was built" in answer.err


def test_no_program_to_run(sample: Sample) -> None:
    words = ("./docker", "build", "--cache-to", "type=local,dest=new", ".")
    answer = run(sample.box.top, "exec", "--", *words)
    assert (answer.code, answer.out) == (127, "")
    assert answer.err.startswith("kitcache: ./docker is not installed, or not in PATH\n")
    assert "nothing was built" in answer.err
    assert not (sample.box.top / "new").exists()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_program_that_cannot_be_run(sample: Sample, make: Callable[[Path], None]) -> None:
    make(sample.box.top / "docker")
    for words in (("build", "--cache-to", "type=local,dest=new", "."), ("buildx", "bake")):
        answer = run(sample.box.top, "exec", "--", "./docker", *words)
        assert (answer.code, answer.out) == (126, "")
        assert answer.err.startswith("kitcache: ./docker cannot be run: ")
        assert "nothing was built" in answer.err
    assert not (sample.box.top / "new").exists()


def test_every_class_is_provoked_here() -> None:
    """But for BuildFailed, which needs a daemon: the page's own example provokes that.

    And for Unreadable, which needs a disk that fails: tests/hostile/test_faults.py has one. And for
    NotConfirmed, which needs a bucket: see tests/objects/test_runs.py.
    """
    assert f"exit code {errors.BuildFailed.exit_code}\n" in PAGE.read_text()
    provoked = {error for error, *_ in CASES.values()} | {"Incomplete", "Cancelled", "NoDaemon"}
    provoked |= {"BuildFailed", "NotExecutable", "NotInstalled", "Unreadable", "NotConfirmed"}
    assert provoked == {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.KitcacheError) and name[0] != "_"
    }


def script(*words: str) -> str:
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_page_is_what_the_classes_say() -> None:
    """To mend it: .venv/bin/python scripts/exit_codes.py --write"""
    assert f"<!-- scripts/exit_codes.py --write -->\n{script()}<!-- end -->\n" in PAGE.read_text()


def test_the_page_says_what_to_do_for_each_code() -> None:
    advice = PAGE.read_text().partition("## What a script should do")[2]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", advice, re.MULTILINE)}
    assert codes == {0} | {
        int(code) for code in re.findall(r"^\| (\d+) \|", script(), re.MULTILINE)
    }


@pytest.mark.parametrize(
    ("prepare", "code", "says"),
    [(nothing, 0, "deleted 4 blobs"), (start_upload, 0, "next run"), (damage_main, 1, "")],
)
def test_the_pages_advice_for_ci_works(
    sample: Sample, prepare: Callable[[Sample], Any], code: int, says: str
) -> None:
    prepare(sample)
    (block,) = re.findall(
        r"^```sh\n(kitcache reset.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", block],
        cwd=sample.box.top,
        env={**os.environ, "PATH": path},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, says in done.stdout) == (code, True)


def test_the_help_lists_every_code() -> None:
    listed = run(ROOT, "--help").out.partition("exit codes:")[2]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.KitcacheError)}
    assert {int(code) for code in re.findall(r"\d+", listed)} == codes | {0}
