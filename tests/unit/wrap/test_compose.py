import json
from pathlib import Path
from typing import Any

import pytest

from kitcache.wrap.argv import FILE_PLACEHOLDER, ClientFailed, Job, recognize
from kitcache.wrap.compose import compose_job

PROJECT: dict[str, Any] = {
    "name": "p",
    "services": {
        "web": {"build": {"context": "/a", "cache_to": ["T1"], "cache_from": ["F"]},
                "depends_on": {"base": {}}},
        "base": {"build": {"cache_to": ["T2", {"type": "local", "dest": "x,y"}]},
                 "profiles": ["p"]},
        "top": {"build": {"additional_contexts": {"a": "service:base", "b": "/b"}}},
        "image": {"image": "x"},
    },
}  # fmt: skip


def job_of(
    cwd: Path,
    *words: str,
    environ: dict[str, str] | None = None,
    project: dict[str, Any] = PROJECT,
    active: tuple[str, ...] = ("web", "image"),
    refuses: str = "nothing",
) -> Job:
    """The job of a command whose `config` prints that project, but for words that it refuses."""
    client = cwd / "docker"
    (cwd / "project.json").write_text(json.dumps(project))
    client.write_text(
        f"""#!/bin/sh
echo "$@" >> {cwd}/asked
case "$*" in
  *--services) printf '%s\\n' {" ".join(active)};;
  {refuses}) echo it is refused >&2; exit 14;;
  *) cat {cwd}/project.json;;
esac
"""
    )
    client.chmod(0o755)
    return compose_job(recognize([str(client), "compose", *words]), environ or {}, lambda: b"")


def added_to(job: Job) -> list[str]:
    """The options that a changed command adds before its --file."""
    argv = job.rewrite(("X",) * len(job.exports)).argv
    return list(argv[2 : argv.index(FILE_PLACEHOLDER) - 1])


def document_of(job: Job, *exports: str) -> Any:
    file = job.rewrite(exports).file
    assert file is not None
    return json.loads(file)


@pytest.mark.parametrize(
    ("words", "services"),
    [
        (("build",), ["web"]),
        (("build", "web"), ["web"]),
        (("build", "--with-dependencies", "web"), ["web", "base"]),
        (("build", "base"), ["base"]),
        (("build", "--build-arg", "web", "base"), ["base"]),
        (("build", "top"), ["top", "base"]),
        (("up", "--build", "-d"), ["web", "base"]),
        (("up", "--no-deps", "web"), ["web"]),
        (("run", "--no-deps=false", "web"), ["web", "base"]),
        (("run", "-e", "base", "image", "web"), []),
        (("run", "web", "--help"), ["web", "base"]),
    ],
)
def test_which_services_may_be_built(
    words: tuple[str, ...], services: list[str], tmp_path: Path
) -> None:
    project = json.loads(json.dumps(PROJECT))
    for name, service in project["services"].items():
        service.get("build", {})["cache_to"] = [name]
    assert job_of(tmp_path, *words, project=project).exports == tuple(services)


@pytest.mark.parametrize("words", ["build --print", "build --check", "up --no-build"])
def test_what_builds_nothing_is_not_even_asked_for(words: str) -> None:
    found = recognize(["/no/docker", "compose", *words.split()])
    assert compose_job(found, {}, lambda: b"").exports == ()


def test_the_resolved_project_takes_the_place_of_the_files(tmp_path: Path) -> None:
    words = ("-f", "sub/a.yaml", "--file=b.yaml", "-p", "name", "build", "web", "base")
    job = job_of(tmp_path, *words)
    options = "compose -f sub/a.yaml --file=b.yaml -p name"
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"{options} config --services",
        f"{options} --profile * config --format json",
    ]
    assert job.exports == ("T1", "T2", 'type=local,"dest=x,y"')
    assert job.imports == ("F",)
    assert job.rewrite(job.exports).argv == job.argv
    changed = job.rewrite(("X", "T2", "Y"))
    assert changed.argv[1:] == (
        "compose", "--project-directory", "sub", "--file", FILE_PLACEHOLDER, "-p", "name", "build",
        "web", "base",
    )  # fmt: skip
    services = document_of(job, "X", "T2", "Y")["services"]
    assert services["web"]["build"] == {"context": "/a", "cache_to": ["X"], "cache_from": ["F"]}
    assert services["base"]["build"] == {"cache_to": ["T2", "Y"]}
    assert services["image"] == PROJECT["services"]["image"]


def test_the_stdin_that_was_read_is_given_on(tmp_path: Path) -> None:
    job_of(tmp_path, "build")
    found = recognize([str(tmp_path / "docker"), "compose", "-f", "-", "build"])
    job = compose_job(found, {}, lambda: b"services: {}")
    assert job.rewrite(job.exports).stdin == b"services: {}"


def test_a_service_that_is_not_thought_to_be_built_has_no_reset_either(tmp_path: Path) -> None:
    project = json.loads(json.dumps(PROJECT))
    project["services"]["base"]["build"]["cache_to"] = [
        *("type=local,dest=c,reset=true", "type=s3,reset=true,bucket=b", "type=x,"),
    ]
    job = job_of(tmp_path, "up", "--no-deps", "web", project=project)
    services = document_of(job, "X")["services"]
    assert services["base"]["build"]["cache_to"] == [
        *("type=local,dest=c", "type=s3,bucket=b", "type=x,"),
    ]


def test_dollars_are_read_as_compose_means_them_and_written_so_that_it_reads_the_same(
    tmp_path: Path,
) -> None:
    build = {"cache_to": ["type=local,dest=$$a"], "labels": {"k$$": "v$$", "n": 1}, "x": ["$$$$"]}
    project = {"services": {"web": {"build": build}}}
    job = job_of(tmp_path, "build", project=project)
    assert job.exports == ("type=local,dest=$a",)
    assert document_of(job, "type=local,dest=$b")["services"]["web"]["build"] == {
        "cache_to": ["type=local,dest=$$b"], "labels": {"k$": "v$$", "n": 1}, "x": ["$$$$"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "active", "said"),
    [
        ("build", ["web"], []),
        ("build", ["web", "base"], ["--profile", "p"]),
        ("--profile=p build", ["web", "base"], []),
        ("--profile * build", ["web", "base"], []),
    ],
)
def test_profiles_from_the_environment_are_said(
    words: str, active: list[str], said: list[str], tmp_path: Path
) -> None:
    job = job_of(tmp_path, "-f", "c.yaml", *words.split(), active=tuple(active))
    assert added_to(job) == ["--project-directory", ".", "--project-name", "p", *said]


def test_a_profile_that_would_make_others_active_is_not(tmp_path: Path) -> None:
    build = {"cache_to": ["T"]}
    services = {"a": {"profiles": ["x", "y"], "build": build}, "b": {"profiles": ["y"]}}
    job = job_of(tmp_path, "up", project={"services": services}, active=("a",))
    assert added_to(job)[2:] == ["--profile", "x"]


def test_config_may_refuse_what_a_build_does_not_need(tmp_path: Path) -> None:
    """Then it is asked to check less; what it does not fill in must not need to be filled in."""
    for refuses in ("*json", "*json|*consistency", "*json|*consistency|*resolution"):
        assert job_of(tmp_path, "build", refuses=refuses).exports == ("T1",)
    assert job_of(tmp_path, "build", "web", refuses="*profile*").exports == ("T1",)
    for words in (("up",), ("build", "base")):  # which need the inactive services too
        with pytest.raises(ClientFailed) as refused:
            job_of(tmp_path, *words, refuses="*profile*")
        assert b"it is refused" in refused.value.stderr
    project = {"services": {"web": {"build": {"cache_to": ["${X}"]}}}}
    with pytest.raises(ClientFailed) as refused:
        job_of(tmp_path, "build", project=project, refuses="*json|*consistency|*resolution")
    assert b"it is refused" in refused.value.stderr


def test_what_compose_itself_refuses_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\necho no >&2; exit 15\n")
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(ClientFailed) as caught:
        compose_job(recognize([str(tmp_path / "docker"), "compose", "build"]), {}, lambda: b"")
    assert (caught.value.exit_code, caught.value.stderr) == (15, b"no\n")


def test_the_directory_is_where_compose_finds_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "docker-compose.yml").write_text("")
    monkeypatch.chdir(tmp_path / "one" / "two")
    assert added_to(job_of(tmp_path, "build"))[1] == str(tmp_path)
    assert added_to(job_of(tmp_path, "--project-directory", "d", "build"))[1] == "d"
    environ = {"COMPOSE_FILE": "x/y.yaml:z.yaml"}
    assert added_to(job_of(tmp_path, "build", environ=environ))[1] == "x"
    for elsewhere in ("-", "https://host/x.git#main:y"):
        assert added_to(job_of(tmp_path, "-f", elsewhere, "build"))[1] == "."
