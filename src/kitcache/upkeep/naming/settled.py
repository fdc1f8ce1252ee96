"""A survey, and the very index.json that it is of; the error for one that never rests."""

from kitcache.errors import NOTHING_CHANGED, Busy
from kitcache.gc.control import Control
from kitcache.gc.refusals import unwritable_error
from kitcache.gc.reset import CHANGES
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey
from kitcache.oci.document import DocumentError, read_plain
from kitcache.oci.index import EMPTY_INDEX
from kitcache.store.index import read_index
from kitcache.store.layout import Layout


def read_settled(layout: Layout, control: Control) -> tuple[bytes, Survey]:
    """index.json's bytes, and a survey of just these; of an empty index where there is none.

    Raises as take_survey, Busy while others change index.json again and again, and Damaged as
    check_can_be_written.
    """
    for _ in range(CHANGES):
        survey = take_survey(layout, control)
        index = read_index(layout)
        if index.digest == survey.index_digest:
            data = index.data or EMPTY_INDEX
            check_can_be_written(layout, data)
            return data, survey
    raise unsettled(layout.path)


def check_can_be_written(layout: Layout, data: bytes) -> None:
    """Raises Damaged where an index.json has what would not survive a rewrite, such as 1e400."""
    try:
        read_plain(data)
    except DocumentError as error:
        raise unwritable_error(layout.path, error) from None


def unsettled(path: str) -> Busy:
    """The error for an index.json that others changed each time it was to be."""
    return Busy(
        path,
        f"index.json changed {CHANGES} times meanwhile: others are publishing",
        untouched=NOTHING_CHANGED,
        next_steps=("try again when they are done",),
    )
