"""Checking passwords: which caller a name and a password stand for.

bcrypt takes its time, on purpose.  What it has confirmed is known again for a minute by a keyed
hash, so that hardly any request waits for it; few checks run at a time, and few callers wait for
them, so that the rest of the service goes on.  What is wrong is never remembered, only counted: by
client address, and by user there.

All of this is one process's own: each worker checks, remembers and counts for itself.
"""

import ipaddress
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

from headrace.errors import ConfigurationError, LoginsBusy, ServiceUnavailable, TooManyLogins
from headrace.model import Viewer
from headrace.service.accounts import Account, Accounts, Signature, decoy, matches
from headrace.service.context import Context

PROVEN_S = 60.0
"""Seconds for which a confirmed password needs no check."""

RENEWED_S = 45.0
"""Seconds after which one request has it checked again, while all others still need not."""

WINDOW_S = 60.0
WRONG_BY_USER = 5
WRONG_BY_ADDRESS = 20
"""How many passwords may be wrong in a window: for one user from one address, from one address."""

_MOST_PROVEN = 4096
_MOST_COUNTED = 8192

_IMPLIED = {"admin": ("member", "reader"), "member": ("reader",)}  # as in Keystone

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Proven:
    """A caller whose password was right; ``renewed`` and ``until`` are monotonic seconds."""

    caller: Context
    renewed: float
    until: float


@dataclass(frozen=True, slots=True)
class _Known:
    """What the files say, and what was confirmed by them: all of it ends when they change."""

    signature: Signature | None
    accounts: dict[str, Account] | None
    decoy: str
    proven: dict[bytes, _Proven] = field(default_factory=dict)
    running: dict[bytes, "Future[Context | None]"] = field(default_factory=dict)


class Logins:
    """``waiting`` is how many callers may wait for checks at a time, those checked included."""

    def __init__(
        self, accounts: Accounts, waiting: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._accounts = accounts
        self._most_waiting = waiting
        self._now = now
        self._key = os.urandom(32)
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._checks = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))
        self._waiting = 0
        self._wrong = _Counts(_MOST_COUNTED)
        self._known = _read(accounts)

    def caller(self, login: bytes, address: str) -> Context | None:
        """Whom ``login``, as ``NAME:PASSWORD``, stands for; None when it is wrong.

        ``address`` is the client's.  Raises TooManyLogins, LoginsBusy and ServiceUnavailable.
        """
        signature = self._accounts.signature()
        known = self._known
        if known.signature != signature:
            known = self._read_again(signature)
        mark = blake2b(login, digest_size=32, key=self._key).digest()
        proven = known.proven.get(mark)
        if proven is None or proven.until <= (now := self._now()):
            return self._check(known, mark, login, address)
        if proven.renewed <= now and mark not in known.running:
            return self._renew(known, mark, login, proven)
        return proven.caller

    def _read_again(self, signature: Signature | None) -> _Known:
        with self._reading:
            if self._known.signature != signature:
                try:
                    self._known = _read(self._accounts)
                except ConfigurationError as error:
                    # Nobody is let in by what was true before: it may just have been taken back.
                    self._known = _Known(signature, None, "")
                    _log.error("nobody is let in: %s", error)
            return self._known

    def _renew(self, known: _Known, mark: bytes, login: bytes, proven: _Proven) -> Context | None:
        try:
            return self._check(known, mark, login, None)
        except LoginsBusy:
            return proven.caller

    def _check(
        self, known: _Known, mark: bytes, login: bytes, address: str | None
    ) -> Context | None:
        """The caller by bcrypt, or by the check of the same login that is under way.

        Without an ``address`` the login was right before, and is not counted.
        """
        if known.accounts is None:
            raise ServiceUnavailable(reason="the users cannot be read; the log says why")
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise LoginsBusy(limit=self._most_waiting)
            running = known.running.get(mark)
            if running is None:
                charged = [] if address is None else self._charge(login, address)
                known.running[mark] = mine = Future[Context | None]()
            self._waiting += 1
        try:
            if running is not None:
                return running.result()
            return self._run(known, known.accounts, mark, login, mine, charged)
        finally:
            with self._lock:
                self._waiting -= 1

    def _run(
        self,
        known: _Known,
        accounts: dict[str, Account],
        mark: bytes,
        login: bytes,
        result: "Future[Context | None]",
        charged: list[bytes],
    ) -> Context | None:
        caller = None
        try:
            name, _, password = login.partition(b":")
            account = accounts.get(name.decode(errors="replace"))
            with self._checks:
                right = matches(account, password, known.decoy)
            if right and account is not None:
                caller = _context(account)
        finally:
            with self._lock:
                del known.running[mark]
                if caller is not None:
                    self._remember(known, mark, caller)
                    self._wrong.take_back(charged)
            result.set_result(caller)
        return caller

    def _remember(self, known: _Known, mark: bytes, caller: Context) -> None:
        now = self._now()
        known.proven.pop(mark, None)  # so that the oldest is the first
        if len(known.proven) >= _MOST_PROVEN:
            del known.proven[next(iter(known.proven))]
        known.proven[mark] = _Proven(caller, now + RENEWED_S, now + PROVEN_S)

    def _charge(self, login: bytes, address: str) -> list[bytes]:
        """Count the login as a wrong one, which it may turn out not to be; TooManyLogins."""
        where = _network(address)
        name = login.partition(b":")[0]
        of_address = where.encode()
        of_user = of_address + blake2b(name, digest_size=16, key=self._key).digest()
        now = self._now()
        for key, limit in ((of_address, WRONG_BY_ADDRESS), (of_user, WRONG_BY_USER)):
            if (count := self._wrong.of(key, now)) >= limit:
                if count == limit:  # said once
                    self._wrong.add(key, now)
                    _log.warning("too many wrong passwords from %s", where or "one client")
                raise TooManyLogins()
        for key in (of_address, of_user):
            self._wrong.add(key, now)
        return [of_address, of_user]


class _Counts:
    """Counts by key, each over a window that begins with its first; of ``most`` keys."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[bytes, tuple[float, int]] = {}  # in the order of their beginnings

    def of(self, key: bytes, now: float) -> int:
        began, count = self._found.get(key, (now, 0))
        return count if now - began < WINDOW_S else 0

    def add(self, key: bytes, now: float) -> None:
        for old in list(islice(self._found, 2)):  # one comes at the most, so two go
            if now - self._found[old][0] >= WINDOW_S:
                del self._found[old]
        began, count = self._found.get(key, (now, 0))
        if now - began >= WINDOW_S:
            del self._found[key]
            began, count = now, 0
        if len(self._found) >= self._most:
            del self._found[next(iter(self._found))]
        self._found[key] = began, count + 1

    def take_back(self, keys: list[bytes]) -> None:
        for key in keys:
            if key in self._found:
                began, count = self._found[key]
                self._found[key] = began, max(count - 1, 0)


def _read(accounts: Accounts) -> _Known:
    """What the files say now; ConfigurationError."""
    signature = accounts.signature()  # before: what changes meanwhile is read again
    found = accounts.read()
    return _Known(signature, found, decoy(found.values()))


def _context(account: Account) -> Context:
    roles = {each for role in account.roles for each in (role, *_IMPLIED.get(role, ()))}
    viewer = Viewer(account.project, is_admin="admin" in roles)
    return Context(viewer, frozenset(roles), user_id=account.name)


def _network(address: str) -> str:
    """The client that an address is counted as: of IPv6 the network, which is as easily had."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))
