"""`kitcache verify` on each packed cache: what it says is what hashlib and a look by hand say.

Caches that real tools made are clean, but for the sparse one. Those made by hand hold layers
without BuildKit's annotation: such a cache cannot be imported, whatever else is right with it.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.caches.harness import Run, read_expectations, unpack
from tests.caches.snapshot import take_snapshot
from tests.caches.steps import ImpossibleError, Stage

EXPECTATIONS = read_expectations()
LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
LOCKED_S = 5

BARE = "has no annotation containerd.io/uncompressed"
FULLY = ""
# What is said of each tag, in order: a part of the sentence, FULLY where nothing is.
VERDICTS: dict[str, list[str]] = {
    "cacheconfig-missing": [BARE, "its cacheconfig sha256:454024a47f5a is missing"],
    "cap-manifest-below": ["its manifest has 5,242,880 bytes, and BuildKit imports at most"],
    "data-embedded-match": [FULLY],
    "deep-4": [FULLY],
    "digest-blake3-layer": [FULLY],
    "digest-number": [BARE, "a digest must be text, not int"],
    "digest-short": [BARE, "is not a digest"],
    "index-empty-list": [],
    "index-entry-null": [BARE, BARE, "entry 2 is null, not an object"],
    "index-manifests-null": [],
    "index-size-huge": ["is truncated (552 of 4,611,686,018,427,387,904 bytes)", BARE],
    "index-size-negative": ["the size of entry 0 is negative", BARE],
    "layout-no-blobs": [],
    "leaf-layer-missing": [BARE, "layer sha256:3ce92d05f916 is missing"],
    "mt-artifact-type-only": [FULLY],
    "mt-docker": [FULLY],
    "mt-encrypted-and-odd-layers": [FULLY],
    "mt-foreign-layer-urls": [FULLY],
    "mt-missing-everywhere": [FULLY],
    "mt-oci-artifact-manifest": [FULLY],
    "mt-unknown-leaf-binary": [FULLY],
    "race-7102-by-hand": [BARE, "manifest sha256:f6ea197302e6 is missing"],
    "sk-sparse": ["manifest sha256:7f7aa20a6261 is missing"],
    "subject-chain": [FULLY],
    "torn-manifest-digest-lies": [BARE, "does not match its digest"],
    "torn-manifest-missing": [BARE, "manifest sha256:43fbd4525d7b is missing"],
    "torn-manifest-truncated": [BARE, "is truncated (512 of 552 bytes)"],
    "torn-nested-index-missing": ["index sha256:d8084c373f08 is missing"],
}
# A maker's cache is clean, and its tags are as many as there are.
MAKERS = ("ba-", "bk-", "dk-", "img-", "or-", "sk-replaced", "um-")
LOST = ("index-bom", "index-empty-file", "index-half-written", "index-is-array", "index-missing")
LOST += ("index-nan",)


def run_verify(name: str, box: Path, stage: Stage) -> Run:
    command = [sys.executable, "-m", "kitcache", "verify", "--json", EXPECTATIONS[name].dir]
    with subprocess.Popen(
        [*command, f"--lock-timeout={LOCKED_S}s"],
        cwd=box,
        env={**os.environ, "HOME": str(box), "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        stage.start()
        out, err = process.communicate(timeout=EXPECTATIONS[name].limit_s)
    return Run(process.returncode, out.decode(), err.decode())


def lying_blobs(cache: Path) -> set[str]:
    """All that is named like a digest and is no file, or one that holds other bytes.

    A link to a file may hold anything.
    """
    files = [
        (algorithm, path)
        for algorithm, length in LENGTHS.items()
        for path in (cache / "blobs" / algorithm).glob("*")
        if len(path.name) == length and set(path.name) <= set("0123456789abcdef")
    ]
    return {
        f"{algorithm}:{path.name}"
        for algorithm, path in files
        if not (path.is_file() and path.is_symlink())
        if not path.is_file() or hashlib.new(algorithm, path.read_bytes()).hexdigest() != path.name
    }


def faults_said(name: str, tags: list[dict[str, Any]]) -> list[str]:
    if name.startswith(MAKERS):
        return [FULLY for _ in tags]
    return VERDICTS.get(name, [BARE for _ in tags])


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_verify_says_what_is_wrong_and_changes_nothing(name: str, tmp_path: Path) -> None:
    with Stage(unpack(name, tmp_path)) as stage:
        try:
            stage.do(EXPECTATIONS[name].setup)
        except ImpossibleError as reason:
            pytest.skip(str(reason))
        before = take_snapshot(tmp_path)
        answer = run_verify(name, tmp_path, stage)
        after = take_snapshot(tmp_path)
    assert stage.trouble == []
    assert {n: after.get(n) for n in before} == before
    assert after.keys() - before.keys() <= {"cache/kitcache.lock"}
    assert answer.stderr == ""
    value = json.loads(answer.stdout)
    assert value["exit_code"] == answer.code
    if name == "layout-empty-dir":
        assert value["reason"] == "nothing to verify: no export was published here yet"
    assert {blob["digest"] for blob in value["bad_blobs"]} == lying_blobs(tmp_path / "cache")
    assert bool(value["index_problem"]) == (name in LOST)
    said = faults_said(name, value["tags"])
    assert len(said) == len(value["tags"])
    for tag, wanted in zip(value["tags"], said, strict=True):
        assert (tag["importable"] == "full") == (wanted == FULLY), tag
        assert wanted in tag["reason"]
    is_faulty = name in LOST or any(wanted != FULLY for wanted in said)
    assert answer.code == (12 if is_faulty or value["bad_blobs"] else 0)
