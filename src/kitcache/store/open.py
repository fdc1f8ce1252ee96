"""Opens the store at an address: a cache directory, or a cache in an object store.

Only an address of an object store loads the modules for one, so that local commands start fast.
"""

import os
from typing import TYPE_CHECKING, TypeAlias

from kitcache.errors import KitcacheError, UsageError
from kitcache.store.directory import DirectoryStore
from kitcache.store.layout import check_version, open_checked

if TYPE_CHECKING:
    from kitcache.options.objectcaches import ObjectCache
    from kitcache.store.protocol import EditableStore, RootObjectStore

DirectoryPath: TypeAlias = str | os.PathLike[str]
if TYPE_CHECKING:
    StoreAddress: TypeAlias = str | os.PathLike[str] | ObjectCache
else:
    # Annotations can be resolved without the modules for object stores.
    StoreAddress = str | os.PathLike[str]
"""A path, or what options/objectcaches.py reads as an object store."""

_OBJECT_STARTS = ("type=", "s3://", "azblob://")


def open_store(address: StoreAddress) -> "EditableStore":
    """Open the cache at an address. Of a directory's files only oci-layout is read.

    No request is sent to an object store yet.

    Raises:
        NotACache: The directory is missing, or is not a cache.
        Unsafe: Its oci-layout names an unknown version.
        UsageError: The address of an object store is not complete.
        KitcacheError: A package for this kind of object store is not installed.

    """
    cache = find_object_cache(address)
    return open_directory(address) if cache is None else open_object_store(cache)


def open_published_store(address: StoreAddress) -> "EditableStore | None":
    """Open the cache at an address. Return None if no export was published there yet.

    If a first build fails, it leaves such a directory. Otherwise raises as open_store.
    """
    cache = find_object_cache(address)
    return open_published_directory(address) if cache is None else open_object_store(cache)


def open_directory(address: StoreAddress) -> DirectoryStore:
    """Open the cache directory at an address. Raises as open_store; UsageError for other caches."""
    return open_checked(DirectoryStore, directory_path(address), check_version)


def open_published_directory(address: StoreAddress) -> DirectoryStore | None:
    """Open the cache directory at an address, as open_published_store does."""
    try:
        return open_directory(address)
    except KitcacheError:
        from kitcache.store.fresh import is_fresh  # noqa: PLC0415 - rarely needed

        if find_object_cache(address) is None and is_fresh(address_text(address)):
            return None
        raise


def find_object_cache(address: StoreAddress) -> "ObjectCache | None":
    """Return the cache in an object store that an address names; None for a directory.

    The environment has the bucket, the region and the account that the address lacks. BuildKit and
    the packages for object stores find credentials there too.

    Raises:
        UsageError: The address names an object store, and is not complete; or it looks like a URL.

    """
    if not isinstance(address, str | os.PathLike):
        return address
    text = os.fspath(address)
    if isinstance(address, str) and address.startswith(_OBJECT_STARTS):
        from kitcache.options.objectcaches import parse_object_cache  # noqa: PLC0415 - see above

        return parse_object_cache(address, os.environ)
    scheme, colon, _ = text.partition(":/")
    if colon and scheme.isalnum() and not os.path.lexists(f"{scheme}:"):
        from kitcache.options.objectcaches import unknown_url_error  # noqa: PLC0415 - see above

        raise unknown_url_error(text, scheme)
    return None


def directory_path(address: StoreAddress) -> str:
    """Return the path of a directory. Raises UsageError for an object store."""
    cache = find_object_cache(address)
    if cache is not None:
        raise UsageError(
            "this needs a cache in a directory",
            path=cache.address,
            hints=("copy the cache to a directory, and name that",),
        )
    return address_text(address)


def address_text(address: StoreAddress) -> str:
    """Return an address as the text that messages show. It has no secrets."""
    cache = find_object_cache(address)
    return str(cache) if cache is not None else os.fspath(address)  # type: ignore[arg-type]


def open_object_store(cache: "ObjectCache") -> "RootObjectStore":
    """Open a cache in an object store. Raises as open_store."""
    from kitcache.store.objects import open as opening  # noqa: PLC0415 - see above

    return opening.open_object_store(cache)


def address_name(address: StoreAddress) -> str:
    """Return the last part of an address: of a bucket that of the prefix, if there is one."""
    cache = find_object_cache(address)
    if cache is None:
        return os.path.basename(os.path.abspath(address_text(address)))
    return cache.prefix.rstrip("/").rpartition("/")[2] or cache.bucket


def real_address(address: DirectoryPath) -> str:
    """Return the path of a directory without symlinks."""
    return os.path.realpath(address)


def is_nested(address: DirectoryPath, other: DirectoryPath) -> bool:
    """Return True if one of the directories is, or is inside, the other."""
    real, other_real = os.path.realpath(address), os.path.realpath(other)
    return os.path.commonpath((real, other_real)) in (real, other_real)
