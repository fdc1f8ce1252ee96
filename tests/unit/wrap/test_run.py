from pathlib import Path

import pytest

from kitcache.upkeep.jobcaches import LockOptions
from kitcache.wrap.run import ExecCacheResult, ExecResult, run_task
from kitcache.wrap.task import make_task

PROJECT = """{"services": {"web": {"build": {"cache_to": ["type=local,dest=c,tag=x"]}}}}"""


def test_the_exit_code_is_the_commands_unless_it_was_fine() -> None:
    bad = ExecCacheResult("c", (), True, failure_code=12)
    assert ExecResult(("docker",), 5, (bad,)).exit_code == 5
    assert ExecResult(("docker",), 0, (bad, bad._replace(failure_code=3))).exit_code == 12
    assert ExecResult(("docker",), 0, ()).exit_code == 0


@pytest.mark.parametrize(
    ("words", "is_told"),
    [
        ("build --cache-to=type=local,dest=c,tag=x .", True),
        ("compose build", True),
        ("compose up --detach", False),  # what is there already is not built
    ],
)
def test_a_client_that_exports_nothing_to_a_staging_directory(
    words: str, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = tmp_path / "docker"
    client.write_text(
        f"#!/bin/sh\ncase $* in *--services*) echo web;; *) echo '{PROJECT}';; esac\n"
    )
    client.chmod(0o755)
    environ = {"PATH": "/usr/bin:/bin"}
    task = make_task((str(client), *words.split()), environ, lambda: b"", resets=False, staged=True,
                     warn=lambda _: None)  # fmt: skip
    result = run_task(task, environ, LockOptions(5.0, None, lambda _: None))
    assert result.exit_code == 0
    (store,) = result.caches
    assert store.tags == ()
    assert store.problems == ("nothing was exported to it; tag 'x' is unchanged",) * is_told
