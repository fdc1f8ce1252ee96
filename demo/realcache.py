"""A real cache, grown by whatever BuildKit the docker client here speaks to.

Nothing is stored as an image, no registry is asked, and what the builds leave in the daemon's own
build cache is taken out again by its ids; nobody else's records are touched.
"""

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rounds import COMMANDS, ROUNDS, Round, last_of, write_context

PROBE_TIMEOUT_S = 15.0
BUILD_TIMEOUT_S = 60.0


class NoBuilderError(Exception):
    """Docker cannot do here what the demo needs; the text says what came of it."""


class Builder:
    """`docker buildx build`, with its steps marked by a token that nobody else's builds have."""

    def __init__(self, context: Path, env: Mapping[str, str]) -> None:
        if shutil.which("docker") is None:
            raise NoBuilderError("there is no docker command")
        self.env = env
        self.context = context
        self._token = secrets.token_hex(4)
        self._layers: set[str] = set()
        self._foreign = self._records()

    def grow(self, cache: Path) -> None:
        """Export every round, each to its tag."""
        for part in ROUNDS:
            self.write(part)
            self._build(f"--cache-to=type=local,dest={cache},tag={part.tag},mode=max")
        self.remember(cache)

    def write(self, part: Round) -> None:
        """Make the context what a round has in it."""
        write_context(self.context, part, self._token)

    def remember(self, cache: Path) -> None:
        """Take note of its layers: a daemon's records of an import name them, and not us."""
        self._layers |= {f"sha256:{path.name}" for path in cache.glob("blobs/sha256/*")}

    def steps_from(self, cache: Path, tag: str, out: Path) -> dict[str, str]:
        """Build with the cache alone: what became of each step (CACHED, or something else).

        The daemon has to forget its own records first, and must write the result out, for only
        that makes it read the layers.
        """
        self.forget()
        self.write(last_of(tag))
        source = f"--cache-from=type=local,src={cache},tag={tag}"
        progress = self._build(source, f"--output=type=local,dest={out}")
        return states_of(progress)

    def forget(self) -> None:
        """Take what our builds left in the daemon's build cache out of it."""
        ours = self._records() - self._foreign
        if ours:
            self._docker(
                "buildx", "prune", "--all", "--force", "--filter", f"id=({'|'.join(ours)})"
            )

    @property
    def step_count(self) -> int:
        """How many steps each of our builds has."""
        return len(COMMANDS)

    def _build(self, *options: str) -> str:
        fixed = ["--progress=plain", "--provenance=false"]
        output = [] if any(o.startswith("--output") for o in options) else ["-o=type=cacheonly"]
        command = ["buildx", "build", *fixed, *output, *options, str(self.context)]
        return self._docker(*command, timeout_s=BUILD_TIMEOUT_S)

    def _records(self) -> set[str]:
        """Find the daemon's build records that can be ours: marked, imported, a context sent."""
        said = self._docker("buildx", "du", "--verbose")
        found = set()
        for record in re.split(r"\n\s*\n", said):
            fields = dict(re.findall(r"^(\w+):\s*(.*?)\s*$", record, re.MULTILINE))
            about = fields.get("Description", "")
            is_imported = about.removeprefix("imported ") in self._layers
            if self._token in about or is_imported or about.startswith("local source for "):
                found.add(fields.get("ID", "").rstrip("*"))
        return {name for name in found if re.fullmatch(r"\w+", name)}

    def _docker(self, *args: str, timeout_s: float = PROBE_TIMEOUT_S) -> str:
        try:
            done = subprocess.run(
                ["docker", *args],
                check=False,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise NoBuilderError(f"docker {args[0]} {args[1]} gave no answer") from error
        except OSError as error:
            raise NoBuilderError(f"docker does not run: {error}") from error
        text = done.stdout.decode(errors="replace")
        if done.returncode:
            raise NoBuilderError(_complaint(text) or f"docker ended with {done.returncode}")
        return text


@contextmanager
def builder_in(context: Path, env: Mapping[str, str]) -> Iterator[Builder]:
    """Give a builder whose traces in the daemon are gone at the end. Raises NoBuilderError."""
    builder = Builder(context, env)
    try:
        yield builder
    finally:
        with suppress(NoBuilderError):  # a daemon that has gone away meanwhile
            builder.forget()


def is_cache(directory: Path) -> bool:
    """Whether a build has really exported something there."""
    try:
        return bool(json.loads((directory / "index.json").read_bytes())["manifests"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _complaint(text: str) -> str:
    """Pick the line of an output that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith("ERROR: ")]
    return "".join((marked or lines)[-1:]).removeprefix("ERROR: ")


def states_of(progress: str) -> dict[str, str]:
    """Read the plain progress of a build: the steps of the Dockerfile, and what became of each."""
    names: dict[str, str] = {}
    states: dict[str, str] = {}
    for number, text in re.findall(r"^#(\d+) (.*)$", progress, re.MULTILINE):
        if re.match(r"\[(\S+ )*\d+/\d+\] ", text):
            names[number] = text.strip()
        elif re.match(r"(CACHED|DONE|ERROR|CANCELED)\b", text):
            states[number] = text.split()[0]
    return {name: states.get(number, "unfinished") for number, name in names.items()}
