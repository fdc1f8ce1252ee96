"""open_azure: the client of a cache in Azure Blob Storage, with the credentials that BuildKit uses.

Source: BuildKit, cache/remotecache/azblob/utils.go.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import ObjectClient


def open_azure(cache: ObjectCache) -> ObjectClient:
    """Return the client of a container. Sends no request.

    Raises:
        KitcacheError: A package is not installed, or secret_access_key is not a key.
    """
    try:
        from kitcache.store.objects.azureclient import AzureClient  # noqa: PLC0415
    except ModuleNotFoundError:
        raise KitcacheError(
            cache.address,
            "a cache in Azure Blob Storage needs the package azure-storage-blob,"
            " which is not installed",
            effect=NOTHING_CHANGED,
            hints=("pip install 'kitcache[azure]'",),
        ) from None
    return AzureClient(cache, _find_credential(cache))


def _find_credential(cache: ObjectCache) -> Any:
    """Return the shared key, None for an account_url with a SAS token, else Azure's default."""
    if cache.secret_access_key:
        _check_key(cache)
        return {"account_name": cache.account_name, "account_key": cache.secret_access_key}
    if "sig=" in cache.endpoint_url.partition("?")[2]:
        return None
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415
    except ModuleNotFoundError:
        raise KitcacheError(
            cache.address,
            "the cache has no secret_access_key, and the package azure-identity, which finds"
            " Azure's default credentials, is not installed",
            effect=NOTHING_CHANGED,
            hints=("pip install azure-identity", "add secret_access_key to the cache"),
        ) from None
    return DefaultAzureCredential()


def _check_key(cache: ObjectCache) -> None:
    try:
        b64decode(cache.secret_access_key, validate=True)
    except (Base64Error, ValueError):
        raise KitcacheError(
            cache.address,
            "secret_access_key is not a key of a storage account: it is not base64",
            effect=NOTHING_CHANGED,
        ) from None
