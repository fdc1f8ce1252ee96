"""ObjectCache: a cache in an object store, as `type=s3,…`, `type=azblob,…` or `s3://…` names it.

Attributes, defaults and the keys of objects are BuildKit's.
Sources: BuildKit, cache/remotecache/s3/s3.go and cache/remotecache/azblob/utils.go.
"""

from typing import Literal, NamedTuple

DAY_NS = 24 * 3600 * 10**9


class ObjectCache(NamedTuple):
    """A cache in a bucket of S3, or in a container of Azure Blob Storage.

    Attributes:
        bucket: The bucket, or the container.
        blobs_key: The key of a blob without its digest, such as `ci/blobs/`.
        manifests_keys: The keys of roots without their names. The first is BuildKit's; more are
            other manifests_prefixes of exporters that share the same blobs.
        touch_refresh_ns: The longest age at which an exporter uses a blob without a renewed date.
        endpoint_url: "" for AWS itself; of Azure the account_url.
        secret_access_key: Never in a message.
        warnings: A sentence for each attribute that is unknown or has no effect.
    """

    kind: Literal["s3", "azblob"]
    bucket: str
    prefix: str = ""
    blobs_key: str = "blobs/"
    manifests_keys: tuple[str, ...] = ("manifests/",)
    touch_refresh_ns: int = DAY_NS
    region: str = ""
    endpoint_url: str = ""
    use_path_style: bool = False
    account_name: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    retry_mode: str = ""
    retry_max_attempts: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The short form without secrets, such as s3://bucket/ci/?region=eu-west-1."""
        scheme = "s3" if self.kind == "s3" else "azblob"
        return f"{scheme}://{self.bucket}/{self.prefix}"
