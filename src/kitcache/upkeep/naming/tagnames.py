"""The check of names for new tags. No I/O."""

from kitcache.errors import UsageError
from kitcache.oci.digest import parse_digest


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
