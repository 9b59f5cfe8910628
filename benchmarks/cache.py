"""The image cache in front of a real Swift: a hit beside a local image, a miss beside reading the
store alone, `headrace fetch`, and storms of many clients on a cold image beside those on a Glance
with its own cache.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import glance, imageapi, network, processes, storms, tool
from benchmarks.cpu import Server, during
from benchmarks.plan import Plan, interleaved, random_file, warm
from benchmarks.row import GIB, KIB, Row, Target, at_most, ratio_at_most
from benchmarks.storms import AccessLog, Storm
from tools import keystone as keystones
from tools import swift as swifts
from tools.hosts import free_port
from tools.serving import COMMAND, Serving, serving
from tools.swift import Swift

SIZE = GIB
CLIENTS = 200
STREAMS = 8
_HITS = 6  # times the rounds: two names of one file have cost 0.90 to 1.12 of each other in a few
_STORMS = 5  # rounds at most: each takes minutes
_CONTAINER = "images"
_LOCAL, _READER, _VERIFIED = "the same file in a file store", "reading alone", "and its sha512"
_GLANCE = "Glance 33"

_GLANCE_CONF = """\
[DEFAULT]
enabled_backends = cold:swift
worker_self_reference_url = http://127.0.0.1:{{port}}
hashing_algorithm = sha512
image_cache_dir = {{directory}}/cache
image_cache_max_size = {most}
[glance_store]
default_backend = cold
[cold]
{swift}
[paste_deploy]
flavor = cachemanagement
"""
# uWSGI's own 100 would have the others of a storm wait for TCP to try again.
_BACKLOG = "listen = 1024\n"


@dataclass(frozen=True)
class _Miss:
    """CPU µs/KB of who reads the store, and of the store with him; and the seconds it took."""

    reader: float
    both: float
    seconds: float


@dataclass(frozen=True)
class _Reading:
    """Several servers as one."""

    port: int
    servers: tuple[Server | Swift, ...]

    def pids(self) -> list[int]:
        return [pid for server in self.servers for pid in server.pids()]


@dataclass(frozen=True)
class _Field:
    """A Swift, the options of a store that uses it, a Headrace before it, where one may write."""

    swift: Swift
    options: dict[str, str]
    log: AccessLog
    ours: Serving
    source: Path
    directory: Path


def run(plan: Plan) -> list[Row]:
    """Rows of hits, of misses and of storms."""
    with network.under(network.alternatives()[-1]), _field(plan.disk) as field:
        remote = imageapi.put(field.ours, field.source)
        miss = interleaved(
            plan.rounds,
            {
                "miss": lambda: _miss(field, remote),
                _READER: lambda: _read(field, remote),
                _VERIFIED: lambda: _read(field, remote, "sha512"),
            },
        )
        hit = _hits(plan, field, remote)
        fetched = _fetches(plan, field, remote)
        read = [each.seconds for each in miss[_READER]]
        storm = _of_storms(_storms(plan, field, remote), read)
        return [*hit, *_of_misses(miss), *fetched, *storm]


@contextlib.contextmanager
def _field(directory: Path) -> Iterator[_Field]:
    source = directory / "image"
    random_file(source, SIZE)
    with (
        storms.listening() as log,
        keystones.running(directory / "keystone") as keystone,
        swifts.running(directory / "swift", keystone, workers=2, access_log=log.port) as swift,
    ):
        swift.register()
        options = {
            "swift_store_auth_address": keystone.url,
            "swift_store_user": "demo:member",
            "swift_store_key": keystones.PASSWORD,
            "swift_store_container": _CONTAINER,
            "swift_store_create_container_on_put": "true",
        }
        env = {
            "OS_DEFAULT__ENABLED_BACKENDS": "cold:swift,near:file",
            "OS_GLANCE_STORE__DEFAULT_BACKEND": "cold",
            "OS_NEAR__FILESYSTEM_STORE_DATADIR": str(directory / "near"),
            "OS_DEFAULT__IMAGE_CACHE_DIR": str(directory / "cache"),
            "OS_DEFAULT__IMAGE_CACHE_MAX_SIZE": str(4 * SIZE),
            **{f"OS_COLD__{name.upper()}": value for name, value in options.items()},
        }
        with serving(directory / "headrace", env=env) as ours:
            yield _Field(swift, options, log, ours, source, directory)


# --- hits


def _hits(plan: Plan, field: _Field, remote: str) -> list[Row]:
    """Downloads of an image that is in the cache, and of one in a file store."""
    local = imageapi.put(field.ours, field.source, store="near")
    _take(field.ours, remote)
    # Literally the same file: how its pages lie in memory decides over part of the cost.
    (field.directory / "near" / local).unlink()
    os.link(field.directory / "cache" / remote, field.directory / "near" / local)
    warm(field.directory / "cache" / remote)
    rows = []
    for streams in (1, STREAMS):
        taken = interleaved(
            plan.rounds * _HITS,
            {
                "hit": partial(tool.get, field.ours, remote, SIZE, streams),
                _LOCAL: partial(tool.get, field.ours, local, SIZE, streams),
            },
        )
        for what, unit, name, target in (
            ("server CPU", "µs/KB", "demand", ratio_at_most(1.05)),
            ("throughput", "MB/s", "rate", None),
        ):
            ours, beside = ([getattr(each, name) for each in taken[who]] for who in taken)
            rows.append(
                Row(f"cache hit, streams: {streams}: {what}", unit, ours, beside, _LOCAL, target)
            )
    return rows


def _take(server: Server, image: str) -> float:
    """One download, dropped; the seconds that it took."""
    words = (str(server.port), imageapi.data_path(image), "1")
    found = processes.result("takers", *words)
    if found["bytes"] < SIZE:
        raise RuntimeError(f"{found['bytes']} bytes of {SIZE}")
    return float(found["seconds"])


# --- misses


def _miss(field: _Field, image: str) -> _Miss:
    """A download of an image that no cache has; the client's CPU is not in it."""
    imageapi.request(field.ours, "DELETE", f"/v2/cache/{image}")
    both = _Reading(field.ours.port, (field.ours, field.swift))
    alone = _Reading(field.ours.port, (field.ours,))
    (seconds, reader), used = during(both, lambda: during(alone, lambda: _take(field.ours, image)))
    return _Miss(reader / (SIZE / KIB), used / (SIZE / KIB), seconds)


def _read(field: _Field, image: str, *algorithm: str) -> _Miss:
    """The same from the store into a file, by a client that does nothing else."""
    account, token = field.swift.token()
    path = f"{account}/{_CONTAINER}/{image}"
    words = (str(field.swift.port), path, token, str(field.directory / "read"), *algorithm)
    (found, store) = during(
        _Reading(field.swift.port, (field.swift,)), lambda: processes.result("reader", *words)
    )
    if found["bytes"] != SIZE:
        raise RuntimeError(f"{found['bytes']} bytes of {SIZE}")
    (field.directory / "read").unlink()
    reader = found["cpu_us"]
    return _Miss(reader / (SIZE / KIB), (reader + store) / (SIZE / KIB), found["seconds"])


def _of_misses(taken: dict[str, list[_Miss]]) -> list[Row]:

    def row(what: str, unit: str, field: str, beside: str, target: Target | None = None) -> Row:
        ours, other = ([getattr(each, field) for each in taken[who]] for who in ("miss", beside))
        name = _READER if beside == _READER else f"{_READER} {_VERIFIED}"
        return Row(f"cache miss: {what}", unit, ours, other, name, target)

    return [
        row("CPU of server and store", "µs/KB", "both", _READER, ratio_at_most(1.3)),
        row("CPU of server and store", "µs/KB", "both", _VERIFIED),
        row("server CPU", "µs/KB", "reader", _VERIFIED),
        row("time", "s", "seconds", _READER),
    ]


# --- the cache of a host


def _fetches(plan: Plan, field: _Field, image: str) -> list[Row]:
    """`headrace fetch` to a file, beside `headrace download` of what the service's cache has."""
    kept, to = field.directory / "kept", field.directory / "fetched"
    url = ("--url", field.ours.url)
    fetch: list[str | Path] = [
        COMMAND,
        "fetch",
        image,
        "--to",
        to,
        "--force",
        "--cache-dir",
        kept,
        *url,
    ]

    def miss() -> float:
        shutil.rmtree(kept, ignore_errors=True)
        return _command(fetch)

    def hit() -> float:
        if not kept.exists():
            _command(fetch)
        return _command(fetch)

    download: list[str | Path] = [COMMAND, "download", image, "--file", to, *url]
    taken = interleaved(
        plan.rounds, {"miss": miss, "hit": hit, "download": lambda: _command(download)}
    )
    name = "headrace download"
    return [
        Row("headrace fetch, miss: CPU", "µs/KB", taken["miss"], taken["download"], name),
        Row("headrace fetch, hit: CPU", "µs/KB", taken["hit"], taken["download"], name),
    ]


def _command(words: Sequence[str | Path]) -> float:
    """CPU µs/KB of a command that brings the image."""
    return processes.run(words).cpu_us / (SIZE / KIB)


# --- storms


def _storms(plan: Plan, field: _Field, remote: str) -> dict[str, list[Storm]]:
    directory = field.directory / "glance"
    options = "\n".join(f"{name} = {value}" for name, value in field.options.items())
    conf = _GLANCE_CONF.format(most=4 * SIZE, swift=options)
    glance.prepare(directory, free_port(), conf)
    with (directory / "uwsgi.ini").open("a") as ini:
        ini.write(_BACKLOG)
    with glance.serving(directory) as peer:
        same = imageapi.put(peer, field.source)
        measures: dict[str, Callable[[], Storm]] = {
            name: partial(storms.storm, server, image, SIZE, CLIENTS, field.swift, field.log)
            for name, server, image in (("ours", field.ours, remote), (_GLANCE, peer, same))
        }
        return interleaved(min(plan.rounds, _STORMS), measures)


def _of_storms(taken: dict[str, list[Storm]], read: list[float]) -> list[Row]:
    """``read`` are the seconds that reading the store alone takes."""
    ours = taken["ours"]
    alone = sorted(read)[len(read) // 2]
    name = f"storm of {CLIENTS} clients on {SIZE >> 20} MiB"

    def row(what: str, unit: str, field: str, target: Target | None = None) -> Row:
        figures, other = ([getattr(each, field) for each in taken[who]] for who in taken)
        return Row(f"{name}: {what}", unit, figures, other, _GLANCE, target)

    return [
        row("reads of the store", "", "reads", at_most(1)),
        Row(f"{name}: time", "s", [each.wall for each in ours],
            [max(each.warm, alone) for each in ours], "reading alone, or warm: the slower",
            ratio_at_most(1.25)),
        Row(f"{name}: first byte, p99", "s", [each.first_p99 for each in ours],
            [alone] * len(ours), _READER, ratio_at_most(0.5)),
        row("time", "s", "wall"),
        row("first byte, p50", "s", "first_p50"),
        row("first byte, p99", "s", "first_p99"),
        row("all of it, p50", "s", "fetch_p50"),
        row("all of it, p99", "s", "fetch_p99"),
        row("server CPU", "µs/KB", "demand"),
        row("CPU of the store per KB of the image", "µs/KB", "store"),
    ]  # fmt: skip
