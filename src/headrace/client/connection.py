"""One connection to an Image API v2 service: JSON requests, and the socket for the data plane."""

import base64
import contextlib
import html
import http.client
import io
import json
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol, Self, TypeVar, cast
from urllib.parse import unquote, urlencode, urlsplit

from headrace import __version__
from headrace.errors import (
    ClientError,
    ConnectionFailed,
    Error,
    Unauthenticated,
    UsageError,
    from_answer,
)
from headrace.transfer.loopback import unpace

JSON = "application/json"
ERROR_CODE = "X-Headrace-Error"
TIMEOUT_S = 60.0
CONTINUE_WAIT_S = 1.0  # what curl waits; RFC 9110 §10.1.1 forbids to wait for ever
ERROR_BODY_LIMIT = 64 << 10
HEAD_LIMIT = 64 << 10
_SECRET_HEADERS = frozenset(
    {
        "authorization", "cookie", "proxy-authorization", "set-cookie", "x-auth-token",
        "x-service-token", "x-subject-token",
    }
)  # fmt: skip

Query = Mapping[str, str | Sequence[str]]
Trace = Callable[[str], None]
_T = TypeVar("_T")


class Tokens(Protocol):
    """Where tokens come from that end; see client/keystone.py."""

    def token(self) -> str:
        """The token to show."""

    def renew(self, refused: str) -> bool:
        """Whether there is another one now, in place of ``refused``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: the status, the headers with lower-case names, the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """The body as a JSON object; ClientError if it is none (not an image service, then)."""
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ClientError(reason="the answer is not a JSON object: is this an image service?")
        return value


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the service is: ``prefix`` is the path before ``/v2``, without a slash at its end."""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    user: str | None = None
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``http[s]://[user:password@]host[:port][/prefix][/v2[.n]]``, else UsageError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(reason=f"the service's URL is wrong: {error}") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(reason="the service's URL must look like http://host:9292")
        if not (_is_plain(parts.hostname + parts.path) and _is_host(parts.hostname)):
            raise UsageError(
                reason="host and path of the service's URL must be printable ASCII without spaces"
            )
        prefix = re.sub(r"/v2(\.\d+)?$", "", parts.path.rstrip("/"))
        return cls(
            parts.scheme,
            parts.hostname,
            port or (443 if parts.scheme == "https" else 80),
            prefix,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password or ""),
        )

    @property
    def url(self) -> str:
        """The URL before ``/v2``, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


class Connection:
    """An HTTP/1.1 connection, opened at the first request, kept alive, reopened when needed.

    ``endpoint`` may end in ``/v2`` and may have a path before it.  ``token``, or the one that it
    is a source of, goes out as ``X-Auth-Token``, ``user`` and ``password``, which may also stand in
    the endpoint's URL, as basic authentication (RFC 7617): to this endpoint alone, since no
    redirect is followed.  ``timeout`` is for how many seconds the service may do nothing.
    Certificates are verified unless ``verify`` is False; ``cafile`` names the authorities to trust
    instead of the system's, ``certificate`` and ``key`` what to show of ourselves.
    ``trace`` is called with one line per request and answer, the token masked.

    Every failure is an error of headrace.errors: the same class the service raised, if the service
    is Headrace; ConnectionFailed if it could not be reached or did not finish its answer.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        token: str | Tokens | None = None,
        user: str | None = None,
        password: str = "",
        timeout: float = TIMEOUT_S,
        verify: bool = True,
        cafile: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.endpoint = _with_login(Endpoint.parse(endpoint), user, password)
        self.timeout = timeout
        self._tokens = None if token is None or isinstance(token, str) else token
        self._token = _checked(token) if isinstance(token, str) else None
        self._verify = verify
        self._cafile = cafile
        self._certificate = certificate
        self._key = key
        self._trace = trace or (lambda line: None)
        self._http: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Connect now, if it is not connected, and not at the first request."""
        try:
            self._ready()
        except OSError as error:
            self.close()
            raise self.failed(error) from error

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def url(self, path: str, query: Query | None = None) -> str:
        """The whole URL of ``path`` (which starts with ``/v2``)."""
        return self.endpoint.url + target(path, query)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        media_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request, ``body`` as JSON unless it is None; the answer, if it is 2xx."""
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        headers = {"Accept": JSON, **(headers or {})}
        if data is not None:
            headers |= {"Content-Type": media_type, "Content-Length": str(len(data))}
        elif method in ("POST", "PUT"):
            headers["Content-Length"] = "0"  # RFC 9110 §8.6: or a server may wait for a body
        # A kept-alive connection may be closed just as it is used again (RFC 9112 §9.3.1): a GET
        # loses nothing by being sent once more.
        again = method == "GET" and self._http is not None
        while True:
            try:
                return self.with_token(lambda: self._request(method, path, headers, query, data))
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if not (again and isinstance(error, ConnectionError)):
                    raise self.failed(error) from error
                again = False

    def with_token(self, attempt: Callable[[], _T]) -> _T:
        """What ``attempt`` gives, which is a request; once more if its token has ended meanwhile.

        Nothing that cannot be sent again may leave before it raises Unauthenticated.
        """
        try:
            return attempt()
        except Unauthenticated:
            if self._tokens is None or not self._tokens.renew(self._token or ""):
                raise
        return attempt()

    def headers(self) -> dict[str, str]:
        """What each request says of who makes it, the token with it."""
        if self._tokens is not None:
            self._token = _checked(self._tokens.token())
        headers = {"User-Agent": f"headrace/{__version__}"}
        if self._token:
            headers["X-Auth-Token"] = self._token
        if self.endpoint.user is not None:
            pair = f"{self.endpoint.user}:{self.endpoint.password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        return headers

    def send_head(
        self, method: str, path: str, headers: Mapping[str, str], *, query: Query | None = None
    ) -> None:
        """Send a request's head on the open connection, or on a new one; OSError if it fails."""
        everywhere = self.headers()
        connection = self._ready()
        line = target(path, query)
        self._trace(f"> {method} {self.endpoint.prefix}{line}")
        connection.putrequest(method, self.endpoint.prefix + line)
        for name, value in (everywhere | dict(headers)).items():
            self._trace(f"> {name}: {_masked(name, value)}")
            connection.putheader(name, value)
        connection.endheaders()

    def tls_context(self) -> ssl.SSLContext:
        """How the service's certificate is judged, and what is shown of ourselves."""
        context = ssl.create_default_context(cafile=self._cafile)
        if self._certificate:
            context.load_cert_chain(self._certificate, self._key)
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @property
    def socket(self) -> socket.socket:
        """The connection's socket: between send_head and answer, the body's way out."""
        if self._http is None or self._http.sock is None:
            raise ConnectionFailed(url=self.endpoint.url, reason="not connected")
        return self._http.sock

    @property
    def encrypted(self) -> bool:
        return self.endpoint.scheme == "https"

    def continued(self) -> http.client.HTTPResponse | None:
        """After a head with ``Expect: 100-continue``: None if the body may be sent.

        Otherwise the service has given its final answer without the body; the connection cannot be
        used after that, since the service may or may not wait for the announced bytes
        (RFC 9110 §10.1.1), so it is closed with the response.
        """
        start = interim(self.socket, CONTINUE_WAIT_S)
        if not start:
            return None
        response = http.client.HTTPResponse(_replay(self.socket, start), method="PUT")
        response.begin()
        self._trace(f"< {response.status} {response.reason} (before the body)")
        return response

    @contextlib.contextmanager
    def answer(self, *, timeout: float | None = None) -> Iterator[http.client.HTTPResponse]:
        """The answer to what was sent, its body unread; raises the error it stands for.

        ``timeout`` replaces the connection's own while the head of the answer is awaited.
        """
        if self._http is None:
            raise ConnectionFailed(url=self.endpoint.url, reason="not connected")
        sock = self.socket
        if timeout is not None:
            sock.settimeout(timeout)
        response = self._http.getresponse()
        if timeout is not None and sock.fileno() >= 0:  # -1: closed with the answer
            sock.settimeout(self.timeout)
        self._trace(f"< {response.status} {response.reason}")
        for name, value in response.getheaders():
            self._trace(f"< {name}: {_masked(name, value)}")
        try:
            if not 200 <= response.status < 300:
                raise error_of(response)
            yield response
        finally:
            if not response.isclosed():
                # What is left of the body would be taken for the next answer.
                response.close()
                self.close()

    def failed(self, error: Exception, *, waited: float | None = None) -> ConnectionFailed:
        """The error for an OSError or HTTPException met on this connection.

        ``waited`` is for how many seconds, when it was not the connection's time-out.
        """
        if isinstance(error, TimeoutError):
            reason = f"no answer within {self.timeout if waited is None else waited:.4g} s"
        elif isinstance(error, http.client.RemoteDisconnected):
            reason = "the connection was closed without an answer"
        elif isinstance(error, http.client.IncompleteRead):
            reason = "the connection was closed in the middle of the answer"
        elif isinstance(error, http.client.HTTPException):
            reason = f"the answer is not HTTP ({type(error).__name__})"
        elif isinstance(error, ssl.SSLCertVerificationError):
            reason = f"its certificate is not trusted: {error.verify_message}"
        else:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return ConnectionFailed(url=self.endpoint.url, reason=reason)

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        query: Query | None,
        data: bytes | None,
    ) -> Answer:
        self.send_head(method, path, headers, query=query)
        if data is not None:
            self.socket.sendall(data)
        with self.answer() as response:
            return Answer(response.status, _headers(response), response.read())

    def _ready(self) -> http.client.HTTPConnection:
        if self._http is not None and (self._http.sock is None or _readable(self._http.sock)):
            # Readable without a request: the service closed it, or sent what nobody asked for.
            self.close()
        if self._http is None:
            connection = self._new()
            connection.connect()
            self._http = connection
        return self._http

    def _new(self) -> http.client.HTTPConnection:
        host, port = self.endpoint.host, self.endpoint.port
        if not self.encrypted:
            return _PlainConnection(host, port, timeout=self.timeout)
        context = self.tls_context()
        return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)


def _checked(token: str) -> str:
    if not (token.isascii() and token.isprintable()):
        raise UsageError(reason="the token holds characters that no header may hold")
    return token


def _with_login(endpoint: Endpoint, user: str | None, password: str) -> Endpoint:
    """The endpoint with user and password, unless it has others: one of them would be ignored."""
    if user is not None:
        if endpoint.user is not None:
            raise UsageError(reason="the service's URL already says which user")
        endpoint = replace(endpoint, user=user, password=password)
    if endpoint.user is not None and ":" in endpoint.user:
        raise UsageError(reason="the name of a user holds no ':'")  # RFC 7617 section 2
    return endpoint


def target(path: str, query: Query | None = None) -> str:
    """``path`` (quoted already) with its query, as it stands in a request line."""
    return path + ("?" + urlencode(query, doseq=True) if query else "")


class _PlainConnection(http.client.HTTPConnection):
    """HTTP without TLS, over a connection that nothing slows down where nothing has to."""

    def connect(self) -> None:
        self.sock = _dial(self.host, self.port, self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _dial(host: str, port: int, timeout: float | None) -> socket.socket:
    """A connection to the first of the host's addresses that answers."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout)
            unpace(sock, str(address[0]))  # before it connects: pacing once begun does not end
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure or OSError(f"{host} has no address")


def interim(sock: socket.socket, wait: float) -> bytes:
    """Take a ``100 Continue`` off ``sock``, waiting up to ``wait`` seconds for it.

    b"" if it came, or if nothing came in time; otherwise the beginning of the final answer, as far
    as it has arrived, or b"" at the end of the stream: sending the body then meets the error.
    """
    deadline = time.monotonic() + wait
    head = b""
    timeout = sock.gettimeout()
    try:
        while b"\r\n\r\n" not in head and len(head) < HEAD_LIMIT:
            # Once a head has begun, its rest follows without delay, however late it began.
            left = timeout if head else max(deadline - time.monotonic(), 0.001)
            sock.settimeout(left)
            data = sock.recv(4096)
            if not data:
                break
            head += data
    except TimeoutError:
        if head:
            raise
    finally:
        sock.settimeout(timeout)
    if re.match(rb"HTTP/1\.1 100[ \r]", head):
        return head.partition(b"\r\n\r\n")[2]
    return head


def split_body(response: http.client.HTTPResponse) -> tuple[bytes, int]:
    """What http.client has read ahead of a body whose length is known, and how much follows.

    The rest is read from the connection's socket; when that is done, forget_body().
    """
    length = response.length or 0
    ahead = response.fp.peek()[:length] if length else b""
    response.fp.read(len(ahead))
    return ahead, length - len(ahead)


def forget_body(response: http.client.HTTPResponse) -> None:
    """Have http.client take the body for read: it was, past its back."""
    response.length = 0
    response.close()


def error_of(response: http.client.HTTPResponse) -> Error:
    """The error that an answer which is not 2xx stands for; reads a bounded part of its body."""
    try:
        body = response.read(ERROR_BODY_LIMIT)
    except (OSError, http.client.HTTPException):
        body = b""  # the status line has said enough
    detail = message(body, response.headers.get_content_type()) or response.reason
    if response.headers.get(ERROR_CODE) is None and not 400 <= response.status < 600:
        detail = f"unexpected answer {response.status} {response.reason}"
    return from_answer(response.headers.get(ERROR_CODE), response.status, detail)


def message(body: bytes, content_type: str) -> str:
    """What an error answer says, in one line: as JSON, HTML or plain text, which servers use."""
    text = body.decode("utf-8", "replace")
    if content_type == JSON:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        found = value.get("message") if isinstance(value, dict) else None
        text = found if isinstance(found, str) else ""
    elif content_type == "text/html":
        text = re.sub(r"(?is)<(head|title|h1|script|style)\b.*?</\1>", " ", text)
    else:
        text = re.sub(r"\A\d{3} [^\n]*\n\n", "", text)
    return " ".join(html.unescape(re.sub(r"<[^<>]*>", " ", text)).split())


class _Replay(io.RawIOBase):
    """A socket's stream with bytes already taken from it put back in front."""

    def __init__(self, sock: socket.socket, start: bytes) -> None:
        self._sock = sock
        self._start = start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if self._start:
            taken = self._start[: len(buffer)]
            buffer[: len(taken)] = taken
            self._start = self._start[len(taken) :]
            return len(taken)
        return self._sock.recv_into(buffer)


class _Replayed:
    """What HTTPResponse asks of a socket: makefile, once."""

    def __init__(self, stream: _Replay) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._stream)


def _replay(sock: socket.socket, start: bytes) -> socket.socket:
    return cast("socket.socket", _Replayed(_Replay(sock, start)))


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _is_host(name: str) -> bool:
    """Whether a name can be looked up at all: the resolver's encoding has its own errors."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _masked(name: str, value: str) -> str:
    """A header's value as a trace may show it."""
    return "***" if name.lower() in _SECRET_HEADERS else value
