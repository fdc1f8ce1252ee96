"""store/overlay.py: a store without some of its blobs, and with what other copies have."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitcache.errors import Damaged
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from kitcache.store.overlay import Overlay
from tests.hostile.build import Sample
from tests.property.disk import snapshot


@pytest.fixture
def copies(sample: Sample, tmp_path: Path) -> Iterator[tuple[Layout, Layout]]:
    """Two copies of the sample."""
    opened = []
    for name in ("one", "two"):
        shutil.copytree(sample.dir, tmp_path / name)
        opened.append(open_store(tmp_path / name))
        opened[-1].open_directories()
    yield opened[0], opened[1]
    for layout in opened:
        layout.__exit__(None, None, None)


def digest_of(blob: dict[str, object]) -> Digest:
    return parse_digest(blob["digest"])


def spoil(layout: Layout, digest: Digest) -> None:
    path = Path(layout.path, "blobs", digest.algorithm, digest.hex)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"?")


def test_what_is_there_is_read_as_ever(sample: Sample, layout: Layout) -> None:
    overlay, digest = Overlay(layout, ()), digest_of(sample.main)
    assert overlay.read_blob(digest, None) == layout.read_blob(digest, None)
    assert overlay.stat_blob(digest) == layout.stat_blob(digest)
    assert overlay.offer_of(digest) is None


def test_what_is_hidden_is_missing(sample: Sample, layout: Layout) -> None:
    digest = digest_of(sample.main)
    overlay = Overlay(layout, {digest})
    assert overlay.stat_blob(digest) is None
    with pytest.raises(Damaged) as caught:
        overlay.read_blob(digest, None)
    assert caught.value.kind == "missing"


def test_what_is_hidden_or_gone_comes_from_a_copy(
    sample: Sample, layout: Layout, copies: tuple[Layout, Layout]
) -> None:
    hidden, gone = digest_of(sample.main), digest_of(sample.layers[0])
    data = {digest: layout.read_blob(digest, None) for digest in (hidden, gone)}
    sample.box.path_of(str(gone)).unlink()
    overlay = Overlay(layout, {hidden}, copies)
    for digest, expected in data.items():
        assert overlay.offer_of(digest) == 0
        assert overlay.read_blob(digest, None) == expected
        assert overlay.stat_blob(digest) == copies[0].stat_blob(digest)


def test_a_copy_that_lies_is_passed_over(
    sample: Sample, layout: Layout, copies: tuple[Layout, Layout]
) -> None:
    digest = digest_of(sample.main)
    data = layout.read_blob(digest, None)
    spoil(copies[0], digest)
    overlay = Overlay(layout, {digest}, copies)
    assert overlay.offer_of(digest) == 0, "nobody has read it yet"
    assert overlay.read_blob(digest, None) == data
    assert overlay.offer_of(digest) == 1
    overlay.refute(1, digest)
    assert overlay.stat_blob(digest) is None


def test_what_is_no_file_is_not_offered(
    layout: Layout, copies: tuple[Layout, Layout], sample: Sample
) -> None:
    digest = digest_of(sample.layers[0])
    path = Path(copies[0].path, "blobs", "sha256", digest.hex)
    path.unlink()
    path.symlink_to(sample.box.path_of(str(digest)))
    assert Overlay(layout, {digest}, copies[:1]).offer_of(digest) is None
    assert Overlay(layout, {digest}, copies).offer_of(digest) == 1


def test_it_changes_nothing(sample: Sample, layout: Layout) -> None:
    before = snapshot(sample.dir)
    overlay = Overlay(layout, ())
    overlay.refresh()
    assert overlay.read_roots(lambda _: None).data == (sample.dir / "index.json").read_bytes()
    assert layout.read_blob(digest_of(sample.main), None)
    assert snapshot(sample.dir) == before


@pytest.mark.parametrize("thing", ["directory", "pipe", "link"])
def test_what_is_no_file_here_comes_from_a_copy(
    layout: Layout, copies: tuple[Layout, Layout], sample: Sample, thing: str
) -> None:
    digest = digest_of(sample.main)
    data = layout.read_blob(digest, None)
    path = sample.box.path_of(str(digest))
    path.unlink()
    match thing:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(Path(copies[0].path, "blobs", "sha256", digest.hex))
    overlay = Overlay(layout, (), copies[:1])
    assert overlay.offer_of(digest) == 0
    assert overlay.stat_blob(digest) == copies[0].stat_blob(digest)
    assert overlay.read_blob(digest, None) == data
    alone = Overlay(layout, ())
    assert alone.stat_blob(digest) == layout.stat_blob(digest), "it is what it is"
