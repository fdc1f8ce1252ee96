"""kitcache build: what it prints and writes, where, and the exit code."""

import json
import subprocess
import sys
from pathlib import Path
from threading import Event

import grpc
import pytest

from kitcache.cli.commands import build as module
from kitcache.cli.console import Console
from kitcache.cli.parser import parse_words
from kitcache.errors import Cancelled
from tests.hostile.command import Answer, run
from tests.hostile.fake_daemon import Answer as Response
from tests.hostile.fake_daemon import FakeDaemon, Script, Solve, build_nothing
from tests.hostile.fake_messages import vertex

CONFIG = "sha256:" + "c" * 64
DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def make_image(solve: Solve) -> Response:
    news = vertex("sha256:1", "a step")
    news.warnings.add(vertex="sha256:1", level=1, short=b"odd casing")
    solve.tell(news)
    return {"containerimage.digest": DIGEST, "containerimage.config.digest": CONFIG}


def build(top: Path, *args: str, script: Script = make_image, code: int = 0) -> Answer:
    with FakeDaemon(script, is_engine=True) as daemon:
        url = daemon.address.url
        answer = run(top, "build", "--addr", url, *args, ".", env={"DOCKER_CONFIG": f"{top}/c"})
    assert answer.code == code, answer
    return answer


def test_progress_findings_and_exports_are_told_on_stderr(top: Path) -> None:
    answer = build(top, "--cache-to=type=local,dest=cache,reset=true", script=export)
    assert answer.out == ""
    assert "building on unix://" in answer.err
    assert "(--addr)" in answer.err
    assert "a step" in answer.err
    assert "1 warning found:\n - odd casing\n" in answer.err
    assert "cache: exported tag 'latest': wrote 3 blobs" in answer.err
    assert "cache: nothing to delete; kept 3" in answer.err


def export(solve: Solve) -> Response:
    solve.export_cache(b"a layer")
    return make_image(solve)


def test_quiet_prints_the_image_alone(top: Path) -> None:
    answer = build(top, "-q", "--cache-to=type=local,dest=cache,reset=true", script=export)
    assert (answer.out, answer.err) == (f"{DIGEST}\n", "")
    assert build(top, "-q", script=build_nothing).out == ""


def test_quiet_still_warns_of_what_was_mistyped(top: Path) -> None:
    answer = build(top, "-q", "--cache-to=type=local,dest=cache,mdoe=max", script=export)
    assert answer.out == f"{DIGEST}\n"
    assert "kitcache: warning: " in answer.err
    assert "mdoe" in answer.err


def test_files_that_were_asked_for(top: Path) -> None:
    build(top, "--iidfile=iid", "--metadata-file=meta.json", "--metadata-file", "meta.json")
    assert (top / "iid").read_text() == DIGEST
    metadata = json.loads((top / "meta.json").read_text())
    assert metadata["containerimage.digest"] == DIGEST
    assert (top / "meta.json").read_text().endswith("}\n")


@pytest.mark.parametrize("option", ["--iidfile", "--metadata-file"])
def test_a_file_that_cannot_be_written(top: Path, option: str) -> None:
    answer = build(top, f"{option}=none/file", code=1)
    assert "none/file: cannot be written: No such file or directory" in answer.err
    assert "the build itself is done" in answer.err


@pytest.mark.parametrize("is_linked", [False, True])
def test_no_digest_of_an_earlier_build_outlives_a_failed_one(top: Path, is_linked: bool) -> None:
    """A link may be /dev/stdout, which is not ours to remove."""
    (top / "real" if is_linked else top / "iid").write_text("old")
    if is_linked:
        (top / "iid").symlink_to("real")
    build(top, "--iidfile=iid", script=fail, code=21)
    assert (top / "iid").is_symlink() == (top / "iid").exists() == is_linked


def test_files_are_written_though_nobody_reads_stderr_any_more(top: Path) -> None:
    with FakeDaemon(make_image, is_engine=True) as daemon:
        line = ["build", "--addr", daemon.address.url, "--iidfile=iid", "--metadata-file=m", "."]
        child = subprocess.Popen(
            [sys.executable, "-m", "kitcache", *line], cwd=top, stderr=subprocess.PIPE
        )
        assert child.stderr is not None
        child.stderr.close()
        child.wait(60)
    assert (top / "iid").read_text() == DIGEST
    assert json.loads((top / "m").read_text())["containerimage.digest"] == DIGEST


def test_a_hole_in_a_cache_is_the_exit_code(top: Path) -> None:
    def torn(solve: Solve) -> Response:
        solve.export_cache(b"a layer", without=b"a layer")
        return make_image(solve)

    answer = build(top, "--cache-to=type=local,dest=cache", script=torn, code=12)
    assert "cache: tag 'latest': not published: " in answer.err
    assert "exported tag" not in answer.err


def fail(solve: Solve) -> Response:
    news = vertex("sha256:1", "RUN make", error="exit code: 2")
    news.logs.add(vertex="sha256:1", msg=b"make: no rule\n")
    solve.tell(news)
    solve.session.unary("/grpc.health.v1.Health/Check")
    solve.fail(grpc.StatusCode.UNKNOWN, "process did not complete")


def test_a_build_that_fails_shows_its_step(top: Path) -> None:
    answer = build(top, script=fail, code=21)
    assert " > RUN make:\nmake: no rule\n------\n" in answer.err
    assert "failed to solve: process did not complete" in answer.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--progress=loud",), "--progress"),
        (("--cache-to=type=local",), "--cache-to: "),
        (("-q", "--progress=plain"), "quiet cannot be used together"),
        (("--output=type=none-such,x",), "--output: "),
    ],
)
def test_words_that_make_no_sense(top: Path, args: tuple[str, ...], words: str) -> None:
    answer = build(top, *args, code=2)
    assert words in answer.err
    assert answer.out == ""


def test_no_daemon(top: Path) -> None:
    answer = run(top, "build", "--addr", f"unix://{top}/none", ".")
    assert answer.code == 20
    assert "there is no such socket" in answer.err


def test_a_build_that_does_not_end_after_a_cancel_is_left_alone(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CANCEL_TIMEOUT_S", 0.0)

    def never(solve: Solve) -> Response:
        solve.keeps_status = True
        args.cancel.set()
        solve.wait()

    with FakeDaemon(never) as daemon:
        line = ["build", "--addr", daemon.address.url, "--quiet", "-o", "type=cacheonly", str(top)]
        args = parse_words(line)
        assert args is not None
        args.cancel = Event()
        console = Console(is_quiet=True)
        with pytest.raises(Cancelled, match="does not end"):
            module._Command(args, console).run()


def test_it_needs_neither_rich_nor_subprocess_to_build(top: Path) -> None:
    """Start-up is part of the product."""
    program = (
        "import sys; from kitcache.cli.main import main; main(sys.argv[1:]);"
        "print([m for m in ('rich', 'asyncio', 'concurrent.futures', 'ssl') if m in sys.modules])"
    )
    with FakeDaemon(make_image) as daemon:
        words = ["build", "--addr", daemon.address.url, "-q", "-o", "type=image", str(top)]
        done = subprocess.run(
            [sys.executable, "-c", program, *words], check=True, capture_output=True, text=True
        )
    assert done.stdout == f"{CONFIG}\n[]\n"
