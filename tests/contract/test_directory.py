"""The directory store keeps the laws of all stores."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kitcache.store.directory import DirectoryStore
from kitcache.store.open import open_store
from kitcache.store.protocol import CollectableStore
from tests.contract.suite import IndexLaws, StoreLaws
from tests.hostile.build import Sample, make_sample


class Directory(NamedTuple):
    sample: Sample
    store: DirectoryStore

    def sync(self) -> None:
        self.store.refresh()


class TestDirectory(StoreLaws, IndexLaws):
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Iterator[Directory]:
        sample = make_sample(tmp_path)
        sample.box.ingest("unfinished")
        with open_store(sample.dir) as store:
            store.refresh()
            yield Directory(sample, store)

    @pytest.fixture
    def other(self, cache: Directory) -> Iterator[CollectableStore]:
        with open_store(cache.sample.dir) as store:
            yield store
