"""Reads an index.json to copy entries from, or to add entries to. It must be rewritable."""

from kitcache.errors import NOTHING_CHANGED, Damaged
from kitcache.gc.collect import IndexChangedError, retry_if_changed
from kitcache.gc.control import Control
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey
from kitcache.store.ioerrors import check_rewritable, repair_command
from kitcache.store.protocol import CacheStore, CollectableStore
from kitcache.store.values import Roots


def read_surveyed_roots(store: CollectableStore, control: Control) -> tuple[Roots, Survey]:
    """Return the roots of a store, and a survey below exactly these roots.

    Raises:
        Busy: Other processes change index.json before each survey ends.
        Damaged: index.json cannot be rewritten without loss. Other errors are those of take_survey.
    """

    def attempt() -> tuple[Roots, Survey]:
        survey = take_survey(store, control)
        roots = store.read_roots(control.pause)
        if roots.version != survey.index_digest:
            raise IndexChangedError
        check_rewritable(store.path, roots.data or b"null")
        return roots, survey

    return retry_if_changed(store, attempt)


def read_target_roots(store: CacheStore, control: Control) -> Roots:
    """Return the roots of a cache to which tags are added. It may have no index.json yet.

    Raises:
        Damaged: Tags could be lost: index.json is invalid, not rewritable, or missing but there are
            blobs.
    """
    store.refresh()
    roots = store.read_roots(control.pause)
    if roots.data is not None:
        check_rewritable(store.path, roots.data)
    elif not store.blobs_are_leaves and any(batch.names for batch in store.scan_blobs()):
        raise Damaged(
            store.path,
            "index.json is missing but blobs/ is not empty",
            kind="missing",
            effect=NOTHING_CHANGED,
            hints=(repair_command(store.path),),
        )
    return roots
