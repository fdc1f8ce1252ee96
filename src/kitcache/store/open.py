"""Opens the store at an address. Every address is the path of a directory so far."""

import os

from kitcache.errors import KitcacheError
from kitcache.store.directory import DirectoryStore
from kitcache.store.layout import check_version, open_checked

StoreAddress = str | os.PathLike[str]


def open_store(address: StoreAddress) -> DirectoryStore:
    """Open the cache at an address. Of its files only oci-layout is read.

    Raises:
        NotACache: The directory is missing, or is not a cache.
        Unsafe: Its oci-layout names an unknown version.

    """
    return open_checked(DirectoryStore, address_text(address), check_version)


def open_published_store(address: StoreAddress) -> DirectoryStore | None:
    """Open the cache at an address. Return None if no export was published there yet.

    If a first build fails, it leaves such a directory. Otherwise raises as open_store.
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


def address_name(address: StoreAddress) -> str:
    """Return the last part of an address."""
    return os.path.basename(os.path.abspath(address))


def real_address(address: StoreAddress) -> str:
    """Return the path of a directory without symlinks."""
    return os.path.realpath(address)


def is_nested(address: StoreAddress, other: StoreAddress) -> bool:
    """Return True if one of the directories is, or is inside, the other."""
    real, other_real = os.path.realpath(address), os.path.realpath(other)
    return os.path.commonpath((real, other_real)) in (real, other_real)
