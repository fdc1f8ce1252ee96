"""What the tests of merge share: a look at a cache, and a disk without hard links."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.build import REF_NAME


def items(cache: Path) -> list[Any]:
    return list(json.loads((cache / "index.json").read_bytes())["manifests"])


def tags(cache: Path) -> dict[str | None, str]:
    return {i.get("annotations", {}).get(REF_NAME): i["digest"] for i in items(cache)}


def blobs(cache: Path) -> set[str]:
    return {p.name for p in (cache / "blobs").rglob("*") if p.is_file()}


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
