"""A trim of a tag on a disk: as its dry run said, below its limit, and no other tag feels it."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import kitcache
from kitcache.errors import LimitNotReached
from kitcache.store.open import open_store
from kitcache.store.state import record_layer_uses
from kitcache.upkeep.project import CacheDocuments
from tests.property import witness
from tests.property.cacheconfigs import POOL, configs, layer_bytes, layer_digest, meaning
from tests.property.disk import REF_NAME, blob_path, blobs, put_blob, settle
from tests.property.model import digest_of

HOUR_AGO_S = 3600


@contextmanager
def on_disk(trees: dict[str, CacheDocuments], missing: set[int]) -> Iterator[Path]:
    """A cache with these tags, with all layers of the pool but those that are missing."""
    with tempfile.TemporaryDirectory(prefix="kitcache-test-") as box:
        root = Path(box, "cache")
        root.mkdir()
        (root / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
        (root / "blobs" / "sha256").mkdir(parents=True)
        for number in range(POOL):
            if number not in missing:
                put_blob(root, layer_digest(number), layer_bytes(number), HOUR_AGO_S)
        entries = []
        for tag, tree in trees.items():
            for data in tree.in_order:
                put_blob(root, digest_of(data), data, HOUR_AGO_S)
            entries.append(
                {
                    "mediaType": json.loads(tree.root)["mediaType"],
                    "digest": digest_of(tree.root),
                    "size": len(tree.root),
                    "annotations": {REF_NAME: tag},
                }
            )
        (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        settle(root)
        yield root


trees = st.builds(lambda config, form: config.tree(is_index=form), configs(), st.booleans())


@given(
    st.fixed_dictionaries({"main": trees, "dev": trees}),
    st.sets(st.integers(0, POOL - 1), max_size=2),
    st.lists(st.integers(0, POOL - 1), max_size=2),
    st.integers(0, 12_000),
)
def test_a_trim_does_what_its_dry_run_said(
    tags: dict[str, CacheDocuments], missing: set[int], read: list[int], limit: int
) -> None:
    with on_disk(tags, missing) as root:
        with open_store(root) as layout:
            record_layer_uses(layout, map(layer_digest, read), 1_700_000_005 * 10**9)
        before = {tag.ref_name: tag for tag in kitcache.ls(root).tags}
        holes = set(witness.holes(root))
        try:
            said = kitcache.trim(root, "main", limit, dry_run=True)
        except LimitNotReached as error:
            needed = error.needed_bytes
        else:
            needed = None
        if needed is not None:
            assert needed > limit
            assert kitcache.trim(root, "main", needed).after_size.bytes <= needed
            return
        done = kitcache.trim(root, "main", limit)
        after = {tag.ref_name: tag for tag in kitcache.ls(root).tags}
        main = after["main"]
        assert after["dev"] == before["dev"]
        assert (main.size, main.digest) == (done.after_size, done.after)
        assert (before["main"].size, before["main"].digest) == (done.before_size, done.before)
        assert main.size.bytes <= limit
        assert set(witness.holes(root)) <= holes
        steps = len(done.kept_steps) + len(done.removed_steps)
        assert steps == len(meaning(tags["main"].config))
        if done.outcome == "unchanged":
            assert said == done
            return
        assert said.reset is not None
        assert done.reset is not None
        report = said.reset._replace(outcome="done", seconds=done.reset.seconds)
        assert said._replace(outcome="done", reset=report) == done
        assert witness.garbage(root) == frozenset()
        assert done.reset.kept.blobs == len(blobs(root))
        assert kitcache.trim(root, "main", limit).outcome == "unchanged"
        assert kitcache.reset(root).deleted.blobs == 0
        freed = sum(step.bytes for step in done.removed_steps)
        assert done.before_size.bytes - done.after_size.bytes >= freed
        assert blob_path(root, str(done.after)).read_bytes()
