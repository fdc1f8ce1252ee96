"""Opens the store at an address. Every address is the path of a directory so far."""

import os

from kitcache.errors import KitcacheError
from kitcache.store.directory import DirectoryStore
from kitcache.store.layout import check_version, open_checked

StoreAddress = str | os.PathLike[str]


def open_store(address: StoreAddress) -> DirectoryStore:
    """Open the cache at an address. Nothing below a directory is read yet.

    Raises:
        NotACache: There is no cache.
        Unsafe: Its oci-layout names an unknown version.

    """
    return open_checked(DirectoryStore, address_text(address), check_version)


def open_published_store(address: StoreAddress) -> DirectoryStore | None:
    """Open the cache at an address. Return None if no export was published there yet.

    A first build that failed leaves such a directory. For anything else this raises as open_store.
    """
    try:
        return open_store(address)
    except KitcacheError:
        from kitcache.store.fresh import is_fresh  # noqa: PLC0415 - rarely needed

        if is_fresh(address_text(address)):
            return None
        raise


def address_text(address: StoreAddress) -> str:
    """Return an address as the text that messages show."""
    return os.fspath(address)
