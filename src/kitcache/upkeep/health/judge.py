"""The judge: finds the kind of each entry of index.json and whether a build could import it.

verify reports these statuses. A repair plans with the statuses that the cache would have without
its bad blobs and with the blobs of other copies.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from kitcache.errors import Damaged, Unreadable, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.ls import kind_below
from kitcache.gc.reach import first_links, links_below
from kitcache.gc.values import Root, Survey, key_of
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from kitcache.oci.links import CACHECONFIG, Link
from kitcache.store.protocol import CacheStore
from kitcache.upkeep.health.faults import Fault, RootStatus, describe_faults, malformed_entry
from kitcache.upkeep.health.importrules import (
    BlobHealth,
    ImportCheck,
    check_bare_import,
    check_import,
    is_too_large,
)


class Judge:
    """Judges the roots of one survey, each root once.

    Args:
        store: The store that was surveyed. Its directories have been opened.
        bad: The blobs that hold wrong bytes, each with a clause.
    """

    def __init__(self, store: CacheStore, survey: Survey, bad: Mapping[Digest, str]) -> None:
        self._store = store
        self._survey = survey
        ends = [(d.chain[-1], d.problem) for d in survey.damage if d.chain]
        damaged = {end.digest: problem for end, problem in ends}
        # A missing manifest counts as damage, even if another blob lists it as a layer. The problem
        # of a bad blob is more specific than "is missing", so it is added last.
        self.problems = {blob.digest: blob.problem for blob in survey.missing_blobs}
        self.problems |= {
            digest: problem
            for digest, problem in damaged.items()
            if digest.is_known and digest not in survey.live
        }
        self.problems |= bad
        # A wrong size is a fault of one descriptor, so damage is recorded by the complete key.
        self._damage = {
            key_of(end): problem
            if end.digest in survey.live
            else self.problems.get(end.digest, problem)
            for end, problem in ends
        }
        self._known: dict[Descriptor, RootStatus] = {}

    def judge_entries(self, control: Control) -> Iterator[tuple[Root, RootStatus]]:
        """Yield each entry of index.json with its status. Raises Cancelled."""
        for root in self._survey.roots:
            if root.position < 0:
                continue
            control.check()
            if root.descriptor is None:
                problem = malformed_entry(self._survey, root)
                yield root, RootStatus("unknown", ImportCheck("none", problem))
                continue
            try:
                yield root, self.judge(root.descriptor)
            except Unreadable as error:
                yield root, RootStatus("unknown", ImportCheck("none", error.problem))

    def judge(self, descriptor: Descriptor) -> RootStatus:
        """Return the status of the root that a descriptor names. Raises Unreadable."""
        nameless = descriptor._replace(ref_name=None)
        if nameless not in self._known:
            self._known[nameless] = self._judge(nameless)
        return self._known[nameless]

    def _judge(self, descriptor: Descriptor) -> RootStatus:
        survey = self._survey
        links = tuple(links_below(survey, descriptor, with_subjects=False, with_hints=False))
        faults = dict(self._faults_among(links, self.problems))
        side_faults = {}
        if self._damage:
            # A subject may be absent, but not damaged.
            others = (
                link
                for link in links_below(survey, descriptor)
                if link.role != "subject" or link.descriptor.digest in survey.live
            )
            pairs = self._faults_among(others, {})
            side_faults = {digest: fault for digest, fault in pairs if digest not in faults}
        check = None if descriptor.digest in faults else self._check_cache(descriptor, faults)
        if check is not None:
            return RootStatus("cache", check, faults, side_faults)
        check = (
            ImportCheck("none", describe_faults(faults.values())) if faults else ImportCheck("full")
        )
        kind = kind_below(survey, descriptor, first_links(links))
        if kind == "cache" and not self._store.blobs_are_leaves:
            kind = "artifact"  # An index of caches: BuildKit cannot import it as a cache.
        return RootStatus(kind, check, faults, side_faults)

    def _faults_among(
        self, links: Iterable[Link], problems: Mapping[Digest, str]
    ) -> Iterator[tuple[Digest, Fault]]:
        seen = set()
        for link in links:
            digest = link.descriptor.digest
            problem = self._damage.get(key_of(link.descriptor)) or problems.get(digest)
            if problem and digest not in seen:
                seen.add(digest)
                yield digest, Fault(link, problem)

    def _check_cache(
        self, descriptor: Descriptor, faults: Mapping[Digest, Fault]
    ) -> ImportCheck | None:
        """Return the result of an import of the cache, None if the root is not a cache.

        An invalid manifest counts as a cache if the media type of cacheconfigs occurs in it.
        Raises Unreadable.
        """
        problems = {digest: fault.problem for digest, fault in faults.items()}
        health = BlobHealth(self._survey.live, problems)
        if self._store.blobs_are_leaves:
            return self._check_bare(descriptor, health)
        data, root = b"", None
        try:
            data = (
                self._store.read_blob(descriptor.digest, descriptor.size, unless_binary=True) or b""
            )
            root = read_cache_manifest(data)
            if root is None:
                return None
        except DocumentError:
            if CACHECONFIG.encode() not in data:
                return None
        except Damaged:
            pass  # It was intact during the survey: report it as an unreadable manifest.
        except Unsafe:
            return None  # It is above a cap but not damaged, so the entry names a leaf.
        config = None
        if root and root.config.digest not in faults and not is_too_large(root.config.size or 0):
            with suppress(Damaged, Unsafe):
                config = self._store.read_blob(root.config.digest, root.config.size)
        return check_import(data, config, health, root)

    def _check_bare(self, descriptor: Descriptor, health: BlobHealth) -> ImportCheck:
        """Return the result of an import of a cacheconfig that is the root. Raises Unreadable."""
        try:
            data = self._store.read_blob(descriptor.digest, descriptor.size)
        except (Damaged, Unsafe) as error:
            return ImportCheck("none", f"its cacheconfig {error.problem}")
        return check_bare_import(data or b"", health)
