"""An object store in a dictionary, with a clock that tests set: an ObjectClient."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from kitcache.store.objects.client import (
    Abilities,
    Condition,
    ObjectInfo,
    Page,
    RequestKind,
    Target,
    Upload,
)
from kitcache.store.objects.lifecycle import LifecycleRule


class MemoryClient:
    """All versions of each key, oldest first. The attributes are for tests to look at and change.

    Attributes:
        hooks: Called before each request with its kind and key, so a test can change the bucket at
            that moment, or raise.
    """

    delete_batch_size = 1000

    def __init__(
        self, *, has_versions: bool = False, renews: bool = True, page_keys: int = 1000
    ) -> None:
        self.address = "s3://memory/"
        self.requests: dict[RequestKind, int] = {}
        self.warnings: list[str] = []
        self.pause: Callable[[float], None] = time.sleep
        self.clock_ns = 1_800_000_000 * 10**9
        self.versions: dict[str, list[tuple[ObjectInfo, bytes]]] = {}
        self.uploads: dict[str, Upload] = {}
        self.lifecycle: list[LifecycleRule] | None = None
        self.undeletable: dict[str, str] = {}
        self.hooks: list[object] = []
        self._has_versions, self._renews = has_versions, renews
        self.page_keys = page_keys
        self._number = 0

    def _count(self, kind: RequestKind, key: str = "") -> None:
        self.requests[kind] = self.requests.get(kind, 0) + 1
        for hook in self.hooks:
            hook(kind, key)  # type: ignore[operator]

    def now_ns(self) -> int:
        return self.clock_ns // 10**9 * 10**9

    def abilities(self) -> Abilities:
        exact = self._has_versions or not self._renews
        return Abilities(self._has_versions, exact, self._renews)

    def read_lifecycle(self) -> Sequence[LifecycleRule] | None:
        return self.lifecycle

    def list_pages(self, prefix: str, *, after: str = "", versions: bool = False) -> Iterator[Page]:
        while True:
            self._count("list", prefix)
            found: list[ObjectInfo] = []
            is_last = True
            for key in sorted(k for k in self.versions if k.startswith(prefix) and k > after):
                shown = self._shown(key, versions=versions)
                if found and len(found) + len(shown) > self.page_keys:
                    is_last = False
                    break
                found += shown
                after = key
            yield Page(found, is_last)
            if is_last:
                return

    def _shown(self, key: str, *, versions: bool) -> list[ObjectInfo]:
        last = len(self.versions[key]) - 1
        infos = [i._replace(is_current=n == last) for n, (i, _) in enumerate(self.versions[key])]
        if versions:
            return infos[::-1]
        return [i._replace(version="") for i in infos[-1:] if not i.is_marker]

    def _current(self, key: str) -> tuple[ObjectInfo, bytes] | None:
        held = self.versions.get(key)
        return None if not held or held[-1][0].is_marker else held[-1]

    def read(self, key: str, limit: int) -> tuple[bytes, ObjectInfo] | None:
        self._count("get", key)
        held = self._current(key)
        return held and (held[1][:limit], held[0])

    def stat(self, key: str) -> ObjectInfo | None:
        self._count("head", key)
        held = self._current(key)
        return held and held[0]

    def read_parts(self, key: str, size: int) -> Iterator[bytes | memoryview] | None:
        held = self.read(key, size)
        return held and iter([held[0]])

    def write(self, key: str, data: bytes, condition: Condition | None = None) -> ObjectInfo | None:
        self._count("put", key)
        held = self._current(key)
        if condition is not None and (held[0].etag if held else "") != condition.etag:
            return None
        return self._put(key, data)

    def _put(self, key: str, data: bytes) -> ObjectInfo:
        self._number += 1
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        etag = etag if self._renews else f"0x{self._number}"
        version = f"v{self._number}" if self._has_versions else ""
        info = ObjectInfo(key, len(data), self.clock_ns // 10**9 * 10**9, etag, version)
        before = self.versions.get(key, []) if self._has_versions else []
        self.versions[key] = [*before, (info, data)]
        return info

    def upload(self, key: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
        data = b"".join(parts)
        self._count("put", key)
        self._put(key, data)

    def renew(self, key: str) -> None:
        self._count("copy", key)
        held = self._current(key)
        if held is not None:
            self._put(key, held[1])

    def delete(self, targets: Sequence[Target]) -> Mapping[Target, str]:
        self._count("delete", targets[0].key)
        failures = {}
        for target in targets:
            if target.key in self.undeletable:
                failures[target] = self.undeletable[target.key]
            elif target.version:
                held = [
                    h for h in self.versions.get(target.key, []) if h[0].version != target.version
                ]
                self._keep(target.key, held)
            elif self._has_versions:
                self._number += 1
                now_ns = self.now_ns()
                marker = ObjectInfo(target.key, 0, now_ns, "", f"v{self._number}", is_marker=True)
                self.versions.setdefault(target.key, []).append((marker, b""))
            else:
                held = self.versions.get(target.key, [])
                if held and target.etag and held[-1][0].etag != target.etag:
                    failures[target] = "it has changed"
                else:
                    self._keep(target.key, [])
        return failures

    def _keep(self, key: str, held: list[tuple[ObjectInfo, bytes]]) -> None:
        if held:
            self.versions[key] = held
        else:
            self.versions.pop(key, None)

    def restore(self, key: str) -> bool:
        return False

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        self._count("list", prefix)
        yield from [u for u in self.uploads.values() if u.key.startswith(prefix)]

    def abort_upload(self, upload: Upload) -> bool:
        self._count("delete", upload.key)
        return self.uploads.pop(upload.upload_id, None) is not None

    def close(self) -> None:
        pass
