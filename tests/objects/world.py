"""A cache in memory that kitcache's commands open by its address, with one clock for everything.

`World.address` replaces the path of a directory. The bucket, its clock and its exporters are values
of the test; nothing sleeps. Whatever is to happen between two requests is a hook of the client.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from kitcache.options.objectcaches import ObjectCache
from kitcache.options.sweep import SweepOptions
from tests.objects.buckets import MemoryBucket, missing_blobs
from tests.objects.exporter import Export, export_azure, export_s3
from tests.objects.memory import MemoryClient

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
CONFIRMED = SweepOptions(confirmed=True)


class World:
    """A bucket in memory, and the address of the cache in it.

    Attributes:
        kind: "plain" or "versioned" for S3, or "azure".
    """

    def __init__(self, kind: str = "plain", *, touch_refresh_ns: int = DAY_NS) -> None:
        self.kind = kind
        self.client = MemoryClient(has_versions=kind == "versioned", renews=kind != "azure")
        self.bucket = MemoryBucket(self.client)
        cache = ObjectCache("s3", "memory", region="r", touch_refresh_ns=touch_refresh_ns)
        if kind == "azure":
            url = "https://account.blob.core.windows.net"
            cache = cache._replace(
                kind="azblob", endpoint_url=url, account_name="account", region=""
            )
        self.address = cache.address

    @property
    def now_ns(self) -> int:
        return self.client.clock_ns

    def wait(self, duration_ns: int) -> None:
        self.client.clock_ns += duration_ns

    def export(
        self,
        names: Sequence[str],
        blobs: Sequence[bytes],
        *,
        skew_ns: int = 0,
        touch_refresh_ns: int = DAY_NS,
    ) -> Export:
        """Return an export of this world's kind, whose daemon's clock differs by skew_ns."""
        if self.kind == "azure":
            return export_azure(self.bucket, names, blobs)
        return export_s3(
            self.bucket,
            names,
            blobs,
            now_ns=lambda: self.now_ns + skew_ns,
            touch_refresh_ns=touch_refresh_ns,
        )

    def missing(self) -> dict[str, set[str]]:
        """Return the blobs that each root lacks, by name."""
        return missing_blobs(self.bucket)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let kitcache open this bucket; its pauses move the clock."""

        def pause(seconds: float) -> None:
            self.wait(int(seconds * SECOND_NS))

        fake_time = SimpleNamespace(**{**vars(time), "sleep": pause})
        with (
            mock.patch("kitcache.store.objects.open._open_client", self._open_client),
            mock.patch("kitcache.store.objects.checks.time", fake_time),
        ):
            yield

    def _open_client(self, cache: ObjectCache) -> Any:
        return self.client
