"""store/open.py: which store an address names. Opening object stores: tests/objects."""

import os
from pathlib import Path

import pytest

import kitcache
from kitcache.errors import NotACache, UsageError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.open import (
    StoreAddress,
    address_text,
    find_object_cache,
    open_directory,
    open_published_directory,
    open_published_store,
    open_store,
)
from tests.hostile.build import Sample

PASTED = "type=s3,bucket=b,region=r,access_key_id=AKIA,secret_access_key=hush,prefix=ci/"
SHORT = "s3://b/ci/?region=r"


def test_a_pasted_line_keeps_its_credentials_and_its_text_has_none() -> None:
    cache = find_object_cache(PASTED)
    assert cache is not None
    assert (cache.access_key_id, cache.secret_access_key) == ("AKIA", "hush")
    assert address_text(PASTED) == address_text(cache) == SHORT
    assert find_object_cache(cache) is cache


def test_the_environment_completes_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "r")
    assert address_text("s3://b/ci/") == SHORT
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(UsageError, match="region"):
        address_text("s3://b/ci/")


def test_a_path_is_a_directory_whatever_it_is_called(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sample.box.top)
    sample.dir.rename("type=s3,bucket=b")
    addresses: list[StoreAddress] = ["./type=s3,bucket=b", Path("type=s3,bucket=b")]
    for address in addresses:
        assert find_object_cache(address) is None
        with open_store(address) as store:
            assert store.path == address_text(address)
        assert kitcache.du(address).live.blobs


@pytest.mark.parametrize("address", [PASTED, SHORT, ObjectCache("s3", "b", "ci/", region="r")])
def test_what_needs_a_directory_says_so(address: StoreAddress, tmp_path: Path) -> None:
    assert isinstance(address, str | ObjectCache)
    short = SHORT if isinstance(address, str) else address.address
    calls = [
        lambda: open_directory(address),
        lambda: open_published_directory(address),
        lambda: kitcache.merge([tmp_path], str(address)),
        lambda: kitcache.repair(tmp_path, sources=[str(address)]),
    ]
    (tmp_path / "blobs").mkdir()
    (tmp_path / "index.json").write_text("{}")
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value) == (
            f"{short}: this needs a cache in a directory\n"
            "  hint: copy the cache to a directory, and name that"
        )


def test_no_export_yet(tmp_path: Path) -> None:
    assert open_published_store(tmp_path) is None
    assert open_published_directory(str(tmp_path)) is None


@pytest.mark.parametrize("address", ["gs://b/x", "S3://b/x", "s3:/b/x", Path("s3://b/x")])
def test_a_url_that_names_no_cache_is_not_a_directory(
    address: StoreAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else copy would create a directory of that name, and the bucket would stay empty."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="looks like a URL"):
        open_store(address)
    (tmp_path / os.fspath(address).partition("/")[0]).mkdir()
    with pytest.raises(NotACache):
        open_store(address)
