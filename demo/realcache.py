"""A real cache, built by the BuildKit that the docker client uses.

The builds store no image and use no registry. Their records in the daemon's build cache are deleted
by their ids; other records are not changed.
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
    """This docker cannot build the cache; the text is the reason."""


class Builder:
    """`docker buildx build`, with a token in its steps that no other build has."""

    def __init__(self, context: Path, env: Mapping[str, str]) -> None:
        if shutil.which("docker") is None:
            raise NoBuilderError("there is no docker command")
        self.env = env
        self.context = context
        self._token = secrets.token_hex(4)
        self._layers: set[str] = set()
        self._foreign = self._records()

    def export_rounds(self, cache: Path) -> None:
        """Export every round to its tag."""
        for part in ROUNDS:
            self.write(part)
            self._build(f"--cache-to=type=local,dest={cache},tag={part.tag},mode=max")
        self.remember(cache)

    def write(self, part: Round) -> None:
        """Write the context of a round."""
        write_context(self.context, part, self._token)

    def remember(self, cache: Path) -> None:
        """Remember the layers of a cache: a daemon's records of an import name only the layers."""
        self._layers |= {f"sha256:{path.name}" for path in cache.glob("blobs/sha256/*")}

    def steps_from(self, cache: Path, tag: str, out: Path) -> dict[str, str]:
        """Build with this cache only; return the state of each step (CACHED, or another one).

        The daemon's own records are deleted first. The result is written out, because only that
        makes the daemon read the layers.
        """
        self.forget()
        self.write(last_of(tag))
        source = f"--cache-from=type=local,src={cache},tag={tag}"
        progress = self._build(source, f"--output=type=local,dest={out}")
        return parse_states(progress)

    def forget(self) -> None:
        """Delete the records of the demo's builds from the daemon's build cache."""
        own = self._records() - self._foreign
        if own:
            self._docker("buildx", "prune", "--all", "--force", "--filter", f"id=({'|'.join(own)})")

    @property
    def step_count(self) -> int:
        """The number of steps of each build."""
        return len(COMMANDS)

    def _build(self, *options: str) -> str:
        fixed = ["--progress=plain", "--provenance=false"]
        output = [] if any(o.startswith("--output") for o in options) else ["-o=type=cacheonly"]
        command = ["buildx", "build", *fixed, *output, *options, str(self.context)]
        return self._docker(*command, timeout_s=BUILD_TIMEOUT_S)

    def _records(self) -> set[str]:
        """Return records that may be the demo's: with the token, imported, or a sent context."""
        output = self._docker("buildx", "du", "--verbose")
        names = set()
        for record in re.split(r"\n\s*\n", output):
            fields = dict(re.findall(r"^(\w+):\s*(.*?)\s*$", record, re.MULTILINE))
            text = fields.get("Description", "")
            is_imported = text.removeprefix("imported ") in self._layers
            if self._token in text or is_imported or text.startswith("local source for "):
                names.add(fields.get("ID", "").rstrip("*"))
        return {name for name in names if re.fullmatch(r"\w+", name)}

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
            raise NoBuilderError(f"docker {args[0]} {args[1]} did not answer") from error
        except OSError as error:
            raise NoBuilderError(f"docker cannot be run: {error}") from error
        text = done.stdout.decode(errors="replace")
        if done.returncode:
            raise NoBuilderError(_find_error(text) or f"docker ended with {done.returncode}")
        return text


@contextmanager
def open_builder(context: Path, env: Mapping[str, str]) -> Iterator[Builder]:
    """Yield a builder; delete its records in the daemon at the end. Raises NoBuilderError."""
    builder = Builder(context, env)
    try:
        yield builder
    finally:
        with suppress(NoBuilderError):  # The daemon may have ended.
            builder.forget()


def is_cache(directory: Path) -> bool:
    """Return True if a build has exported a cache to the directory."""
    try:
        return bool(json.loads((directory / "index.json").read_bytes())["manifests"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _find_error(text: str) -> str:
    """Return the line of an output that states the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith("ERROR: ")]
    return "".join((marked or lines)[-1:]).removeprefix("ERROR: ")


def parse_states(progress: str) -> dict[str, str]:
    """Return the steps of the Dockerfile in a plain progress, each with its state."""
    names: dict[str, str] = {}
    states: dict[str, str] = {}
    for number, text in re.findall(r"^#(\d+) (.*)$", progress, re.MULTILINE):
        if re.match(r"\[(\S+ )*\d+/\d+\] ", text):
            names[number] = text.strip()
        elif re.match(r"(CACHED|DONE|ERROR|CANCELED)\b", text):
            states[number] = text.split()[0]
    return {name: states.get(number, "unfinished") for number, name in names.items()}
