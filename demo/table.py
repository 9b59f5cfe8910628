"""The comparison: one file up and down, by sendfile and splice, and by copying."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from demo.measure import KIB, Cost, transfer
from tools import strace
from tools.serving import Serving, serving
from tools.strace import Carried

MIB = 1 << 20
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Say = Callable[[str], None]


class Way(Enum):
    """A way of moving bytes, and what chooses it on both ends."""

    ZERO_COPY = "sendfile/splice", "on"
    COPYING = "copying", "off"

    def __init__(self, label: str, switch: str) -> None:
        self.label = label
        self.env = {"HEADRACE_SENDFILE": switch}


WAYS = tuple(Way)


ACTS = ("upload", "download")
ROUNDS = 3
PATIENCE = 25.0  # seconds after which no further round is begun, for slow or busy machines

Costs = dict[tuple[str, Way], Cost]
Calls = dict[tuple[str, Way], tuple[Carried, Carried]]


def compare(directory: Path, size: int, say: Say) -> None:
    """Print the table of a file of ``size`` bytes."""
    big = directory / "big.img"
    write_random(big, size)
    costs, rounds = measure(directory, big)
    say(table(costs))
    measured = "One round" if rounds == 1 else f"The cheapest of {rounds} rounds"
    say(
        "\nCPU per KB is what to compare: MB/s is the machine's and its neighbours' as well.\n"
        f"{measured}, a client's start-up included, and in either way:\n"
        f"- an upload is hashed by the server (md5 and sha512, {digest_demand():.1f} µs/KB here)\n"
        "  and on the disk (fsync) before it is answered;\n"
        "- a download is verified by the client: sha512."
    )
    tracer = usable_strace(directory)
    if tracer is None:
        say("\nWhich system calls carried it is not shown: there is no strace that may trace here.")
        return
    say("\nThe system calls that carried the body over the socket, counted by strace:")
    for (act, way), (client, server) in trace(directory, big, tracer).items():
        say(f"  {act:9} {way.label:16} client {calls(client, size)}")
        say(f"  {'':26} server {calls(server, size)}")


def measure(directory: Path, big: Path) -> tuple[Costs, int]:
    """Upload and download ``big`` each way, in turns; the cheapest run of each, and the rounds.

    What else the machine does adds to a run's CPU and never takes from it, so the lowest is the
    least disturbed.
    """
    best: Costs = {}
    began = time.monotonic()
    done = 0
    with contextlib.ExitStack() as stack:
        servers = {
            way: stack.enter_context(serving(directory / way.name, env=way.env)) for way in WAYS
        }
        while done < ROUNDS and (done == 0 or time.monotonic() - began < PATIENCE):
            done += 1
            for way, server in servers.items():
                for act, cost in up_and_down(big, way, server).items():
                    best[act, way] = min(best.get((act, way), cost), cost, key=lambda run: run.cpu)
    for way in WAYS:
        shutil.rmtree(directory / way.name)
    return best, done


def up_and_down(big: Path, way: Way, server: Serving) -> dict[str, Cost]:
    """The cost of an upload and of a download of it; both copies are removed again."""
    size = big.stat().st_size
    target = big.with_suffix(".downloaded")
    up = transfer(server, add(big), size, env=way.env)
    image_id = added(up.output)
    down = transfer(server, ["download", image_id, "--file", str(target)], size, env=way.env)
    target.unlink()
    transfer(server, ["delete", "--force", image_id], size, env=way.env)
    return {"upload": up, "download": down}


def trace(directory: Path, big: Path, tracer: str) -> Calls:
    """The same once more under strace, client and server: what went through their sockets."""
    size = big.stat().st_size
    target = big.with_suffix(".downloaded")
    seen: Calls = {}
    for way in WAYS:
        state = directory / way.name
        words = add(big)
        for act in ACTS:
            at_client, at_server = state / f"client-{act}", state / f"server-{act}"
            with serving(state, env=way.env, under=strace.command(tracer, at_server)) as server:
                under = strace.command(tracer, at_client)
                output = transfer(server, words, size, env=way.env, under=under).output
            seen[act, way] = (strace.on_sockets(at_client), strace.on_sockets(at_server))
            if act == "upload":
                words = ["download", added(output), "--file", str(target)]
        target.unlink()
        shutil.rmtree(state)
    return seen


def add(big: Path) -> list[str]:
    return ["add", f"path={big}", "name=big", "disk_format=raw"]


def added(output: str) -> str:
    """The id that `headrace add` printed."""
    found = UUID.search(output)
    if found is None:
        raise RuntimeError(f"`headrace add` printed no image id: {output}")
    return found[0]


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


def table(costs: Costs) -> str:
    """The figures, a transfer a line."""
    form = "{:9} {:16} {:>14} {:>7} {:>13} {:>13}"
    lines = [
        form.format("", "", "", "", "client CPU", "server CPU"),
        form.format("", "way", "bytes", "MB/s", "µs/KB", "µs/KB"),
    ]
    for act in ACTS:
        for way in WAYS:
            cost = costs[act, way]
            figures = [
                f"{cost.bytes:,}",
                f"{cost.rate:.0f}",
                f"{cost.client_demand:.2f}",
                f"{cost.server_demand:.2f}",
            ]
            lines.append(form.format(act, way.label, *figures))
    return "\n".join(lines)


def calls(carried: Carried, size: int) -> str:
    """What carried at least a hundredth of the body: "sendfile 1,024 MiB in 16 calls"."""
    parts = [
        f"{name} {moved // MIB:,} MiB in {carried.calls[name]:,} calls"
        for name, moved in carried.bytes.most_common()
        if moved >= size // 100
    ]
    return ", ".join(parts) or "none seen"
