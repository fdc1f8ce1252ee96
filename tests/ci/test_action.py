"""action.yml: its steps run as on a GitHub runner, on real caches."""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ci.runner import ACTION, LIMIT_S, Ran, Runner, check_schema
from tests.hostile.build import Sample, make_sample
from tests.objects.buckets import ADMIN, S3Bucket, put_cache

INSTALLED = """#!/bin/sh
exec '{python}' "$@"
"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner whose install step has installed this kitcache."""
    (tmp_path / "work").mkdir()
    runner = Runner(tmp_path, tmp_path / "work")
    python = runner.temp / "kitcache" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(INSTALLED.format(python=sys.executable))
    python.chmod(0o755)
    return runner


@pytest.fixture
def sample(runner: Runner) -> Sample:
    return make_sample(runner.workspace)


def blobs(sample: Sample) -> set[str]:
    return {path.name for path in (sample.dir / "blobs" / "sha256").iterdir()}


def reset(runner: Runner, **given: str) -> Ran:
    return runner.use("reset", **{"directory": "cache", **given})


def damage(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], b"{")


def test_it_matches_the_schema_of_github() -> None:
    check_schema("github-actions", ACTION)


def test_no_input_is_code_in_a_script() -> None:
    """Scripts get inputs through the environment; an expression in a script would be executed."""
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        assert "${{" not in step["run"]


OLD_PIP = "pip==22.0.2"
"""The version of Ubuntu 22.04, which has no option --python."""


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with an old pip."""
    directory = tmp_path_factory.mktemp("old")
    venv.create(directory, with_pip=True)
    python = str(directory / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", OLD_PIP]
    subprocess.run(pip, check=True, timeout=LIMIT_S)
    return python


def test_an_old_pip_installs_it(tmp_path: Path, old_python: str) -> None:
    sample = make_sample(tmp_path)
    runner = Runner(tmp_path, tmp_path)
    ran = runner.use(directory="cache", python=old_python)
    assert ran.code == 0, ran.log
    assert blobs(sample) == sample.live


def test_it_installs_itself_and_does_not_change_the_python_of_later_steps(tmp_path: Path) -> None:
    """The complete action, with pip, in a venv."""
    sample = make_sample(tmp_path)
    runner = Runner(tmp_path, tmp_path)
    _, before = runner.run("command -v python3 pip")
    ran = runner.use(directory="cache")
    assert ran.code == 0, ran.log
    assert blobs(sample) == sample.live
    code, said = runner.run("command -v kitcache; kitcache ls cache; command -v python3 pip")
    assert code == 0
    lines = said.splitlines()
    assert lines[0] == str(runner.temp / "kitcache" / "path" / "kitcache")
    assert lines[1].startswith("TAG")
    assert said.endswith(before)


def test_the_result_is_an_output_a_line_and_a_summary(runner: Runner, sample: Sample) -> None:
    sizes = {path.name: path.stat().st_size for path in (sample.dir / "blobs/sha256").iterdir()}
    ran = reset(runner)
    assert ran.code == 0, ran.log
    assert blobs(sample) == sample.live
    assert ran.outputs == {
        "deleted-blobs": str(len(sample.garbage)),
        "deleted-bytes": str(sum(sizes[name] for name in sample.garbage)),
        "kept-blobs": str(len(sample.live)),
        "kept-bytes": str(sum(sizes[name] for name in sample.live)),
        "exit-code": "0",
    }
    assert re.fullmatch(
        r"cache: deleted \d+ blobs, [\d.]+ k?B; kept \d+ blobs, [\d.]+ k?B, for 2 tags\n", ran.log
    )
    assert ran.summary == ran.log.replace("cache", "**kitcache** <code>cache</code>", 1) + "\n"


def test_several_directories_are_summed(runner: Runner, sample: Sample) -> None:
    make_sample(runner.workspace / "other")
    one = reset(runner, dry_run="true").outputs
    both = reset(runner, directory="\n cache \n\nother/cache\n").outputs
    for name in one.keys() - {"exit-code"}:
        assert int(both[name]) == 2 * int(one[name])


def test_without_a_directory_nothing_is_reset(runner: Runner) -> None:
    ran = reset(runner, directory="")
    assert (ran.code, ran.log) == (0, "")
    assert set(ran.outputs.values()) == {""}


def test_a_dry_run_changes_nothing(runner: Runner, sample: Sample) -> None:
    before = blobs(sample)
    index = (sample.dir / "index.json").read_bytes()
    ran = reset(runner, dry_run="true", untag="dev")
    assert ran.code == 0
    assert "would untag dev" in ran.log
    assert "would delete" in ran.log
    assert (blobs(sample), (sample.dir / "index.json").read_bytes()) == (before, index)


def test_untag_removes_the_tags_that_exist(runner: Runner, sample: Sample) -> None:
    ran = reset(runner, untag=f"nosuch\n{sample.dev['digest']}\n")
    assert ran.code == 0, ran.log
    assert ran.log.startswith(f"cache: untagged {sample.dev['digest']}\n")
    (entry,) = json.loads((sample.dir / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == sample.main["digest"]
    assert sample.dev["digest"].partition(":")[2] not in blobs(sample)


def test_untag_accepts_patterns(runner: Runner, sample: Sample) -> None:
    ran = reset(runner, untag="pr-*\nd?v\n")
    assert ran.code == 0, ran.log
    assert ran.log.startswith("cache: untagged d?v\n")
    (entry,) = json.loads((sample.dir / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == sample.main["digest"]


def test_min_age_keeps_young_blobs(runner: Runner, sample: Sample) -> None:
    before = blobs(sample)
    assert reset(runner, min_age="7d").outputs["deleted-blobs"] == "0"
    assert blobs(sample) == before


@pytest.mark.parametrize(
    ("fail_on", "code", "level"),
    [("any", 12, "error"), ("damage", 12, "error"), ("none", 0, "warning")],
)
def test_damage_fails_unless_fail_on_allows_it(
    runner: Runner, sample: Sample, fail_on: str, code: int, level: str
) -> None:
    damage(sample)
    before = blobs(sample)
    ran = reset(runner, fail_on=fail_on)
    assert (ran.code, ran.outputs["exit-code"]) == (code, "12")
    (line,) = ran.log.splitlines()
    assert line.startswith(f"::{level} title=kitcache::cache: ")
    assert "%0A  nothing was deleted%0A" in line
    assert ran.summary.startswith("**kitcache** <code>cache</code>: ")
    assert blobs(sample) == before


@pytest.mark.parametrize(("fail_on", "code"), [("any", 10), ("damage", 0), ("none", 0)])
def test_a_missing_cache_fails_unless_fail_on_allows_it(
    runner: Runner, sample: Sample, fail_on: str, code: int
) -> None:
    """The other directories are reset nevertheless."""
    ran = reset(runner, directory="nowhere\ncache", fail_on=fail_on)
    assert (ran.code, ran.outputs["exit-code"]) == (code, "10")
    assert blobs(sample) == sample.live


def test_a_cache_on_s3_is_reset_once_that_is_confirmed(
    runner: Runner, plain_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_cache(plain_bucket, {"main": [b"one"], "pr-1": [b"two"]})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN.access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
    address = plain_bucket.attributes(access_key_id="", secret_access_key="")
    first = reset(runner, directory=address, untag="pr-*")
    assert first.code == 15, first.log
    assert f"s3://{plain_bucket.name}/{plain_bucket.prefix}?" in first.log.splitlines()[0]
    assert "::error title=kitcache::s3://" in first.log
    assert "this is the first run of kitcache on this cache" in first.log
    confirmed = reset(runner, directory=address, confirm="true")
    assert (confirmed.code, "::warning" in confirmed.log) == (0, False)
    assert confirmed.outputs["kept-blobs"] == "3"  # of the tag that is gone one blob is young


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_age": "soon"},
        {"fail_on": "never"},
        {"dry_run": "yes"},
        {"confirm": "1"},
        {"min_age": "--help"},
    ],
)
def test_a_mistake_in_the_inputs_always_fails(
    runner: Runner, sample: Sample, wrong: dict[str, Any]
) -> None:
    before = blobs(sample)
    ran = reset(runner, **{"fail_on": "none", **wrong})
    assert ran.code == 2, ran.log
    assert ran.log.startswith("::error title=kitcache::")
    assert blobs(sample) == before


def test_names_are_data(runner: Runner, tmp_path: Path) -> None:
    """The name of a directory is one argument of one command, and text in the summary."""
    name = '--help "$(touch gone)" <b>&'
    (runner.workspace / name).mkdir()
    sample = make_sample(runner.workspace / name)
    ran = reset(runner, directory=f"{name}/cache")
    assert ran.code == 0, ran.log
    assert blobs(sample) == sample.live
    assert "&lt;b>&amp;/cache</code>" in ran.summary
    assert not (runner.workspace / "gone").exists()
