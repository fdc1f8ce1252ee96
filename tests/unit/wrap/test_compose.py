import json
from pathlib import Path

import pytest

from kitcache.wrap.argv import PLACE_OF_FILE, recognize
from kitcache.wrap.compose import compose_job

PROJECT = {
    "name": "p",
    "services": {
        "web": {"build": {"context": "/a", "cache_to": ["T1"], "cache_from": ["F"]},
                "depends_on": {"base": {}}},
        "base": {"build": {"cache_to": ["T2", {"type": "local", "dest": "x,y"}]},
                 "profiles": ["p"]},
        "image": {"image": "x"},
    },
}  # fmt: skip


def job_of(cwd: Path, *words: str, environ: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
    """The job of a command whose `config` prints PROJECT."""
    client = cwd / "docker"
    (cwd / "project.json").write_text(json.dumps(PROJECT))
    client.write_text(f'#!/bin/sh\necho "$@" > {cwd}/asked\ncat {cwd}/project.json\n')
    client.chmod(0o755)
    return compose_job(recognize([str(client), "compose", *words]), environ or {}, lambda: b"")


@pytest.mark.parametrize(
    ("words", "services"),
    [
        (("build",), ["web", "base"]),
        (("build", "base"), ["base"]),
        (("build", "--build-arg", "web", "base"), ["base"]),
        (("--profile", "p", "up", "--build", "-d"), ["web", "base"]),
        (("run", "-e", "base", "image", "web"), []),
        (("run", "web", "--help"), ["web", "base"]),
        (("build", "--print"), []),
        (("up", "--no-build"), []),
    ],
)
def test_which_services_may_be_built(
    words: tuple[str, ...], services: list[str], tmp_path: Path
) -> None:
    job = job_of(tmp_path, *words)
    assert [name for name, _ in getattr(job, "services", ())] == services


def test_what_it_needs_is_built_with_it_and_what_is_inactive_is_not(tmp_path: Path) -> None:
    del (project := json.loads(json.dumps(PROJECT)))["services"]["web"]["depends_on"]
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho '{json.dumps(project)}'\n")
    (tmp_path / "docker").chmod(0o755)
    for environ, wanted in (({}, ["web"]), ({"COMPOSE_PROFILES": "q,p"}, ["web", "base"])):
        found = recognize([str(tmp_path / "docker"), "compose", "build"])
        job = compose_job(found, environ, lambda: b"")
        assert [name for name, _ in job.services] == wanted  # type: ignore[attr-defined]


def test_the_resolved_project_takes_the_place_of_the_files(tmp_path: Path) -> None:
    words = ("-f", "sub/a.yaml", "--file=b.yaml", "-p", "name", "build", "web")
    job = job_of(tmp_path, *words)
    assert (tmp_path / "asked").read_text().split() == [
        "compose", "-f", "sub/a.yaml", "--file=b.yaml", "-p", "name", "--profile", "*", "config",
        "--format", "json",
    ]  # fmt: skip
    assert job.exports == ("T1", "T2", 'type=local,"dest=x,y"')
    assert job.imports == ("F",)
    assert job.rewrite(job.exports).argv == job.argv
    changed = job.rewrite(("X", "T2", "Y"))
    assert changed.argv[1:] == (
        "compose", "--project-directory", "sub", "--file", PLACE_OF_FILE, "-p", "name", "build",
        "web",
    )  # fmt: skip
    services = json.loads(changed.file)["services"]
    assert services["web"]["build"] == {"context": "/a", "cache_to": ["X"], "cache_from": ["F"]}
    assert services["base"]["build"] == {"cache_to": ["T2", "Y"]}
    assert services["image"] == PROJECT["services"]["image"]  # type: ignore[index]


def test_the_directory_is_where_compose_finds_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "docker-compose.yml").write_text("")
    monkeypatch.chdir(tmp_path / "one" / "two")
    assert job_of(tmp_path, "build").directory == str(tmp_path)
    assert job_of(tmp_path, "--project-directory", "d", "build").directory == "d"
    environ = {"COMPOSE_FILE": "x/y.yaml:z.yaml"}
    assert job_of(tmp_path, "build", environ=environ).directory == "x"
    (tmp_path / "one" / "two" / ".env").write_text("# a comment\nCOMPOSE_FILE='e/y.yaml'\n")
    assert job_of(tmp_path, "build").directory == "e"
