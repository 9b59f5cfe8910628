"""Users of this machine, and what one of them could not do with another's images."""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from pwd import struct_passwd

from headrace.errors import ConfigurationError, UsageError

_OF_APACHE = ("www-data", "apache", "http", "daemon")
_LOOKED_AT = 100  # files
_EXPECTED = stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP  # of image files, from any umask


def owner_of(directory: str) -> struct_passwd:
    """Whose a directory is; who is asking, if there is none yet."""
    try:
        uid = os.stat(directory).st_uid
    except FileNotFoundError:
        uid = os.geteuid()
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(reason=f"user {uid} has no name here") from None


def named(name: str) -> struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise UsageError(reason=f"no user {name} here") from None


def apaches() -> struct_passwd:
    """Whom the distribution's Apache runs as."""
    for name in _OF_APACHE:
        with contextlib.suppress(UsageError):
            return named(name)
    raise UsageError(reason="no user of Apache's was found; name it by --front-user")


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        raise ConfigurationError(reason=f"group {gid} has no name here") from None


def check_access(
    front: struct_passwd, owner: struct_passwd, socket: str, directories: Mapping[str, int]
) -> None:
    """Raises ConfigurationError when ``front`` could not read the images or reach the socket.

    ``owner`` is whom Headrace runs as, ``directories`` are those of its image files, each with
    their mode; 0 leaves it to the service's umask, which is not expected to leave more than 0640.
    The error says what to do about the first obstacle.
    """
    groups = set(os.getgrouplist(front.pw_name, front.pw_gid))
    _check_way(front, groups, Path(socket).parent)
    for directory, mode in directories.items():
        _check_way(front, groups, Path(directory))
        if front.pw_uid not in (0, owner.pw_uid):
            _check_mode(front, owner.pw_gid in groups, directory, mode or _EXPECTED)
        _check_files(front, groups, Path(directory))
    if front.pw_uid not in (0, owner.pw_uid) and owner.pw_gid not in groups:
        raise ConfigurationError(
            reason=f"{front.pw_name} could not connect to the socket: put it into the group "
            f"{group_name(owner.pw_gid)}"
        )


def _check_way(front: struct_passwd, groups: set[int], image_dir: Path) -> None:
    for directory in [*reversed(image_dir.parents), image_dir]:
        try:
            status = directory.stat()
        except FileNotFoundError:
            return
        if not _may(status, front.pw_uid, groups, 0o1):
            raise ConfigurationError(
                reason=f"{front.pw_name} may not enter {directory}; put it into the group "
                f"{group_name(status.st_gid)} and let that group in, or let others in"
            )


def _check_mode(front: struct_passwd, shared: bool, directory: str, mode: int) -> None:
    if not mode & (stat.S_IRGRP if shared else stat.S_IROTH):
        raise ConfigurationError(
            reason=f"{front.pw_name} could not read images in {directory}: set their store's "
            f"filesystem_store_file_perm to {'0640' if shared else '0644'}"
        )


def _check_files(front: struct_passwd, groups: set[int], image_dir: Path) -> None:
    for file in _some(image_dir):
        if not _may(file.stat(), front.pw_uid, groups, 0o4):
            raise ConfigurationError(
                reason=f"{front.pw_name} may not read {file}, which is older than the setting of "
                "filesystem_store_file_perm: change its mode"
            )


def _some(directory: Path) -> list[Path]:
    """A few files of the directory, if it can be read."""
    found: list[Path] = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                found.append(Path(entry.path))
            if len(found) >= _LOOKED_AT:
                break
    return found


def _may(status: os.stat_result, uid: int, groups: set[int], bit: int) -> bool:
    if uid == 0:
        return True
    if status.st_uid == uid:
        return bool(status.st_mode & bit << 6)
    return bool(status.st_mode & (bit << 3 if status.st_gid in groups else bit))
