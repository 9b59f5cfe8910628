"""Where the service may be sent to fetch something: the filter of addresses that users name.

A host is a strict address or a name that resolves; everything that some resolvers take for an
address (2130706433, 0x7f.1, 127.1, 0177.0.0.1) is refused.  What a name resolves to is looked up
once and checked address by address, and the connection goes to what was checked: a second look-up
could have another answer.

Nothing here says why an address was refused, since that would tell what the inside of a network
looks like.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from headrace import errors

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]
"""(absolute name, port) → addresses; raises OSError."""

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[!-\[\]-~]+")  # ASCII without white space and backslash
_NAME = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # as a last label it makes resolvers see an address
_LONGEST = 2048
_LONGEST_NAME = 253

# IPv6 addresses that carry an IPv4 one, which a gateway or the kernel itself may connect to.
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96")))
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")


@dataclass(frozen=True, slots=True)
class Rules:
    """``[import_filtering_opts]``: what is allowed, else what is not, of each kind.

    An empty ``allowed_…`` allows all but the ``disallowed_…``; otherwise those do not count.
    """

    allowed_schemes: tuple[str, ...] = ("http", "https")
    disallowed_schemes: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    disallowed_hosts: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = (80, 443)
    disallowed_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL that has been checked, and the addresses that it may be fetched from.

    ``target`` is what stands in the request line; ``user`` and ``password`` are those of the URL.
    """

    scheme: str
    host: str
    port: int
    target: str
    addresses: tuple[str, ...]
    user: str | None = None
    password: str = ""


def resolve(name: str, port: int) -> list[str]:
    """The addresses of a name, as the system resolves it."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Destinations:
    """The filter; ``resolve`` is how names become addresses."""

    def __init__(self, rules: Rules, resolve: Resolve = resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._allowed_hosts = frozenset(map(_plain, rules.allowed_hosts))
        self._disallowed_hosts = frozenset(map(_plain, rules.disallowed_hosts))

    def check(self, url: str) -> Destination:
        """Where ``url`` leads, if that is allowed; InvalidLocation otherwise.

        Looks a name up, and connects to nothing.
        """
        parts, host, port = _split(url)
        rules = self._rules
        if not (
            parts.scheme in _PORTS
            and _may(parts.scheme, rules.allowed_schemes, rules.disallowed_schemes)
            and _may(host, self._allowed_hosts, self._disallowed_hosts)
            and _may(port, rules.allowed_ports, rules.disallowed_ports)
        ):
            raise errors.InvalidLocation()
        literal = _literal(host)
        addresses = [str(literal)] if literal else self._look_up(host, port)
        good = tuple(each for each in addresses if self._may_connect(host, each))
        if not good:
            raise errors.InvalidLocation()
        target = parts.path or "/"
        return Destination(
            parts.scheme,
            host,
            port,
            f"{target}?{parts.query}" if parts.query else target,
            good,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password or ""),
        )

    def _look_up(self, host: str, port: int) -> list[str]:
        """The addresses of a name; the dot at its end keeps search domains out of it."""
        if len(host) > _LONGEST_NAME or not _NAME.fullmatch(host):
            raise errors.InvalidLocation()
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            raise errors.InvalidLocation()
        try:
            return self._resolve(f"{host}.", port)
        except (OSError, UnicodeError):
            raise errors.InvalidLocation() from None

    def _may_connect(self, host: str, text: str) -> bool:
        if host in self._allowed_hosts:
            return True
        try:
            faces = _faces(ipaddress.ip_address(text))
        except ValueError:
            return False
        return not any(
            face.is_loopback
            or face.is_link_local
            or face.is_unspecified
            or face.is_multicast
            or str(face) in self._disallowed_hosts
            for face in faces
        )


def _split(url: str) -> tuple[SplitResult, str, int]:
    """The URL's parts, its host in plain form, its port; raises InvalidLocation."""
    # urlsplit drops tabs and newlines, and browsers take a backslash for a slash.
    if len(url) > _LONGEST or not _PRINTABLE.fullmatch(url):
        raise errors.InvalidLocation()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise errors.InvalidLocation() from None
    if not parts.hostname or port == 0:
        raise errors.InvalidLocation()
    return parts, _plain(parts.hostname), port or _PORTS.get(parts.scheme, 0)


def _plain(host: str) -> str:
    """A host as it is compared: in lower case, without a dot at its end; addresses normalised."""
    host = host.strip().lower().removeprefix("[").removesuffix("]")
    host = host.removesuffix(".")
    literal = _literal(host)
    return host if literal is None else str(literal)


def _literal(host: str) -> Address | None:
    """The address that ``host`` is, written strictly: no zone, no leading zeros, four numbers."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if "%" in host else address


def _faces(address: Address) -> list[Address]:
    """The address, and the IPv4 address that it stands for, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    faces: list[Address] = [address]
    if any(address in carrier for carrier in _CARRIERS):
        faces.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address in _SIX_TO_FOUR:
        faces.append(ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF))
    return faces


def _may(value: object, allowed: Collection[object], disallowed: Collection[object]) -> bool:
    return value in allowed if allowed else value not in disallowed
