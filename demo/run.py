"""The demo: kitcache does its main job, on a cache that BuildKit exported in several rounds.

Where a docker can be had that exports a local cache, that cache is grown here and now, real builds
import what is left, and `kitcache build` keeps another one small; else a sample is unpacked (see
README.md), and every digest is verified. Needs no root, and leaves nothing behind.
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

from dockers import docker_here, private_docker
from proof import a_shared_layer, problems, tags_of
from realcache import Builder, NoBuilderError, builder_in, is_cache, states_of
from rounds import REBUILT, ROUNDS

SAMPLE = Path(__file__).resolve().parent / "sample-cache.tar.gz"
CACHE = "cache"
BUILT = "built"
CONTEXT = "context"


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
    with ExitStack() as stack:
        builder = find_builder(work, stack)
        if builder is None:
            say(f"Instead: a sample that BuildKit exported earlier, in {len(ROUNDS)} rounds.")
            unpack(work)
        show(work)
        prove(work, builder)
        if builder is not None:
            build(work, builder)


def find_builder(work: Path, stack: ExitStack) -> Builder | None:
    """Grow the cache with the first docker that can; None where none can, and it is said why."""
    for name, docker in (("the docker here", docker_here), ("a private docker", private_docker)):
        with ExitStack() as attempt:
            try:
                env = attempt.enter_context(docker(work))
                builder = attempt.enter_context(builder_in(work / CONTEXT, env))
                grow(builder, work / CACHE, name)
            except NoBuilderError as reason:
                say(f"No cache is grown with {name} ({reason}).")
                shutil.rmtree(work / CACHE, ignore_errors=True)
            else:
                stack.push(attempt.pop_all())
                return builder
    return None


def grow(builder: Builder, cache: Path, name: str) -> None:
    tags = " and ".join(sorted({part.tag for part in ROUNDS}))
    say(f"Growing a cache with {name}: {len(ROUNDS)} builds, exported to the tags {tags} ...")
    builder.grow(cache)
    if not is_cache(cache):
        raise NoBuilderError("docker exported no cache, and did not say why")


def unpack(work: Path) -> None:
    with tarfile.open(SAMPLE) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(work, filter="data")
        else:
            tar.extractall(work)


def show(work: Path) -> None:
    say("What is in it, and what of that does any tag still need?")
    kitcache(work, "du", CACHE)
    say("What would a reset do?")
    kitcache(work, "reset", "--dry-run", CACHE)
    say("Do it.")
    kitcache(work, "reset", CACHE)
    kitcache(work, "du", CACHE)
    say("Why is this blob still there?")
    kitcache(work, "why", CACHE, short(a_shared_layer(work / CACHE)))
    say("Is all of it whole, and would BuildKit import every step?")
    kitcache(work, "verify", CACHE)
    say("And with a limit: which tag would go?")
    kitcache(work, "prune", "--dry-run", "--max-used-space=145kB", "--keep-tag=main", CACHE)


def prove(work: Path, builder: Builder | None) -> None:
    """Prove that what is left still imports. Raises DemoError."""
    cache = work / CACHE
    blobs = check(cache)
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
        expect_cached(steps, builder, f"tag {tag}")
        say(f"A build that knew nothing but tag {tag} of this cache had every step CACHED.")


def build(work: Path, builder: Builder) -> None:
    """Show a cache that does not grow in the first place. Raises DemoError."""
    built = work / BUILT
    export = f"--cache-to=type=local,dest={BUILT},mode=max,reset=true"
    say("The same in one command: kitcache build exports, publishes the tag, and sweeps.")
    for part in REBUILT:
        if built.exists():
            say("Everything in the context changes, and it is built again.")
        builder.write(part)
        words = ("build", "--progress=quiet", "--output=type=cacheonly", export, CONTEXT)
        kitcache(work, *words, env=builder.env)
        builder.remember(built)
        kitcache(work, "du", BUILT)
        if check(built) != len(set().union(*tags_of(built).values())):
            raise DemoError(f"{BUILT} holds more than its tag needs")
    say("Two exports, and there is what the second one needs, and no more.")
    try:
        builder.forget()
    except NoBuilderError as reason:
        say(f"No build could import it ({reason}).")
        return
    say("The daemon has forgotten both. A build from the cache alone (of its output, the steps):")
    words = ("--progress=plain", f"--cache-from=type=local,src={BUILT}", "--output=out-of-cache")
    told = kitcache(work, "build", *words, CONTEXT, env=builder.env, is_shown=False)
    expect_cached(states_of(told), builder, BUILT)
    say("Every step CACHED.")


def check(cache: Path) -> int:
    """Count the blobs of a cache that is whole. Raises DemoError for any other."""
    wrong = problems(cache)
    if wrong:
        raise DemoError("; ".join(wrong))
    return len(list((cache / "blobs" / "sha256").iterdir()))


def expect_cached(steps: dict[str, str], builder: Builder, what: str) -> None:
    for name, state in steps.items():
        print(f"  {state:<7} {name}", flush=True)
    if len(steps) != builder.step_count or set(steps.values()) != {"CACHED"}:
        raise DemoError(f"not every step of {what} came from the cache")


def kitcache(
    work: Path, *args: str, env: Mapping[str, str] | None = None, is_shown: bool = True
) -> str:
    """Run a command and show what it says; or, if it is not shown, return it."""
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
        raise DemoError(f"{program} does not run ({error}): `make demo` installs it") from error
    if done.returncode:
        raise DemoError(f"kitcache {args[0]} ended with {done.returncode}\n{done.stdout or ''}")
    if is_shown:
        print(flush=True)
    return done.stdout or ""


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
