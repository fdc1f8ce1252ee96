import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kitcache.wrap.argv import direct_job, recognize
from kitcache.wrap.contexts import Context, contexts_of_definition, warn_of_caches


@pytest.fixture(autouse=True)
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the contexts app and lib."""
    for name in ("app", "lib"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "contexts"),
    [
        ("docker build .", [(".", "./Dockerfile")]),
        ("docker build --cache-to x app", [("app", "app/Dockerfile")]),
        ("docker buildx b -f lib/D --build-context l=lib -- app", [("app", "lib/D"), ("lib", "")]),
        ("docker build --build-context l=https://x/y -", []),
        ("docker build https://x/y.git", []),
        ("docker build", []),
        ("buildctl build --local context=app --local dockerfile=lib --opt filename=D",
         [("app", "lib/D")]),
        ("buildctl build --local other=lib --local context=app",
         [("lib", ""), ("app", "Dockerfile")]),
    ],
)  # fmt: skip
def test_the_local_contexts_of_a_command(words: str, contexts: list[tuple[str, str]]) -> None:
    assert list(direct_job(recognize(words.split())).contexts) == contexts


@pytest.mark.parametrize(
    ("build", "is_remote", "contexts"),
    [
        ({}, False, [(".", "./Dockerfile")]),
        ({"context": "app", "dockerfile": "D"}, False, [("app", "app/D")]),
        ({"context": "cwd://app", "named": {"a": "target:x", "b": "lib"}}, False,
         [("app", "app/Dockerfile"), ("lib", "")]),
        ({"context": "https://x/y.git", "named": {"b": "cwd://lib"}}, True, [("lib", "")]),
        ({"context": "app"}, True, []),
    ],
)  # fmt: skip
def test_the_local_contexts_of_a_definition(
    build: dict[str, Any], is_remote: bool, contexts: list[tuple[str, str]]
) -> None:
    assert list(contexts_of_definition(build, "named", is_remote=is_remote)) == contexts


def is_warned(dest: str, ignored: str | None = None, name: str = ".dockerignore") -> bool:
    if ignored is not None:
        Path("app", name).write_text(ignored)
    (*sentences,) = warn_of_caches([Context("app", "app/Dockerfile")], [dest])
    return bool(sentences)


@pytest.mark.parametrize(
    ("ignored", "is_left_out"),
    [
        (None, False),
        ("", False),
        ("# cache\ncaches\n", False),
        ("/cache\n", True),
        ("**/cach*", True),
        ("*\n!src\n", True),
        ("cache/**", True),
        ("cache/blobs", False),
        ("cache\n!cache\n", False),
        ("cache\n!cache/index.json\n", False),
        ("[", True),  # which the client refuses
        ("x" * 70_000, True),  # which is not judged
    ],
)
def test_a_cache_in_a_context_that_no_line_leaves_out(
    ignored: str | None, is_left_out: bool
) -> None:
    assert is_warned("app/cache", ignored) is not is_left_out


def test_the_ignore_file_of_the_dockerfile_wins() -> None:
    assert not is_warned("app/cache", "cache")
    assert is_warned("app/cache", "other", "Dockerfile.dockerignore")


def test_names_and_links_do_not_matter(top: Path) -> None:
    (top / "link").symlink_to("app")
    (top / "app" / "out").symlink_to("../lib")
    assert is_warned("link/cache")
    assert is_warned("lib/../app/new/cache")
    assert is_warned(str(top / "app"))
    assert not is_warned("app/out/cache")
    assert not is_warned("application")
    assert not is_warned("lib")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_ignore_file_is_not_waited_for(
    top: Path, make: Callable[[Path], object]
) -> None:
    make(top / "app" / ".dockerignore")
    assert not is_warned("app/cache")


def test_the_sentence_names_the_line_and_its_file() -> None:
    (sentence,) = warn_of_caches([Context("app")] * 2, ["app/a/cache"])
    assert "add the line 'a/cache' to app/.dockerignore, or move" in sentence
    (sentence,) = warn_of_caches([Context("app")], ["app"])
    assert sentence.endswith("changes the context: move the cache elsewhere")
