"""The builds of the demo: a small application in three stages, changed in each round."""

import random
from pathlib import Path
from typing import NamedTuple


class Round(NamedTuple):
    """One export: its tag, and the version of each part of the context."""

    tag: str
    vendor: int
    assets: int
    src: int


ROUNDS = (
    Round("main", vendor=1, assets=1, src=1),
    Round("main", vendor=1, assets=1, src=2),
    Round("release", vendor=1, assets=1, src=2),
    Round("main", vendor=2, assets=1, src=3),
    Round("main", vendor=3, assets=2, src=4),
    Round("release", vendor=4, assets=2, src=5),
    Round("main", vendor=4, assets=2, src=6),
)
# Versions that no earlier round has, so these two builds share no step.
REBUILT = (
    Round("latest", vendor=11, assets=11, src=11),
    Round("latest", vendor=12, assets=12, src=12),
)
SIZES = {"vendor": 30_000, "assets": 30_000, "src": 12_000}
COMMANDS = (
    "COPY vendor-{token} /deps/vendor",
    "COPY assets-{token} /assets",
    "COPY --from=deps /deps /app-{token}/deps",
    "COPY --from=assets /assets /app-{token}/assets",
    "COPY src-{token} /app-{token}/src",
)
DOCKERFILE = """\
FROM scratch AS deps
{0}
FROM scratch AS assets
{1}
FROM scratch
{2}
{3}
{4}
"""


def write_context(directory: Path, part: Round, token: str) -> None:
    """Write the context of one round; the token makes its steps differ from other builds'."""
    directory.mkdir(exist_ok=True)
    commands = [command.format(token=token) for command in COMMANDS]
    (directory / "Dockerfile").write_text(DOCKERFILE.format(*commands))
    for name, size in SIZES.items():
        version = getattr(part, name)
        data = random.Random(f"{name} {version} {token}").randbytes(size)
        (directory / f"{name}-{token}").write_bytes(data)


def last_of(tag: str) -> Round:
    """Return the last round that was exported to a tag."""
    return next(part for part in reversed(ROUNDS) if part.tag == tag)
