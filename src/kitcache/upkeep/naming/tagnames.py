"""Names of tags: the check of a new one, and the error for an unknown one. No I/O."""

from collections.abc import Iterable

from kitcache.errors import NOTHING_CHANGED, NotFound, UsageError
from kitcache.oci.digest import parse_digest
from kitcache.store.protocol import CacheStore


def check_tag_name(name: str) -> None:
    """Raise UsageError if a name is empty, not printable, or a digest."""
    if not name:
        raise UsageError("a tag needs a name: it is empty")
    if not name.isprintable():
        raise UsageError(f"{name!r} is not a valid tag: it has unprintable characters")
    try:
        parse_digest(name)
    except ValueError:
        return
    raise UsageError(f"{name} is not a valid tag: it is a digest")


def unknown_tag_error(
    store: CacheStore,
    problem: str,
    name: str,
    known_names: Iterable[str | None],
    *,
    effect: str = NOTHING_CHANGED,
    has_digests: bool = False,
) -> NotFound:
    """Return the error for a name that no entry has, with the most similar tag as a hint.

    Args:
        has_digests: The name can be a digest, so the hint is the list with full digests.
    """
    from kitcache.options.attributes import suggest  # noqa: PLC0415 - only a message needs it

    similar = suggest(name, [tag for tag in known_names if tag])
    hints = (f"did you mean {similar!r}?",) if similar else ()
    listing = "list the tags with full digests" if has_digests else "list the tags"
    return NotFound(
        store.path,
        f"no entry of {store.roots_name} has {problem}",
        effect=effect,
        hints=(*hints, listing),
    )
