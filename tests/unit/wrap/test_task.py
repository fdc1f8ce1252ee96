import json
from pathlib import Path

import pytest

from kitcache.wrap.task import Task, make_task


def task_of(
    cwd: Path, *words: str, printed: str = "{}", staged: bool = False
) -> tuple[Task, list[str]]:
    """Return the task of a command whose client prints this, and the warnings."""
    client = cwd / "docker"
    client.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\n")
    client.chmod(0o755)
    warnings: list[str] = []
    task = make_task((str(client), *words), {"PATH": "/usr/bin:/bin"}, lambda: b"", resets=False,
                     staged=staged, warn=warnings.append)  # fmt: skip
    return task, warnings


def staged(cwd: Path, *targets: tuple[str, ...], every: bool = False) -> set[int]:
    """The staged exports of a bake of these targets; a word alone is a local directory."""
    definitions = {
        f"t{n}": {
            "cache-to": [t if "/" in t or "=" in t else f"type=local,dest={t}" for t in target]
        }
        for n, target in enumerate(targets)
    }
    printed = json.dumps({"target": definitions})
    task, _ = task_of(cwd, "buildx", "bake", printed=printed, staged=every)
    return {export.at for export in task.exports if export.is_staged}


def test_several_of_one_build_or_to_one_directory_are_staged(tmp_path: Path) -> None:
    assert staged(tmp_path, ("a",), ("b",)) == set()
    assert staged(tmp_path, ("a",), ("type=local,dest=./a",), ("b",)) == {0, 1}
    assert staged(tmp_path, ("a", "b"), ("c",)) == {0, 1}
    assert staged(tmp_path, ("a",), ("b",), every=True) == {0, 1}


@pytest.mark.parametrize(
    ("other", "is_staged"),
    [
        ("type=registry,ref=x/y:c", True),
        ("x/y:c", True),
        ("type=new,of=another,kind=x", True),
        ("type=inline", False),
        ("type=gha", False),
        ("type=s3,bucket=b,region=r,name=n", False),
        ("type=azblob,name=n", False),
    ],
)
def test_one_next_to_another_with_a_root_is_staged(
    other: str, is_staged: bool, tmp_path: Path
) -> None:
    assert staged(tmp_path, ("a", other), ("b",)) == ({0} if is_staged else set())
    assert staged(tmp_path, ("a",), (other, "b")) == ({2} if is_staged else set())


def test_a_tag_that_two_targets_export_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = '{"context": "https://x/y.git", "cache-to": ["type=local,dest=%s,tag=%s"]}'
    for second, count in ((("./c", "x"), 1), (("./c", "y"), 0), (("d", "x"), 0)):
        printed = f'{{"target": {{"a": {target % ("c", "x")}, "b": {target % second}}}}}'
        _, said = task_of(tmp_path, "buildx", "bake", printed=printed)
        assert said == count * [
            "warning: ./c: the tag 'x' is exported to more than once: the last export counts"
        ]


@pytest.mark.parametrize("option", ["--help", "-h", "--check", "--call=check", "--print=outline"])
def test_what_builds_nothing_has_no_caches(option: str, tmp_path: Path) -> None:
    cache = "--cache-to=type=local,dest=c,reset=true"
    assert task_of(tmp_path, "buildx", "build", option, cache, ".")[0].exports == ()
    for builds in ("--call=build", "--call="):
        assert task_of(tmp_path, "buildx", "build", builds, cache, ".")[0].exports
    assert task_of(tmp_path, "buildx", "build", "--check=F", cache, ".")[0].exports
