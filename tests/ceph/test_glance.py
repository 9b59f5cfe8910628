"""Glance 33 and Headrace on one pool: each finds and serves what the other has written."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import glance
from tests.conftest import Serve
from tests.faults.service import BLOCK, Service
from tests.needs import require_environment
from tools.ceph import PACKAGES, USER, Ceph
from tools.hosts import free_port

pytestmark = [pytest.mark.ceph, pytest.mark.timeout(600)]

DATA = os.urandom(BLOCK) * 20 + b"tail"

_CONF = """\
[DEFAULT]
enabled_backends = ceph:rbd, fast:file
show_image_direct_url = true
[glance_store]
default_backend = ceph
[ceph]
rbd_store_pool = {pool}
rbd_store_user = {user}
rbd_store_ceph_conf = {conf}
[fast]
filesystem_store_datadir = {{directory}}/images
"""


@pytest.fixture
def pool(ceph: Ceph) -> str:
    return ceph.new_pool()


@pytest.fixture
def deployment(
    ceph: Ceph, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The directory of a Glance that is set up, whose tables Headrace has made."""
    require_environment(".venv-glance")
    modules = tmp_path / "modules"  # Glance takes them from where Python looks
    modules.mkdir()
    for name in ("rados", "rbd"):
        (found,) = PACKAGES.glob(f"{name}.*.so")
        (modules / found.name).symlink_to(found)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    directory = tmp_path / "glance"
    conf = _CONF.format(pool=pool, user=USER, conf=ceph.conf)
    glance.write_settings(
        directory, free_port(), conf, database=f"sqlite:///{directory}/db", processes=1
    )
    return directory


def test_each_reads_and_deletes_what_the_other_wrote(
    deployment: Path, serve: Serve, ceph: Ceph, pool: str
) -> None:
    ours = Service(serve("--config-file", str(deployment / "glance-api.conf")))
    with glance.serving(deployment) as running:
        theirs = Service(running)  # type: ignore[arg-type]
        written = [(each, other, each.active(DATA)) for each, other in pairs(ours, theirs)]
        layouts = []
        for writer, reader, image_id in written:
            image, same = writer.show(image_id), reader.show(image_id)
            assert image["direct_url"] == f"rbd://{ceph.fsid}/{pool}/{image_id}/snap"
            assert same["direct_url"] == image["direct_url"]
            assert same["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
            assert reader.request("GET", f"/v2/images/{image_id}/file").body == DATA
            layouts.append(layout(ceph, f"{pool}/{image_id}"))
        assert layouts[0] == layouts[1]
        for _, reader, image_id in written:
            reader.delete(image_id)
        assert ceph.rbd("ls", pool) == ""


def pairs(one: Service, other: Service) -> list[tuple[Service, Service]]:
    return [(one, other), (other, one)]


def layout(ceph: Ceph, image: str) -> tuple[Any, ...]:
    """What of an RBD image does not depend on when it was made."""
    info = json.loads(ceph.rbd("info", image, "--format", "json"))
    snapshots = json.loads(ceph.rbd("snap", "ls", image, "--format", "json"))
    named = [(each["name"], each["size"], each["protected"]) for each in snapshots]
    return info["size"], info["order"], info["format"], info["features"], info["flags"], named
