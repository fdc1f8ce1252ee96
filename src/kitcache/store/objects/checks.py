"""The checks before the first deletion: the store's behaviour, and other roots that use the blobs.

Both prevent the deletion of live blobs, which nothing else in the bucket would show.
"""

import json
import secrets
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import NamedTuple

from kitcache.errors import Unsafe
from kitcache.oci.digest import is_blob_name
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import ObjectClient, ObjectInfo, Target
from kitcache.store.values import STRUCTURAL_LIMIT_BYTES, Batch

_TICK_S = 1.1
"""S3 dates objects by whole seconds, so a renewed date shows after this time."""
_MAX_KEYS = 10_000
_MAX_DOCUMENTS = 1_000
_HEAD_BYTES = 64
_MIN_ROOT_BYTES = 2


def check_renewal(client: ObjectClient, cache: ObjectCache, check: Callable[[], None]) -> None:
    """Refuse a store whose listings do not show that an exporter has renewed a blob's date.

    It writes a scratch object, copies it onto itself as BuildKit does, and lists it.

    Raises:
        Unsafe: The date did not change, so the age of a blob protects no export.
        KitcacheError: The scratch object cannot be written.
    """
    key = f"{cache.state_key}self-test-{secrets.token_hex(8)}"
    client.write(key, b"A scratch object of kitcache. It can be deleted.\n")
    try:
        before = _listed(client, key)
        time.sleep(_TICK_S)
        check()
        client.renew(key)
        after = _listed(client, key)
    finally:
        for page in client.list_pages(key, versions=client.abilities().has_versions):
            client.delete([Target(info.key, info.version) for info in page.objects])
    if before is None or after is None or after.modified_ns <= before.modified_ns:
        raise Unsafe(
            client.address,
            "a copy of an object onto itself does not change its date in a listing of this store:"
            " kitcache cannot tell which blobs a running export uses",
            hints=(
                "delete with a client of the store's own server, while no export runs",
                "copy the cache to a store that renews dates, such as AWS S3 or SeaweedFS",
            ),
        )


def _listed(client: ObjectClient, key: str) -> ObjectInfo | None:
    for page in client.list_pages(key):
        for info in page.objects:
            if info.key == key:
                return info
    return None


def refuse_other_roots(
    client: ObjectClient,
    cache: ObjectCache,
    live: Collection[str],
    scan: Callable[[], Iterable[Batch]],
    check: Callable[[], None],
) -> bool:
    """Raise Unsafe if a document next to the cache names a blob that would be deleted.

    Args:
        live: Digests that need no protection, because roots of the cache reach them.
        scan: Yields all blobs; called only if there are such documents.

    Returns:
        False if there were too many keys to look at.
    """
    others = _find_other_roots(client, cache, live, check)
    for batch in scan() if others.names else ():
        for name in batch.names:
            if name in others.names:
                raise _other_root_error(client.address, others.names[name], name)
    return others.is_complete


class _OtherRoots(NamedTuple):
    """Documents below the prefix of a cache that look like roots and are not roots of the cache.

    Attributes:
        names: The digests in them, each with the key of the document.
        is_complete: False if there were too many keys to look at.
    """

    names: dict[str, str]
    is_complete: bool


def _find_other_roots(
    client: ObjectClient, cache: ObjectCache, live: Collection[str], check: Callable[[], None]
) -> _OtherRoots:
    """Look for roots of another manifests_prefix that may use the same blobs."""
    names: dict[str, str] = {}
    own = (cache.blobs_key, *cache.manifests_keys, cache.state_key)
    keys = documents = 0
    for info in _keys_beside(client, cache.prefix, sorted(own)):
        check()
        keys += 1
        if keys > _MAX_KEYS or documents > _MAX_DOCUMENTS:
            return _OtherRoots(names, is_complete=False)
        if not _MIN_ROOT_BYTES < info.size <= STRUCTURAL_LIMIT_BYTES:
            continue
        head = client.read(info.key, _HEAD_BYTES)
        documents += 1
        if head is None or not head[0].lstrip().startswith(b"{"):
            continue
        whole = client.read(info.key, info.size) if info.size > _HEAD_BYTES else head
        for name in _digests_in(whole[0] if whole else b""):
            if name not in live:
                names.setdefault(name, info.key)
    return _OtherRoots(names, is_complete=True)


def _keys_beside(client: ObjectClient, prefix: str, own: list[str]) -> Iterator[ObjectInfo]:
    """Yield the objects below a prefix whose keys have none of the beginnings `own`.

    The keys of blobs, of this cache and of others, are skipped with one request each.
    """
    after: str | None = ""
    while after is not None:
        after = yield from _keys_until_skip(client, prefix, own, after)


def _keys_until_skip(
    client: ObjectClient, prefix: str, own: list[str], after: str
) -> Generator[ObjectInfo, None, str | None]:
    """Yield objects after a key. Return the key to list the next ones after, None at the end."""
    for page in client.list_pages(prefix, after=after):
        for info in page.objects:
            # The prefix itself, or the name of a root, can contain the text too.
            beginning, text, digits = info.key.rpartition("sha256:")
            is_blob = len(beginning) >= len(prefix) and is_blob_name("sha256", digits)
            skipped = [start for start in own if info.key.startswith(start)]
            if is_blob:
                skipped.append(beginning + text)
            if skipped:
                # Greater than all keys that begin so.
                return min(skipped, key=len) + "\U0010ffff"
            yield info
        if page.is_last:
            break
    return None


def _digests_in(data: bytes) -> Iterator[str]:
    """Yield the blobs of a cacheconfig as hex digits; none if the document is not one."""
    try:
        layers = json.loads(data)["layers"]
        blobs = [layer["blob"] for layer in layers]
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    for blob in blobs:
        if isinstance(blob, str) and blob.startswith("sha256:"):
            yield blob.removeprefix("sha256:")


def _other_root_error(address: str, key: str, name: str) -> Unsafe:
    """Return the error for a document of another manifests_prefix that uses a blob."""
    return Unsafe(
        address,
        f"the object {key} looks like a root of this cache under another manifests_prefix:"
        f" it names the blob sha256:{name}, which no root of this cache names",
        hints=(
            "name all manifests_prefixes of the exporters in the address, separated by ;",
            f"delete {key} if no build uses it",
        ),
    )
