"""An account of a Swift: who we are there, where it is, and what is asked of it.

Tokens come from Swift itself (version 1 of its kind, which needs no library) or from Keystone by
keystoneauth1 (``headrace[swift]``).  Data does not pass any library: a body leaves, and an answer
comes, by a socket of our own.

No error and no log line says an address, a name, a key or a token.
"""

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from headrace import __version__, errors
from headrace.stores import wire
from headrace.stores.origin import Fetched
from headrace.transfer import engine
from headrace.transfer.extent import Extent

_CONTINUED = re.compile(rb"HTTP/1\.[01] 100[ \r]")
_PATIENCE = 5.0  # seconds
_LONGEST_HEAD = 65536
_PAGE = 10_000  # names; Swift gives no more at a time by default


@dataclass(frozen=True, slots=True)
class Reference:
    """Who logs in, and where: what a section of ``swift_store_config_file`` says.

    ``user`` is ACCOUNT:USER, or PROJECT:USER for Keystone.  Domains are told by id or by name.
    """

    address: str
    user: str = ""
    key: str = field(default="", repr=False)
    version: str = "3"
    user_domain_id: str | None = None
    user_domain_name: str | None = None
    project_domain_id: str | None = None
    project_domain_name: str | None = None
    application_credential_id: str | None = None
    application_credential_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """How Swift is reached, whoever logs in.

    ``endpoint`` is the account's URL, if the one that comes with the token is not to be used;
    ``interface`` (public, internal, admin), ``region`` and ``service_type`` choose it in the
    catalog.  ``cafile`` names the authorities to trust instead of the system's, ``insecure`` trusts
    everybody.  ``stall`` is for how many seconds nothing may move.
    """

    endpoint: str | None = None
    interface: str = "public"
    region: str | None = None
    service_type: str = "object-store"
    cafile: str | None = None
    insecure: bool = False
    stall: float = 60.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and the URL of the account that it is for."""

    url: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


Login = Callable[[], Token]
"""Raises ServiceUnavailable."""

Watched = Callable[[socket.socket], contextlib.AbstractContextManager[Callable[[], None]]]
"""Entered while a connection is used; what it gives is called when all of a body was sent."""


class Account:
    """An account that several threads use; ``what`` it is called in errors and logs."""

    def __init__(self, what: str, reference: Reference, access: Access) -> None:
        self._what = what
        self._access = access
        self._tls = wire.trust(what, access.cafile, insecure=access.insecure)
        self._login: Login = (
            _Own(self, reference)
            if reference.version == "1"
            else _Keystone(what, reference, access)
        )
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._failure: errors.ServiceUnavailable | None = None
        self._failed = 0.0

    def ask(
        self,
        method: str,
        path: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Extent = b"",
        watched: Watched | None = None,
    ) -> Answer:
        """The answer to a request about ``path`` (quoted, below the account), whatever its status.

        A token that has ended is replaced, and the request made again.  ``watched(socket)`` is
        entered while its connection is used.  Raises ServiceUnavailable.
        """
        with contextlib.closing(self.fetch(method, path, query, headers, body, watched)) as fetched:
            response = fetched.response
            try:
                text = wire.whole(response)
            except (OSError, http.client.HTTPException) as error:
                raise self._away(error) from None
            return Answer(response.status, response.headers, text)

    def fetch(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Extent = b"",
        watched: Watched | None = None,
    ) -> Fetched:
        """The same, the answer's body unread."""
        target = path + (f"?{urlencode(query)}" if query else "")
        token = self._current(None)
        for last in (False, True):
            url = urlsplit((self._access.endpoint or token.url).rstrip("/") + target)
            sent = {"X-Auth-Token": token.value, **(headers or {})}
            fetched = self.send(method, url, sent, body, watched)
            if fetched.response.status != 401 or last:
                break
            fetched.close()
            token = self._current(token)
        return fetched

    def url(self) -> str:
        """That of the account, without a slash at its end; raises ServiceUnavailable."""
        return (self._access.endpoint or self._current(None).url).rstrip("/")

    def names(
        self, container: str, prefix: str = "", delimiter: str = "", page: int = _PAGE
    ) -> Iterator[dict[str, Any]]:
        """What Swift lists of a container, ``page`` at a time; nothing where there is no container.

        Raises ServiceUnavailable.
        """
        return self._list(f"/{quote(container, safe='')}", prefix, delimiter, page)

    def containers(self, prefix: str) -> Iterator[str]:
        """The names of the account's containers that begin with ``prefix``."""
        return (str(each["name"]) for each in self._list("", prefix, "", _PAGE))

    def _list(self, path: str, prefix: str, delimiter: str, page: int) -> Iterator[dict[str, Any]]:
        query = {"format": "json", "limit": str(page), "prefix": prefix, "delimiter": delimiter}
        while True:
            answer = self.ask("GET", path, query=query)
            if answer.status in (204, 404):
                return
            if answer.status != 200:
                raise self.refused(answer.status)
            try:
                listed = json.loads(answer.body)
            except ValueError as error:
                raise self._away(error) from None
            yield from listed
            if not listed:
                return
            query["marker"] = listed[-1].get("name") or listed[-1]["subdir"]

    def refused(self, status: int) -> errors.ServiceUnavailable:
        """The error for an answer that does not help."""
        return errors.ServiceUnavailable(reason=f"{self._what} answers {status}")

    def _away(self, error: Exception) -> errors.ServiceUnavailable:
        # The error's text may name the host, and quote what it said.
        reason = f"{self._what} does not answer ({type(error).__name__})"
        return errors.ServiceUnavailable(reason=reason)

    def _current(self, refused: Token | None) -> Token:
        """A token, another than the one that was refused; of many who ask, one logs in."""
        asked = time.monotonic()
        with self._lock:
            if self._token is None or self._token is refused:
                if self._failure is not None and self._failed > asked:
                    raise self._failure  # while we waited for whoever tried
                self._token = self._logged_in()
            return self._token

    def _logged_in(self) -> Token:
        try:
            return self._login()
        except errors.ServiceUnavailable as error:
            self._failure, self._failed = error, time.monotonic()
            raise

    def send(
        self,
        method: str,
        url: SplitResult,
        headers: Mapping[str, str],
        body: bytes | Extent = b"",
        watched: Watched | None = None,
    ) -> Fetched:
        """The answer to one request, made as it is; raises ServiceUnavailable."""
        connection = self._connection(url)
        try:
            connection.connect()
            sock = connection.sock  # which the connection lets go of for the response
            with watched(sock) if watched else contextlib.nullcontext(lambda: None) as sent_whole:
                _send(connection, method, url, headers, body, self._access.stall)
                sent_whole()
                return Fetched(connection.getresponse(), connection, sock)
        except (OSError, http.client.HTTPException, ValueError, errors.TransferError) as error:
            connection.close()
            raise self._away(error) from None
        except BaseException:
            connection.close()
            raise

    def _connection(self, url: SplitResult) -> http.client.HTTPConnection:
        host, port, stall = url.hostname or "", url.port, self._access.stall
        if url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=stall, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=stall)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    url: SplitResult,
    headers: Mapping[str, str],
    body: bytes | Extent,
    stall: float,
) -> None:
    """Send a request.  A peer that answers before it has all of the body may say why, so that its
    going is no error here."""
    sock = connection.sock
    plain = not isinstance(sock, ssl.SSLSocket)
    length = body.length if isinstance(body, Extent) else len(body)
    connection.putrequest(method, f"{url.path}?{url.query}" if url.query else url.path,
                          skip_accept_encoding=True)  # fmt: skip
    sent = {"User-Agent": f"headrace/{__version__}", "Connection": "close", **headers}
    if length or method in ("PUT", "POST"):
        sent["Content-Length"] = str(length)
    waits = isinstance(body, Extent) and plain
    if waits:
        sent["Expect"] = "100-continue"
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders(None if isinstance(body, Extent) else body)
    if not isinstance(body, Extent) or (waits and not _continued(sock, stall)):
        return
    sink = engine.Stream(sock.fileno(), stall=stall) if plain else engine.Sender(sock)
    with contextlib.suppress(errors.PeerGone):
        engine.pump(body, sink)


def _continued(sock: socket.socket, stall: float) -> bool:
    """Whether the body may be sent; otherwise the final answer is still to be read, or the end.

    What has come is looked at before it is taken: an answer is left to who reads answers.  Not all
    that speaks HTTP says that it goes on, so that nobody waits for ever (RFC 9110 section 10.1.1).
    """
    patience = min(_PATIENCE, stall)
    deadline = time.monotonic() + patience
    sock.settimeout(patience)
    try:
        while time.monotonic() < deadline:
            head = sock.recv(_LONGEST_HEAD, socket.MSG_PEEK)
            if not _CONTINUED.match(head) and not 0 < len(head) < len("HTTP/1.1 100 "):
                return False
            if (end := head.find(b"\r\n\r\n")) >= 0:
                sock.recv(end + 4)
                return True
            time.sleep(0.001)  # the rest of it is on its way
    except TimeoutError:
        pass
    finally:
        sock.settimeout(stall)
    return True


class _Own:
    """Swift's own way to log in, version 1: names and keys that it knows itself."""

    def __init__(self, account: Account, reference: Reference) -> None:
        self._account = account
        self._reference = reference

    def __call__(self) -> Token:
        reference = self._reference
        headers = {"X-Auth-User": reference.user, "X-Auth-Key": reference.key}
        url = urlsplit(reference.address)
        with contextlib.closing(self._account.send("GET", url, headers)) as fetched:
            response = fetched.response
            url_told, value = (
                response.getheader(name) for name in ("X-Storage-Url", "X-Auth-Token")
            )
            if response.status not in (200, 204) or not url_told or not value:
                raise self._account.refused(response.status)
            return Token(url_told, value)


class _Keystone:
    """A token of Keystone, and the account's URL by its catalog."""

    def __init__(self, what: str, reference: Reference, access: Access) -> None:
        try:
            from keystoneauth1 import exceptions, identity, session
        except ImportError as error:
            raise errors.ConfigurationError(
                reason=f"{what} needs headrace[swift] for Keystone: {error}"
            ) from error
        self._what = what
        self._access = access
        self._exceptions = exceptions
        self._plugin = _plugin(identity, reference)
        self._session = session.Session(
            auth=self._plugin,
            verify=False if access.insecure else access.cafile or True,
            timeout=access.stall,
            redirect=False,
            user_agent=f"headrace/{__version__}",
        )

    def __call__(self) -> Token:
        access = self._access
        try:
            self._plugin.invalidate()
            value = self._session.get_token()
            url = access.endpoint or self._session.get_endpoint(
                service_type=access.service_type,
                interface=access.interface,
                region_name=access.region,
            )
        except self._exceptions.ClientException as error:
            # Its text may quote what Keystone said, and where it is.
            raise errors.ServiceUnavailable(
                reason=f"{self._what} cannot log in ({type(error).__name__})"
            ) from None
        if not value or not url:
            raise errors.ServiceUnavailable(
                reason=f"{self._what}: the catalog has no {access.service_type}"
            )
        return Token(url, value)


def _plugin(identity: Any, reference: Reference) -> Any:
    """keystoneauth1's way to log in."""
    domains = {
        "user_domain_id": reference.user_domain_id,
        "user_domain_name": reference.user_domain_name,
    }
    if reference.application_credential_id:
        return identity.V3ApplicationCredential(
            reference.address,
            application_credential_id=reference.application_credential_id,
            application_credential_secret=reference.application_credential_secret,
            **domains,
        )
    project, _, user = reference.user.partition(":")
    if reference.version == "2":
        return identity.V2Password(
            reference.address, username=user, password=reference.key, tenant_name=project
        )
    return identity.V3Password(
        reference.address,
        username=user,
        password=reference.key,
        project_name=project,
        project_domain_id=reference.project_domain_id,
        project_domain_name=reference.project_domain_name,
        **domains,
    )
