"""A directory and a dictionary live through the same exports, resets, untags and accidents.

After every step the directory holds what the dictionary says. Laws that need a history are here:
a refusal ends when its cause does, and nothing is ever lost on the way.
"""

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import kitcache
from tests.property import make
from tests.property.disk import (
    blob_path,
    blobs,
    ingests,
    put_blob,
    put_ingest,
    settle,
    write_index,
)
from tests.property.model import (
    HOUR_S,
    STRUCTURAL_TYPES,
    Cache,
    Entry,
    Ingest,
    Node,
    reach,
    size_of,
    verdict,
    walk,
)

TAGS = st.sampled_from(["main", "latest", "pr"])
OLD_S = 3 * HOUR_S


class CacheMachine(RuleBasedStateMachine):
    """`nodes` is all that was ever made, `torn` what is there with other bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Path(tempfile.mkdtemp(prefix="kitcache-test-"))
        self.root = self.box / "cache"
        self.nodes: dict[str, Node] = {}
        self.entries: tuple[Entry, ...] = ()
        self.present: set[str] = set()
        self.torn: dict[str, bytes] = {}
        self.ages_s: dict[str, int] = {}
        self.uploads: set[str] = set()
        self.made = 0

    def teardown(self) -> None:
        shutil.rmtree(self.box)

    @initialize()
    def begin(self) -> None:
        (self.root / "blobs" / "sha256").mkdir(parents=True)
        (self.root / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
        self.publish(())

    # What others do.

    @rule(tag=TAGS, new=st.integers(1, 3), reused=st.integers(0, 3), as_index=st.booleans())
    def export(self, tag: str, new: int, reused: int, as_index: bool) -> None:
        """BuildKit: blobs that exist are left as they are, the tag's older entry goes."""
        self.made += 1
        layers = [make.leaf(b"layer %d of %d" % (n, self.made)) for n in range(new)]
        layers += [self.nodes[d] for d in sorted(self.nodes) if self.nodes[d].kind == "leaf"][
            :reused
        ]
        config = make.cacheconfig(layers, self.made)
        if as_index:
            top = make.index([make.honest(node) for node in [*layers, config]])
        else:
            top = make.manifest(make.honest(config), [make.honest(node) for node in layers])
        self.commit([*layers, config, top])
        stays = [e for e in self.entries if e.ref_name != tag]
        self.publish((*stays, make.entry(top, tag)))

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def nest(self, data: st.DataObject) -> None:
        """Somebody publishes an index over two entries, untagged."""
        below = [self.nodes[e.ref.digest] for e in self.entries[:2]]
        index = make.index([make.honest(node) for node in below])
        self.commit([index])
        media_type = data.draw(st.sampled_from([index.media_type, ""]))
        self.publish((*self.entries, make.entry(index, None, media_type)))

    @rule()
    def time_passes(self) -> None:
        for digest in self.present:
            self.ages_s[digest] = OLD_S
            self.put(digest)

    @rule()
    def leave_an_upload(self) -> None:
        upload = Ingest(f"layer-{self.made}", 2 * HOUR_S, b"half")
        if upload.name not in self.uploads:
            put_ingest(self.root, upload, time.time())
            self.uploads.add(upload.name)
            settle(self.root)

    @precondition(lambda self: self.needed() & self.present)
    @rule(data=st.data(), cut=st.booleans())
    def damage(self, data: st.DataObject, cut: bool) -> None:
        digest = data.draw(st.sampled_from(sorted(self.needed() & self.present)))
        if cut:
            self.torn[digest] = self.nodes[digest].data[:-1]
            self.put(digest)
        else:
            blob_path(self.root, digest).unlink()
            self.present.discard(digest)
            self.torn.pop(digest, None)

    @rule()
    def mend(self) -> None:
        """Restored from a copy."""
        for digest in sorted((set(self.torn) & self.present) | (self.needed() - self.present)):
            self.torn.pop(digest, None)
            self.present.add(digest)
            self.put(digest)

    # What kitcache does.

    @rule(min_age_s=st.sampled_from([0, HOUR_S]), dry_run=st.booleans())
    def reset(self, min_age_s: int, dry_run: bool) -> None:
        policy = kitcache.SweepOptions(min_age_ns=min_age_s * 10**9)
        if self.is_broken():
            with pytest.raises(kitcache.Damaged):
                kitcache.reset(self.root, options=policy, dry_run=dry_run)
            return
        cache = self.as_cache()
        expected = verdict(cache, min_age_s)
        report = kitcache.reset(self.root, options=policy, dry_run=dry_run)
        left = self.present if dry_run else blobs(self.root)
        gone = self.present - left
        assert gone <= expected.remove | expected.doubt
        assert report.deleted.blobs >= len(expected.remove)
        assert report.ingests_deleted.blobs == len(self.uploads)
        assert {str(leaf.digest) for leaf in report.missing_blobs} == self.missing_blobs(cache)
        if not dry_run:
            assert report.deleted == kitcache.Tally(len(gone), size_of(cache, gone))
            self.present -= gone
            self.torn = {d: data for d, data in self.torn.items() if d in self.present}
            self.uploads = set()
            settle(self.root)

    @precondition(lambda self: any(e.ref_name for e in self.entries))
    @rule(data=st.data())
    def untag(self, data: st.DataObject) -> None:
        """Works on a damaged cache too: it is the way out of a refusal."""
        tag = data.draw(st.sampled_from(sorted({e.ref_name for e in self.entries if e.ref_name})))
        kitcache.untag(self.root, [tag])
        self.entries = tuple(e for e in self.entries if e.ref_name != tag)
        settle(self.root)

    @precondition(lambda self: self.entries)
    @rule(tags=st.sets(TAGS, min_size=1), dry_run=st.booleans())
    def prune(self, tags: set[str], dry_run: bool) -> None:
        """Keeps these tags and what has none; where none is there, nobody meant to drop all."""
        policy = kitcache.PrunePolicy(keep_tags=tuple(sorted(tags)))
        if self.is_broken():
            with pytest.raises(kitcache.Damaged):
                kitcache.prune(self.root, policy, dry_run=dry_run)
            return
        named = {entry.ref_name for entry in self.entries} - {None}
        if len(named) > 1 and not named & tags:
            with pytest.raises(kitcache.UsageError, match="no tag matches"):
                kitcache.prune(self.root, policy, dry_run=dry_run)
            return
        pruned = kitcache.prune(self.root, policy, dry_run=dry_run)
        kept = {decision.ref_name for decision in pruned.tags if decision.keep}
        assert kept - {None} == named & tags or len(kept - {None}) == 1
        stays = tuple(e for e in self.entries if e.ref_name is None or e.ref_name in kept)
        after = self.as_cache()._replace(entries=stays)
        assert pruned.reset.deleted.blobs == len(self.present - verdict(after).keep)
        if not dry_run:
            self.entries = stays
            self.present = set(verdict(after).keep)
            self.torn = {d: data for d, data in self.torn.items() if d in self.present}
            self.uploads = set()
            settle(self.root)

    @rule()
    def ask(self) -> None:
        usage = kitcache.du(self.root)
        assert bool(usage.damage) == self.is_broken()
        assert len(usage.tags) == len(self.entries)
        assert usage.live.blobs + usage.reclaimable.blobs == len(self.present)

    # What must be true after every step.

    @invariant()
    def the_directory_is_what_the_dictionary_says(self) -> None:
        if self.root.exists():
            assert blobs(self.root) == self.present
            assert ingests(self.root) == self.uploads
            assert [t.ref_name for t in kitcache.ls(self.root).tags] == [
                e.ref_name for e in self.entries
            ]

    # The dictionary's own steps.

    def commit(self, nodes: list[Node]) -> None:
        for node in nodes:
            self.nodes[node.digest] = node
            if node.digest not in self.present:
                self.present.add(node.digest)
                self.ages_s[node.digest] = 1
                self.put(node.digest)

    def put(self, digest: str) -> None:
        data = self.torn.get(digest, self.nodes[digest].data)
        put_blob(self.root, digest, data, time.time() - self.ages_s[digest])

    def publish(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        write_index(self.root, entries)
        settle(self.root)

    def as_cache(self) -> Cache:
        """A torn blob is opaque: it points at nothing, and weighs what is there."""
        nodes = {
            d: n._replace(links=(), data=self.torn[d]) if d in self.torn else n
            for d, n in self.nodes.items()
        }
        absent = frozenset(self.nodes) - self.present
        return Cache(nodes, self.entries, absent, self.ages_s, (), ())

    def needed(self) -> set[str]:
        """Structural blobs that the tags reach as far as can be read, there or not."""
        roots = {entry.ref for entry in self.entries}
        readable = frozenset(self.present) - frozenset(self.torn)
        met = walk(self.nodes, readable, roots)
        return {r.digest for r in met if r.media_type in STRUCTURAL_TYPES or r in roots}

    def is_broken(self) -> bool:
        needed = self.needed()
        return bool(needed - self.present or needed & set(self.torn))

    def missing_blobs(self, cache: Cache) -> set[str]:
        return set(reach(cache) - cache.present)


TestCache = CacheMachine.TestCase
