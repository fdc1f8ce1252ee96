"""A survey of an empty cache, for tests that decide without a disk: _replace what matters."""

import hashlib

from kitcache.gc.values import Survey
from kitcache.oci.digest import Digest


def digest(word: str, algorithm: str = "sha256") -> Digest:
    """The digest of that word."""
    return Digest(algorithm, hashlib.new(algorithm, word.encode()).hexdigest())


EMPTY = Survey(
    index_digest=digest("index.json"),
    roots=(),
    live={},
    young={},
    links={},
    missing_blobs=(),
    damage=(),
    ingests=(),
    other_writes_ns=(),
    began_ns=0,
    index_changed_ns=0,
    ingest_changed_ns=0,
)
