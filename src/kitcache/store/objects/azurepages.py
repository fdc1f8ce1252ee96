"""Listings of a container. The SDK sends the requests; kitcache parses the pages."""

from collections.abc import Callable, Iterator
from typing import Any

from azure.storage.blob import ContainerClient

from kitcache.errors import KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.azureerrors import explained
from kitcache.store.objects.azurelisting import AzurePage, parse_page
from kitcache.store.objects.client import ObjectInfo, Page

PAGE_BLOBS = 5000
MAX_FOLDERS = 100
"""A listing that skips a folder takes one more request for each folder after it."""
_FOLDER = "/"
_OK = 200


class _PageRead(Exception):
    """Carries a page out of the SDK before the SDK parses it, which takes 15 times as long."""

    def __init__(self, page: AzurePage) -> None:
        super().__init__()
        self.page = page


class PageLister:
    """Lists one container.

    Args:
        on_response: Called with each answer.
    """

    def __init__(
        self, cache: ObjectCache, container: ContainerClient, on_response: Callable[[Any], None]
    ) -> None:
        self._cache = cache
        self._container = container
        self._on_response = on_response

    def list_pages(self, prefix: str, after: str, *, versions: bool) -> Iterator[Page]:
        """Yield the pages of ObjectClient.list_pages."""
        if not after:
            for page in self._list(prefix, versions=versions):
                yield Page(page.objects, not page.marker)
            return
        waiting: list[ObjectInfo] | None = None
        for objects in self._list_after(prefix, after, versions=versions):
            if objects and waiting:
                yield Page(waiting, False)
            waiting = objects or waiting
        yield Page(waiting or [], True)

    def _list_after(self, prefix: str, after: str, *, versions: bool) -> Iterator[list[ObjectInfo]]:
        """Yield the objects after a key. The service cannot begin a listing there.

        The folders before the key are not listed, unless there are many folders.
        """
        names: list[str] = []
        objects: list[ObjectInfo] = []
        for page in self._list(prefix, versions=versions, has_folders=True):
            names += (name for name in page.folders if name > after or after.startswith(name))
            objects += (item for item in page.objects if item.key > after)
            if len(names) > MAX_FOLDERS or len(objects) > PAGE_BLOBS:
                flat = self._list(prefix, versions=versions)
                yield from ([item for item in page.objects if item.key > after] for page in flat)
                return
        for name in sorted(names):
            yield [item for item in objects if item.key < name]
            objects = [item for item in objects if item.key > name]
            if name > after:
                yield from (page.objects for page in self._list(name, versions=versions))
            elif after[len(name) :] < "\U0010ffff":
                yield from self._list_after(name, after, versions=versions)
        yield objects

    def _list(
        self, prefix: str, *, versions: bool, has_folders: bool = False
    ) -> Iterator[AzurePage]:
        marker: str | None = None
        while marker != "":
            page = self.read_page(prefix, marker, versions=versions, has_folders=has_folders)
            marker = page.marker
            # The service can answer with a page that has only a marker.
            if page.objects or page.folders or not marker:
                yield page

    def read_page(
        self,
        prefix: str,
        marker: str | None = None,
        *,
        versions: bool,
        has_folders: bool = False,
        size: int = 0,
    ) -> AzurePage:
        """Return one page.

        Args:
            has_folders: The objects in folders below the prefix are not listed; the folders are.
        """

        def take(response: Any) -> None:
            self._on_response(response)
            if response.http_response.status_code == _OK:
                raise _PageRead(parse_page(response.http_response.body()))

        query: Any = {
            "name_starts_with": prefix,
            "results_per_page": size or PAGE_BLOBS,
            "raw_response_hook": take,
        }
        include: Any = {"include": ["versions"]} if versions else {}
        if has_folders:
            blobs: Any = self._container.walk_blobs(delimiter=_FOLDER, **include, **query)
        elif versions:
            blobs = self._container.list_blobs(**include, **query)
        else:
            blobs = self._container.list_blob_names(**query)
        with explained(self._cache):
            try:
                next(blobs.by_page(marker))
            except _PageRead as read:
                return read.page
        raise KitcacheError(self._cache.address, "the service answered a listing without a page")
