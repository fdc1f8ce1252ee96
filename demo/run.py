"""The demo: kitcache's main commands, on a cache that BuildKit exported in several rounds.

If there is a docker that exports a local cache, the demo builds that cache, imports the kept tags
with real builds, and keeps another cache small with `kitcache build`. Otherwise it unpacks a sample
(see README.md) and verifies every digest. It needs no root and deletes all its files.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from dockers import existing_docker, private_docker
from proof import find_shared_layer, list_problems, read_tags
from realcache import Builder, NoBuilderError, is_cache, open_builder, parse_states
from rounds import REBUILT, ROUNDS

SAMPLE = Path(__file__).resolve().parent / "sample-cache.tar.gz"
CACHE = "cache"
BUILT = "built"
CONTEXT = "context"


class DemoError(Exception):
    """A command of the demo failed, or its result is wrong."""


def main() -> int:
    signal.signal(signal.SIGTERM, _exit)
    try:
        with tempfile.TemporaryDirectory(prefix="kitcache-demo-") as work:
            play(Path(work))
    except DemoError as error:
        print_text(f"the demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def play(work: Path) -> None:
    with ExitStack() as stack:
        builder = find_builder(work, stack)
        if builder is None:
            print_text(
                f"Instead: a sample that BuildKit exported earlier, in {len(ROUNDS)} rounds."
            )
            unpack(work)
        show_commands(work)
        check_imports(work, builder)
        if builder is not None:
            show_build(work, builder)


def find_builder(work: Path, stack: ExitStack) -> Builder | None:
    """Build the cache with the first docker that can; None if none can, after printing why."""
    for name, docker in (
        ("the existing docker", existing_docker),
        ("a private docker", private_docker),
    ):
        with ExitStack() as attempt:
            try:
                env = attempt.enter_context(docker(work))
                builder = attempt.enter_context(open_builder(work / CONTEXT, env))
                build_cache(builder, work / CACHE, name)
            except NoBuilderError as reason:
                print_text(f"No cache is built with {name} ({reason}).")
                shutil.rmtree(work / CACHE, ignore_errors=True)
            else:
                stack.push(attempt.pop_all())
                return builder
    return None


def build_cache(builder: Builder, cache: Path, name: str) -> None:
    tags = " and ".join(sorted({part.tag for part in ROUNDS}))
    print_text(
        f"Building a cache with {name}: {len(ROUNDS)} builds, exported to the tags {tags} ..."
    )
    builder.export_rounds(cache)
    if not is_cache(cache):
        raise NoBuilderError("docker exported no cache, and printed no reason")


def unpack(work: Path) -> None:
    with tarfile.open(SAMPLE) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(work, filter="data")
        else:
            tar.extractall(work)


def show_commands(work: Path) -> None:
    print_text("What does the cache hold, and which blobs does a tag reach?")
    kitcache(work, "du", CACHE)
    print_text("What would a reset delete?")
    kitcache(work, "reset", "--dry-run", CACHE)
    print_text("Delete it.")
    kitcache(work, "reset", CACHE)
    kitcache(work, "du", CACHE)
    print_text("Why was this blob kept?")
    kitcache(work, "why", CACHE, shorten(find_shared_layer(work / CACHE)))
    print_text("Is every blob intact, and can BuildKit import every step?")
    kitcache(work, "verify", CACHE)
    print_text("With a limit: which tag would prune remove?")
    kitcache(work, "prune", "--dry-run", "--max-used-space=145kB", "--keep-tag=main", CACHE)


def check_imports(work: Path, builder: Builder | None) -> None:
    """Check that the kept tags can still be imported. Raises DemoError."""
    cache = work / CACHE
    blobs = check(cache)
    tags = read_tags(cache)
    print_text(f"All {blobs} blobs match their digests, and {len(tags)} tags have all their blobs.")
    if builder is None:
        return
    for tag in tags:
        try:
            steps = builder.steps_from(cache, tag, work / "out")
        except NoBuilderError as reason:
            print_text(f"No build could import it ({reason}).")
            return
        expect_cached(steps, builder, f"tag {tag}")
        print_text(f"A build with only tag {tag} of this cache had every step CACHED.")


def show_build(work: Path, builder: Builder) -> None:
    """Show a build that keeps its cache small. Raises DemoError."""
    built = work / BUILT
    export = f"--cache-to=type=local,dest={BUILT},mode=max,reset=true"
    print_text("The same in one command: kitcache build exports, publishes the tag, and resets.")
    for part in REBUILT:
        if built.exists():
            print_text("The whole context changes; build again.")
        builder.write(part)
        words = ("build", "--progress=quiet", "--output=type=cacheonly", export, CONTEXT)
        kitcache(work, *words, env=builder.env)
        builder.remember(built)
        kitcache(work, "du", BUILT)
        if check(built) != len(set().union(*read_tags(built).values())):
            raise DemoError(f"{BUILT} holds more than its tag needs")
    print_text("After two exports the cache holds only the blobs of the second one.")
    try:
        builder.forget()
    except NoBuilderError as reason:
        print_text(f"No build could import it ({reason}).")
        return
    print_text(
        "The daemon's own cache is empty now. A build from the exported cache (only the steps):"
    )
    words = ("--progress=plain", f"--cache-from=type=local,src={BUILT}", "--output=out-of-cache")
    progress = kitcache(work, "build", *words, CONTEXT, env=builder.env, is_shown=False)
    expect_cached(parse_states(progress), builder, BUILT)
    print_text("Every step CACHED.")


def check(cache: Path) -> int:
    """Return the number of blobs of an intact cache. Raises DemoError for any other."""
    problems = list_problems(cache)
    if problems:
        raise DemoError("; ".join(problems))
    return len(list((cache / "blobs" / "sha256").iterdir()))


def expect_cached(steps: dict[str, str], builder: Builder, name: str) -> None:
    for step, state in steps.items():
        print(f"  {state:<7} {step}", flush=True)
    if len(steps) != builder.step_count or set(steps.values()) != {"CACHED"}:
        raise DemoError(f"some steps of {name} were not cached")


def kitcache(
    work: Path, *args: str, env: Mapping[str, str] | None = None, is_shown: bool = True
) -> str:
    """Run a command and show its output, or return it if it is not shown."""
    program = Path(sys.executable).with_name("kitcache")
    print(f"$ kitcache {' '.join(args)}", flush=True)
    try:
        done = subprocess.run(
            [program, *args],
            check=False,
            cwd=work,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=None if is_shown else subprocess.PIPE,
            stderr=None if is_shown else subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise DemoError(f"{program} cannot be run ({error}): `make demo` installs it") from error
    if done.returncode:
        raise DemoError(f"kitcache {args[0]} ended with {done.returncode}\n{done.stdout or ''}")
    if is_shown:
        print(flush=True)
    return done.stdout or ""


def shorten(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def print_text(text: str) -> None:
    print(f"# {text}", flush=True)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        code = main()
    except OSError as error:
        # The reader of stdout has ended, or a disk is full: write no more to stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"the demo stopped: {error}\n")
        code = 1
    sys.exit(code)
