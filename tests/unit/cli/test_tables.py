"""cli/tables.py: du, ls and why as people read them, as wide as COLUMNS or a terminal."""

import hashlib

import pytest

from kitcache.cli.commands.du import usage_lines
from kitcache.cli.commands.ls import tag_list_lines
from kitcache.cli.commands.why import reference_lines
from kitcache.cli.tables import damage_warnings, table
from kitcache.cli.text import width_of
from kitcache.gc.results import BlobReferences, DiskUsage, ReferencePath, TagInfo, TagList, TagUsage
from kitcache.gc.values import DamagedPath, Root, Tally
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link

EVIL = "\x1b[31m\u202e"
NOW = 1_700_000_000 * 10**9
HOUR = 3600 * 10**9
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(word: str) -> Digest:
    return Digest("sha256", hashlib.sha256(word.encode()).hexdigest())


ROOT = Root(0, "main", Descriptor(MANIFEST, digest("root"), 7))
EMPTY = DiskUsage("./cache", *[Tally()] * 4, (), (), ())  # type: ignore[arg-type]
SHARE = TagUsage("main", digest("root"), Tally(3, 1500), Tally(1, 500))
TAG = TagInfo(
    "main", digest("root"), "cache", NOW - HOUR, "cacheconfig", Tally(4, 2000), 2, (), 0, ""
)
PATH = ReferencePath(
    ROOT,
    (
        Link(Descriptor(MANIFEST, digest("root"), 7, platform="linux/arm64"), "manifest"),
        Link(Descriptor(LAYER, digest("layer"), 7), "layer"),
    ),
)
WHY = BlobReferences("./cache", digest("layer"), 1234, NOW - HOUR, (PATH,), False, ())
DAMAGE = DamagedPath(ROOT, (Descriptor(MANIFEST, digest("root"), 7),), "missing", "is missing")


def test_an_empty_cache_has_no_shares() -> None:
    assert list(usage_lines(EMPTY)) == [
        "./cache",
        "  live               0 B           0 blobs",
        "  reclaimable        0 B           0 blobs",
        "  ingest             0 B           0 uploads",
        "  foreign            0 B           0 files",
    ]


def test_where_the_bytes_are() -> None:
    usage = EMPTY._replace(
        live=Tally(1, 2000), reclaimable=Tally(9959, 6000), ingest=Tally(1, 0), foreign=Tally(1, 0)
    )
    assert list(usage_lines(usage))[1:] == [
        "  live            2.0 kB   25.0 %  1 blob",
        "  reclaimable     6.0 kB   75.0 %  9,959 blobs",
        "  ingest             0 B    0.0 %  1 upload",
        "  foreign            0 B    0.0 %  1 file",
    ]


def test_a_line_a_tag() -> None:
    untagged = SHARE._replace(ref_name=None)
    unreadable = SHARE._replace(ref_name=None, digest=None, unique=Tally(), shared=Tally())
    lines = list(usage_lines(EMPTY._replace(tags=(SHARE, untagged, unreadable))))
    assert lines[5:] == [
        "",
        "TAG                  UNIQUE  SHARED  BLOBS",
        "main                 1.5 kB   500 B      4",
        f"sha256:{digest('root').hex[:12]}  1.5 kB   500 B      4",
        "(no tag)                0 B     0 B      0",
    ]


def test_no_tags() -> None:
    assert list(tag_list_lines(TagList("./cache", (), ()), NOW)) == ["./cache: no tags"]


def test_the_tags() -> None:
    image = TAG._replace(
        ref_name="v1",
        kind="image",
        created_from="manifest",
        platforms=("linux/amd64", "linux/arm64"),
        missing=3,
        last_used_ns=NOW - HOUR,
        last_used_from="manifest",
    )
    used = TAG._replace(last_used_ns=NOW, last_used_from="export")
    broken = TAG._replace(
        ref_name="bad", kind="unknown", created_ns=None, problem="wrong-size", layers=1234
    )
    assert list(tag_list_lines(TagList("./cache", (used, image, broken), ()), NOW)) == [
        "TAG   KIND      AGE  LAST USED    SIZE  LAYERS  MISSING  PLATFORMS",
        "main  cache     1 h        0 s  2.0 kB       2        0  -",
        "v1    image    ~1 h       ~1 h  2.0 kB       2        3  linux/amd64,linux/arm64",
        "bad   unknown     -          -  2.0 kB   1,234  damaged  -",
        "AGE ~: since the manifest was written here, not since a result was created",
        "LAST USED ~: no export and no import is recorded, so it is the age",
    ]


def test_without_an_estimate_there_is_no_footnote() -> None:
    used = TAG._replace(last_used_ns=NOW, last_used_from="export")
    assert len(list(tag_list_lines(TagList("./cache", (used,), ()), NOW))) == 2


LONG = "registry.example.com/team/project/feature/" + "x" * 200


def test_tables_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wide = TAG._replace(
        ref_name=LONG,
        kind="artifact",
        created_ns=NOW - 999 * 24 * HOUR,
        created_from="manifest",
        size=Tally(9, 999 * 10**9),
        layers=12_345,
        platforms=tuple(f"linux/arch{n}" for n in range(20)),
        problem="wrong-size",
        last_used_ns=NOW - 9999 * 24 * HOUR,
        last_used_from="manifest",
    )
    lines = list(tag_list_lines(TagList("./cache", (wide, TAG), ()), NOW))
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0].startswith("registr")
    assert lines[1].split()[0].endswith("xxx")
    assert "…" in lines[1]
    share = SHARE._replace(ref_name=LONG, unique=Tally(10**6, 10**12))
    assert max(map(len, usage_lines(EMPTY._replace(tags=(share,))))) <= 80


def test_a_wider_terminal_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    lines = list(usage_lines(EMPTY._replace(tags=(SHARE._replace(ref_name=LONG),))))
    assert max(map(len, lines)) == 120


def test_into_a_pipe_lines_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = list(usage_lines(EMPTY._replace(tags=(SHARE._replace(ref_name=LONG),))))
    assert lines[-1].split()[0] == LONG


def test_wide_characters_take_two_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("東京🍣", "1"), ("main", "22"), ("ümläut", "333")]
    assert list(table(("TAG", "N"), rows, right=(1,))) == [
        "TAG       N",
        "東京🍣    1",
        "main     22",
        "ümläut  333",
    ]
    monkeypatch.setenv("COLUMNS", "40")
    _, row = table(("TAG", "N"), [("東京" * 30, "1")], right=(1,))
    assert (row[:2], "…" in row, row[-1]) == ("東京", True, "1")
    assert width_of(row) <= 40


def test_the_paths_to_a_blob() -> None:
    other = PATH._replace(root=ROOT._replace(position=1, ref_name=None))
    lines = list(reference_lines(WHY._replace(paths=(PATH, PATH, other)), NOW))
    assert lines == [
        f"{digest('layer')}: 1.2 kB, written 1 h ago",
        "  tag 'main'",
        f"  > {digest('root')} (manifest, linux/arm64)",
        f"    > layer {digest('layer')}",
        f"  > {digest('root')} (manifest, linux/arm64)",
        f"    > layer {digest('layer')}",
        f"  entry 1 ({digest('root').short})",
        f"  > {digest('root')} (manifest, linux/arm64)",
        f"    > layer {digest('layer')}",
    ]


def test_garbage() -> None:
    lines = list(reference_lines(WHY._replace(paths=()), NOW))
    assert lines[1:] == ["  unreachable: no tag reaches it"]
    lines = list(reference_lines(WHY._replace(paths=(), damage=(DAMAGE,)), NOW))
    assert lines[1:] == ["  no tag that can be read reaches it"]


def test_missing_empty_and_too_many() -> None:
    lines = list(reference_lines(WHY._replace(size=None, written_ns=None), NOW))
    assert lines[0] == f"{digest('layer')}: missing here"
    lines = list(reference_lines(WHY._replace(size=0, has_more_paths=True), NOW))
    assert lines[0].endswith(": 0 B, written 1 h ago")
    assert lines[-1] == "  and more than these 1 paths"


def test_a_line_a_damaged_root_and_what_follows() -> None:
    assert list(damage_warnings("c", ())) == []
    lines = list(damage_warnings("c", [DAMAGE, DAMAGE]))
    assert lines[0] == f"c: tag 'main' cannot be read: manifest {digest('root').short} is missing"
    assert len(lines) == 3
    assert "a reset would refuse" in lines[2]


def test_nothing_is_printed_raw() -> None:
    root = ROOT._replace(ref_name=EVIL)
    evil_link = Link(Descriptor(EVIL, digest("x"), 7, platform=EVIL), "layer")
    share = SHARE._replace(ref_name=EVIL)
    lines = [
        *usage_lines(EMPTY._replace(path=EVIL, tags=(share,))),
        *tag_list_lines(
            TagList(EVIL, (TAG._replace(ref_name=EVIL, platforms=(EVIL,), problem=EVIL),), ()), NOW
        ),
        *tag_list_lines(TagList(EVIL, (), ()), NOW),
        *reference_lines(WHY._replace(path=EVIL, paths=(ReferencePath(root, (evil_link,)),)), NOW),
        *damage_warnings(EVIL, [DAMAGE._replace(root=root, problem=EVIL)]),
    ]
    assert all(line.isprintable() for line in lines)
    assert sum("\\x1b" in line for line in lines) >= 8
