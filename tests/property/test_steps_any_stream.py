"""Whatever a daemon sends: steps and displays take it, and lose no line of a shown step."""

import io
import json
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.status import (
    BuildUpdate,
    BuildWarning,
    ProgressGroup,
    Transfer,
    Vertex,
    VertexLog,
)
from kitcache.buildkit.steps import StepTracker
from kitcache.cli.live import Size, draw
from kitcache.cli.plain import Plain
from kitcache.cli.rawjson import encode_update
from kitcache.cli.text import width_of

KEYS = st.sampled_from(["a", "b", "c", "d"])
TIMES = st.none() | st.integers(0, 20).map(lambda second: second * 10**9) | st.integers()
TEXTS = st.sampled_from(["", "RUN x", "x: context canceled", "\x1b[2J\x1b[31mred\r\n", "日本語"])
GROUPS = st.none() | st.builds(ProgressGroup, st.sampled_from(["g", "a"]), TEXTS, st.booleans())

UPDATES = st.builds(
    BuildUpdate,
    st.lists(
        st.builds(Vertex, KEYS, st.just(()), TEXTS, st.booleans(), TIMES, TIMES, TEXTS, GROUPS),
        max_size=3,
    ).map(tuple),
    st.lists(
        st.builds(Transfer, TEXTS, KEYS, TEXTS, st.integers(), st.integers(), TIMES, TIMES, TIMES),
        max_size=2,
    ).map(tuple),
    st.lists(st.builds(VertexLog, KEYS, st.integers(0, 2), st.binary(), TIMES), max_size=2).map(
        tuple
    ),
    st.lists(st.builds(BuildWarning, KEYS, st.integers(), TEXTS), max_size=1).map(tuple),
)
STREAMS = st.lists(st.tuples(UPDATES, st.floats(0, 12)), max_size=12)

COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


@given(STREAMS)
def test_the_plain_display(stream: list[tuple[BuildUpdate, float]]) -> None:
    now_s, out = [0.0], io.StringIO()
    display, steps, expected = (
        Plain(out, lambda: now_s[0], colour=True),
        StepTracker(),
        Counter[str](),
    )
    for update, pause_s in stream:
        display.update(update)
        expected.update(key for key, _ in steps.apply(update).lines)
        now_s[0] += pause_s
        display.tick()
    display.close()
    printed = out.getvalue()
    assert all(c in "\n\t" or c.isprintable() or c.isspace() for c in COLOUR.sub("", printed))
    shown = {step.key for step in steps.steps if steps.get(step.key)}
    logged = len(re.findall(r"^#\d+ \d+\.\d+ ", printed, re.MULTILINE))
    assert logged >= sum(count for key, count in expected.items() if key in shown)
    names = re.findall(r"^#(\d+) ", printed, re.MULTILINE)
    assert list(map(int, dict.fromkeys(names))) == list(range(1, len(set(names)) + 1))


@given(STREAMS, st.integers(0, 60), st.none() | st.integers(0, 12))
def test_the_live_display(
    stream: list[tuple[BuildUpdate, float]], columns: int, lines: int | None
) -> None:
    steps = StepTracker()
    for update, _ in stream:
        steps.apply(update)
        drawn = draw(steps.steps, 5 * 10**9, 1.0, Size(columns, lines))
        assert lines is None or len(drawn) <= max(1, lines - 1)
        assert all(width_of(line.text) <= max(1, columns - 1) for line in drawn)
        assert all(c.isprintable() or c.isspace() for line in drawn for c in line.text)
        assert not any("\x1b" in line.text or "\n" in line.text for line in drawn)


@given(UPDATES)
def test_json(update: BuildUpdate) -> None:
    encoded = encode_update(update)
    assert "\n" not in encoded
    assert len(json.loads(encoded).get("logs", ())) == len(update.logs)


@given(STREAMS)
def test_news_one_by_one_make_the_same_steps(stream: list[tuple[BuildUpdate, float]]) -> None:
    at_once, one_by_one = StepTracker(), StepTracker()
    for update, _ in stream:
        at_once.apply(update)
        for vertex in update.vertexes:
            one_by_one.apply(BuildUpdate((vertex,)))
        for transfer in update.transfers:
            one_by_one.apply(BuildUpdate(transfers=(transfer,)))
        for log in update.logs:
            one_by_one.apply(BuildUpdate(logs=(log,)))
    strip = [step._replace(warnings=()) for step in at_once.steps]
    assert strip == list(one_by_one.steps)
