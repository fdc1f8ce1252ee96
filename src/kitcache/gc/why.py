"""The why command: which roots keep a blob. It acquires no lock and changes no file."""

from itertools import islice
from threading import Event

from kitcache.errors import NotFound, UsageError
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.reach import paths_to
from kitcache.gc.results import BlobReferences
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey
from kitcache.oci.digest import LOWER_HEX, Digest, is_blob_name, parse_digest
from kitcache.store.open import StoreAddress, open_store
from kitcache.store.protocol import CacheStore

MAX_PATHS = 100
_SHORTEST_PREFIX = 4
_MAX_CANDIDATES = 10


def why(
    path: StoreAddress,
    blob: str,
    *,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> BlobReferences:
    """Return each path from an entry of index.json to a blob, at most a hundred.

    It acquires no lock. A blob without a path is unreachable.

    Args:
        blob: A digest, a prefix of one (at least four digits, with or without the algorithm), or
            the path of the blob's file.

    Raises:
        UsageError: The text has none of these forms, or is a prefix of several digests.
        NotFound: There is no such blob.
        KitcacheError: As du.

    """
    with open_store(path) as store:
        control = Control(store.path, on_progress, cancel)
        survey = take_survey(store, control)
        digest = _find_blob(store, survey, blob)
        stat = store.stat_blob(digest)
    paths = tuple(islice(paths_to(survey, digest, control.check), MAX_PATHS + 1))
    return BlobReferences(
        path=control.path,
        digest=digest,
        size=stat.size if stat else None,
        written_ns=stat.mtime_ns if stat else None,
        paths=paths[:MAX_PATHS],
        has_more_paths=len(paths) > MAX_PATHS,
        damage=survey.damage,
    )


def _find_blob(store: CacheStore, survey: Survey, text: str) -> Digest:
    algorithm, prefix = _split_blob(store.path, text)
    known = {digest for digest, _, _ in survey.links} | set(survey.live)
    known |= {link.descriptor.digest for links in survey.links.values() for link in links}
    known |= {root.descriptor.digest for root in survey.roots if root.descriptor}
    named = {d for d in known if _begins(d, algorithm, prefix)}
    for batch in store.scan_blobs():
        if algorithm in (None, batch.algorithm):
            named |= {Digest(batch.algorithm, n) for n in batch.names if n.startswith(prefix)}
    if len(named) == 1:
        return named.pop()
    if not named:
        raise NotFound(
            store.path,
            f"no blob matches {text!r}, and no tag references one",
            effect="",
            hints=(
                "list the tags",
                "look in blobs/",
            ),
        )
    shown = sorted(map(str, named))[:_MAX_CANDIDATES]
    raise UsageError(
        f"{len(named):,} blobs have digests that begin with {text!r}: {', '.join(shown)}"
        + (", …" if len(named) > len(shown) else ""),
        path=store.path,
        hints=("name more digits",),
    )


def _split_blob(path: str, text: str) -> tuple[str | None, str]:
    try:
        return parse_digest(text)
    except ValueError:
        pass
    parts = text.rstrip("/").split("/")
    if len(parts) > 1 and is_blob_name(parts[-2], parts[-1]):
        return parts[-2], parts[-1]
    algorithm, colon, prefix = text.rpartition(":")
    if len(prefix) < _SHORTEST_PREFIX or prefix.strip(LOWER_HEX):
        raise UsageError(
            f"{text!r} is not a digest, a prefix of one, or the path of a blob",
            path=path,
            hints=(
                "name sha256:9c1e…, at least four of its digits, or a file below blobs/",
                "list the tags",
            ),
        )
    return (algorithm if colon else None), prefix


def _begins(digest: Digest, algorithm: str | None, prefix: str) -> bool:
    return algorithm in (None, digest.algorithm) and digest.hex.startswith(prefix)
