"""From an Extent to a host: how the bytes of a download leave.

| host                        | whole image         | range                                   |
|-----------------------------|---------------------|-----------------------------------------|
| embedded, gunicorn          | ``wsgi.file_wrapper`` | the same: descriptor and length say it |
| anything else               | copying loop        | copying loop                            |
"""

from collections.abc import Iterator
from typing import Any, cast

import falcon

from headrace import errors
from headrace.api import ranges
from headrace.model import MIB, Image
from headrace.transfer.extent import Extent

EXTENT = "headrace.extent"
"""Where a response's Extent is noted, so that it is closed when it does not become the body."""


class _Blocks:
    """An Extent as an iterable of 1 MiB blocks, for hosts whose file_wrapper is not known to work.

    It has no ``read``, so that the framework does not hand it to a file_wrapper.  Raises
    FileTruncated when the file ends early: not every host compares a body with its Content-Length.
    """

    def __init__(self, extent: Extent) -> None:
        self._extent = extent

    def __iter__(self) -> Iterator[bytes]:
        extent = self._extent
        while block := extent.read(MIB):
            yield block
        if missing := extent.length - extent.tell():
            raise errors.FileTruncated(missing=missing, moved=extent.tell())

    def close(self) -> None:
        self._extent.close()


def deliver(req: falcon.Request, resp: falcon.Response, image: Image, extent: Extent) -> None:
    """Make the extent, or the range of it that was asked for, the response's body."""
    req.env[EXTENT] = extent
    size = extent.length
    asked = None
    if header := req.get_header("Range"):
        asked = ranges.requested(header, size)
    elif header := req.get_header("Content-Range"):
        asked = ranges.legacy(header, size)
    if asked is not None:
        offset, length = asked
        extent.narrow(offset, length)
        resp.status = falcon.HTTP_206
        resp.set_header("Content-Range", f"bytes {offset}-{offset + length - 1}/{size}")
    resp.content_type = "application/octet-stream"
    resp.content_length = extent.length
    if image.checksum:
        resp.set_header("Content-MD5", image.checksum)
    # falcon's annotation names the parameter of read() differently; PEP 3333 passes it by position.
    resp.stream = cast(Any, extent if _has_file_wrapper(req) else _Blocks(extent))


def _has_file_wrapper(req: falcon.Request) -> bool:
    return str(req.env.get("SERVER_SOFTWARE", "")).startswith("gunicorn/")
