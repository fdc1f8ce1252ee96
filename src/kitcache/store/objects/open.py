"""Opens a cache in an object store with the client for its kind."""

from typing import TYPE_CHECKING

from kitcache.errors import KitcacheError

if TYPE_CHECKING:
    from kitcache.options.objectcaches import ObjectCache
    from kitcache.store.protocol import EditableStore


def open_object_store(cache: "ObjectCache") -> "EditableStore":
    """Return the store of a cache in an object store. Sends no request."""
    raise KitcacheError(cache.address, "caches in object stores cannot be opened yet")
