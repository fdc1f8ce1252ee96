"""[GLOB=]TEMPLATE: what a tag is to be called in another cache."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from kitcache.errors import UsageError

_PLACE = re.compile(r"\{([^{}]*)\}")
_PLACES = ("tag", "dir")
_FORMS = ("write '{dir}-{tag}' for all tags, or 'GLOB={dir}-{tag}' for some",)


class Rename(NamedTuple):
    """Tags that match the glob are called by the template; what it stands for: see rename.

    In a glob `*` is any text, with slashes too; what else there is follows Python's fnmatch.
    """

    glob: str
    template: str


def read_rename(text: str) -> Rename:
    """The rename that a text spells; without a glob it is of every tag. Raises UsageError."""
    glob, equals, template = text.rpartition("=")
    if not template or (equals and not glob):
        raise UsageError(f"{text!r} gives tags no name", hints=_FORMS)
    for place in _PLACE.findall(template):
        if place not in _PLACES:
            raise UsageError(f"{text!r}: {{{place}}} stands for nothing", hints=_FORMS)
    if re.search("[{}]", _PLACE.sub("", template)):
        raise UsageError(f"{text!r} has a brace too many", hints=_FORMS)
    return Rename(glob or "*", template)


def rename(renames: Sequence[Rename], tag: str, directory: str) -> str:
    """The tag's new name, by the first rename whose glob it matches; else its own.

    {tag} stands for the tag, {dir} for the name of its cache's directory.
    """
    for glob, template in renames:
        if fnmatchcase(tag, glob):
            return template.format(tag=tag, dir=directory)
    return tag
