"""What `docker buildx` prints of a build, and what we print of the same daemon's news."""

import json
import re
from io import StringIO
from pathlib import Path

from kitcache.buildkit.status import BuildUpdate, read_update
from kitcache.cli.plain import Plain
from kitcache.cli.rawjson import encode_update
from tests.unit.buildkit.recordings import encode, latest_s

from .daemon import BASE, Daemon

STEPS = f"""\
FROM {BASE}
COPY data /
RUN echo hello; printf 'par'; printf 'tial\\n'; printf '\\033[31mred\\033[0m\\ttab\\n'
RUN printf 'no end'
RUN echo oops >&2; exit 3
"""


def printed_by_buildx(daemon: Daemon, context: Path, progress: str) -> str:
    options = (f"--progress={progress}", "--network=none", "--no-cache", "--provenance=false")
    return daemon.docker("buildx", "build", *options, str(context)).text


def documents(text: str) -> list[dict[str, object]]:
    """The JSON objects that a text begins with: buildx 0.13 writes each on many lines."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while text[at : at + 1] == "{":
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def printed_by_us(updates: list[BuildUpdate]) -> str:
    out, now_s = StringIO(), [0.0]
    display = Plain(out, lambda: now_s[0], colour=True)
    for update in updates:
        now_s[0] = max(now_s[0], latest_s(update))
        display.update(update)
    display.close()
    return out.getvalue()


def shape(text: str) -> list[str]:
    """The lines from the context on, without numbers and times: two builds differ in these."""
    lines = text.partition("\n------\n")[0].splitlines()
    lines = [re.sub(r"^#\d+ ", "", line) for line in lines if line and not line.startswith("#0 ")]
    lines = [re.sub(r"^\d+\.\d+ |( \d+\.\d+s)(?= done$|$)", "", line) for line in lines]
    under_way = re.compile(r"(transferring|resolve) (?!.*done$)|\.\.\.$|.*::")
    return sorted(line for line in lines if not under_way.match(line))


def test_the_lines_are_those_of_buildx(daemon: Daemon, tmp_path: Path) -> None:
    daemon.base_image()
    (tmp_path / "Dockerfile").write_text(STEPS)
    (tmp_path / "data").write_bytes(b"x" * 50_000)
    warm = printed_by_buildx(daemon, tmp_path, "plain")
    assert "exit code: 3" in warm
    theirs = shape(printed_by_buildx(daemon, tmp_path, "plain"))
    news = documents(printed_by_buildx(daemon, tmp_path, "rawjson"))
    updates = [read_update(encode(update)) for update in news]
    assert [json.loads(encode_update(update)) for update in updates] == news
    ours = shape(printed_by_us(updates))
    assert "partial" in ours
    assert "no end" in ours
    assert set(ours) - {"CACHED", "DONE"} == set(theirs) - {"CACHED", "DONE"}
