"""What an error says to do next can be done: commands that run, names that are there."""

import os
import shlex
import shutil
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from kitcache.buildkit.sources import open_sources
from kitcache.errors import KitcacheError
from kitcache.options.build import BuildRequest
from kitcache.options.secrets import Secret
from tests.hostile.build import Sample, make_sample
from tests.hostile.command import run
from tests.hostile.privilege import NOBODY, give, reachable_box, run_as


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path)


@pytest.mark.parametrize("words", ["untag cache mian", "trim cache mian --max-used-space 1GB"])
def test_a_mistyped_tag_is_guessed(sample: Sample, words: str) -> None:
    answer = run(sample.box.top, *words.split())
    assert (answer.code, answer.out) == (1, "")
    assert "\n  hint: did you mean 'main'?\n  hint: " in answer.err
    assert "kitcache ls cache" in answer.err
    assert "did you mean" not in run(sample.box.top, *words.replace("mian", "quux").split()).err


def test_a_directory_that_begins_with_a_dash_is_named_so_that_the_command_runs(
    sample: Sample,
) -> None:
    top = sample.box.top
    shutil.rmtree(sample.dir / "blobs" / "sha256")
    (sample.dir / "blobs" / "sha256").mkdir()
    sample.dir.rename(top / "-c")
    answer = run(top, "reset", "--", "-c")
    assert answer.code == 12
    step, *_ = [line for line in answer.err.splitlines() if line.startswith("  hint: ")]
    program, *words = shlex.split(step.removeprefix("  hint: "))
    assert (program, words) == ("kitcache", ["verify", "./-c", "--repair"])
    assert run(top, *words, "--dry-run").out.startswith("./-c: ")


def test_a_secret_that_is_not_there_is_no_matter_of_the_disks() -> None:
    request = BuildRequest(secrets=(Secret("token", path="nofile"),))
    with ExitStack() as stack, pytest.raises(KitcacheError) as caught:
        open_sources(request, None, stack)
    assert str(caught.value).splitlines() == [
        "nofile: the file of the secret token cannot be read: No such file or directory",
        "  nothing was built",
        "  hint: name a file that exists",
    ]


def test_who_may_not_make_a_cache_is_not_sent_to_its_owner(tmp_path: Path) -> None:
    """There is none yet."""
    is_root = os.geteuid() == 0
    with reachable_box() if is_root else nullcontext(tmp_path) as top:
        make_sample(top)
        if is_root:
            give(top, NOBODY)
        top.chmod(0o555)
        words = ("merge", "cache", "new")
        answer = run_as(NOBODY, top, *words) if is_root else run(top, *words)
        top.chmod(0o755)
    assert answer.err.splitlines() == [
        "kitcache: new: cannot be created: Permission denied",
        "  nothing was changed",
        "  hint: name a directory that you may create, or ask its owner to create it",
    ]
