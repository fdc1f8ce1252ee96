import json
from pathlib import Path

import pytest

from kitcache.wrap.argv import Job, recognize
from kitcache.wrap.bake import bake_job

TARGETS = {"a": {"cache-to": ["1", "2"]}, "b": {}, "c": {"cache-to": ["3"]}}


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A bake that prints these targets."""
    path = tmp_path / "docker"
    path.write_text(f"#!/bin/sh\necho '{json.dumps({'target': TARGETS})}'\n")
    path.chmod(0o755)
    return path


def job(client: Path, *words: str) -> Job:
    return bake_job(recognize([str(client), "buildx", "bake", *words]), {}, lambda: None)


def rewritten(job: Job, *exports: str) -> tuple[str, ...]:
    return job.rewrite(exports).argv[1:]


def test_nothing_changed_is_the_same_command(client: Path) -> None:
    assert rewritten(job(client, "x"), "1", "2", "3") == ("buildx", "bake", "x")


def test_every_target_is_set_and_the_users_own_setting_is_left_out(client: Path) -> None:
    argv = rewritten(job(client, "--set", "*.cache-to=1", "a"), "1", "x", "3")
    settings = ["a.cache-to=1", "a.cache-to=x", "b.cache-to=", "c.cache-to=3"]
    wanted = [word for setting in settings for word in ("--set", setting)]
    assert argv == ("buildx", "bake", *wanted, "a")


def test_a_target_without_exports_is_not_mentioned_without_need(client: Path) -> None:
    assert "b.cache-to=" not in rewritten(job(client), "1", "x", "3")


def test_each_target_is_a_build(client: Path) -> None:
    assert job(client).solves == (0, 0, 2)
