"""A change of the roots: one conditional request for each root that is written or removed."""

from collections.abc import Callable, Iterator, Mapping

from kitcache.errors import KitcacheError
from kitcache.oci.descriptor import Descriptor
from kitcache.store.objects.client import CHANGED, Condition, ObjectClient, Target
from kitcache.store.objects.roots import RootObject, RootReader


def replace_roots(client: ObjectClient, reader: RootReader, new: Mapping[str, Descriptor]) -> bool:
    """Write the roots that are new or different, then remove those that are not in `new`.

    Each root is changed only if it is as `reader` has read it.

    Returns:
        False if another client has changed one. Roots before it were changed.

    Raises:
        KitcacheError: A root cannot be removed.
    """
    old = dict(reader.roots)
    for name, descriptor in new.items():
        known = old.get(name)
        if known is not None and known.entry_digest == descriptor.digest:
            continue
        data = reader.document(descriptor.digest)
        if data is None:
            raise ValueError("a root is written before its document was added")
        condition = Condition(known.info.etag if known else "")
        if client.write(reader.key_of(name), data, condition) is None:
            return False
    return all(_remove(client, root) for name, root in old.items() if name not in new)


def _remove(client: ObjectClient, root: RootObject) -> bool:
    """Remove a root, older versions first. Return False if it has changed."""
    key, etag = root.info.key, root.info.etag
    if not client.abilities().has_versions:
        parts = [[Target(key, "", etag)]]
    else:
        pages = client.list_pages(key, versions=True)
        held = [info for page in pages for info in page.objects if info.key == key]
        current = [info for info in held if info.is_current and not info.is_marker]
        if [info.etag for info in current] != [etag]:
            return False
        # If the newest version was deleted first, an older one would become the root.
        older = [Target(key, info.version) for info in held if not info.is_current]
        parts = [older, [Target(key, info.version) for info in current]]
    for part in parts:
        for _, reason in delete_all(client.delete, part, client.delete_batch_size):
            if reason == CHANGED:
                return False
            raise KitcacheError(
                client.address, f"the root {root.name!r} cannot be removed: {reason}"
            )
    return True


def delete_all(
    delete: Callable[[list[Target]], Mapping[Target, str]], targets: list[Target], size: int
) -> Iterator[tuple[Target, str]]:
    """Delete objects, `size` in one request. Yield each that was not deleted, with the reason."""
    for start in range(0, len(targets), size):
        yield from delete(targets[start : start + size]).items()
