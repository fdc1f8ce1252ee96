"""open_s3: the client of a cache on S3, with the optional packages that it needs."""

from kitcache.errors import KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects.client import ObjectClient


def open_s3(cache: ObjectCache) -> ObjectClient:
    """Return the client of the bucket. Sends no request.

    Raises:
        KitcacheError: botocore, which boto3 depends on, is not installed.
    """
    try:
        from kitcache.store.objects.s3client import S3Client  # noqa: PLC0415 - botocore is optional
    except ImportError as error:
        raise KitcacheError(
            cache.address,
            f"a cache on S3 needs the package boto3, which cannot be imported: {error}",
            hints=("pip install 'kitcache[s3]'",),
        ) from None
    return S3Client(cache)
