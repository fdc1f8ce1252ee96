from pathlib import Path

import pytest

from kitcache.options.caches import CacheExport
from kitcache.wrap.argv import Job
from kitcache.wrap.bake import BakeJob
from kitcache.wrap.cacheflags import read_export
from kitcache.wrap.task import Task, make_task, plan_exports


def bake_of(*targets: tuple[str, ...]) -> Job:
    """A bake whose targets have these exports; a word alone is the directory of a local one."""
    texts = tuple(
        (f"t{n}", tuple(t if "type=" in t else f"type=local,dest={t}" for t in target))
        for n, target in enumerate(targets)
    )
    return BakeJob(("bake",), 0, texts, (), frozenset(), None)


def staged(job: Job, *, every: bool = False) -> set[int]:
    read = {at: read_export(text) for at, text in enumerate(job.exports)}
    exports: dict[int, CacheExport] = {at: cache for at, cache in read.items() if cache}
    return {export.at for export in plan_exports(job, exports, staged=every) if export.is_staged}


def test_several_of_one_build_or_to_one_directory_are_staged() -> None:
    assert staged(bake_of(("a",), ("b",))) == set()
    assert staged(bake_of(("a",), ("./a",), ("b",))) == {0, 1}
    assert staged(bake_of(("a", "b"), ("c",))) == {0, 1}
    assert staged(bake_of(("a",), ("b",)), every=True) == {0, 1}


@pytest.mark.parametrize(
    ("other", "is_staged"),
    [
        ("type=registry,ref=x/y:c", True),
        ("type=new,of=another,kind=x", True),
        ("type=inline", False),
        ("type=gha", False),
        ("type=s3,bucket=b,region=r,name=n", False),
        ("type=azblob,name=n", False),
    ],
)
def test_one_beside_another_that_is_answered_is_staged(other: str, is_staged: bool) -> None:
    assert staged(bake_of(("a", other), ("b",))) == ({0} if is_staged else set())
    assert staged(bake_of(("a",), (other, "b"))) == ({2} if is_staged else set())


def test_a_bare_name_is_a_registrys() -> None:
    job = BakeJob(("bake",), 0, (("t", ("type=local,dest=a", "x/y:c")),), (), frozenset(), None)
    assert staged(job) == {0}


def task_of(cwd: Path, *words: str, printed: str = "{}") -> tuple[Task, list[str]]:
    """What is made of a command whose client prints this, and what is said of it."""
    client = cwd / "docker"
    client.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\n")
    client.chmod(0o755)
    said: list[str] = []
    task = make_task((str(client), *words), {"PATH": "/usr/bin:/bin"}, lambda: b"", resets=False,
                     staged=False, warn=said.append)  # fmt: skip
    return task, said


def test_a_tag_that_two_targets_export_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = '{"context": "https://x/y.git", "cache-to": ["type=local,dest=%s,tag=%s"]}'
    for second, count in ((("./c", "x"), 1), (("./c", "y"), 0), (("d", "x"), 0)):
        printed = f'{{"target": {{"a": {target % ("c", "x")}, "b": {target % second}}}}}'
        _, said = task_of(tmp_path, "buildx", "bake", printed=printed)
        assert said == count * [
            "warning: ./c: the tag 'x' is exported to more than once: the last one counts"
        ]


@pytest.mark.parametrize("option", ["--help", "-h", "--check", "--call=check", "--print=outline"])
def test_what_builds_nothing_has_no_caches(option: str, tmp_path: Path) -> None:
    cache = "--cache-to=type=local,dest=c,reset=true"
    assert task_of(tmp_path, "buildx", "build", option, cache, ".")[0].exports == ()
    for builds in ("--call=build", "--call="):
        assert task_of(tmp_path, "buildx", "build", builds, cache, ".")[0].exports
    assert task_of(tmp_path, "buildx", "build", "--check=F", cache, ".")[0].exports
