"""The comparison: one file up and down, by sendfile and splice, and by copying."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demo.measure import KIB, Cost, transfer
from tools import strace
from tools.serving import Serving, serving
from tools.strace import Carried

MIB = 1 << 20
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """A way of moving bytes, and the environment that chooses it on both ends."""

    name: str
    env: dict[str, str]


WAYS = [Way("sendfile/splice", {}), Way("copying", {"HEADRACE_SENDFILE": "off"})]


@dataclass(frozen=True)
class Row:
    """One transfer one way, and what strace saw on the sockets when it was repeated under it."""

    act: str
    way: Way
    cost: Cost
    client: Carried | None
    server: Carried | None


def compare(directory: Path, size: int, say: Say) -> None:
    """Print the table of a file of ``size`` bytes."""
    say(f"\n── What it costs: a file of {size // MIB} MiB, warm page cache, loopback")
    big = directory / "big.img"
    write_random(big, size)
    tracer = usable_strace(directory)
    rows = [row for way in WAYS for row in measure(directory, big, way, tracer)]
    say(table(rows))
    demand = digest_demand()
    say(
        f"\nHashing is in these figures whichever way the bytes move: {demand:.1f} µs/KB (md5 and "
        "sha512) in the server's\nupload, and sha512 in the client's download. "
        "A client's start-up is in its figure too."
    )
    if tracer:
        say("\nThe system calls that carried the body over the socket, counted by strace:")
        for row in rows:
            assert row.client is not None
            assert row.server is not None
            say(f"  {row.act:9} {row.way.name:16} client {calls(row.client, size)}")
            say(f"  {'':26} server {calls(row.server, size)}")
    else:
        say("\nThe system calls are not shown: there is no strace that may trace here.")
    big.unlink()


def measure(directory: Path, big: Path, way: Way, tracer: str | None) -> list[Row]:
    """Upload and download ``big``: once measured, and once more under strace if there is one."""
    costs = up_and_down(directory, big, way, None)
    if tracer is None:
        return [Row(act, way, cost, None, None) for act, cost in costs.items()]
    up_and_down(directory, big, way, tracer)
    return [
        Row(
            act,
            way,
            cost,
            strace.on_sockets(traces(directory, way) / f"client-{act}"),
            strace.on_sockets(traces(directory, way) / f"server-{act}"),
        )
        for act, cost in costs.items()
    ]


def up_and_down(directory: Path, big: Path, way: Way, tracer: str | None) -> dict[str, Cost]:
    """The cost of an upload and of the download that follows it, each with a server of its own."""
    state = directory / f"state-{way.name.partition('/')[0]}"
    target = directory / "big.downloaded"
    described = [f"path={big}", "name=big", "disk_format=raw"]
    place = traces(directory, way)
    try:
        with served(state, way, tracer, place / "server-upload") as server:
            under = strace.command(tracer, place / "client-upload") if tracer else []
            words = ["add", *described]
            up = transfer(server, words, big.stat().st_size, env=way.env, under=under)
        found = UUID.search(up.output)
        if found is None:
            raise RuntimeError(f"`headrace add` printed no image id: {up.output}")
        with served(state, way, tracer, place / "server-download") as server:
            under = strace.command(tracer, place / "client-download") if tracer else []
            words = ["download", found[0], "--file", str(target)]
            down = transfer(server, words, big.stat().st_size, env=way.env, under=under)
        return {"upload": up, "download": down}
    finally:
        target.unlink(missing_ok=True)
        shutil.rmtree(state, ignore_errors=True)


def served(
    state: Path, way: Way, tracer: str | None, prefix: Path
) -> contextlib.AbstractContextManager[Serving]:
    under = strace.command(tracer, prefix) if tracer else []
    return serving(state, env=way.env, under=under)


def traces(directory: Path, way: Way) -> Path:
    place = directory / "traces" / way.name.partition("/")[0]
    place.mkdir(parents=True, exist_ok=True)
    return place


def usable_strace(directory: Path) -> str | None:
    """strace's path, if it is there and may trace a child."""
    path = shutil.which("strace")
    if path is None:
        return None
    words = [*strace.command(path, directory / "trial"), "true"]
    return None if subprocess.run(words, capture_output=True).returncode else path


def write_random(path: Path, size: int) -> None:
    """Fill ``path`` with ``size`` bytes that neither compress nor repeat within a block."""
    block = os.urandom(16 * MIB)
    with path.open("wb") as file:
        for number in range(size // len(block)):
            file.write(number.to_bytes(8, "big"))
            file.write(block[8:])


def digest_demand() -> float:
    """CPU of md5 and sha512 over memory, in µs/KB: the floor below an upload, on this processor."""
    block = os.urandom(MIB)
    rounds = 64
    started = time.process_time()
    for name in ("md5", "sha512"):
        digest = hashlib.new(name, usedforsecurity=False)
        for _ in range(rounds):
            digest.update(block)
    return (time.process_time() - started) * 1e6 / (rounds * MIB / KIB)


def table(rows: list[Row]) -> str:
    """The figures, a transfer a line."""
    form = "{:9} {:16} {:>14} {:>7} {:>13} {:>13}"
    lines = [
        form.format("", "", "", "", "client CPU", "server CPU"),
        form.format("", "way", "bytes", "MB/s", "µs/KB", "µs/KB"),
    ]
    for row in sorted(rows, key=lambda row: row.act, reverse=True):
        figures = [
            f"{row.cost.bytes:,}",
            f"{row.cost.rate:.0f}",
            f"{row.cost.client_demand:.2f}",
            f"{row.cost.server_demand:.2f}",
        ]
        lines.append(form.format(row.act, row.way.name, *figures))
    return "\n".join(lines)


def calls(carried: Carried, size: int) -> str:
    """What carried at least a hundredth of the body: "sendfile 1,024 MiB in 16 calls"."""
    parts = [
        f"{name} {moved // MIB:,} MiB in {carried.calls[name]:,} calls"
        for name, moved in carried.bytes.most_common()
        if moved >= size // 100
    ]
    return ", ".join(parts) or "none seen"
