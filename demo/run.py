"""The demo: kitcache does its main job, on a cache that BuildKit exported in several rounds.

Where docker can export a local cache, that cache is grown here and now, and at the end a real
build imports what is left; else a sample is unpacked (see README.md), and at the end every digest
is verified. Needs no root, and leaves nothing behind.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import FrameType

from proof import a_shared_layer, problems, tags_of
from realcache import Builder, NoBuilderError, builder_in, is_cache
from rounds import ROUNDS

SAMPLE = Path(__file__).resolve().parent / "sample-cache.tar.gz"
CACHE = "cache"


class DemoError(Exception):
    """The demo did not show what it is there to show."""


def main() -> int:
    signal.signal(signal.SIGTERM, _leave)
    try:
        with tempfile.TemporaryDirectory(prefix="kitcache-demo-") as work:
            play(Path(work))
    except DemoError as error:
        say(f"the demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def play(work: Path) -> None:
    try:
        with builder_in(work) as builder:
            grow(builder, work / CACHE)
            show(work, builder)
    except NoBuilderError as reason:
        say(f"No cache is grown here ({reason}).")
        say(f"Instead: a sample that BuildKit exported earlier, in {len(ROUNDS)} rounds.")
        shutil.rmtree(work / CACHE, ignore_errors=True)
        unpack(work)
        show(work, None)


def grow(builder: Builder, cache: Path) -> None:
    tags = sorted({part.tag for part in ROUNDS})
    say(f"Growing a cache: {len(ROUNDS)} builds, exported to the tags {' and '.join(tags)} ...")
    builder.grow(cache)
    if not is_cache(cache):
        raise NoBuilderError("docker exported no cache, and did not say why")


def unpack(work: Path) -> None:
    with tarfile.open(SAMPLE) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(work, filter="data")
        else:
            tar.extractall(work)


def show(work: Path, builder: Builder | None) -> None:
    say("What is in it, and what of that does any tag still need?")
    kitcache(work, "du", CACHE)
    say("What would a reset do?")
    kitcache(work, "reset", "--dry-run", CACHE)
    say("Do it.")
    kitcache(work, "reset", CACHE)
    kitcache(work, "du", CACHE)
    say("Why is this blob still there?")
    kitcache(work, "why", CACHE, short(a_shared_layer(work / CACHE)))
    prove(work, builder)


def prove(work: Path, builder: Builder | None) -> None:
    """Prove that what is left still imports. Raises DemoError."""
    cache = work / CACHE
    wrong = problems(cache)
    if wrong:
        raise DemoError("; ".join(wrong))
    blobs = len(list((cache / "blobs" / "sha256").iterdir()))
    tags = tags_of(cache)
    say(f"All {blobs} blobs hold what their names say, and {len(tags)} tags find all of theirs.")
    if builder is None:
        return
    for tag in tags:
        try:
            steps = builder.steps_from(cache, tag, work / "out")
        except NoBuilderError as reason:
            say(f"No build could try it ({reason}).")
            return
        for name, state in steps.items():
            print(f"  {state:<7} {name}", flush=True)
        if len(steps) != builder.step_count or set(steps.values()) != {"CACHED"}:
            raise DemoError(f"not every step of tag {tag} came from the cache")
        say(f"A build that knew nothing but tag {tag} of this cache had every step CACHED.")


def kitcache(work: Path, *args: str) -> None:
    program = Path(sys.executable).with_name("kitcache")
    print(f"$ kitcache {' '.join(args)}", flush=True)
    try:
        done = subprocess.run([program, *args], check=False, cwd=work, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise DemoError(f"{program} does not run ({error}): `make demo` installs it") from error
    if done.returncode:
        raise DemoError(f"kitcache {args[0]} ended with {done.returncode}")
    print(flush=True)


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def say(text: str) -> None:
    print(f"# {text}", flush=True)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        code = main()
    except OSError as error:
        # Whoever read along has gone, or a disk is full: stdout can take no more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"the demo stopped: {error}\n")
        code = 1
    sys.exit(code)
