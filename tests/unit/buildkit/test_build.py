"""buildkit/build.py: what one build asks of the daemon, and tells its caller."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest

from kitcache.buildkit import solve as solve_module
from kitcache.buildkit.arguments import check_values
from kitcache.buildkit.build import run_build
from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.daemon.connect import connect
from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.request import check_request
from kitcache.buildkit.result import BuildResult
from kitcache.buildkit.session.registry import Credentials
from kitcache.buildkit.status import BuildUpdate
from kitcache.errors import BuildFailed, Cancelled, NoDaemon, UsageError
from kitcache.options.build import BuildRequest
from kitcache.options.caches import parse_cache_export, parse_cache_import
from kitcache.options.outputs import parse_output
from tests.hostile.build import digest_of
from tests.hostile.fake_daemon import Answer, FakeDaemon, Script, Solve, build_nothing
from tests.hostile.fake_messages import vertex, workers
from tests.hostile.fake_session import EXPOSE, Session

CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
NOWHERE = (parse_output("type=cacheonly"),)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\n")
    return directory


class Run:
    """One build on a daemon that does as the script says. told: notices, one by one."""

    def __init__(
        self,
        request: BuildRequest,
        wishes: BuildOptions | None = None,
        *,
        script: Script = build_nothing,
        is_engine: bool = False,
        answers: Mapping[str, bytes | None] | None = None,
    ) -> None:
        self.told: list[str] = []
        wishes = (wishes or BuildOptions())._replace(on_notice=self.told.append)

        def wait_for_the_session(solve: Solve) -> Answer:
            assert solve.session.methods
            return script(solve)

        with (
            FakeDaemon(wait_for_the_session, is_engine=is_engine, answers=answers) as daemon,
            connect(daemon.address) as connection,
        ):
            self.result: BuildResult = run_build(
                connection, check_request(check_values(request)), wishes
            )
        self.solve: control_pb2.SolveRequest = daemon.solves[0]
        self.asked = daemon.asked
        self.session: Session = daemon.sessions[0]


DIGEST = f"sha256:{'1' * 64}"


def test_a_build_is_asked_for_once_and_by_name(context: Path) -> None:
    request = BuildRequest(str(context), target="t", build_args=(("A", "1"),), outputs=NOWHERE)
    run = Run(request, BuildOptions(proxy_args=(("HTTP_PROXY", "p"), ("A", "0"))))
    assert re.fullmatch(r"[a-z0-9]{25}", run.solve.ref)
    assert run.solve.ref == run.result.ref
    assert run.solve.frontend == "dockerfile.v0"
    assert run.solve.frontend_attrs["target"] == "t"
    assert run.solve.frontend_attrs["build-arg:A"] == "1"
    assert run.solve.frontend_attrs["build-arg:HTTP_PROXY"] == "p"
    assert [call for call in run.asked if call.endswith("/Solve")] == [
        "/moby.buildkit.v1.Control/Solve"
    ]


@pytest.mark.parametrize("is_engine", [False, True])
def test_the_session_is_the_solves_and_says_which_directories(
    context: Path, tmp_path: Path, is_engine: bool
) -> None:
    request = BuildRequest(str(context), outputs=NOWHERE)
    one, again = (Run(request, is_engine=is_engine) for _ in range(2))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "Dockerfile").touch()
    other = Run(request._replace(context=str(tmp_path / "other")), is_engine=is_engine)
    ids = [dict(run.session.metadata)[f"{EXPOSE}uuid"] for run in (one, again, other)]
    keys = [dict(run.session.metadata)[f"{EXPOSE}sharedkey"] for run in (one, again, other)]
    assert ids == [run.solve.session for run in (one, again, other)]
    assert len(set(ids)) == 3
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


def test_no_path_of_ours_reaches_the_daemon(context: Path, tmp_path: Path) -> None:
    request = BuildRequest(
        str(context),
        outputs=(
            parse_output(f"type=tar,dest={tmp_path}/out.tar"),
            parse_output(f"type=local,dest={tmp_path}/out"),
            parse_output(f"type=oci,tar=false,dest={tmp_path}/layout"),
        ),
        cache_to=(parse_cache_export(f"type=local,dest={tmp_path}/cache"),),
        cache_from=(parse_cache_import(f"type=local,src={tmp_path}/cache"),),
    )

    def script(solve: Solve) -> Answer:
        image = b'{"schemaVersion": 2, "layers": []}'
        solve.session.upload("export", image, digest_of(image))
        return {}

    run = Run(request, script=script)
    sent = str(run.solve) + str(run.session.metadata)
    assert str(tmp_path) not in sent
    assert tmp_path.name not in sent
    assert [exporter.type for exporter in run.solve.exporters] == ["tar", "local", "oci"]


@pytest.mark.parametrize("imports", [(), ("both",)])
def test_a_layout_and_a_cache_may_be_one_directory(
    context: Path, tmp_path: Path, imports: tuple[str, ...]
) -> None:
    """Its lock is held once, so the reset does not find this build in its own way."""
    both = tmp_path / "both"
    request = BuildRequest(
        str(context),
        outputs=(parse_output(f"type=oci,tar=false,dest={both}"),),
        cache_to=(parse_cache_export(f"type=local,dest={both},tag=c,reset=true"),),
        cache_from=tuple(parse_cache_import(f"type=local,src={tmp_path}/{n}") for n in imports),
    )

    def script(solve: Solve) -> Answer:
        image = b'{"schemaVersion": 2, "manifests": []}'
        solve.session.upload("export", image, digest_of(image))
        solve.export_cache(b"a layer")
        return {}

    (cache,) = Run(request, script=script).result.caches
    assert cache.reset is not None
    assert (cache.reset.outcome, cache.reset.entry_count) == ("done", 2), cache.reset.reason
    index = json.loads((both / "index.json").read_bytes())
    assert len(index["manifests"]) == 2


@pytest.mark.parametrize("name", ["", ",name=app", ",name=other:latest"])
def test_an_image_and_a_cache_are_not_one_tag_of_one_directory(
    context: Path, tmp_path: Path, name: str
) -> None:
    """The one would take the place of the other."""
    both = tmp_path / "both"
    request = BuildRequest(
        str(context),
        outputs=(parse_output(f"type=oci,tar=false,dest={both}{name}"),),
        cache_to=(parse_cache_export(f"type=local,dest={both},reset=true"),),
    )
    with pytest.raises(UsageError, match="would both be 'latest' there"):
        Run(request, script=lambda _: {})


def test_a_layout_alone_is_no_cache(context: Path, tmp_path: Path) -> None:
    def script(solve: Solve) -> Answer:
        image = b'{"schemaVersion": 2, "layers": []}'
        solve.session.upload("export", image, digest_of(image))
        (tmp_path / "layout").rename(tmp_path / "moved")
        return {}

    outputs = (parse_output(f"type=oci,tar=false,dest={tmp_path}/layout"),)
    run = Run(BuildRequest(str(context), outputs=outputs), script=script)
    assert (run.result.caches, run.told) == ((), [])


def test_the_first_exporter_is_told_to_old_daemons_too(context: Path) -> None:
    outputs = (parse_output("type=image,name=a:1,push=true"), parse_output("type=image,name=b"))
    run = Run(BuildRequest(str(context), outputs=outputs))
    assert run.solve.exporter_deprecated == "image"
    assert dict(run.solve.exporter_attrs_deprecated) == dict(run.solve.exporters[0].attrs)
    assert run.solve.exporters[0].attrs["name"] == "docker.io/library/a:1"


def test_an_import_is_told_to_the_solve_and_to_the_frontend(context: Path) -> None:
    request = BuildRequest(
        str(context),
        outputs=NOWHERE,
        cache_from=(parse_cache_import("type=registry,ref=r/x:1"),),
    )
    run = Run(request)
    assert json.loads(run.solve.frontend_attrs["cache-imports"]) == [
        {"Type": "registry", "Attrs": {"ref": "r/x:1"}}
    ]
    assert [entry.type for entry in run.solve.cache.imports] == ["registry"]


def test_each_notice_is_told_once_and_is_in_the_result(context: Path, tmp_path: Path) -> None:
    export = parse_cache_export(f"type=local,dest={tmp_path}/cache,mdoe=max")
    request = BuildRequest(
        str(context), outputs=NOWHERE, cache_to=(export, export), warnings=("odd", "odd")
    )
    run = Run(request)
    assert run.result.notices == tuple(run.told)
    assert len(run.told) == len(set(run.told))
    assert "odd" in run.told
    assert [n for n in run.told if "mdoe" in n]


def test_a_buildkitd_without_an_output_is_a_notice_and_an_engine_loads(context: Path) -> None:
    assert "no output was requested" in Run(BuildRequest(str(context))).told[0]
    engine = Run(BuildRequest(str(context)), is_engine=True)
    assert engine.told == []
    assert [exporter.type for exporter in engine.solve.exporters] == ["moby"]


def test_warnings_and_steps_come_to_the_caller(context: Path) -> None:
    heard: list[BuildUpdate] = []

    def script(solve: Solve) -> Answer:
        news = vertex("sha256:1", "a step")
        news.warnings.add(vertex="sha256:1", level=1, short=b"odd casing")
        solve.tell(news)
        return {"containerimage.digest": DIGEST}

    run = Run(
        BuildRequest(str(context), outputs=NOWHERE),
        BuildOptions(on_update=heard.append),
        script=script,
    )
    assert [w.short for w in run.result.warnings] == ["odd casing"]
    assert run.result.digest == DIGEST
    assert [v.name for u in heard for v in u.vertexes] == ["a step"]


def test_logins_are_looked_up_for_the_hosts_that_were_asked_for_alone(context: Path) -> None:
    hosts: list[str] = []

    def login(host: str) -> Credentials | None:
        hosts.append(host)
        return Credentials("me", "sesame") if host == "r.example" else None

    answers: list[bytes] = []

    def script(solve: Solve) -> Answer:
        for host in (b"r.example", b"other.example"):
            request = b"\x0a" + bytes([len(host)]) + host
            answers.append(solve.session.unary(CREDENTIALS, request))
        return {}

    request = BuildRequest(str(context), outputs=NOWHERE)
    run = Run(request, BuildOptions(credentials=login), script=script)
    assert hosts == ["r.example", "other.example"]
    assert answers == [b"\x0a\x02me\x12\x06sesame", b""]
    assert "sesame" not in f"{run.result}{run.told}"
    Run(request, script=script)
    assert answers[2:] == [b"", b""], "without a callable the daemon gets no login"


def test_what_a_login_raises_is_the_daemons_problem_and_shows_nothing(context: Path) -> None:
    said: list[str] = []

    def login(host: str) -> Credentials | None:
        raise KeyError("sesame")

    def script(solve: Solve) -> Answer:
        with pytest.raises(grpc.RpcError) as caught:
            solve.session.unary(CREDENTIALS, b"\x0a\x01x")
        said.append(str(caught.value))
        return {}

    run = Run(
        BuildRequest(str(context), outputs=NOWHERE), BuildOptions(credentials=login), script=script
    )
    assert "KeyError" in said[0]
    assert "sesame" not in said[0]
    assert run.told == ["no login for x: credentials raised KeyError"]


def test_what_a_login_raises_is_the_cause_of_the_failure(context: Path) -> None:
    def login(host: str) -> Credentials | None:
        raise KeyError(host)

    def script(solve: Solve) -> Answer:
        with pytest.raises(grpc.RpcError):
            solve.session.unary(CREDENTIALS, b"\x0a\x01x")
        solve.fail(grpc.StatusCode.UNKNOWN, "pull access denied")

    request = BuildRequest(str(context), outputs=NOWHERE)
    with pytest.raises(BuildFailed, match="pull access denied") as caught:
        Run(request, BuildOptions(credentials=login), script=script)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.args == ("x",)

    def wrong(host: str) -> Any:
        return host, "sesame"

    with pytest.raises(BuildFailed) as caught:
        Run(request, BuildOptions(credentials=wrong), script=script)
    assert "of type tuple, not Credentials" in str(caught.value.__cause__)


def test_a_registry_cache_that_could_not_be_imported_is_a_notice(context: Path) -> None:
    def script(solve: Solve) -> Answer:
        name = "importing cache manifest from r.example/app:cache"
        solve.tell(vertex("sha256:1", name, error="r.example/app:cache: not found"))
        return {}

    run = Run(BuildRequest(str(context), outputs=NOWHERE), script=script)
    assert run.told == [
        "importing cache manifest from r.example/app:cache failed, so it was not used:"
        " r.example/app:cache: not found"
    ]
    assert run.result.notices == tuple(run.told)


def test_an_engine_is_asked_for_its_store_only_where_that_matters(
    context: Path, tmp_path: Path
) -> None:
    plain = BuildRequest(str(context), outputs=NOWHERE)
    assert not [c for c in Run(plain, is_engine=True).asked if c.endswith("/ListWorkers")]
    export = parse_cache_export(f"type=local,dest={tmp_path}/cache")
    caching = plain._replace(cache_to=(export,))
    assert [c for c in Run(caching, is_engine=True).asked if c.endswith("/ListWorkers")]
    with pytest.raises(NoDaemon, match="its containerd image store is off"):
        Run(caching, is_engine=True, answers={"ListWorkers": workers({})})
    assert Run(caching, is_engine=False, answers={"ListWorkers": workers({})}).solve.ref


def test_a_cancel_that_the_daemon_does_not_confirm(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve_module, "_LAST_UPDATES_S", 0.0)
    cancel = Event()

    def freeze(solve: Solve) -> Answer:
        solve.keeps_status = True
        cancel.set()
        solve.wait()

    with pytest.raises(Cancelled, match="the daemon was asked to cancel the build"):
        Run(BuildRequest(str(context), outputs=NOWHERE), BuildOptions(cancel=cancel), script=freeze)


def test_a_request_that_makes_no_sense_never_reaches_the_daemon(context: Path) -> None:
    request = BuildRequest(str(context), network="none?", outputs=NOWHERE)
    with FakeDaemon() as daemon, connect(daemon.address) as connection:
        with pytest.raises(UsageError):
            run_build(connection, check_request(check_values(request)), BuildOptions())
        assert daemon.sessions == []
