"""Law: whatever exporters do while a bucket is collected, no root lacks a blob.

Exporters HEAD, touch or skip, upload, publish and stall as BuildKit does, with clocks of their own,
between any two requests of collectors, which may be slow and overlap. They keep the rules on which
the law stands: an export takes no longer than `export_time_ns`, the difference of its clock
included, and on a bucket without versions no touch comes between a collector's look at a blob and
its DELETE. An export that would break the first rule is killed.

Azure's exporter renews no date, so there the law is about the collector: it deletes a blob only if
the blob is older than the grace, and no run in the grace saw it live.
"""

import heapq
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kitcache
from kitcache.errors import NOTHING_DELETED, Busy, Damaged
from kitcache.store.objects.client import RequestKind
from tests.objects.buckets import digest_of
from tests.objects.exporter import Export, Request, finish, run_until
from tests.objects.world import CONFIRMED, DAY_NS, HOUR_NS, SECOND_NS, World
from tests.property.conftest import EXAMPLES

BLOBS = [b"layer %d" % number for number in range(3)]
EXPORT_TIME_NS = DAY_NS
MINUTE_NS = 60 * SECOND_NS
GRACE_NS = DAY_NS + EXPORT_TIME_NS
LAYERS = st.lists(st.sampled_from(BLOBS), max_size=3, unique=True)
HOURS = st.integers(30, 60)
STALLS = st.integers(0, 60) | st.integers(0, 720)


class Exporter(NamedTuple):
    """An export: when it begins, and how long it stalls before each request, in minutes."""

    at: int
    stalls: list[int]
    names: list[str]
    blobs: list[bytes]
    touch_refresh: int
    skew: int


class Collector(NamedTuple):
    """A reset: when it begins, in hours, and how long each of its requests takes, in seconds."""

    at: int
    pace: int


class Story(NamedTuple):
    """A bucket and its events, in hours."""

    uploads: list[tuple[bytes, int]]
    live: list[bytes]
    exporters: list[Exporter]
    collectors: list[Collector]


EXPORTERS = st.builds(
    Exporter,
    HOURS,
    st.lists(STALLS, min_size=1, max_size=4),
    st.sampled_from([["dev"], ["main"], ["dev", "main"]]),
    LAYERS.filter(bool),
    st.sampled_from([24, 1, 0]),
    st.sampled_from([0, -6, 1]),
)
COLLECTORS = st.builds(Collector, HOURS, st.sampled_from([0, 1, 300, 600, 900]))
STORIES = st.builds(
    Story,
    st.lists(st.tuples(st.sampled_from(BLOBS), st.integers(-50, 40)), max_size=4),
    LAYERS,
    st.lists(EXPORTERS, min_size=1, max_size=3),
    st.lists(COLLECTORS, min_size=1, max_size=3),
)


class Run:
    """A run that has ended. `live`: the blobs that roots reached during the whole run."""

    def __init__(self, began_ns: int, live: set[str]) -> None:
        self.began_ns, self.live = began_ns, live


class Stage:
    """Plays a story: an event that is due happens before the next request of a collector."""

    def __init__(self, kind: str, story: Story) -> None:
        self.kind = kind
        self.world = World(kind)
        self.due: list[tuple[int, int, Callable[[], None]]] = []
        self.number = 0
        self.deferred: list[Callable[[], None]] = []
        self.is_deleting = False
        self.began_ns = self.world.now_ns + 100 * HOUR_NS
        self.runs: list[Run] = []
        for data, at in story.uploads:
            self.plan(at, lambda data=data: self.upload(data))  # type: ignore[misc]
        self.plan(-60, lambda: finish(self.world.export(["main"], story.live)))
        for exporter in story.exporters:
            self.plan(exporter.at, lambda exporter=exporter: self.start(exporter))  # type: ignore[misc]
        for collector in story.collectors:
            self.plan(collector.at, lambda collector=collector: self.collect(collector))  # type: ignore[misc]

    def plan(self, hours: int, action: Callable[[], object]) -> None:
        self.put(self.began_ns + hours * HOUR_NS, action)

    def put(self, at_ns: int, action: Callable[[], object]) -> None:
        self.number += 1
        heapq.heappush(self.due, (at_ns, self.number, action))

    def play(self) -> None:
        while self.due:
            at_ns, _, action = heapq.heappop(self.due)
            self.world.client.clock_ns = max(self.world.now_ns, at_ns)
            action()

    def catch_up(self) -> None:
        while self.due and self.due[0][0] <= self.world.now_ns:
            heapq.heappop(self.due)[2]()

    def upload(self, data: bytes) -> None:
        """Upload a blob without a root, as an export that is killed."""
        run_until(self.world.export(["never"], [data]), "root")

    def start(self, exporter: Exporter) -> None:
        export = self.world.export(
            exporter.names,
            exporter.blobs,
            skew_ns=exporter.skew * HOUR_NS,
            touch_refresh_ns=exporter.touch_refresh * HOUR_NS,
        )
        ends_ns = self.world.now_ns + EXPORT_TIME_NS - abs(exporter.skew) * HOUR_NS
        self.step(export, next(export), [*exporter.stalls], ends_ns)

    def step(self, export: Export, request: Request, stalls: list[int], ends_ns: int) -> None:
        """Send a request, and stall before the next one."""
        if self.world.now_ns > ends_ns:
            return
        if request.kind == "touch" and self.is_deleting and self.kind == "plain":
            self.deferred.append(lambda: self.step(export, request, stalls, ends_ns))
            return
        try:
            following = next(export, None)
        except LookupError:
            # The blob was deleted between HEAD and touch: the build fails, and publishes nothing.
            return
        if following is not None:
            stall_ns = stalls.pop() * MINUTE_NS if stalls else 0
            self.put(
                self.world.now_ns + stall_ns,
                lambda: self.step(export, following, stalls, ends_ns),
            )

    def collect(self, collector: Collector) -> None:
        run = Run(self.world.now_ns, self.live())

        def interfere(kind: RequestKind, key: str) -> None:
            if kind in ("get", "head"):
                # Several threads read roots; all other requests have an order.
                return
            deferred, self.deferred = self.deferred, []
            for action in deferred:
                action()
            self.world.wait(collector.pace * SECOND_NS)
            self.is_deleting = kind == "delete"
            with mock.patch.object(self.world.client, "hooks", []):
                self.catch_up()
            self.is_deleting = False
            run.live &= self.live()

        self.world.client.hooks = [interfere]
        try:
            self.reset()
        finally:
            self.world.client.hooks = []
            self.runs.append(run)

    def reset(self) -> None:
        before = self.blobs()
        try:
            kitcache.reset(self.world.address, options=CONFIRMED)
        except Busy:
            # Exports changed the roots again and again.
            pass
        except Damaged as error:
            # Without a root it refuses. This class reports a loss, too.
            if error.effect != NOTHING_DELETED:
                raise
        for digest in before.keys() - self.blobs().keys():
            self.check_deletion(digest, before[digest])

    def check_deletion(self, digest: str, modified_ns: int) -> None:
        # It may have been deleted by a second run, so the age is at least the grace by now.
        since_ns = self.world.now_ns - GRACE_NS
        assert modified_ns < since_ns + 2 * SECOND_NS
        if self.kind == "azure":
            assert not any(digest in run.live for run in self.runs if run.began_ns > since_ns)

    def live(self) -> set[str]:
        roots = [self.world.bucket.root_key(name) for name in ("main", "dev")]
        documents = [self.world.bucket.get(key) or b"" for key in roots]
        digests = [digest_of(data) for data in BLOBS]
        return {digest for digest in digests if any(digest.encode() in doc for doc in documents)}

    def blobs(self) -> dict[str, int]:
        dates = {}
        for data in BLOBS:
            digest = digest_of(data)
            modified_ns = self.world.bucket.modified_ns(self.world.bucket.blob_key(digest))
            if modified_ns is not None:
                dates[digest] = modified_ns
        return dates


@pytest.mark.parametrize("kind", ["plain", "versioned", "azure"])
@settings(max_examples=EXAMPLES * 2)
@given(story=STORIES)
def test_no_root_lacks_a_blob(kind: str, story: Story) -> None:
    stage = Stage(kind, story)
    with stage.world.opened():
        stage.play()
    if kind != "azure":
        assert stage.world.missing() == {}
