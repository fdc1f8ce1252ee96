"""cli/jsonout.py: one line of ASCII for each value. The shapes themselves are golden files."""

import json
import re
from typing import Any

import pytest

from kitcache import __version__
from kitcache.cli.jsonout import encode_error, encode_value
from kitcache.errors import Busy, Damaged, KitcacheError, UsageError
from kitcache.gc.results import BlobReferences, DiskUsage, TagInfo, TagList
from kitcache.gc.values import ResetResult, Tally
from kitcache.oci.digest import Digest
from kitcache.upkeep.results import UntagResult

EVIL = "\x1b\u202e\udcff\n東京"
DIGEST = Digest("sha256", "0" * 64)
TAG = TagInfo(EVIL, None, "cache", 0, "manifest", Tally(1, 2), 3, ("linux",), 0, "")
VALUES = [
    ResetResult(EVIL, "done", 1, *[Tally()] * 4, (), (), 0, (), 0, (), 0.1),  # type: ignore[arg-type]
    DiskUsage(EVIL, *[Tally()] * 4, (), (), ()),  # type: ignore[arg-type]
    TagList(EVIL, (TAG,), ()),
    BlobReferences(EVIL, DIGEST, None, None, (), False, ()),
    UntagResult(EVIL, "done", ((EVIL, EVIL),)),
]


@pytest.mark.parametrize(
    ("value", "schema"),
    list(zip(VALUES, ("reset", "du", "ls", "why", "untag"), strict=True)),
)
def test_one_line_of_ascii_that_reads_back(value: Any, schema: str) -> None:
    line = encode_value(value)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["path"] == EVIL
    assert json.loads(line)["schema"] == f"kitcache.{schema}/1"


def test_an_unknown_value_has_no_shape() -> None:
    with pytest.raises(TypeError, match="no JSON schema for Tally"):
        encode_value(Tally())


@pytest.mark.parametrize(
    "error",
    [
        KitcacheError(EVIL, EVIL, hints=("a", "b")),
        UsageError(EVIL),
        Busy("c", "held", holder_pid=7),
        Damaged("c", "wrong-size", kind="wrong-size", tag=EVIL, chain=("index.json", EVIL)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_has_its_name_its_sentence_and_its_facts(error: KitcacheError) -> None:
    line = encode_error(error)
    assert line.isascii()
    assert line.isprintable()
    written = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", written.pop("time"))
    assert written == {
        "schema": "kitcache.error/1",
        "error": type(error).__name__,
        "exit_code": error.exit_code,
        "path": error.path,
        "message": str(error),
        "facts": error.facts,
        "hints": list(error.hints),
        "version": __version__,
    }


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (None, None),
        (10**40, None),
    ],
)
def test_times_are_utc(ns: int | None, text: str | None) -> None:
    (tag,) = json.loads(encode_value(TagList("c", (TAG._replace(created_ns=ns),), ())))["tags"]
    assert tag["created"] == text
