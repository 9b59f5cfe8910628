"""The control plane on SQLite: CPU of a GET of one image, of a page of a large catalogue and of a
create, and how many a second, beside Glance with the same rows; CPU beside a small catalogue; of a
GET by name and password, beside one without."""

import base64
import contextlib
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import catalogue, cpu, glance, rates
from benchmarks.cpu import Server
from benchmarks.plan import Plan, interleaved
from benchmarks.row import Row, Target, ratio_at_least, ratio_at_most
from headrace.service.accounts import Accounts
from tools.hosts import free_port
from tools.serving import serving

LARGE, SMALL = 100_000, 1_000
GETS = 200
LISTS = {"large": 200, "small": 200, "Glance": 40}  # Glance's are slow: 40 a round, 200 in five
CREATES = 100
PAGE = 25
_PAGE = f"/v2/images?limit={PAGE}"
_RECORD = b'{"name": "made", "disk_format": "raw", "container_format": "bare"}'
USER = "somebody"
NO_LOGIN: Mapping[str, str] = MappingProxyType({})


def run(plan: Plan) -> list[Row]:
    """Rows of GET, of lists beside Glance, and of large beside small."""
    with _servers(plan.disk) as servers:
        gets = interleaved(
            plan.rounds, {name: partial(_get, server) for name, server in servers.items()}
        )
        lists = _lists(plan, servers)
        for name in servers:
            catalogue.analyze(_database(plan.disk, name))
        analyzed = _lists(plan, servers)
        rated = _rates(plan, servers)
    guarded = _by_password(plan)
    beside_small = "1,000 images"
    after = "list of 25 after ANALYZE"
    return [
        _row("GET of one image", gets["large"], gets["Glance"], "Glance 33", ratio_at_most(1 / 8)),
        _row("GET of one image", gets["large"], gets["small"], beside_small, None),
        _row("list of 25", lists["large"], lists["Glance"], "Glance 33", ratio_at_most(1 / 40)),
        _row("list of 25", lists["large"], lists["small"], beside_small, ratio_at_most(1.2)),
        _row(after, analyzed["large"], analyzed["Glance"], "Glance 33", None),
        _row(after, analyzed["large"], analyzed["small"], beside_small, ratio_at_most(1.2)),
        guarded,
        *rated,
    ]


def _rates(plan: Plan, servers: dict[str, Server]) -> list[Row]:
    """Requests a second, beside Glance; last of all, since creates are among them."""
    gets = [rates.get(path) for path in _paths(GETS)]
    lists = {name: [rates.get(_PAGE)] * count for name, count in LISTS.items()}
    creates = [rates.post("/v2/images", _RECORD)] * CREATES
    pair = {name: servers[name] for name in ("large", "Glance")}
    rows = []
    for what, status, requests in (
        ("GET of one image", 200, dict.fromkeys(pair, gets)),
        ("list of 25", 200, lists),
        ("create", 201, dict.fromkeys(pair, creates)),
    ):
        ways = {
            name: partial(rates.rate, server, requests[name], status)
            for name, server in pair.items()
        }
        found = interleaved(plan.rounds, ways)
        told = f"{what}, 100,000 images: requests a second"
        rows.append(
            Row(told, "/s", found["large"], found["Glance"], "Glance 33", ratio_at_least(8))
        )
    return rows


def _by_password(plan: Plan) -> Row:
    """A GET of one image with a password that was confirmed within the minute."""
    directories = {name: plan.disk / name for name in ("guarded", "open")}
    for directory in directories.values():
        with serving(directory) as server:
            server.stop()
        catalogue.fill(directory / "headrace.db", SMALL)
    Accounts(str(directories["guarded"] / "htpasswd")).add(USER, USER, USER, ["admin"])
    with (
        serving(directories["guarded"], "--auth", "http_basic") as guarded,
        serving(directories["open"]) as open_,
    ):
        login = {"Authorization": f"Basic {base64.b64encode(f'{USER}:{USER}'.encode()).decode()}"}

        def get() -> float:
            _get(guarded, login, 1)  # which has it confirmed
            return _get(guarded, login)

        ways: dict[str, Callable[[], float]] = {"guarded": get, "open": partial(_get, open_)}
        found = interleaved(plan.rounds, ways)
    what = "GET of one image by name and password, 1,000 images: CPU/request"
    without = "without authentication"
    return Row(what, "ms", found["guarded"], found["open"], without, ratio_at_most(1.5))


def _lists(plan: Plan, servers: dict[str, Server]) -> dict[str, list[float]]:
    return interleaved(
        plan.rounds,
        {name: partial(_list, server, LISTS[name]) for name, server in servers.items()},
    )


def _row(
    what: str, ours: list[float], other: list[float], beside: str, target: Target | None
) -> Row:
    return Row(f"{what}, 100,000 images: CPU/request", "ms", ours, other, beside, target)


@contextlib.contextmanager
def _servers(directory: Path) -> Iterator[dict[str, Server]]:
    glance.prepare(directory / "glance", free_port())
    catalogue.fill(_database(directory, "Glance"), LARGE)
    for name, count in (("large", LARGE), ("small", SMALL)):
        with serving(directory / name) as server:  # creates the tables
            server.stop()
        catalogue.fill(_database(directory, name), count)
    with contextlib.ExitStack() as stack:
        yield {
            "large": stack.enter_context(serving(directory / "large")),
            "small": stack.enter_context(serving(directory / "small")),
            "Glance": stack.enter_context(glance.serving(directory / "glance")),
        }


def _database(directory: Path, server: str) -> Path:
    if server == "Glance":
        return directory / "glance" / "glance.sqlite"
    return directory / server / "headrace.db"


def _get(server: Server, login: Mapping[str, str] = NO_LOGIN, count: int = GETS) -> float:
    """CPU ms of a GET of one image, over images of both catalogues."""
    return _demand(server, _paths(count), lambda answer: "id" in answer, login)


def _paths(count: int) -> list[str]:
    return [f"/v2/images/{catalogue.image_id(number)}" for number in range(count)]


def _list(server: Server, count: int) -> float:
    """CPU ms of the first page, as a client asks for it."""
    return _demand(server, [_PAGE] * count, lambda answer: len(answer["images"]) == PAGE, {})


def _demand(
    server: Server, paths: list[str], right: Callable[[Any], bool], login: Mapping[str, str]
) -> float:
    _, spent = cpu.during(server, partial(_ask, server, paths, right, login))
    return spent / len(paths) / 1000


def _ask(
    server: Server, paths: list[str], right: Callable[[Any], bool], login: Mapping[str, str]
) -> None:
    """Ask for one after another on one connection, made anew whenever the server closes it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        for path in paths:
            connection.request("GET", path, headers={"Accept": "application/json", **login})
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200 or not right(json.loads(data)):
                raise RuntimeError(f"GET {path}: {answer.status} {data[:300]!r}")
