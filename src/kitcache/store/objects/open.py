"""Opens a cache in an object store with the client for its kind."""

from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import ObjectClient
from kitcache.store.objects.store import ObjectStore


def open_object_store(cache: ObjectCache) -> ObjectStore:
    """Return the store of a cache in an object store. Sends no request.

    Raises:
        KitcacheError: A package for this kind of object store is not installed.
    """
    return ObjectStore(cache, _open_client(cache))


def _open_client(cache: ObjectCache) -> ObjectClient:
    if cache.kind == "s3":
        from kitcache.store.objects.s3 import open_s3  # noqa: PLC0415 - one of two kinds

        return open_s3(cache)
    from kitcache.store.objects.azure import open_azure  # noqa: PLC0415

    return open_azure(cache)
