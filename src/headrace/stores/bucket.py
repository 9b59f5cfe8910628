"""A bucket of S3: what is asked of it, and how it is asked again.

Each question has a connection of its own.  A body that is a piece of a file goes from there to the
wire by the engine; it is read once before, for the digest that is signed.  What an error of S3 says
stays here but for its code: it quotes keys, addresses and what was signed.
"""

import contextlib
import hashlib
import http.client
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, cast
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from headrace import __version__, errors
from headrace.stores import wire
from headrace.stores.origin import Fetched
from headrace.stores.signature import Signer, quoted
from headrace.stores.wire import Switch
from headrace.transfer import engine
from headrace.transfer.extent import Extent

TOKEN = "x-amz-meta-headrace-upload"
"""What an object was written with tells which upload made it."""

_TRIES = 4
# What may have happened on the way.
_AGAIN = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"})
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_AMAZON = re.compile(r"s3(?:[.-](?:dualstack[.])?([a-z0-9-]+))?[.]amazonaws[.]com(?:[.]cn)?")


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes at ``offset`` of the file open as ``fd``, as a request's body."""

    fd: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    _EMPTY: ClassVar[ElementTree.Element] = ElementTree.Element("Empty")

    @property
    def document(self) -> ElementTree.Element:
        """Its body as XML without namespaces; an empty element where it is none."""
        try:
            root = ElementTree.fromstring(self.body)
        except ElementTree.ParseError:
            return self._EMPTY
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root

    @property
    def code(self) -> str:
        """S3's name of the error that it is, "" of what is none."""
        document = self.document
        return document.findtext("Code", "") if document.tag == "Error" else ""

    @property
    def said(self) -> str:
        """What may be told of it."""
        return f"{self.status} {self.code}".rstrip()

    @property
    def again(self) -> bool:
        """Whether it may be another the next time."""
        failed = self.status == 429 or (self.status >= 500 and self.status != 501)
        return failed or self.code in _AGAIN

    @property
    def fine(self) -> bool:
        """Whether it is no error; one may come with status 200, long after it was begun."""
        return self.status < 300 and self.document.tag != "Error"


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of an object; ``token`` is the upload's that made it, if it was one of ours."""

    size: int
    token: str | None
    tag: str | None


class Bucket:
    """One bucket at the service at ``endpoint``, an http or https URL without a path.

    ``style`` is how objects are addressed, in the path or by the name of a virtual host; "auto":
    the latter at Amazon's own, where the name allows it.  ``region`` "" is found from the endpoint.
    ``creates`` is whether it is made when it is missing, which until then means that it is empty.
    ``cafile`` names the authorities to trust instead of the system's.  ``stall`` is for how many
    seconds the service may do nothing, ``pause`` how many there are before it is asked again, and
    twice as many before each further time.  ``name`` is how errors call it.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        *,
        region: str = "",
        style: str = "auto",
        creates: bool = False,
        cafile: str | None = None,
        stall: float = 60.0,
        pause: float = 0.2,
    ) -> None:
        self._pauses = [*(pause * 2**number for number in range(_TRIES - 1)), 0.0]
        self._creates = creates
        self._name = name
        self._stall = stall
        parts = urlsplit(endpoint)
        amazon = _AMAZON.fullmatch(parts.hostname or "")
        self._region = region or (amazon and amazon[1]) or "us-east-1"
        self._signer = Signer(access_key, secret_key, self._region)
        virtual = style == "virtual" or (style == "auto" and amazon is not None)
        if style == "auto":
            virtual = virtual and _PLAIN_NAME.fullmatch(bucket) is not None
        host = f"{bucket}.{parts.netloc}" if virtual else parts.netloc
        self.origin = f"{parts.scheme}://{host}"
        self._host = host
        self._root = "" if virtual else f"/{quote(bucket)}"
        tls = parts.scheme == "https"
        self._tls = wire.trust(f"store {name}", cafile) if tls else None

    def ask(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Piece = b"",
        *,
        switch: Switch | None = None,
    ) -> Reply:
        """The answer to a question about an object, or about the bucket.

        It is asked a few times when there is none, or one that calls for that.
        Raises ServiceUnavailable when there is none to be had, StoreFull, and TransferError when
        ``switch`` is off.
        """
        for pause in self._pauses:
            try:
                reply = self._once(method, key, query or {}, headers or {}, body, switch)
            except (OSError, http.client.HTTPException) as error:
                said = type(error).__name__
            else:
                if reply.status == 507:
                    raise errors.StoreFull()
                if not reply.again:
                    return reply
                said = reply.said
            if switch is not None:
                switch.check()
            time.sleep(pause)
        raise self._silence(said)

    def head(self, key: str) -> Found | None:
        """What is known of an object; None when there is none.  Raises ServiceUnavailable."""
        reply = self.ask("HEAD", key)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise self.refusal(reply)
        told = reply.headers.get
        return Found(int(told("Content-Length", -1)), told(TOKEN), told("ETag"))

    def get(self, key: str, byte_range: str | None = None, tag: str | None = None) -> Fetched:
        """An answer with an object's data, or a range of it, if its ETag is still ``tag``.

        Raises NotFound, ServiceUnavailable.
        """
        headers = {"Range": byte_range} if byte_range is not None else {}
        if tag:
            headers["If-Match"] = tag
        for pause in self._pauses:
            try:
                fetched = self._send("GET", key, {}, headers, b"", None)
                if fetched.response.status == (200 if byte_range is None else 206):
                    return fetched
                with contextlib.closing(fetched):
                    reply = _read(fetched)
            except (OSError, http.client.HTTPException) as error:
                said = type(error).__name__
            else:
                if reply.code == "NoSuchKey" or self.is_to_be_made(reply):
                    raise errors.NotFound()
                if not reply.again:
                    raise self.refusal(reply)
                said = reply.said
            time.sleep(pause)
        raise self._silence(said)

    def refusal(self, reply: Reply) -> errors.ServiceUnavailable:
        """The error that an answer is."""
        return errors.ServiceUnavailable(reason=f"store {self._name} is refused ({reply.said})")

    def _silence(self, said: str) -> errors.ServiceUnavailable:
        return errors.ServiceUnavailable(reason=f"store {self._name} does not answer ({said})")

    def is_to_be_made(self, reply: Reply) -> bool:
        """Whether an answer says that there is no bucket yet."""
        return self._creates and reply.code == "NoSuchBucket"

    def make(self) -> None:
        """Create the bucket, unless it is there; raises ServiceUnavailable."""
        body = b""
        if self._region != "us-east-1":
            body = (
                "<CreateBucketConfiguration><LocationConstraint>"
                f"{self._region}</LocationConstraint></CreateBucketConfiguration>"
            ).encode()
        reply = self.ask("PUT", body=body)
        if not reply.fine and reply.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise self.refusal(reply)

    def presigned(self, key: str, query: Mapping[str, str], life: int) -> str:
        """A URL at which anybody may GET the object within ``life`` seconds."""
        path = self._path(key)
        signed = self._signer.query("GET", self._host, path, query, life)
        return f"{self.origin}{path}?{signed}"

    def _path(self, key: str) -> str:
        return f"{self._root}/{quote(key)}" if key else self._root or "/"

    def _once(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | Piece,
        switch: Switch | None,
    ) -> Reply:
        # What begins to answer has done it: heard to its end, though nobody may want it any more.
        with contextlib.closing(self._send(method, key, query, headers, body, switch)) as fetched:
            return _read(fetched)

    def _send(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | Piece,
        switch: Switch | None,
    ) -> Fetched:
        """Ask once; raises OSError, HTTPException and the TransferErrors of a piece's file."""
        length = body.length if isinstance(body, Piece) else len(body)
        digest = (
            wire.digest("sha256", body.fd, body.offset, body.length)
            if isinstance(body, Piece)
            else hashlib.sha256(body).hexdigest()
        )
        path = self._path(key)
        sent = {
            "Host": self._host,
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": f"headrace/{__version__}",
            **headers,
        }
        if length or method in ("PUT", "POST"):
            sent["Content-Length"] = str(length)
        connection = self._connection()
        try:
            connection.connect()
            sock = connection.sock  # which the connection lets go of for the response
            with _through(switch, sock) as sent_whole:
                target = f"{path}?{quoted(query)}" if query else path
                connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
                signed = self._signer.headers(method, path, query, sent, digest)
                for name, value in signed.items():
                    connection.putheader(name, value)
                connection.endheaders(body if isinstance(body, bytes) else None)
                if isinstance(body, Piece):
                    self._pump(body, sock)
                sent_whole()
                return Fetched(connection.getresponse(), connection, sock)
        except BaseException:
            connection.close()
            raise

    def _pump(self, piece: Piece, sock: socket.socket) -> None:
        """Send a piece; who is not let finish finds an answer that says why.

        Raises ConnectionError when it cannot be sent: the store's doing, and not a client's.
        """
        sink = (
            engine.Sender(sock)
            if isinstance(sock, ssl.SSLSocket)
            else engine.Stream(sock.fileno(), stall=self._stall)
        )
        extent = Extent(os.dup(piece.fd), piece.offset, piece.length)
        with contextlib.closing(extent):
            try:
                engine.pump(extent, sink)
            except errors.PeerGone:
                pass
            except errors.FileTruncated:
                raise
            except errors.TransferError:
                raise ConnectionError from None

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, timeout=self._stall)
        return http.client.HTTPSConnection(self._host, timeout=self._stall, context=self._tls)


def _through(
    switch: Switch | None, sock: socket.socket
) -> AbstractContextManager[Callable[[], None]]:
    return contextlib.nullcontext(lambda: None) if switch is None else switch.through(sock)


def _read(fetched: Fetched) -> Reply:
    response = fetched.response
    headers = cast(Mapping[str, str], response.headers)
    return Reply(response.status, headers, wire.whole(response))
