"""Putting images into stores and getting them out again."""

import contextlib
import os
import subprocess

from headrace.stores.base import Store, Writer

IMAGE_ID = "0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b"
OTHER_ID = "77777777-8888-4999-aaaa-bbbbbbbbbbbb"

WritingProcess = subprocess.Popen[str]


def descriptors(*, sockets: bool = True) -> int:
    """How many descriptors this process has open, of sockets or without them."""
    targets = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            targets.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(sockets or not target.startswith("socket:") for target in targets)


def put(store: Store, content: bytes, image_id: str = IMAGE_ID) -> str:
    """Store ``content``; its URL."""
    writer = store.create(image_id, len(content))
    os.write(writer.sink.fd, content)
    return published(writer)


def published(writer: Writer) -> str:
    """Commit and let go; the URL."""
    url = writer.commit()
    writer.abort()
    return url


def get(store: Store, url: str) -> bytes:
    with contextlib.closing(store.open(url)) as extent:
        return b"".join(iter(lambda: extent.read(1 << 20), b""))


def finish(process: WritingProcess) -> str:
    """Let a writing process commit; what it says came of it."""
    said, _ = process.communicate("go\n", timeout=60)
    assert process.returncode == 0
    return said.strip()
