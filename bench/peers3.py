"""peers3.py list|delete URL BUCKET: boto3 alone lists a bucket, or 8 threads delete its blobs.

Access key and secret come from the environment. `delete` prints the seconds of its deletions.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config

_THREADS = 8


def open_client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=_THREADS),
    )


def list_keys(client: Any, bucket: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="blobs/")
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def delete_all(client: Any, bucket: str, keys: list[str]) -> float:
    def delete(start: int) -> None:
        objects = [{"Key": key} for key in keys[start : start + 1000]]
        client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})

    started = time.perf_counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(delete, range(0, len(keys), 1000)))
    return time.perf_counter() - started


if __name__ == "__main__":
    client = open_client(sys.argv[2])
    keys = list_keys(client, sys.argv[3])
    print(len(keys) if sys.argv[1] == "list" else delete_all(client, sys.argv[3], keys))
