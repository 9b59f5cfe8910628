"""Stores in buckets of real services that speak S3, of which processes are told by environment."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from headrace.stores.bucket import Bucket
from headrace.stores.s3 import S3Store

SWIFT = "HEADRACE_TEST_S3_OF_SWIFT"
RGW = "HEADRACE_TEST_S3_OF_RGW"


def address(url: str, access_key: str, secret_key: str) -> str:
    """What the environment says of a service."""
    return json.dumps([url, access_key, secret_key])


def told(service: str) -> tuple[str, str, str]:
    """The URL of a service, and keys for it."""
    url, access_key, secret_key = json.loads(os.environ[service])
    return url, access_key, secret_key


def port(service: str) -> int:
    return int(told(service)[0].rpartition(":")[2])


def bucket_name(directory: Path) -> str:
    """That of a bucket of the test's own."""
    return f"images-{hashlib.sha256(bytes(directory)).hexdigest()[:20]}"


def store(service: str, directory: Path, *, through: str | None = None, **how: Any) -> S3Store:
    """A store of small parts; ``through`` is the URL of what stands before its service."""
    url, *keys = told(service)
    how = {"large": 5 << 20, "chunk": 5 << 20, "streams": 2, "creates": True, "pause": 0.02, **how}
    windows = str(directory.parent)
    return S3Store("s3", through or url, bucket_name(directory), *keys, windows=windows, **how)


def bucket(service: str, directory: Path) -> Bucket:
    """The same, to look into."""
    url, *keys = told(service)
    return Bucket("s3", url, bucket_name(directory), *keys)


def names(service: str, directory: Path) -> list[str]:
    return held(bucket(service, directory))


def held(bucket: Bucket) -> list[str]:
    """The keys of objects, and with "+" those of uploads that have not ended."""
    listed = bucket.ask("GET", query={"list-type": "2"}).document.iterfind("Contents/Key")
    uploads = bucket.ask("GET", query={"uploads": ""}).document.iterfind("Upload/Key")
    return sorted([*(each.text or "" for each in listed), *(f"{each.text}+" for each in uploads)])
