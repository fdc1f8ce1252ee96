import json
from pathlib import Path

import pytest

from kitcache.wrap.task import Task, make_task


def task_of(
    cwd: Path, *words: str, printed: str = "{}", staged: bool = False, resets: bool = False
) -> tuple[Task, list[str]]:
    """Return the task of a command whose client prints this, and the warnings."""
    client = cwd / "docker"
    client.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\n")
    client.chmod(0o755)
    warnings: list[str] = []
    task = make_task((str(client), *words), {"PATH": "/usr/bin:/bin"}, lambda: b"", resets=resets,
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


S3 = "type=s3,bucket=b,region=r,prefix=ci/"


def test_an_object_store_is_swept_if_that_is_asked_for(tmp_path: Path) -> None:
    words = ("build", "--cache-to", f"{S3},RESET=true,name=a;b", f"--cache-to={S3},name=c", ".")
    task, said = task_of(tmp_path, *words)
    assert {at: (target.path, target.names) for at, target in task.objects.items()} == {
        0: ("s3://b/ci/?region=r", ("a", "b"))
    }
    assert task.job.rewrite(task.client_exports({})).argv[1:] == (
        *("build", "--cache-to", f"{S3},name=a;b", f"--cache-to={S3},name=c", "."),
    )
    assert (task.exports, said) == ((), [])
    every, _ = task_of(tmp_path, *words, resets=True)
    assert list(every.objects) == [0, 1]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (f"{S3},reset=maybe", 'failed to parse reset attribute: "maybe" is neither'),
        ("type=s3,region=r,reset=true", "bucket ($AWS_BUCKET) not set for s3 cache"),
        ("type=azblob,reset=true", "account_url attribute is required for azblob cache"),
    ],
)
def test_what_is_not_understood_of_an_object_store_is_passed_on(
    value: str, problem: str, tmp_path: Path
) -> None:
    words = ("build", f"--cache-to={value}", "--cache-to=type=s3,no=bucket", ".")
    task, (warning,) = task_of(tmp_path, *words)
    assert task.objects == {}
    assert task.job.rewrite(task.client_exports({})).argv[1:] == words
    assert warning.startswith("warning: the cache of type=")
    assert " is not swept: " in warning
    assert problem in warning


def test_a_bake_keeps_reset_from_its_builds(tmp_path: Path) -> None:
    printed = json.dumps({"target": {"t": {"cache-to": [f"{S3},reset=true", "type=inline"]}}})
    task, _ = task_of(tmp_path, "buildx", "bake", printed=printed)
    argv = task.job.rewrite(task.client_exports({})).argv
    assert list(task.objects) == [0]
    assert [word for word in argv if "cache-to" in word] == [
        f"t.cache-to={S3}",
        "t.cache-to=type=inline",
    ]
