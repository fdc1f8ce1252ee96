"""The public surface of kitcache as a type checker sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

import kitcache

PACKAGE = Path(kitcache.__file__).parent

TYPED = """
from pathlib import Path
from threading import Event

import os

import kitcache
from kitcache import SweepOptions, Progress, ResetResult, BuildUpdate, Waiting


def hear(event: Progress | Waiting) -> None:
    print(event)


def clean(path: Path) -> int:
    cancel = Event()
    try:
        report: ResetResult = kitcache.reset(
            path, options=SweepOptions(min_age_ns=1), on_progress=hear, cancel=cancel
        )
    except kitcache.Busy as error:
        seconds: float | None = error.retry_after_s
        return 0 if seconds is None else 1
    except kitcache.KitcacheError as error:
        return error.exit_code
    tags = [tag.ref_name for tag in kitcache.ls(path).tags]
    reveal_type(tags)
    reveal_type(kitcache.du("cache").live.bytes)
    reveal_type(kitcache.why("cache", "abcd").paths[0].links[0].descriptor.digest)
    reveal_type(kitcache.untag("cache", ["main"]).entries)
    return report.deleted.blobs


def hear_build(update: BuildUpdate) -> None:
    print([vertex.name for vertex in update.vertexes])


def build(cancel: Event) -> str | None:
    address = kitcache.find_daemon(os.environ)
    with kitcache.Client(address) as client:
        result = client.build(
            ".",
            build_args={"a": "b"},
            secrets=[kitcache.Secret("token", data=b"")],
            cache_to=["type=local,dest=cache,reset=true"],
            on_update=hear_build,
            cancel=cancel,
            credentials=kitcache.DockerConfig(".", print).credentials,
        )
        build = client.start(kitcache.BuildRequest(), kitcache.BuildOptions(cancel=cancel))
        for update in build:
            reveal_type(update.logs[0].data)
        report = build.result().caches[0].reset
        reveal_type(report.deleted.bytes if report else None)
        reveal_type(client.workers()[0].platforms)
        steps = kitcache.StepTracker()
        notices: set[str] = set()
        client.build(
            Path("."),
            secrets=kitcache.Secret("token", path=Path("token.txt")),
            outputs=kitcache.Output("local", "out"),
            cache_to=kitcache.CacheExport("local", dest="cache"),
            cache_from=kitcache.CacheImport("local", src="cache"),
            tags="app",
            build_contexts={"more": Path("more")},
            attests={"provenance": False},
            on_update=steps.apply,
            on_notice=notices.add,
            environ=os.environ,
        )
        client.build(cache_to=1)
    return result.digest


kitcache.reset()
kitcache.reset("cache", dry_run="yes")
kitcache.nothing
"""


def test_type_checkers_see_the_names_of_the_table(request: pytest.FixtureRequest) -> None:
    names = sorted(kitcache._HOME_OF.items(), key=lambda pair: (pair[1], pair[0]))
    lines = [f"from {home} import {name} as {name}" for name, home in names]
    stub = "\n".join(
        ["# Written by `make golden` from __init__.py.", *lines, "", "__version__: str", ""]
    )
    page = PACKAGE / "__init__.pyi"
    if request.config.getoption("--golden"):
        page.write_text(stub)
    assert page.read_text() == stub, "if the table is as it should be: make golden"


def test_types_are_shipped_and_seen(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    assert (PACKAGE / "py.typed").exists()
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--hide-error-context",
    ]
    done = subprocess.run(
        [*command, "--config-file=", f"--cache-dir={tmp_path}", str(program)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    said = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert said == [
        'note: Revealed type is "list[str | None]"',
        'note: Revealed type is "int"',
        'note: Revealed type is "tuple[str, str, fallback=kitcache.oci.digest.Digest]"',
        'note: Revealed type is "tuple[tuple[str | None, str | None], ...]"',
        'note: Revealed type is "bytes"',
        'note: Revealed type is "int | None"',
        'note: Revealed type is "tuple[str, ...]"',
        'error: Argument "cache_to" to "build" of "Client" has incompatible type "int"; expected'
        ' "CacheExport | str | Iterable[CacheExport | str]"  [arg-type]',
        'error: Missing positional argument "path" in call to "reset"  [call-arg]',
        'error: Argument "dry_run" to "reset" has incompatible type "str"; expected "bool"'
        "  [arg-type]",
        'error: Module has no attribute "nothing"  [attr-defined]',
    ], done.stdout + done.stderr
