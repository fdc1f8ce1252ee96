"""index.json, read so that it can be relied upon; the error for one that never rests."""

from kitcache.errors import NOTHING_CHANGED, Busy, Damaged
from kitcache.gc.collect import MAX_RETRIES
from kitcache.gc.control import Control
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey
from kitcache.oci.index import EMPTY_INDEX, IndexEntry
from kitcache.store.directory import DirectoryStore
from kitcache.store.index import INDEX, check_rewritable, read_index, read_stable_index
from kitcache.store.ioerrors import repair_command


def read_settled(layout: DirectoryStore, control: Control) -> tuple[bytes, Survey]:
    """index.json's bytes, and a survey of just these; of an empty index where there is none.

    Raises as take_survey, Busy while others change index.json again and again, and Damaged where it
    could not be written back.
    """
    for _ in range(MAX_RETRIES):
        survey = take_survey(layout, control)
        index = read_index(layout)
        if index.digest == survey.index_digest:
            data = index.data or EMPTY_INDEX
            check_rewritable(layout.path, data)
            return data, survey
    raise index_unstable_error(layout.path)


def read_target(
    layout: DirectoryStore, control: Control
) -> tuple[bytes | None, tuple[IndexEntry, ...]]:
    """index.json's bytes and entries, of a cache that tags are to come into; None: it has none yet.

    Opens its directories anew. Raises Damaged where tags that are there could get lost: where it is
    no index, or missing beside blobs; and where it could not be written back.
    """
    layout.open_directories()
    index, entries = read_stable_index(layout, control.pause)
    if index.data is not None:
        check_rewritable(layout.path, index.data)
    elif any(batch.names for batch in layout.scan_blobs()):
        raise Damaged(
            layout.path,
            f"{INDEX} is missing beside blobs",
            kind="missing",
            effect=NOTHING_CHANGED,
            hints=(repair_command(layout.path),),
        )
    return index.data, entries


def index_unstable_error(path: str) -> Busy:
    """The error for an index.json that others changed each time it was to be."""
    return Busy(
        path,
        f"index.json changed {MAX_RETRIES} times meanwhile: others are publishing",
        effect=NOTHING_CHANGED,
        hints=("try again when they are done",),
    )
