"""``headrace add path=`` of 4 GiB beside python-glanceclient: CPU of the client, its start
included, against the same server.

The server computes sha256 alone, which is quick: the client's cost is not in the server's digests.
"""

import re
import shutil
from functools import partial
from pathlib import Path

from benchmarks import imageapi, network, processes
from benchmarks.cpu import Server
from benchmarks.plan import Plan, interleaved, random_file, sparse_file, warm
from benchmarks.row import GIB, KIB, Row, at_most, ratio_at_most
from tools.serving import COMMAND, Serving, serving

SIZE = 4 * GIB
GLANCE = processes.ROOT / ".venv-clients" / "bin" / "glance"
SHA256_ALONE = {
    "OS_DEFAULT__HASHING_ALGORITHM": "sha256",
    "OS_HEADRACE__LEGACY_CHECKSUM": "off",
}
_NAME = "python-glanceclient"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def run(plan: Plan) -> list[Row]:
    """Rows of a file that is one hole and of one that is allocated."""
    rows = []
    for kind, make in (("sparse", sparse_file), ("allocated", random_file)):
        source = plan.disk / kind
        make(source, SIZE)
        warm(source)
        for congestion in network.alternatives():
            home = plan.roomiest(SIZE) / congestion
            with network.under(congestion), serving(home, env=SHA256_ALONE) as server:
                rows += _rows(plan, server, source, f"client, {congestion}, 4 GiB {kind}")
            shutil.rmtree(home)
        source.unlink()
    return rows


def glance_options(server: Serving) -> list[str]:
    """Where glance finds the server.

    Its --os-auth-type none asks for a user's name all the same; a token makes it ask nobody.
    """
    return ["--os-image-url", server.url, "--os-auth-token", "none"]


def _rows(plan: Plan, server: Serving, source: Path, title: str) -> list[Row]:
    ours: list[str | Path] = [
        COMMAND,
        "-H",
        "127.0.0.1",
        "-p",
        str(server.port),
        "add",
        "name=bench",
    ]
    described = ["disk_format=raw", f"path={source}"]
    words = ["image-create", "--name", "bench", "--disk-format", "raw"]
    words += ["--container-format", "bare", "--file", str(source)]
    taken = interleaved(
        plan.rounds,
        {
            "Headrace": partial(_add, server, [*ours, *described]),
            _NAME: partial(_add, server, [GLANCE, *glance_options(server), *words]),
        },
    )
    return [
        Row(f"{title}: CPU", "µs/KB", taken["Headrace"], taken[_NAME], _NAME, target)
        for target in (at_most(0.25), ratio_at_most(0.15))
    ]


def _add(server: Server, words: list[str | Path]) -> float:
    """CPU of an upload, µs/KB."""
    spent = processes.run(words)
    found = _UUID.search(spent.output)
    if found is None:
        raise RuntimeError(f"no image id in {spent.output!r}")
    imageapi.require_active(server, found[0], SIZE)
    imageapi.delete(server, found[0])
    return spent.cpu_us / (SIZE / KIB)
