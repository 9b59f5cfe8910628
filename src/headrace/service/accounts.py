"""Users who show a password: two files that people may read and edit.

The one is as ``htpasswd -B`` writes it, a line ``NAME:HASH`` each, with hashes of bcrypt's alone.
The other has the same name and ``.roles`` behind it, and says what each user is: a line
``NAME:PROJECT:ROLE[,ROLE…]``.  Empty lines, and those that begin with ``#``, say nothing.  A user
who is not in it has no role, and so may do nothing.

Whoever can write the files is whom he likes, and whoever can read them can try passwords at his
leisure: both must be their reader's own, or root's, and closed to others.
"""

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import bcrypt

from headrace.errors import ConfigurationError, UserExists, UserNotFound
from headrace.transfer.writeback import sync_directory

ROLES = ("admin", "member", "reader", "service")
COST = 10
"""Of new hashes: a check takes some 0.1 s of one processor."""

LONGEST_NAME = 64  # characters: what a task's user_id has room for
LONGEST_PROJECT = 255  # an image's owner
LONGEST_PASSWORD = 72  # bytes: bcrypt does not look at more

_HIGHEST_COST = 14  # two seconds; a slip of the hand must not take hours
_LARGEST_FILE = 1 << 20
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_MODE = stat.S_IRUSR | stat.S_IWUSR
_KEPT_MODE = _MODE | stat.S_IRGRP  # what an operator may have chosen

Signature = tuple[tuple[int, ...], ...]
_Standing = tuple[str, tuple[str, ...]]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Account:
    """A user; ``roles`` are those of the file, without what they imply."""

    name: str
    hash: str = field(repr=False)
    project: str | None = None
    roles: tuple[str, ...] = ()

    @property
    def cost(self) -> int:
        return int(self.hash[4:6])


class Accounts:
    """The users of the file at ``path`` and the one beside it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.roles_path = f"{path}.roles"

    def signature(self) -> Signature | None:
        """What changes whenever a file does; None when they cannot be looked at."""
        try:
            return _signature(os.stat(self.path)), _signature_if_there(self.roles_path)
        except OSError:
            return None

    def read(self) -> dict[str, Account]:
        """All users by their names; ConfigurationError says which line of which file is wrong."""
        hashes = dict(_parsed(self.path, _hash))
        standings = dict(_parsed(self.roles_path, _standing)) if _exists(self.roles_path) else {}
        return {
            name: Account(name, hashed, *standings.get(name, (None, ())))
            for name, hashed in hashes.items()
        }

    def add(self, name: str, password: str, project: str, roles: Iterable[str]) -> None:
        """A new user.  UserExists; ConfigurationError for what the files could not say."""
        hashed = _hashed(name, password)
        standing = f"{project}:{','.join(dict.fromkeys(roles))}"
        _standing(standing)
        with self._locked():
            if name in self._there():
                raise UserExists(name=name)
            # The standing first: a crash in between leaves somebody without a password.
            _rewrite(self.roles_path, name, f"{name}:{standing}")
            _rewrite(self.path, name, f"{name}:{hashed}")

    def set_password(self, name: str, password: str) -> None:
        """Give a user another password.  UserNotFound, ConfigurationError."""
        hashed = _hashed(name, password)
        with self._locked():
            if name not in self._there():
                raise UserNotFound(name=name)
            _rewrite(self.path, name, f"{name}:{hashed}")

    def remove(self, name: str) -> None:
        """End a user.  UserNotFound, ConfigurationError."""
        with self._locked():
            if name not in self._there():
                raise UserNotFound(name=name)
            _rewrite(self.path, name, None)
            if _exists(self.roles_path):
                _rewrite(self.roles_path, name, None)

    def _there(self) -> dict[str, Account]:
        return self.read() if _exists(self.path) else {}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from changing the files meanwhile: by the directory, since they are replaced.

        ConfigurationError when the directory is not there.
        """
        directory = os.path.dirname(os.path.abspath(self.path))
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigurationError(reason=f"{directory}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def matches(account: Account | None, password: bytes, decoy: str) -> bool:
    """Whether the password is the account's; takes as long where there is no account.

    ``decoy`` is a hash of the cost that its check is then to have.
    """
    hashed = decoy if account is None else account.hash
    # bcrypt refuses what it would not look at: the work is done all the same.
    right = bcrypt.checkpw(password[:LONGEST_PASSWORD], hashed.encode())
    return right and account is not None and len(password) <= LONGEST_PASSWORD


def decoy(accounts: Iterable[Account]) -> str:
    """A hash of no password, of the highest cost that an account's has.

    Where costs differ, the time of a refusal still tells the cheaper ones.
    """
    cost = max((account.cost for account in accounts), default=COST)
    return f"$2b${cost:02}${'.' * 53}"


def _hashed(name: str, password: str) -> str:
    """The hash of a new password; ConfigurationError when name or password cannot be."""
    _check_name(name)
    if not password or not password.isprintable():
        raise ConfigurationError(reason="a password is of printable characters, at least one")
    data = password.encode()
    if len(data) > LONGEST_PASSWORD:
        raise ConfigurationError(
            reason=f"bcrypt looks at {LONGEST_PASSWORD} bytes, and the password has {len(data)}"
        )
    return bcrypt.hashpw(data, bcrypt.gensalt(COST)).decode()


# --- lines


def _parsed(path: str, parse: Callable[[str], _T]) -> Iterator[tuple[str, _T]]:
    """The name and the meaning of each line that says something; ConfigurationError."""
    seen = set()
    for number, line in enumerate(_read(path).splitlines(), 1):
        name, _, rest = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        try:
            _check_name(name)
            if name in seen:
                raise ConfigurationError("the user is there twice")
            found = parse(rest)
        except ConfigurationError as error:
            # Not the line itself, which may hold a password in a wrong place.
            raise ConfigurationError(reason=f"{path}, line {number}: {error}") from None
        seen.add(name)
        yield name, found


def _hash(text: str) -> str:
    match = _HASH.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            "this is no hash of bcrypt's, the only kind taken: `headrace user passwd` and "
            "`htpasswd -B` make them"
        )
    if not 4 <= int(match[1]) <= _HIGHEST_COST:
        raise ConfigurationError(f"the cost of the hash is not between 4 and {_HIGHEST_COST}")
    return text


def _standing(text: str) -> _Standing:
    project, _, words = text.partition(":")
    roles = tuple(words.split(","))
    if not _is_word(project) or len(project) > LONGEST_PROJECT:
        raise ConfigurationError(
            f"a project is a word without ':', of {LONGEST_PROJECT} characters at the most"
        )
    if unknown := set(roles) - set(ROLES):
        raise ConfigurationError(
            f"{', '.join(sorted(map(repr, unknown)))} is not among the roles {', '.join(ROLES)}"
        )
    return project, roles


def _check_name(name: str) -> None:
    if not _is_word(name) or name.startswith("#") or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            "the name of a user is a word without ':' that does not begin with '#', of "
            f"{LONGEST_NAME} characters at the most"
        )


def _is_word(text: str) -> bool:
    return text.isprintable() and ":" not in text and text.split() == [text]


# --- files


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    # ctime, too: an editor may put the time of the change back, but not that.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _signature_if_there(path: str) -> tuple[int, ...]:
    try:
        return _signature(os.stat(path))
    except FileNotFoundError:
        return ()


def _read(path: str) -> str:
    """The text of a file that others could not have written; ConfigurationError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            _check_access(path, os.fstat(fd))
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise ConfigurationError(reason=f"{path} is larger than {_LARGEST_FILE} bytes")
        return data.decode()
    except FileNotFoundError:
        raise ConfigurationError(
            reason=f"{path} is not there; `headrace user add` makes the first user"
        ) from None
    except OSError as error:
        raise ConfigurationError(reason=f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(reason=f"{path} is not UTF-8") from None


def _check_access(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(reason=f"{path} is no regular file")
    if os.geteuid() not in (0, status.st_uid) and status.st_uid != 0:
        raise ConfigurationError(
            reason=f"{path} belongs to user {status.st_uid}, who may change it"
        )
    if status.st_mode & ~_KEPT_MODE & 0o777:
        raise ConfigurationError(
            reason=f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}): "
            "make it 0600, or 0640 where its group is to read it"
        )


def _rewrite(path: str, name: str, line: str | None) -> None:
    """Replace the line of a user, or take it away; all others stay as they are."""
    lines = _read(path).splitlines() if _exists(path) else []
    kept = [each for each in lines if each.partition(":")[0] != name]
    place = next(
        (index for index, each in enumerate(lines) if each.partition(":")[0] == name), len(kept)
    )
    if line is not None:
        kept.insert(place, line)
    _replace(path, "".join(f"{each}\n" for each in kept))


def _replace(path: str, text: str) -> None:
    """Put a new file in place of the one at ``path``, or where there is none; at once, or not.

    It belongs to whom the old one belonged to, or the directory: root makes it for the service.
    """
    directory = os.path.dirname(os.path.abspath(path))
    there = _exists(path)
    former = os.lstat(path) if there else os.stat(directory)
    new = os.path.join(directory, f".{os.path.basename(path)}.{secrets.token_hex(8)}")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        try:
            with os.fdopen(fd, "wb") as file:
                if os.geteuid() == 0:
                    os.fchown(fd, former.st_uid, former.st_gid)
                os.fchmod(fd, former.st_mode & _KEPT_MODE if there else _MODE)
                file.write(text.encode())
                file.flush()
                os.fsync(fd)
            os.rename(new, path)
        except BaseException:
            os.unlink(new)
            raise
        sync_directory(directory)
    except OSError as error:
        raise ConfigurationError(reason=f"{path}: {error.strerror}") from error
