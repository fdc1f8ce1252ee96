"""A cache that lies in the context is not sent with it: it would make each build another one."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.integration.build.cachekit import CACHEONLY, blobs, cached_of
from tests.integration.build.kit import Kit, context
from tests.integration.daemon import BASE

COPY_ALL = f"FROM {BASE}\nCOPY . /context\nRUN busybox ls -A /context > /listing\n"
NOTICE = "is not sent with the context"


class Run(NamedTuple):
    """Whether each step was cached, and what was noticed about the context."""

    cached: list[bool]
    notices: list[str]


def build(kit: Kit, where: Path, name: str, *more: str) -> Run:
    """Build with a cache by that name, on a daemon that remembers nothing of an earlier build."""
    kit.daemon.prune()
    metadata = kit.config / "metadata.json"
    options = (f"--cache-to=type=local,dest={name},mode=max", f"--cache-from=type=local,src={name}")
    words = (*CACHEONLY, "--progress=rawjson", f"--metadata-file={metadata}", *options, *more, ".")
    built = kit.must(*words, cwd=where)
    notices = [n for n in json.loads(metadata.read_bytes())["kitcache.notices"] if NOTICE in n]
    return Run(list(cached_of(built.err).values()), notices)


@contextmanager
def mounted(source: Path, target: Path) -> Iterator[None]:
    target.mkdir()
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


def test_the_next_builds_are_cached_and_the_cache_does_not_grow(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "context", COPY_ALL, src__main="text")
    (where / "link").symlink_to(".buildkit-cache")
    cache = where / ".buildkit-cache"
    cache.mkdir()
    names = ("../outside", "./.buildkit-cache", "./link", "../context/.buildkit-cache")
    with mounted(cache, tmp_path / "outside"):
        runs = {name: build(kit, where, name) for name in names[:1]}
        grown = blobs(cache)
        runs |= {name: build(kit, where, name) for name in names[1:]}
    for name in names:
        notice = f'the cache directory "{name}" is not sent with the context'
        assert runs[name] == ([name != names[0]] * 2, [notice])
    assert blobs(cache) == grown


def test_a_named_context_is_sent_without_it_too(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", f"FROM {BASE}\nCOPY --from=other . /other\n", f="text")
    other = context(tmp_path / "other", None, deep__f="text")
    cache = other / "deep" / "cache"
    options = ("--build-context", f"other={other}")
    first = build(kit, where, str(cache), *options)
    grown = blobs(cache)
    second = build(kit, where, str(cache), *options)
    notice = f'the cache directory "{cache}" is not sent with the context'
    assert first == ([False], [notice])
    assert second == ([True], [notice])
    assert blobs(cache) == grown


def test_an_ignore_file_that_covers_it_needs_no_notice(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", COPY_ALL, _dockerignore="*\n!src\n!**/*.md\n", src__main="text")
    assert build(kit, where, "cache").notices == []


def test_a_cache_that_is_the_context_is_refused(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", COPY_ALL, f="text")
    build(kit, where, "cache")
    for path in (where / "cache").iterdir():
        shutil.move(path, where / path.name)
    (where / "cache").rmdir()
    before = blobs(where)
    for option in ("--cache-to=type=local,dest=.", f"--cache-from=type=local,src={where}"):
        refused = kit.run(*CACHEONLY, option, ".", cwd=where)
        assert refused.code == 2, refused
        assert "the build context is the directory of the cache" in refused.err
    assert blobs(where) == before
