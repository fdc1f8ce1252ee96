"""What kitcache prints, word for word: a file for each text, each JSON schema, each help.

`make golden` rewrites golden/; the diff is read like code. A JSON file may gain fields within a
version of its schema; it never loses one. What differs from day to day is masked.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from kitcache.buildkit.publish import CacheResult
from kitcache.buildkit.result import BuildResult
from kitcache.cli.cachetext import cache_lines
from kitcache.cli.jsonout import shape_metadata
from kitcache.cli.parser import COMMANDS
from kitcache.gc.values import ResetResult, Tally
from tests.hostile.build import (
    CACHECONFIG,
    IMAGE_CONFIG,
    LAYER,
    Box,
    Json,
    Sample,
    digest_of,
    make_sample,
)
from tests.hostile.command import Answer, run
from tests.hostile.importable import grow
from tests.hostile.stages import make_stages

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]

MASKS = [
    (r'"seconds": [\d.]+', '"seconds": 0.0'),
    (r'"retry_after_s": [\d.]+', '"retry_after_s": 50.0'),
    (r"\bin \d\d s\b", "in 50 s"),
    (r'"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"', '"<time>"'),
    (r'version": "\d[^"]*"', 'version": "<version>"'),
    (r"\(\d+\.\d s\)", "(0.0 s)"),
    (r"hashed in \d+\.\d s", "hashed in 0.0 s"),
    # The days since the cacheconfig's oldest result: five digits for a long time yet.
    (r"\b\d{5} d\b", "##### d"),
]


def add_image(box: Box) -> None:
    """Two platforms and an attestation below an index."""
    entries = []
    for os_name, arch in (("linux", "amd64"), ("linux", "arm64"), ("unknown", "unknown")):
        platform = {"os": os_name, "architecture": arch}
        config = box.document(platform, IMAGE_CONFIG)
        layer = box.blob(f"root of {arch} ".encode() * 30)
        entries.append(box.manifest([layer], config) | {"platform": platform})
    box.tag("v1.2", box.index_of(entries))


def add_dated_cache(box: Box) -> None:
    """A cacheconfig that says when its result was made."""
    layer = box.blob(b"dated layer " * 30)
    records = [{"layers": [{"layer": 0, "createdAt": "1970-01-02T03:04:05.6Z"}]}]
    config = {"layers": [{"blob": layer["digest"], "parent": -1}], "records": records}
    box.tag("dated", box.manifest([layer], box.document(config, CACHECONFIG)))


def add_artifact(box: Box, subject: Json) -> None:
    """An entry without a tag; its only layer is missing."""
    gone = {"mediaType": LAYER, "digest": digest_of(b"gone"), "size": 4}
    empty = box.blob(b"{}", "application/vnd.oci.empty.v1+json")
    box.tag(None, box.manifest([gone], empty, subject=subject))


def whole(top: Path) -> Sample:
    """Something of everything, and no tag that cannot be read."""
    sample = make_sample(top)
    add_image(sample.box)
    add_dated_cache(sample.box)
    add_artifact(sample.box, sample.dev)
    sample.box.ingest("left behind")
    sample.box.ingest("slow", age_s=630)
    (sample.dir / "notes.txt").write_text("whose is this?")
    (sample.dir / "blobs" / "sha256" / "tmp-upload").touch()
    return sample


def clean(top: Path) -> Sample:
    """Nothing to remove, nothing to tell."""
    sample = make_sample(top)
    for name in sample.garbage:
        (sample.dir / "blobs" / "sha256" / name).unlink()
    return sample


def damaged(top: Path) -> Sample:
    """The image's arm64 manifest is truncated, and dev's is missing."""
    sample = whole(top)
    index = json.loads(sample.box.path_of(sample.box.entries[2]["digest"]).read_bytes())
    sample.box.damage(index["manifests"][1]["digest"], b'{"schemaVersion":2,"conf')
    sample.box.damage(sample.dev["digest"], None)
    return sample


def importable(top: Path) -> Sample:
    """Two caches that BuildKit imports, beside an image and garbage."""
    sample = clean(top)
    sample.box.entries.clear()
    grow(sample.box, "main")
    grow(sample.box, "dev", 5)
    add_image(sample.box)
    return sample


def damaged_import(top: Path) -> Sample:
    """dev has lost a layer and the image one of its manifests; a blob of nobody is bad."""
    sample = importable(top)
    _, dev, image = sample.box.entries
    sample.box.tag("old", {**dev, "digest": digest_of(b"old manifest")})
    layers = json.loads(sample.box.path_of(dev["digest"]).read_bytes())["layers"]
    sample.box.damage(layers[4]["digest"], b"layer 4")
    index = json.loads(sample.box.path_of(image["digest"]).read_bytes())
    sample.box.damage(index["manifests"][1]["digest"], None)
    sample.box.damage(sample.box.blob(b"nobody's")["digest"], b"noboby's")
    return sample


def put_aside(top: Path) -> Sample:
    """What a repair has left there."""
    sample = importable(top)
    (sample.dir / ".kitcache" / "quarantine").mkdir(parents=True)
    for name in ("index.json", f"sha256-{'0' * 64}"):
        (sample.dir / ".kitcache" / "quarantine" / name).write_bytes(b"bad" * 500)
    return sample


def torn_index(top: Path) -> Sample:
    """Cut within the last entry: it has no name any more."""
    sample = importable(top)
    sample.box.write_index((sample.dir / "index.json").read_bytes()[:-9])
    for age_s, path in enumerate(sorted((sample.dir / "blobs" / "sha256").iterdir())):
        os.utime(path, (10**9 - age_s, 10**9 - age_s))
    return sample


def two(top: Path) -> Sample:
    """The sample; other, which shares a layer with it; third, which has another main; a twin."""
    for name, tag, seed in (("other", "extra", "layer 0"), ("third", "main", "third")):
        (top / "room").mkdir()
        box = Box(top / "room")
        box.tag(tag, box.manifest([box.blob(seed.encode() * 20), box.blob(b"own " * 20)]))
        box.dir.rename(top / name)
        shutil.rmtree(top / "room")
    sample = clean(top)
    shutil.copytree(sample.dir, top / "cache-again")
    return sample


def busy(top: Path) -> Sample:
    sample = make_sample(top)
    sample.box.ingest("under way", age_s=10)
    return sample


def staged(top: Path) -> Sample:
    """A cache whose steps are known, most of them new; two tags share the old ones."""
    made = make_stages(top)
    layers = json.loads(made.box.path_of(made.main["digest"]).read_bytes())["layers"]
    return Sample(made.box, made.main, made.dev, tuple(layers[:3]), made.live, made.garbage)


class Case(NamedTuple):
    """A command on a cache. {layer}, {garbage}: a shared layer, and a blob that nobody reaches."""

    words: str
    make: Callable[[Path], Sample] = whole


CASES = {
    "reset": Case("reset cache"),
    "reset-dry-run": Case("reset --dry-run cache"),
    "reset-min-age": Case("reset --min-age 1d cache"),
    "reset-nothing": Case("reset cache", clean),
    "du": Case("du cache"),
    "du-damaged": Case("du cache", damaged),
    "du-quarantine": Case("du cache", put_aside),
    "ls": Case("ls cache"),
    "ls-damaged": Case("ls cache", damaged),
    "contents": Case("ls cache main", staged),
    "contents-image": Case("ls cache v1.2"),
    "why": Case("why cache {layer}"),
    "why-garbage": Case("why cache {garbage}"),
    "untag": Case("untag cache v1.2 dev"),
    "prune": Case("prune --unused-for 30d --keep-tag main cache"),
    "prune-dry-run": Case("prune --dry-run --max-used-space 3kB --keep-tag v* cache"),
    "prune-not-reached": Case("prune --max-used-space 1kB --keep-last 2 cache"),
    "prune-trimmed": Case("prune --max-used-space 25kB --keep-tag main --trim cache", staged),
    "prune-no-policy": Case("prune cache"),
    "error-policy": Case("prune --policy policy.toml --keep-last 3 cache"),
    "trim": Case("trim cache main --max-used-space 25kB", staged),
    "trim-dry-run": Case("trim cache main --max-used-space 25kB --dry-run", staged),
    "trim-unchanged": Case("trim cache main --max-used-space 5GB", staged),
    "trim-unchanged-dry-run": Case("trim cache main --max-used-space 5GB --dry-run", staged),
    "error-limit": Case("trim cache main --max-used-space 1kB", staged),
    "untag-dry-run": Case("untag --dry-run cache dev"),
    "tag": Case("tag cache v1.2 release"),
    "tag-moved": Case("tag cache main dev"),
    "tag-unchanged": Case("tag cache main main"),
    "tag-dry-run": Case("tag --dry-run cache main dev"),
    "merge": Case("merge cache other all", two),
    "merge-renamed": Case("merge --rename dev={{tag}}-of-{{dir}} cache other all", two),
    "merge-moved": Case("merge --replace third cache", two),
    "merge-unchanged": Case("merge cache cache-again", two),
    "merge-dry-run": Case("merge --dry-run --replace third cache", two),
    "copy": Case("copy --tag main --rename {{tag}}-copy cache all"),
    "copy-dry-run": Case("copy --dry-run --tag dev cache all"),
    "error-copy": Case("copy --tag nope --tag main cache all"),
    "error-tag": Case("tag cache dev release", damaged),
    "error-merge": Case("merge cache third all", two),
    "verify": Case("verify cache", importable),
    "verify-damaged": Case("verify cache", damaged_import),
    "repair": Case("verify --repair cache", damaged_import),
    "repair-dry-run": Case("verify --repair --dry-run cache", damaged_import),
    "repair-nothing": Case("verify --repair cache", importable),
    "repair-index": Case("verify --repair cache", torn_index),
    "error-damaged": Case("reset cache", damaged),
    "error-busy": Case("reset cache", busy),
    "error-not-a-cache": Case("du nowhere"),
    "error-not-found": Case("untag cache main nope"),
    "error-usage": Case("reset --min-age soon cache"),
}


# Of a build there is no JSON, and without a daemon only how it fails.
BUILD_CASES = {
    "error-build-usage": "build --cache-to type=local,dest=cache,reset=yes .",
    "error-no-daemon": "build --addr unix:///nowhere/docker.sock .",
    "error-of-buildx-alone": "build --ssh default .",
}

# A client that says so and is content: what exec prints is about what was there.
CLIENT = """#!/bin/sh
echo "docker has: $*"
"""
EXEC_CASES = {
    "exec": "build --cache-to type=local,dest=cache,tag=main,mode=max,reset=true app",
    "exec-dry-run": "build --cache-from type=local,src=c"
    " --cache-to type=local,dest=cache,reset=true app",
    "error-exec-usage": "run app",
}

DIGEST = f"sha256:{'1' * 64}"
RESET = ResetResult(
    path="cache",
    outcome="done",
    entry_count=2,
    kept=Tally(10, 153_000),
    too_young=Tally(),
    deleted=Tally(2, 16_000),
    ingests_deleted=Tally(),
    ingests_kept=(),
    not_deleted=(),
    not_deleted_count=0,
    foreign=(),
    foreign_count=0,
    missing_blobs=(),
    seconds=0.0,
)
EXPORTS = (
    CacheResult("cache", "main", "published", DIGEST, Tally(3, 16_500), Tally(4, 121_000), RESET),
    CacheResult("other", "latest", "empty", None, Tally(), Tally(), None),
    CacheResult(
        "full", "latest", "failed", None, Tally(1, 10), Tally(), None, "not published: disk full", 1
    ),
)
BUILT = BuildResult(
    ref="abcdefghij0123456789klmno",
    digest=DIGEST,
    metadata={"containerimage.digest": DIGEST, "image.name": "docker.io/library/app:latest"},
    caches=EXPORTS,
    notices=("local cache import at cache skipped: no digest found for tag main",),
    provenance={"linux/amd64": {"buildType": "https://mobyproject.org/buildkit@v1"}},
)


def masked(text: str) -> str:
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    return text


def transcript(words: list[str], answer: Answer) -> str:
    parts = [f"$ kitcache {' '.join(words)}\n", answer.out]
    if answer.err:
        parts += ["--- stderr\n", answer.err]
    return masked("".join([*parts, f"--- exit code {answer.code}\n"]))


def pretty(answer: Answer) -> str:
    assert answer.err == ""
    lines = masked(answer.out).splitlines()
    return "\n".join(json.dumps(json.loads(line), indent=2) for line in lines) + "\n"


def compare(request: pytest.FixtureRequest, name: str, text: str) -> None:
    path = GOLDEN / name
    if request.config.getoption("--golden"):
        path.write_text(text)
    assert text == path.read_text(), "if this is as it should be: make golden"


def words_of(case: Case, sample: Sample) -> list[str]:
    layer, garbage = sample.layers[1]["digest"], min(sample.garbage)
    return [word.format(layer=layer, garbage=garbage) for word in case.words.split()]


@pytest.mark.parametrize("name", CASES)
def test_text(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    words = words_of(case, case.make(tmp_path))
    compare(request, f"{name}.txt", transcript(words, run(tmp_path, *words)))


@pytest.mark.parametrize("name", CASES)
def test_json(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    words = words_of(case, case.make(tmp_path))
    compare(request, f"{name}.json", pretty(run(tmp_path, *words, "--json")))


@pytest.mark.parametrize("name", BUILD_CASES)
def test_text_of_a_build(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    words = BUILD_CASES[name].split()
    compare(request, f"{name}.txt", transcript(words, run(tmp_path, *words)))


def test_metadata_of_a_build(request: pytest.FixtureRequest) -> None:
    compare(request, "metadata.json", masked(json.dumps(shape_metadata(BUILT), indent=2)) + "\n")


def test_what_a_build_says_of_its_caches(request: pytest.FixtureRequest) -> None:
    compare(request, "exports.txt", "".join(f"{line}\n" for line in cache_lines(EXPORTS)))


@pytest.mark.parametrize("name", EXEC_CASES)
def test_text_of_exec(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    whole(tmp_path)
    options = ["--in-place", "--metadata-file", "exec.json"]
    options = ["--dry-run"] if name == "exec-dry-run" else options
    options = ["--reset"] if name == "error-exec-usage" else options
    (tmp_path / "docker").write_text(CLIENT)
    (tmp_path / "docker").chmod(0o755)
    words = ["exec", *options, "--", "./docker", *EXEC_CASES[name].split()]
    compare(request, f"{name}.txt", transcript(words, run(tmp_path, *words)))
    if name == "exec":
        written = json.loads((tmp_path / "exec.json").read_text())
        compare(request, "exec.json", masked(json.dumps(written, indent=2)) + "\n")


@pytest.mark.parametrize("words", ["", *COMMANDS])
def test_help(request: pytest.FixtureRequest, tmp_path: Path, words: str) -> None:
    name = f"help{'-' if words else ''}{words}.txt"
    answer = run(tmp_path, *words.split(), "--help")
    if request.config.getoption("--golden"):
        (GOLDEN / name).write_text(answer.out)
    # Versions of Python break lines differently, and some repeat the PATH: `-f PATH, --file PATH`.
    shown, golden = (
        re.sub(r"(-[a-z]) \S+, --", r"\1, --", text).split()
        for text in (answer.out, (GOLDEN / name).read_text())
    )
    assert shown == golden, "make golden?"


def test_the_manual_page(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """docs/kitcache.1 is made of the same parsers."""
    script = ROOT / "scripts" / "generate_man.py"
    subprocess.run([sys.executable, script, tmp_path / "page"], check=True, timeout=120)
    compare(request, "../../../docs/kitcache.1", (tmp_path / "page").read_text())


def test_every_schema_has_a_file_and_every_file_a_test() -> None:
    text = "".join(path.read_text() for path in GOLDEN.glob("*.json"))
    kinds = "contents copy du error exec export ls merge prune repair reset tag trim untag verify"
    schemas = {f"kitcache.{kind}/1" for kind in (*kinds.split(), "why")}
    assert set(re.findall(r'"schema": "(.*)"', text)) == schemas
    written = {f"{name}{ending}" for name in CASES for ending in (".txt", ".json")}
    written |= {"metadata.json", "exports.txt", *(f"{name}.txt" for name in BUILD_CASES)}
    written |= {"exec.json", *(f"{name}.txt" for name in EXEC_CASES)}
    written |= {"help.txt", *(f"help-{name}.txt" for name in COMMANDS)}
    assert set(os.listdir(GOLDEN)) == written


@pytest.fixture(autouse=True)
def _without_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
