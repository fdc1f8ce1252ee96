"""A cache that a failing build exports to: what was in it has to be there afterwards."""

import random
from pathlib import Path

import kitcache
from tests.hostile import exporting
from tests.property import witness
from tests.property.disk import ingests, settle


class Cache:
    """A sound cache with one tag, in which a build is going to export another one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        exporting.export(str(root), "old", exporting.make_blobs(random.Random(1)))
        self.index = (root / "index.json").read_bytes()
        self.reached = self._reached()

    def _reached(self) -> int:
        return kitcache.du(self.root).live.blobs

    def expect_unchanged(self) -> None:
        """No tag of ours, nothing half written, and nothing lost; a reset finds nothing wrong."""
        assert (self.root / "index.json").read_bytes() == self.index
        assert ingests(self.root) == frozenset()
        assert witness.holes(self.root) == ()
        settle(self.root)
        report = kitcache.reset(self.root)
        assert (report.outcome, report.missing_blobs) == ("done", ())
        assert self._reached() == self.reached
