"""Lists of a very large catalogue beside the same of a small one, as the database answers them.

Without HTTP, which costs both the same and would hide what differs.
"""

import contextlib
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import cpu
from benchmarks.catalogue import (
    FEW,
    GUEST,
    MANY,
    VISITOR,
    fill,
    fill_server,
    public_image,
)
from benchmarks.plan import Plan, interleaved
from benchmarks.row import Row, ratio_at_most
from headrace.db import catalogue, migrate
from headrace.db.engine import Database, connect
from headrace.model import Filter, ImageQuery, Op, Viewer
from tests.servers import postgresql

LARGE, SMALL = 1_000_000, 1_000
REPEATS = 3
# What each group of lists may cost, in times of what it costs in the small catalogue.
GROUPS = {
    "plain list": 1.5,
    "page from the middle": 1.5,
    "sorted list": 5.0,
    "sorted page from the middle": 5.0,
    "filtered list": 5.0,
    "filtered and sorted list": 5.0,
}
VIEWERS = {
    "administrator": Viewer("admin", is_admin=True),
    "many": Viewer(MANY),
    "few": Viewer(FEW),
    "guest": Viewer(GUEST),
    "visitor": Viewer(VISITOR),
}
_KEYS = (
    "name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at",
)  # fmt: skip
SORTS = {
    f"{key} {'descending' if descending else 'ascending'}": ImageQuery(sort=((key, descending),))
    for key in _KEYS
    for descending in (False, True)
}


def _by(column: str, value: object, op: Op = Op.EQ) -> ImageQuery:
    return ImageQuery(filters=(Filter(column, op, value),))


FILTERS = {
    "a name of many": _by("name", "release 7"),
    "a name of one": _by("name", "snapshot 77"),
    "names": _by("name", ["release 7", "release 8", "none"], Op.IN),
    **{f"status {status}": _by("status", status) for status in ("active", "queued", "killed")},
    **{
        f"visibility {visibility}": ImageQuery(visibility=visibility)
        for visibility in ("public", "private", "shared", "community", "all")
    },
    "a tag of many": ImageQuery(tags=("tag 7",)),
    "a tag of few": ImageQuery(tags=("rare 7",)),
    "a tag of none": ImageQuery(tags=("none",)),
    "a property of most": ImageQuery(properties={"architecture": "x86_64"}),
    "a property of many": ImageQuery(properties={"os_version": "7"}),
    "a property of some": ImageQuery(properties={"base": "7"}),
    "a property of 200": ImageQuery(properties={"batch": "2"}),
    "a property of one": ImageQuery(properties={"build": "77"}),
    "a property of none": ImageQuery(properties={"os_version": "none"}),
}
COMBINED = {
    "status, tag, property": replace(
        FILTERS["status active"], tags=("tag 7",), properties={"os_distro": "distribution 3"}
    ),
    "two tags": ImageQuery(tags=("tag 7", "rare 7")),
    "two properties": ImageQuery(
        properties={"os_distro": "distribution 3", "architecture": "x86_64"}
    ),
    "public, by name": ImageQuery(visibility="public", sort=(("name", False),)),
    "a name of many, by size": replace(FILTERS["a name of many"], sort=(("size", True),)),
    "a tag of many, by name": ImageQuery(tags=("tag 7",), sort=(("name", False),)),
    "active, by name": replace(FILTERS["status active"], sort=(("name", False),)),
}


@dataclass(frozen=True)
class Case:
    what: str
    viewer: Viewer
    query: ImageQuery
    deep: bool = False

    def found(self, database: Database, count: int) -> int:
        """How many images the page has."""
        return len(catalogue.list_page(database, self._query(count), self.viewer).images)

    def take(self, database: Database, count: int, repeats: int) -> float:
        """The median of what a page costs, of this process and the database's, in ms of CPU."""
        query = self._query(count)
        pids = [os.getpid(), *_servers(database)]
        spent = []
        for _ in range(repeats):
            before = cpu.used(pids)
            catalogue.list_page(database, query, self.viewer)
            spent.append(cpu.used(pids) - before)
        return statistics.median(spent) / 1000

    def _query(self, count: int) -> ImageQuery:
        """The query, of a catalogue of ``count`` images."""
        if not self.deep:
            return self.query
        return replace(self.query, marker=public_image(count // 2))


def _servers(database: Database) -> list[int]:
    """The process that answers the pool's one connection, if it is another."""
    if database.dialect == "sqlite":
        return []
    with database.read() as connection:
        if database.dialect == "postgresql":
            return [connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()]
        file = connection.exec_driver_sql("SELECT @@pid_file").scalar_one()
    return [int(Path(file).read_text())]


def cases() -> Iterator[tuple[str, Case]]:
    for who, viewer in VIEWERS.items():
        yield "plain list", Case(f"{who}", viewer, ImageQuery())
        yield "page from the middle", Case(f"{who}", viewer, ImageQuery(), deep=True)
        for what, query in SORTS.items():
            yield "sorted list", Case(f"{who}: {what}", viewer, query)
            yield "sorted page from the middle", Case(f"{who}: {what}", viewer, query, deep=True)
        for what, query in FILTERS.items():
            yield "filtered list", Case(f"{who}: {what}", viewer, query)
        for what, query in COMBINED.items():
            yield "filtered and sorted list", Case(f"{who}: {what}", viewer, query)


def run(plan: Plan) -> list[Row]:
    """A row for each group of lists on each database: the one that grows most."""
    rows = []
    for kind in ("SQLite", "PostgreSQL"):
        with _databases(kind, plan.disk) as databases:
            for group in GROUPS:
                rows += _rows(plan, kind, group, databases)
    return rows


def _rows(plan: Plan, kind: str, group: str, databases: dict[int, Database]) -> list[Row]:
    """The group's lists; the table has the one that grows most, and how many met the target."""
    found = []
    for case in (case for name, case in cases() if name == group):
        beside = _beside(case, databases)
        spent = interleaved(
            plan.rounds,
            {
                "large": partial(case.take, databases[LARGE], LARGE, REPEATS),
                "small": partial(beside.take, databases[SMALL], SMALL, REPEATS),
            },
        )
        found.append(
            Row(
                f"{kind}, {group} of 1,000,000 images, {case.what}: CPU",
                "ms",
                spent["large"],
                spent["small"],
                f"1,000 images ({case.what})",
                ratio_at_most(GROUPS[group]),
                listed=False,
            )
        )
    worst = max(found, key=lambda row: row.ratio or 0)
    met = f"{sum(row.met is True for row in found)} of {len(found)} met it"
    listed = replace(
        worst,
        name=f"{kind}, {group} of 1,000,000 images that grows most: CPU",
        reference_name=f"{worst.reference_name}; {met}",
        listed=True,
    )
    return [listed, *(row for row in found if row is not worst)]


def _beside(case: Case, databases: dict[int, Database]) -> Case:
    """The list of the small catalogue: the same, or a plain one if that is shorter.

    What a page of images costs that has to be read, decoded and told is no growth.
    """
    there, here = (case.found(databases[count], count) for count in (LARGE, SMALL))
    return case if here >= there else Case("", case.viewer, ImageQuery(limit=there))


@contextlib.contextmanager
def _databases(kind: str, directory: Path) -> Iterator[dict[int, Database]]:
    """A large and a small catalogue on a kind of database, which forgets at a power cut."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgresql()) if kind == "PostgreSQL" else None
        databases = {}
        for count in (SMALL, LARGE):
            file = directory / f"{count}.db"
            url = server.new() if server is not None else f"sqlite:///{file}"
            with contextlib.closing(connect(url)) as database:
                migrate.prepare(database)
            databases[count] = connect(url, connections=1)
            stack.callback(databases[count].close)
            if server is not None:
                fill_server(databases[count].engine, count)
            else:
                fill(file, count)
        yield databases
