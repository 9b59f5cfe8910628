"""Fetching from origins elsewhere, over connections to what the filter has checked, only."""

import base64
import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin

from headrace import __version__, errors
from headrace.stores.destinations import Destination, Destinations
from headrace.stores.wire import cut, trust
from headrace.transfer import engine

MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Closing(Protocol):
    """A connection, of which all that is left is to close it."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer whose body has not been read, and the connection that it comes on."""

    response: http.client.HTTPResponse
    connection: Closing
    sock: socket.socket

    @property
    def length(self) -> int | None:
        """Bytes of the body that are to come; None: until its end."""
        return self.response.length

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; raises TransferError."""
        try:
            return self.response.read(size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(error) from None

    def pieces(self, length: int) -> Iterator[engine.Source]:
        """The next ``length`` bytes of the body: of the socket itself, where they come as they are.

        Then nothing else can be read of the answer.  Raises TransferError.
        """
        if isinstance(self.sock, ssl.SSLSocket) or self.length is None:
            yield engine.Reader(self, length)
            return
        buffered = self._buffered(length)
        if buffered:
            yield buffered
        if length > len(buffered):
            yield engine.Stream(self.sock.fileno(), length - len(buffered), self.sock.gettimeout())

    def _buffered(self, length: int) -> bytes:
        """What of the next ``length`` bytes was read together with the head.

        If that was nothing, some are waited for.
        """
        if not length:
            return b""
        try:
            return self.response.fp.read(len(self.response.fp.peek()[:length]))
        except OSError as error:
            raise _broken(error) from None

    def readinto(self, buffer: memoryview, /) -> int:
        """Read into ``buffer``; 0 at the end.  Raises TransferError for a body that broke off."""
        try:
            return self.response.readinto(buffer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(error) from None

    def cut(self) -> None:
        """End the connection under whoever reads from it in another thread, to whom that looks
        like an end of the data if its length is not known.
        """
        cut(self.sock)

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def _broken(error: Exception) -> errors.TransferError:
    """What a body that breaks off raises; the error's text may quote what the origin said."""
    return errors.TransferError(reason=f"its origin broke off ({type(error).__name__})")


class Origins:
    """All origins that ``destinations`` lets us ask.

    ``cafile`` names the authorities to trust instead of the system's; ``insecure`` trusts
    everybody.  ``stall`` is for how many seconds an origin may do nothing.
    """

    def __init__(
        self,
        destinations: Destinations,
        *,
        cafile: str | None = None,
        insecure: bool = False,
        stall: float = 60.0,
    ) -> None:
        self._destinations = destinations
        self._stall = stall
        self._tls = trust("origins", cafile, insecure=insecure)

    def check(self, url: str) -> None:
        """Raises InvalidLocation when ``url`` leads where it may not; connects to nothing."""
        self._destinations.check(url)

    def get(self, url: str, byte_range: str | None = None) -> Fetched:
        """The answer to a GET, after at most five redirects, each checked like the first address.

        ``byte_range`` is the value of a Range header.  Whatever the status is, unless it is a
        redirect, the answer is returned.  Raises InvalidLocation for an address that is refused,
        ServiceUnavailable when there is no answer.
        """
        for _ in range(MOST_REDIRECTS + 1):
            fetched = self._ask(self._destinations.check(url), byte_range)
            status, location = fetched.response.status, fetched.response.getheader("Location")
            if status not in _REDIRECTS or location is None:
                return fetched
            fetched.close()
            url = _joined(url, location)
        raise errors.ServiceUnavailable(reason="an origin redirects without end")

    def download(self, url: str) -> Fetched:
        """The data at ``url``, as it is; raises ServiceUnavailable when that is not the answer."""
        fetched = self.get(url)
        response = fetched.response
        if response.status == 200 and response.getheader("Content-Encoding") is None:
            return fetched
        fetched.close()
        raise errors.ServiceUnavailable(
            reason=f"an origin does not send the data (status {response.status})"
        )

    def _ask(self, destination: Destination, byte_range: str | None) -> Fetched:
        connection = self._connection(destination)
        headers = {
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": f"headrace/{__version__}",
        }
        if byte_range is not None:
            headers["Range"] = byte_range
        if destination.user is not None:
            pair = f"{destination.user}:{destination.password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        try:
            connection.connect()
            sock = connection.sock  # which the connection lets go of for the response
            connection.request("GET", destination.target, headers=headers)
            return Fetched(connection.getresponse(), connection, sock)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            # The error's text may name the host, and quote what it said.
            raise errors.ServiceUnavailable(
                reason=f"an origin does not answer ({type(error).__name__})"
            ) from None
        except BaseException:
            connection.close()
            raise

    def _connection(self, destination: Destination) -> http.client.HTTPConnection:
        if destination.scheme == "https":
            return _Encrypted(destination, self._stall, self._tls)
        return _Plain(destination, self._stall)


def _joined(url: str, location: str) -> str:
    """Where a redirect leads; raises InvalidLocation for what is no URL."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise errors.InvalidLocation() from None


class _Plain(http.client.HTTPConnection):
    """A connection to the first of a destination's addresses that answers."""

    def __init__(self, destination: Destination, stall: float) -> None:
        super().__init__(destination.host, destination.port, timeout=stall)
        self._destination = destination

    def connect(self) -> None:
        self.sock = _dial(self._destination, self.timeout)


class _Encrypted(_Plain):
    """The same through TLS, with the name that was asked for."""

    default_port = http.client.HTTPS_PORT

    def __init__(self, destination: Destination, stall: float, tls: ssl.SSLContext) -> None:
        super().__init__(destination, stall)
        self._tls = tls

    def connect(self) -> None:
        super().connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._destination.host)


def _dial(destination: Destination, timeout: float | None) -> socket.socket:
    failure: OSError | None = None
    for address in destination.addresses:
        # An address as text is not looked up.
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            sock.settimeout(timeout)
            sock.connect((address, destination.port))
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure or OSError("no address")
