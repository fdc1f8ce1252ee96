"""Names that a terminal acts on: in tags, file names, DIR itself and the holder of a lock.

Law: no such character ever leaves kitcache raw, on either stream, in any command. Every run
goes through `assert_civil`, which looks at each character; the tests here provoke it.
"""

import json
import os
import shlex
import subprocess
import sys
from typing import Any

import pytest

from tests.hostile.build import CACHECONFIG, LAYER, MANIFEST, REF_NAME, Sample, encode
from tests.hostile.command import Answer, assert_civil, run
from tests.hostile.test_bad_digest import SPELLINGS

WORDS: dict[str, str] = {
    "a cleared screen": "v1\x1b[2J\x1b[H",
    "a window title": "\x1b]0;owned\x07",
    "a hyperlink": "\x1b]8;;http://evil.test\x1b\\latest\x1b]8;;\x1b\\",
    "an 8-bit escape": "v1\x9b31mred",
    "a line break": "v1\nkitcache: cache: removed nothing, all is well",
    "a carriage return": "v1\rforged",
    "a tab": "v1\tv2",
    "a backspace": "v1\b\bv2",
    "a delete": "v1\x7f",
    "right to left": "v1\u202egnp.exe",
    "a zero width space": "lat\u200best",
    "a line separator": "v1\u2028v2",
    "a byte order mark": "\ufefflatest",
    "a lone surrogate": "v1\ud800",
    "a zero byte": "v1\0v2",
    "a tag character": "v1\U000e0041",
}
ODD = {"ümlaut": "grün", "other letters": "最新", "an emoji": "🐳"}
COMMANDS = [["reset", "--dry-run"], ["reset"], ["du"], ["ls"]]


def run_both(sample: Sample, *args: str, env: dict[str, str] | None = None) -> list[Answer]:
    return [run(sample.box.top, *args, *more, env=env) for more in ([], ["--json"])]


def test_tags_never_come_out_raw(sample: Sample) -> None:
    for word in WORDS.values():
        sample.box.tag(word, sample.box.manifest([sample.layers[0]]))
    for command in COMMANDS:
        text, in_json = run_both(sample, *command, "cache")
        assert (text.code, in_json.code) == (0, 0)
        if command in (["du"], ["ls"]):
            tags = [tag["ref_name"] for tag in in_json.value["tags"]]
            assert tags == ["main", "dev", *WORDS.values()]
    for answer in run_both(sample, "why", "cache", sample.layers[0]["digest"]):
        assert answer.code == 0


@pytest.mark.parametrize("name", WORDS)
def test_a_damaged_tag_never_comes_out_raw(sample: Sample, name: str) -> None:
    lost = sample.box.manifest([sample.box.blob(b"lost")])
    sample.box.tag(WORDS[name], lost)
    sample.box.damage(lost["digest"], None)
    for command in (["reset"], ["ls"], ["du"]):
        assert run(sample.box.top, *command, "cache").code == 12
    refusal = run(sample.box.top, "reset", "--json", "cache").value
    assert refusal["facts"]["tag"] == WORDS[name]
    # A name that cannot be typed is no way out; its digest is.
    (step,) = [step for step in refusal["hints"] if " untag " in step]
    out = run(sample.box.top, *shlex.split(step)[1:])
    assert out.code == 0, (step, out.err)
    assert run(sample.box.top, "reset", "cache").code == 0


@pytest.mark.parametrize("name", [n for n in WORDS if n not in {"a zero byte", "a lone surrogate"}])
def test_untag_never_prints_a_tag_raw(sample: Sample, name: str) -> None:
    sample.box.tag(WORDS[name], sample.main)
    for answer in run_both(sample, "untag", "--dry-run", "cache", WORDS[name]):
        assert answer.code == 0
    for answer in run_both(sample, "untag", "cache", "no" + WORDS[name]):
        assert answer.code == 1
    assert run(sample.box.top, "untag", "cache", WORDS[name]).code == 0


@pytest.mark.parametrize("name", [n for n in WORDS if n not in {"a zero byte", "a lone surrogate"}])
def test_tag_and_merge_never_print_a_tag_raw(sample: Sample, name: str) -> None:
    word = WORDS[name]
    sample.box.tag(word, sample.main)
    for answer in run_both(sample, "tag", "--dry-run", "cache", word, "new"):
        assert answer.code == 0
    for answer in run_both(sample, "tag", "--dry-run", "cache", "main", "new" + word):
        assert answer.code == (0 if word.isprintable() else 2)
    for answer in run_both(sample, "tag", "cache", "no" + word, "new"):
        assert answer.code == 1
    for answer in run_both(sample, "merge", "cache", "all"):
        assert answer.code == 0
    for answer in run_both(sample, "merge", "--rename", "*={tag}!", "cache", "all"):
        assert answer.code == (0 if word.isprintable() else 2)
    sample.box.entries.pop()
    sample.box.tag(word, sample.dev)
    for answer in run_both(sample, "merge", "cache", "all"):
        assert answer.code == 1
    for answer in run_both(sample, "merge", "--replace", "--dry-run", "cache", "all"):
        assert answer.code == 0


def test_a_platform_never_comes_out_raw(sample: Sample) -> None:
    platform = {"os": "linux\x1b[2J", "architecture": "arm\u202e64", "variant": "v\n8"}
    image = sample.box.manifest([], sample.box.blob(b"{}", "application/x\x1b[2J"))
    sample.box.tag("multi", sample.box.index_of([image | {"platform": platform}]))
    assert run(sample.box.top, "ls", "cache").code == 0
    sample.box.damage(image["digest"], None)
    for command in COMMANDS:
        for answer in run_both(sample, *command, "cache"):
            assert answer.code == 12


def test_a_media_type_never_comes_out_raw(sample: Sample) -> None:
    odd = sample.box.blob(b"odd", "application/\x1b[2J\u202e\n")
    body = {"schemaVersion": 2, "config": odd, "layers": [odd]}
    sample.box.tag("odd", sample.box.document(body, MANIFEST + "\x1b[31m"))
    for command in (["ls"], ["reset"], ["why", odd["digest"]]):
        for answer in run_both(sample, command[0], "cache", *command[1:]):
            assert answer.code == 0


def test_digests_never_come_out_raw(sample: Sample) -> None:
    """One by one, as a refusal names them, they are test_bad_digest's."""
    for name, digest in SPELLINGS.items():
        layer = {"mediaType": LAYER, "digest": digest, "size": 1}
        sample.box.tag(f"{name}, a layer", sample.box.manifest([layer], sample.main))
        sample.box.tag(f"{name}, a root", {"mediaType": MANIFEST, "digest": digest, "size": 1})
    for command in COMMANDS:
        for answer in run_both(sample, *command, "cache"):
            assert answer.code == 12


def test_a_created_time_never_comes_out_raw(sample: Sample) -> None:
    times: list[Any] = ["\x1b[2J", "9" * 5000, "2026-13-45T99:99:99Z", 7, None, {}]
    for number, when in enumerate(times):
        records = [{"results": [{"createdAt": when, "layer": 0}]}, {"results": None}, None, 7]
        config = sample.box.document({"layers": [], "records": records}, CACHECONFIG)
        sample.box.tag(f"odd-{number}", sample.box.manifest([sample.layers[0]], config))
    for answer in run_both(sample, "ls", "cache"):
        assert answer.code == 0


FILES = {name: word.replace("\0", "").replace("\ud800", "\udcff") for name, word in WORDS.items()}


def test_file_names_never_come_out_raw(sample: Sample) -> None:
    words = [word.replace("/", "|") for word in FILES.values()]
    for word in words:
        for folder in (".", "blobs", "blobs/sha256", "ingest"):
            (sample.dir / folder / word).touch()
        # A new one would be an upload of some other tool.
        os.utime(sample.dir / "ingest" / word, (0, 0))
        (sample.dir / "blobs" / "sha256" / f"{word}.d").mkdir()
    os.utime(sample.dir / "index.json")
    for command in COMMANDS:
        text, in_json = run_both(sample, *command, "cache")
        assert (text.code, in_json.code) == (0, 0)
    foreign = run(sample.box.top, "reset", "cache", "--json").value["foreign"]
    assert {f"blobs/sha256/{word}" for word in words} < set(foreign)


@pytest.mark.parametrize("name", FILES)
def test_a_directory_name_never_comes_out_raw(sample: Sample, name: str) -> None:
    word = FILES[name].replace("/", "|")
    sample.dir.rename(sample.box.top / word)
    for command in (["du"], ["reset"], ["reset", "--json"]):
        assert run(sample.box.top, *command, word).code == 0
    assert run(sample.box.top, "reset", word + "x").code == 10
    (sample.box.top / word / "index.json").write_bytes(b"[")
    assert run(sample.box.top, "reset", word).code == 12


@pytest.mark.parametrize("name", FILES)
def test_an_argument_never_comes_out_raw(sample: Sample, name: str) -> None:
    word = FILES[name]
    for args in (
        ["why", "cache", word],
        ["untag", "cache", word],
        ["tag", "cache", word, "new"],
        ["tag", "cache", "nope", word],
        ["merge", "--rename", "{" + word, "cache", "new"],
        ["merge", word, "cache"],
        ["reset", "cache", "--min-age", word],
        ["reset", "cache", f"--{word}"],
        [word, "cache"],
        ["completion", word],
    ):
        # With a blank in it, argparse takes a word for a DIR.
        assert run(sample.box.top, *args).code in {1, 2, 10}


def test_the_holder_of_a_lock_never_comes_out_raw(sample: Sample) -> None:
    """Its command line is the choice of whoever started it."""
    code = (
        "import fcntl,sys;f=open('cache/kitcache.lock','w');fcntl.flock(f,fcntl.LOCK_EX);"
        "print('held',flush=True);sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, "\x1b[2J\x1b]0;owned\x07\u202e\n\r\udcff"],
        cwd=sample.box.top,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for timeout in ("0", "0.2s"):
            for answer in run_both(sample, "reset", "--lock-timeout", timeout, "cache"):
                assert answer.code == 11
                assert str(holder.pid) in answer.out + answer.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
@pytest.mark.parametrize("name", ODD)
def test_a_terminal_of_few_letters_is_no_traceback(
    sample: Sample, name: str, encoding: str
) -> None:
    env = {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    sample.box.tag(ODD[name], sample.main)
    (sample.dir / "blobs" / "sha256" / ODD[name]).touch()
    for command in (["reset"], ["du"], ["ls"]):
        for answer in run_both(sample, *command, "cache", env=env):
            assert answer.code == 0
    sample.box.damage(sample.main["digest"], None)
    assert run(sample.box.top, "reset", "cache", env=env).code == 12


@pytest.mark.parametrize("name", ODD)
def test_letters_of_any_language_come_out_as_they_are(sample: Sample, name: str) -> None:
    sample.box.tag(ODD[name], sample.main)
    assert ODD[name] in run(sample.box.top, "ls", "cache").out


def test_json_stays_one_line_whatever_the_names(sample: Sample) -> None:
    for word in WORDS.values():
        sample.box.tag(word, sample.main)
    for command in COMMANDS:
        answer = run(sample.box.top, *command, "cache", "--json")
        assert len(answer.out.splitlines()) == 1
        assert isinstance(json.loads(answer.out), dict)


def test_the_check_itself_sees_what_it_is_to_see() -> None:
    """Or all of the above would pass with a printer that escapes nothing."""
    for word in [*WORDS.values(), "Traceback (most recent call last):"]:
        with pytest.raises(AssertionError):
            assert_civil(Answer(0, word.replace("\nkitcache", "\r"), ""))
    for word in [*ODD.values(), "plain\nlines\n"]:
        assert_civil(Answer(0, word, word))


def test_an_annotation_is_no_way_around(sample: Sample) -> None:
    """Fields that are not shown today must not be shown raw tomorrow."""
    entry = sample.main | {
        "artifactType": "\x1b[2J",
        "annotations": {REF_NAME: "main2", "io.containerd.image.name": "\x1b[2J", "\x1b[31m": "x"},
    }
    sample.box.entries.append(entry)
    sample.box.write_index(encode(sample.box.index_document() | {"\x1b[2J": "\u202e"}))
    for command in COMMANDS:
        for answer in run_both(sample, *command, "cache"):
            assert answer.code == 0
