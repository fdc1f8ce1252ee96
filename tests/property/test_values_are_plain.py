"""Law: what the library hands out is plain: comparable, printable, JSON, no file is open."""

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import kitcache
from kitcache.cli.jsonout import encode_value
from tests.property.disk import blobs, on_disk
from tests.property.model import Cache
from tests.property.strategies import caches

PLAIN = (str, int, float, bool, type(None))


def assert_plain(value: Any) -> None:
    """Numbers, text, None, and tuples of them: nothing that could change or hold a file."""
    if isinstance(value, tuple):
        for part in value:
            assert_plain(part)
    else:
        assert isinstance(value, PLAIN), type(value)


def answers(root: Path) -> list[Any]:
    found: list[Any] = [kitcache.reset(root, dry_run=True), kitcache.du(root), kitcache.ls(root)]
    found += [kitcache.why(root, digest) for digest in sorted(blobs(root))[:2]]
    return [*found, kitcache.reset(root)]


@given(caches())
def test_answers_are_plain_and_survive_json(cache: Cache) -> None:
    with on_disk(cache) as root:
        for answer in answers(root):
            assert_plain(answer)
            assert hash(answer) == hash(answer._replace())
            line = encode_value(answer)
            assert line.isascii()
            assert "\n" not in line
            assert json.loads(line)["schema"].startswith("kitcache.")


@given(caches(with_ingests=False), st.booleans())
def test_no_call_leaves_a_file_open(cache: Cache, dry_run: bool) -> None:
    with on_disk(cache) as root:
        kitcache.reset(root, dry_run=dry_run)
        before = len(os.listdir("/proc/self/fd"))
        answers(root)
        assert len(os.listdir("/proc/self/fd")) == before
