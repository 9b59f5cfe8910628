"""From an Extent to a host: how the bytes of a download leave.

What ``delivery = auto`` does, by what a request's environment tells of the host:

| host                     | whole image           | range                                       |
|--------------------------|-----------------------|---------------------------------------------|
| embedded                 | ``wsgi.file_wrapper`` | the same: the Extent says it                |
| gunicorn                 | ``wsgi.file_wrapper`` | the same: descriptor and Content-Length do  |
| mod_wsgi                 | ``wsgi.file_wrapper`` | the same                                    |
| uWSGI                    | ``wsgi.file_wrapper`` | our own engine, into uWSGI's connection     |
| gunicorn with TLS        | copying loop          | copying loop                                |
| uWSGI, framed protocols  | ``wsgi.file_wrapper`` | copying loop                                |
| anything else            | copying loop          | copying loop                                |

uWSGI's file_wrapper sends the whole file whatever the descriptor's position.  Its own
``uwsgi.sendfile`` counts in C ints, and with offload threads sends up to 128 KiB more than asked.

``x-accel-redirect`` and ``x-sendfile`` name the file to nginx or Apache, which cut the range out
themselves.  They do not know the ``Content-Range`` that old clients send in requests, and judge
conditions by validators of their own: such requests leave through the host, as above.

Data that lies at an origin elsewhere is copied, whatever the host; with ``store_redirect`` nginx
is told of a URL, signed for a minute, from which it fetches them itself.  Copied is, by foreign
hosts, what has not all landed yet (Growing), since they would take the end of its file for the end
of it; our own engine waits for the rest, in the embedded server and in uWSGI's connections.

Images have no validators (ETag, Last-Modified), so no ``If-Range`` can hold: the answer is whole.
Apache adds a Last-Modified, and then judges by it.
"""

import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any, cast
from urllib.parse import quote

import falcon

from headrace import errors
from headrace.api import intake, ranges
from headrace.api.traffic import Traffic
from headrace.model import MIB, Image
from headrace.stores.base import Data
from headrace.stores.remote import Remote
from headrace.transfer import engine
from headrace.transfer.extent import Extent
from headrace.transfer.growing import Growing

_log = logging.getLogger(__name__)

EXTENT = "headrace.extent"
"""Where a response's Extent is noted, so that it is closed when it does not become the body."""

Environ = dict[str, Any]

STORES = "/headrace-stores/"
"""Where nginx has its internal locations of stores: below it the scheme, the host, the path."""

_CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")

# Sockets on which uWSGI writes a response as it is; on others (FastCGI, TLS) it frames or encrypts.
_UWSGI_PLAIN = {"http-socket", "http11-socket", "socket", "uwsgi-socket"}


class Mode(StrEnum):
    """What ``delivery`` may be."""

    AUTO = "auto"
    FILE_WRAPPER = "file_wrapper"
    X_ACCEL_REDIRECT = "x-accel-redirect"
    X_SENDFILE = "x-sendfile"
    COPY = "copy"


FRONTS = (Mode.X_ACCEL_REDIRECT, Mode.X_SENDFILE)
"""Those in which a server in front opens files by their names."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Makes Extents the bodies of responses.

    ``locations`` are nginx's internal locations by the directory that each is; Apache is told of
    the same directories.  ``stall`` is for how many seconds a peer may take nothing of what we send
    ourselves under a foreign host; ``per_client`` is how many downloads a client may have at a
    time, 0: any number.
    """

    mode: Mode
    locations: Mapping[str, str]
    stall: float
    traffic: Traffic
    per_client: int = 0

    def deliver(
        self, req: falcon.Request, resp: falcon.Response, image: Image, extent: Data
    ) -> None:
        """Make the data, or the range of it that was asked for, the response's body."""
        req.env[EXTENT] = extent
        self.traffic.begin_download(image, req.remote_addr, extent, self.per_client)
        size = extent.length
        legacy = None
        asked = None
        if (header := req.get_header("Range")) and not req.get_header("If-Range"):
            asked = ranges.requested(header, size)
        elif legacy := req.get_header("Content-Range"):
            asked = ranges.legacy(legacy, size)
        resp.content_type = "application/octet-stream"
        if image.checksum:
            resp.set_header("Content-MD5", image.checksum)
        if asked is not None:
            extent.narrow(*asked)
        if self.mode in FRONTS and not legacy and self._leave_to_front(req, resp, extent, asked):
            return
        if asked is not None:
            offset, length = asked
            resp.status = falcon.HTTP_206
            resp.set_header("Content-Range", f"bytes {offset}-{offset + length - 1}/{size}")
        resp.content_length = extent.length
        if req.env.get("mod_wsgi.process_group"):
            # Apache does not look whether its daemon sent all that was announced; without this the
            # next answer would make up for what a file cut short lacks.
            resp.set_header("Connection", "close")
        # falcon's annotation names read()'s parameter differently; PEP 3333 passes it by position.
        resp.stream = cast(Any, self._body(req.env, extent, asked is not None))

    def _leave_to_front(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        extent: Data,
        asked: tuple[int, int] | None,
    ) -> bool:
        """Name the data to the server in front, unless that would judge conditions by itself.

        It is told of some directories only.  What grows has another name when it has grown.
        """
        if any(map(req.get_header, _CONDITIONS)):
            return False
        if isinstance(extent, Remote):
            return self._leave_to_store(resp, extent, asked)
        inside, _, name = extent.path.rpartition("/")
        location = self.locations.get(inside)
        if location is None or isinstance(extent, Growing):
            return False
        if self.mode is Mode.X_SENDFILE:
            # Its bytes as they are: mod_xsendfile reads no escapes, or is told not to.
            resp.set_header("X-Sendfile", os.fsencode(extent.path).decode("latin-1"))
        else:
            resp.set_header("X-Accel-Redirect", f"{location}{quote(name)}")
        extent.leave_to_host("offloaded")
        return True

    def _leave_to_store(
        self, resp: falcon.Response, remote: Remote, asked: tuple[int, int] | None
    ) -> bool:
        """Tell nginx where the store has the data, if it may fetch them from there."""
        url = remote.presigned() if self.mode is Mode.X_ACCEL_REDIRECT else None
        if url is None:
            return False
        scheme, _, rest = url.partition("://")
        resp.set_header("X-Accel-Redirect", f"{STORES}{scheme}/{rest}")
        if asked is not None:
            offset, length = asked
            resp.set_header("X-Headrace-Range", f"bytes={offset}-{offset + length - 1}")
        remote.leave_to_host("offloaded")
        return True

    def _body(self, env: Environ, extent: Data, ranged: bool) -> object:
        """The extent itself where the host can send a file, else what yields its bytes."""
        if isinstance(extent, Remote):
            return _Blocks(extent)
        if intake.BODY in env and self.mode is not Mode.COPY:
            return extent
        if self.mode is Mode.COPY or not engine.enabled():
            return _Blocks(extent)
        unfinished = isinstance(extent, Growing) and extent.available() < extent.length
        if "uwsgi.version" in env:
            return self._body_for_uwsgi(extent, ranged or unfinished)
        if not unfinished and (self.mode is Mode.FILE_WRAPPER or _sends_files(env)):
            extent.leave_to_host()
            return extent
        return _Blocks(extent)

    def _body_for_uwsgi(self, extent: Extent, by_us: bool) -> object:
        if not by_us:
            extent.leave_to_host()
            return extent
        uwsgi: Any = import_module("uwsgi")  # exists within uWSGI only
        sockets = {name for name in uwsgi.opt if name.endswith("-socket") or name == "socket"}
        protocol = uwsgi.opt.get("protocol", b"http")
        if sockets and sockets <= _UWSGI_PLAIN and protocol in (b"http", b"uwsgi"):
            return _Sent(extent, uwsgi.connection_fd(), self.stall)
        return _Blocks(extent)


class _Blocks:
    """Data as an iterable of 1 MiB blocks: the copying loop of hosts that send no files.

    It has no ``read``, so that the framework does not hand it to a file_wrapper.  Raises
    FileTruncated when the file ends early, FillFailed when it grows no more: not every host
    compares a body with its Content-Length.
    """

    def __init__(self, extent: Data) -> None:
        self._extent = extent

    def __iter__(self) -> Iterator[bytes]:
        extent = self._extent
        while block := extent.read(MIB):
            yield block
        if missing := extent.length - extent.sent:
            raise errors.FileTruncated(missing=missing, moved=extent.sent)

    def close(self) -> None:
        self._extent.close()


class _Sent(_Blocks):
    """An Extent that sends itself into a host's connection, once the host has sent the headers."""

    def __init__(self, extent: Extent, connection: int, stall: float) -> None:
        super().__init__(extent)
        self._file = extent
        self._sink = engine.Stream(connection, stall=stall)

    def __iter__(self) -> Iterator[bytes]:
        yield b""  # on which uWSGI sends the headers
        try:
            engine.pump(self._file, self._sink)
        except errors.Error as error:
            # uWSGI would take what is missing for sent.
            _log.warning("answer cut short after %d bytes: %s", self._file.sent, error)
            engine.cut(self._sink)


def _sends_files(env: Environ) -> bool:
    """Whether the host's file_wrapper is known to honour the position and the Content-Length."""
    if "gunicorn.socket" in env:
        return not isinstance(env["gunicorn.socket"], ssl.SSLSocket)
    return "mod_wsgi.version" in env
