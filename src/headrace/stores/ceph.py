"""A Ceph cluster, by the Python modules that the distribution ships: rados and rbd.

They are not to be had from PyPI, since they belong to the librados and librbd of the system.  So
they are taken from the system's packages even in an environment that sees nothing else of them.
"""

import contextlib
import errno
import importlib.machinery
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

from headrace import errors

_log = logging.getLogger(__name__)

# Debian; Fedora and its relatives.
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_PLACES = ["/usr/lib/python3/dist-packages", f"/usr/lib64/python{_VERSION}/site-packages"]

# What librados waits for without end unless it is told for how long.
_TIMEOUTS = ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")


@cache
def modules() -> tuple[Any, Any]:
    """The modules rados and rbd; raises ConfigurationError where there are none to be loaded."""
    return _load("rados"), _load("rbd")


class Cluster:
    """One connection to a cluster per process, made when it is first needed; safe in threads.

    ``conf_file`` is a ceph.conf, by default the system's; ``user`` is who connects, without
    "client."; ``timeout`` is for how many seconds the cluster may not answer.

    Raises ConfigurationError when ``conf_file`` cannot be read.
    """

    def __init__(self, conf_file: str, user: str | None, timeout: float) -> None:
        if conf_file and not os.access(conf_file, os.R_OK):
            raise errors.ConfigurationError(
                reason=f"rbd_store_ceph_conf {conf_file} cannot be read"
            )
        self._conf_file = conf_file
        self._user = user
        self.timeout = max(1, round(timeout))
        self._lock = threading.Lock()
        self._process = 0
        self._connection: Any = None
        self._inherited: list[Any] = []
        self._failure: errors.ServiceUnavailable | None = None
        self._failed = 0.0
        self._fsid: str | None = None

    @property
    def fsid(self) -> str:
        """The cluster's id; raises ServiceUnavailable when only the cluster can tell."""
        if self._fsid is None:
            self._fsid = self._told_by_conf() or str(self.connection().get_fsid())
        return self._fsid

    def connection(self) -> Any:
        """A rados.Rados that is connected; raises ServiceUnavailable."""
        wanted = time.monotonic()
        with self._lock:
            if self._process != os.getpid():
                # Its threads are the parent's, who ends it; here not even its destructor may run.
                self._inherited.append(self._connection)
                self._process, self._connection, self._failure = os.getpid(), None, None
            if self._connection is None:
                if self._failure is not None and self._failed > wanted:
                    raise self._failure  # while we waited for whoever tried
                self._connection = self._connect()
            return self._connection

    def forget(self) -> None:
        """Connect anew next time: the cluster has shut this connection out."""
        with self._lock:
            self._inherited.append(self._connection)  # others may be using it
            self._connection = None

    @contextlib.contextmanager
    def pool(self, name: str) -> Iterator[Any]:
        """The rados.Ioctx of a pool; raises as ``translated``, NotFound when there is no pool."""
        with self.translated(), self.connection().open_ioctx(name) as ioctx:
            # A pool that is full refuses writes; else librados would wait until it has room.
            ioctx.set_osdmap_full_try()
            yield ioctx

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what librados and librbd say into NotFound, StoreFull, ServiceUnavailable."""
        rados, rbd = modules()
        try:
            yield
        except (rados.Error, rbd.Error) as error:
            code = getattr(error, "errno", None)
            if code == errno.ENOENT:
                raise errors.NotFound() from None
            if code in (errno.ENOSPC, errno.EDQUOT):
                raise errors.StoreFull() from None
            if code == errno.ESHUTDOWN:
                self.forget()
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> errors.ServiceUnavailable:
        # The error's text may name the image, which is the location.
        code = getattr(error, "errno", None)
        why = errno.errorcode.get(code, "") if isinstance(code, int) else ""
        _log.warning("Ceph: %s", error)
        return errors.ServiceUnavailable(reason=f"Ceph: {why or type(error).__name__}")

    def _connect(self) -> Any:
        rados, _ = modules()
        try:
            connection = self._configured(rados)
            connection.connect()
            return connection
        except (rados.Error, OSError) as error:
            # There is no image yet that it could name.
            self._failure = errors.ServiceUnavailable(reason=f"Ceph: {error}")
            self._failed = time.monotonic()
            raise self._failure from error

    def _configured(self, rados: Any) -> Any:
        connection = rados.Rados(conffile=self._conf_file, rados_id=self._user)
        for name in _TIMEOUTS:
            connection.conf_set(name, str(self.timeout))
        # What is written or read once gains nothing by librbd's cache; measured, it costs a fifth.
        connection.conf_set("rbd_cache", "false")
        return connection

    def _told_by_conf(self) -> str | None:
        """The cluster's id as its configuration has it; None when it does not say."""
        rados, _ = modules()
        with contextlib.suppress(rados.Error, OSError):
            fsid = str(self._configured(rados).conf_get("fsid"))
            return fsid if fsid.strip("0-") else None
        return None


def _load(name: str) -> Any:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # the latter: just a directory of that name
        spec = importlib.machinery.PathFinder.find_spec(name, _PLACES)
    if spec is None or spec.loader is None:
        raise errors.ConfigurationError(
            reason=f"stores of type rbd need the module {name} for Python {_VERSION}, which comes "
            "with the system's Ceph (Debian: python3-rados, python3-rbd)"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # rbd imports rados
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        del sys.modules[name]
        raise errors.ConfigurationError(reason=f"stores of type rbd: {error}") from error
    return module
