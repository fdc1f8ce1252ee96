"""[GLOB=]TEMPLATE: the new names of tags that are merged into another cache."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from kitcache.errors import UsageError

_PLACE = re.compile(r"\{([^{}]*)\}")
_PLACES = ("tag", "dir")
_FORMS = ("write '{dir}-{tag}' for all tags, or 'GLOB={dir}-{tag}' for some",)


class Rename(NamedTuple):
    """A new name for each tag that a glob matches.

    Attributes:
        glob: As in Python's fnmatch: `*` matches any text, slashes included.
        template: The new name; {tag} is the tag, {dir} the name of its cache's directory.
    """

    glob: str
    template: str


def read_rename(text: str) -> Rename:
    """Return [GLOB=]TEMPLATE as a Rename; without a glob it applies to every tag."""
    glob, equals, template = text.rpartition("=")
    if not template or (equals and not glob):
        raise UsageError(f"{text!r} has an empty name or glob", hints=_FORMS)
    for place in _PLACE.findall(template):
        if place not in _PLACES:
            raise UsageError(f"{text!r}: {{{place}}} is neither {{tag}} nor {{dir}}", hints=_FORMS)
    if re.search("[{}]", _PLACE.sub("", template)):
        raise UsageError(f"{text!r} has an unmatched brace", hints=_FORMS)
    return Rename(glob or "*", template)


def rename(renames: Sequence[Rename], tag: str, directory: str) -> str:
    """Return the tag's new name by the first rename whose glob it matches, else its own name.

    Args:
        directory: Name of the directory of the tag's cache.
    """
    for glob, template in renames:
        if fnmatchcase(tag, glob):
            return template.format(tag=tag, dir=directory)
    return tag
