"""Settings of a service with a store in Ceph beside one of files, as an environment."""

from pathlib import Path

from tools.ceph import USER, Ceph


def with_ceph(ceph: Ceph, pool: str, directory: Path, **options: object) -> dict[str, str]:
    """ceph (the default one) and fast, of files; ``options`` are those of the former."""
    given = {
        "rbd_store_pool": pool,
        "rbd_store_user": USER,
        "rbd_store_ceph_conf": ceph.conf,
        **options,
    }
    return {
        "OS_DEFAULT__ENABLED_BACKENDS": "ceph:rbd,fast:file",
        "OS_GLANCE_STORE__DEFAULT_BACKEND": "ceph",
        "OS_FAST__FILESYSTEM_STORE_DATADIR": str(directory / "fast"),
        **{f"OS_CEPH__{name.upper()}": str(value) for name, value in given.items()},
    }
