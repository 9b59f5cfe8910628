"""What it costs to bring data to a Ceph and back: glance_store's driver, our store, Ceph's command.

    python -m benchmarks.rbd [MIB] [ROUNDS]

Each is a process of its own, on one pool of a real cluster, in turns; the digests that an upload
needs (md5, sha512) are made by glance_store and by us, not by ``rbd import``.  As root, with Ceph
(``tools/components ceph``) and ``.venv-glance``.
"""

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.glance import VENV
from headrace.model import MIB
from tools import ceph as clusters
from tools.ceph import PACKAGES, USER, Ceph

IMAGE_ID = "0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b"

# Run by Glance's Python.
_DRIVER = """\
import sys, time, resource
sys.path.append(sys.argv[1])
from oslo_config import cfg
import glance_store
from glance_store import location
conf, pool, user, fsid, image_id, file, way = sys.argv[2:]
options = cfg.ConfigOpts()
glance_store.register_opts(options)
options([], default_config_files=[])
for name, value in {"stores": ["rbd"], "default_store": "rbd", "rbd_store_pool": pool,
                    "rbd_store_user": user, "rbd_store_ceph_conf": conf}.items():
    options.set_override(name, value, group="glance_store")
glance_store.create_stores(options)
store = glance_store.get_store_from_scheme("rbd")
begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
if way == "write":
    import os
    with open(file, "rb", buffering=0) as data:
        store.add(image_id, data, os.fstat(data.fileno()).st_size, "sha512")
else:
    url = f"rbd://{fsid}/{pool}/{image_id}/snap"
    blocks, _ = store.get(location.get_location_from_uri(url, conf=options))
    for block in blocks:
        pass
after = resource.getrusage(resource.RUSAGE_SELF)
print(time.monotonic() - begun,
      after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def ours(conf: str, pool: str, file: str, way: str) -> None:
    """One turn of our store, in a process of its own; says seconds and CPU seconds."""
    from headrace.stores.ceph import Cluster
    from headrace.stores.rbd import RbdStore
    from headrace.transfer.digest import Follower
    from headrace.transfer.engine import Reader, pump

    store = RbdStore("rbd", Cluster(conf, USER, 60.0), pool, str(Path(file).parent))
    begun, before = time.monotonic(), _cpu(resource.RUSAGE_SELF)
    if way == "write":
        with open(file, "rb", buffering=0) as data:
            writer = store.create(IMAGE_ID, os.fstat(data.fileno()).st_size)
            follower = Follower(writer.sink.fd, ["sha512", "md5"])
            writer.follow(follower.hashed)

            def landed(total: int) -> None:
                follower.advance(total)
                writer.advance(total)

            size = pump(Reader(data), writer.sink, progress=landed).bytes
            follower.finish(size)
            follower.stop()
            writer.commit()
            writer.abort()
    else:
        with contextlib.closing(store.open(store.url(IMAGE_ID))) as remote:
            while remote.read(MIB):
                pass
    print(time.monotonic() - begun, _cpu(resource.RUSAGE_SELF) - before)


def main(size: int, rounds: int) -> None:
    with clusters.running() as ceph, tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "data"
        block = os.urandom(MIB)
        with file.open("wb") as data:
            for _ in range(size // MIB):
                data.write(block)
        pool = ceph.new_pool()
        ways = _ways(ceph, pool, file)
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for name, turn in ways.items():
                for way in ("write", "read"):
                    found.setdefault((name, way), []).append(turn(way))
                ceph.rbd("snap", "unprotect", f"{pool}/{IMAGE_ID}@snap")
                ceph.rbd("snap", "purge", f"{pool}/{IMAGE_ID}", "--no-progress")
                ceph.rbd("rm", f"{pool}/{IMAGE_ID}", "--no-progress")
    print("| | written, µs/KB | MiB/s | read, µs/KB | MiB/s |\n|---|---|---|---|---|")
    for name in ways:
        cells = []
        for way in ("write", "read"):
            took = median(each[0] for each in found[name, way])
            cpu = median(each[1] for each in found[name, way])
            cells += [f"{cpu * 1e6 / (size >> 10):.2f}", f"{size / MIB / took:.0f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def _ways(ceph: Ceph, pool: str, file: Path) -> dict[str, Callable[[str], tuple[float, float]]]:
    conf = str(ceph.conf)
    driver = [VENV / "bin" / "python", "-W", "ignore", "-c", _DRIVER, PACKAGES,
              conf, pool, USER, ceph.fsid, IMAGE_ID, file]  # fmt: skip
    store = [sys.executable, "-m", "benchmarks.rbd", "ours", conf, pool, file]
    image = f"{pool}/{IMAGE_ID}"

    def told(words: list[object]) -> tuple[float, float]:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        took, cpu = map(float, done.stdout.split())
        return took, cpu

    def command(way: str) -> tuple[float, float]:
        begun, before = time.monotonic(), _cpu(resource.RUSAGE_CHILDREN)
        if way == "write":
            ceph.rbd("import", "--no-progress", "--object-size", "8M", str(file), image)
            ceph.rbd("snap", "create", f"{image}@snap", "--no-progress")
            ceph.rbd("snap", "protect", f"{image}@snap")
        else:
            ceph.rbd("export", "--no-progress", image, f"{file}.back")
            Path(f"{file}.back").unlink()
        return time.monotonic() - begun, _cpu(resource.RUSAGE_CHILDREN) - before

    return {
        "glance_store 5.7, its rbd driver": lambda way: told([*driver, way]),
        "Headrace": lambda way: told([*store, way]),
        "`rbd import`, `rbd export` (no digests, into a file)": command,
    }


def _cpu(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    else:
        numbers = [int(each) for each in sys.argv[1:]]
        main(*[numbers[0] * MIB, numbers[1]] if numbers else [1024 * MIB, 5])
