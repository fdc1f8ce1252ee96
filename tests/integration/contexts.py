"""Build contexts for the tests, and how to read what a build said about its steps."""

import re
from pathlib import Path

from .daemon import BASE, Daemon

DOCKERFILE = f"""\
FROM {BASE} AS deps
COPY lock /lock
RUN cat /lock > /deps
FROM {BASE}
COPY --from=deps /deps /deps
COPY app /app
RUN cat /app /deps > /result
"""
STEPS = 5  # besides the two FROM, which a build always looks up anew
MULTI_PLATFORM = "linux/amd64,linux/arm64"


def write_context(directory: Path, *, app: str, lock: str) -> Path:
    """A context of two stages; `app` changes the last two steps, `lock` all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "app").write_text(app)
    (directory / "lock").write_text(lock)
    return directory


def steps(progress: str) -> dict[str, str]:
    """State of each step of the Dockerfile but FROM, by name, as plain progress tells it."""
    names: dict[str, str] = {}
    states: dict[str, str] = {}
    for line in progress.splitlines():
        match = re.fullmatch(r"#(\d+) (.*)", line)
        if not match:
            continue
        number, text = match.groups()
        if re.match(r"\[(\S+ )*\d+/\d+\] (?!FROM )", text):
            names[number] = text
        elif re.match(r"(CACHED|DONE|ERROR|CANCELED)\b", text):
            states[number] = text.split()[0].rstrip(":")
    return {name: states.get(number, "unfinished") for number, name in names.items()}


def import_build(daemon: Daemon, context: Path, cache: Path, tag: str, out: Path) -> dict[str, str]:
    """Builds from a local cache alone and writes the result out; the state of each step.

    The daemon forgets all it knows first. Writing the result makes it pull every layer: without
    that, a layer that is gone would go unnoticed.
    """
    daemon.prune()
    source = f"type=local,src={cache},tag={tag}"
    return steps(
        daemon.build(context, "--cache-from", source, "--output", f"type=local,dest={out}")
    )
