"""Stores in a real Ceph, whose configuration processes are told by their environment."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from headrace.stores.ceph import Cluster, modules
from headrace.stores.rbd import RbdStore
from tools.ceph import USER

ADDRESS = "HEADRACE_TEST_CEPH"
_TIMEOUT = 30.0


@cache
def cluster(user: str = USER) -> Cluster:
    """One connection for all of a process."""
    return Cluster(os.environ[ADDRESS], user, _TIMEOUT)


def store(directory: Path, **how: Any) -> RbdStore:
    """A store in a pool of the test's own."""
    name, administrator = pool(directory), cluster("admin")
    if not administrator.connection().pool_exists(name):
        administrator.connection().create_pool(name)
        with administrator.pool(name) as ioctx:
            modules()[1].RBD().pool_init(ioctx, True)
    names(directory)  # by which all connections are there
    return RbdStore("rbd", cluster(), name, str(directory.parent), **{"settling": 0.0, **how})


def pool(directory: Path) -> str:
    return f"{directory.parent.parent.name}-{directory.parent.name}"


def names(directory: Path) -> list[str]:
    """The names of all images that there are."""
    with cluster().pool(pool(directory)) as ioctx:
        return sorted(modules()[1].RBD().list(ioctx))
