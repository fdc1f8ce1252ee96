"""Passwords in URLs: whatever the daemon and we have to say, none is printed or returned."""

import json
from pathlib import Path

import grpc
import pytest

from kitcache.buildkit.client import Client
from kitcache.buildkit.proto import content_pb2, control_pb2
from kitcache.buildkit.status import BuildUpdate
from kitcache.errors import BuildFailed, KitcacheError
from tests.hostile.command import run
from tests.hostile.fake_daemon import Answer, FakeDaemon, Solve
from tests.hostile.fake_messages import vertex

PASSWORD = "hunter2-hunter2"
WITH = f"https://robot:{PASSWORD}@example.com"
CONFIG = {
    "proxies": {"default": {"httpProxy": WITH.replace("robot", "proxy")}},
}


def echo(solve: Solve) -> Answer:
    """A daemon that quotes everything that it was sent, wherever a text may stand."""
    attrs = dict(solve.request.frontend_attrs)
    for one in (*solve.request.exporters, *solve.request.cache.exports):
        attrs.update({f"{one.type}.{key}": value for key, value in one.attrs.items()})
    text = " ".join(f"{key}={value}" for key, value in sorted(attrs.items()))
    assert text.count(PASSWORD) >= 4
    news = vertex("sha256:1", text)
    news.statuses.add(id=text, vertex="sha256:1", name=text)
    news.warnings.add(vertex="sha256:1", level=1, short=text.encode(), detail=[text.encode()])
    half = len(text) // 2
    for piece in (text[:half], text[half:] + "\n"):
        news.logs.add(vertex="sha256:1", stream=1, msg=piece.encode())
    solve.tell(news, vertex("sha256:2", "next", error=text))
    if attrs.get("target"):
        solve.fail(grpc.StatusCode.UNKNOWN, f"failed to solve: {text}")
    manifest = json.dumps({"annotations": {"source": text}})
    return {"image.name": text, "cache.manifest": manifest}


@pytest.mark.parametrize("progress", ["plain", "rawjson", "quiet"])
@pytest.mark.parametrize("target", ["", "stage"])
def test_nothing_that_the_command_prints_or_writes(
    tmp_path: Path, progress: str, target: str
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text(json.dumps(CONFIG))
    with FakeDaemon(echo) as daemon:
        answer = run(
            tmp_path,
            *("build", "--addr", daemon.address.url, "--progress", progress),
            *("--build-arg", f"ALL_PROXY={WITH}", "--build-context", f"named={WITH}/named.tar"),
            *("--label", f"source={WITH}/label", "--metadata-file", "metadata.json"),
            *("--cache-to", f"type=s3,endpoint_url={WITH},region=r,bucket=b,misspelt={WITH}"),
            *(("--target", target) if target else ()),
            f"{WITH}/app.git#main",
            env={"DOCKER_CONFIG": str(tmp_path / "c")},
        )
        assert answer.code == (21 if target else 0), answer
        sent = daemon.solves[0].frontend_attrs
        assert sent["context"] == f"{WITH}/app.git#main"
        assert PASSWORD in sent["build-arg:HTTP_PROXY"]
    said = (answer.out + answer.err).replace("\\u2026", "…")
    assert PASSWORD not in said
    assert (progress == "quiet" and not target) or "https://…@example.com" in said
    written = tmp_path / "metadata.json"
    assert written.exists() == (not target)
    assert not target or PASSWORD not in said
    if not target:
        assert "https://…@example.com" in written.read_text(encoding="unicode_escape")
        assert PASSWORD not in written.read_text()


def test_nothing_that_the_library_returns_or_raises() -> None:
    news: list[BuildUpdate] = []
    notices: list[str] = []
    with FakeDaemon(echo) as daemon, Client(daemon.address) as client:

        def build(target: str) -> object:
            return client.build(
                f"{WITH}/app.git",
                target=target,
                build_args={"http_proxy": f"robot:{PASSWORD}@proxy:3128"},
                build_contexts={"named": f"{WITH}/named.tar"},
                cache_to=f"type=registry,ref=example.com/c,other={WITH}",
                on_update=news.append,
                on_notice=notices.append,
            )

        result = build("")
        with pytest.raises(BuildFailed) as caught:
            build("stage")
    assert notices
    error = caught.value
    held = [repr(one) for one in (result, news, notices, error, error.step, error.log, error.facts)]
    assert "…@example.com" in "".join(held)
    assert PASSWORD not in "".join([*held, str(error)])


@pytest.mark.parametrize(
    "words",
    [
        ("build", f"{WITH}:port/x", "."),
        ("build", f"wrong://u:{PASSWORD}@host/x"),
        ("build", "--build-context", f"x=target:{WITH}", "."),
        ("build", "--cache-to", f"type=local,dst={WITH}", "."),
        ("build", "--cache-to", f"type=registry,{WITH}", "."),
        ("build", "--output", f"type=nothing,dest={WITH}", "."),
        ("build", "--addr", f"tcp://u:{PASSWORD}@host:1", "."),
        ("build", "--addr", f"tcp://u:{PASSWORD}/@host:1", "."),
        ("build", "--addr", f"ssh://u:{PASSWORD}@host", "."),
        ("build", "--addr", f"docker-container://u:{PASSWORD}@host", "."),
        ("exec", "--dry-run", "--", "docker", "build", "--cache-to=type=local,dest=c", f"{WITH}/a"),
        ("exec", "--", "docker", "build", f"--cache-to=type=local,dst={WITH}", "."),
    ],
)
def test_no_message_about_words(tmp_path: Path, words: tuple[str, ...]) -> None:
    answer = run(tmp_path, *words, env={"DOCKER_HOST": f"unix://{tmp_path}/none"})
    assert PASSWORD not in answer.out + answer.err, answer
    assert answer.out + answer.err


def test_no_error_of_a_lost_daemon() -> None:
    def script(solve: Solve) -> Answer:
        text = f"no access to {WITH}".encode()
        size = (8 + len(text)).to_bytes(3, "big")
        goaway = size + bytes.fromhex("0700000000000000000000000002") + text
        solve.daemon.spoil(goaway)
        solve.wait()

    with (
        FakeDaemon(script, is_engine=True) as daemon,
        Client(daemon.address) as client,
        pytest.raises(KitcacheError, match=r"no access to https://…@example\.com") as caught,
    ):
        client.build(f"{WITH}/app.git")
    assert PASSWORD not in repr(caught.value) + str(caught.value)


def test_a_provenance_with_the_proxy_in_it() -> None:
    predicate = {"invocation": {"parameters": {"args": {"build-arg:http_proxy": WITH}}}}
    descriptor = control_pb2.Descriptor(
        digest="sha256:1",
        annotations={"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
    )

    class Historian(FakeDaemon):
        def serve(self, method: str) -> object:
            if method.endswith("/ListenBuildHistory"):
                record = control_pb2.BuildHistoryRecord(
                    ref=self.solves[0].ref,
                    result=control_pb2.BuildResultInfo(attestations=[descriptor]),
                )
                answer = control_pb2.BuildHistoryEvent(record=record).SerializeToString()
            elif method.endswith("Content/Read"):
                answer = content_pb2.ReadContentResponse(
                    data=json.dumps(predicate).encode()
                ).SerializeToString()
            else:
                return super().serve(method)
            return grpc.stream_stream_rpc_method_handler(lambda _r, _c: iter([answer]))

    with Historian() as daemon, Client(daemon.address) as client:
        result = client.build(
            f"{WITH}/app.git",
            build_args={"http_proxy": WITH},
            attests={"provenance": "mode=max"},
        )
    assert "https://…@example.com" in repr(result.provenance)
    assert PASSWORD not in repr(result)
