"""What a list must hold, worked out from the images themselves: the reference for the SQL."""

import itertools
import operator
import random
import unicodedata
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cmp_to_key
from typing import Any

import sqlalchemy as sa

from headrace.db import catalogue, images, schema
from headrace.db.engine import Database
from headrace.model import Image, ImageQuery, Location, Op, Status, Viewer, Visibility
from tests.contract.db.examples import NOW, add_member, image

PROJECTS = ("mine", "yours", "theirs")
_COMPARE = {
    Op.EQ: operator.eq,
    Op.NEQ: operator.ne,
    Op.GT: operator.gt,
    Op.GTE: operator.ge,
    Op.LT: operator.lt,
    Op.LTE: operator.le,
}


@dataclass
class Catalogue:
    """Images in a database, and what of them is known beside: members, deleted ones."""

    database: Database
    images: list[Image] = field(default_factory=list)
    members: dict[tuple[str, str], str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def expected(self, query: ImageQuery, viewer: Viewer) -> list[Image]:
        """All that the query lists, in its order, regardless of limit and marker."""
        found = [
            each
            for each in self.images
            if each.id not in self.deleted
            and each.status is not Status.KILLED
            and each.os_hidden == query.os_hidden
            and self._is_listed(each, query, viewer)
            and all(_meets(getattr(each, f.column), f.op, f.value) for f in query.filters)
            and query.properties.items() <= each.properties.items()
            and set(query.tags) <= each.tags
        ]
        return sorted(found, key=cmp_to_key(lambda a, b: self._compare(query.sort, a, b)))

    def walk(self, query: ImageQuery, viewer: Viewer, **few: int) -> list[Image]:
        """All that is listed page by page, each page after the last image of the one before."""
        found: list[Image] = []
        while True:
            page = catalogue.list_page(self.database, query, viewer, **few)
            assert len(page.images) <= query.limit
            assert page.full == (len(page.images) == query.limit)
            found += page.images
            assert len(found) <= len(self.images), "the list does not end"
            if not page.full:
                return found
            query = replace(query, marker=found[-1].id)

    def _is_listed(self, each: Image, query: ImageQuery, viewer: Viewer) -> bool:
        if query.visibility not in (None, "all", each.visibility):
            return False
        mine = viewer.project_id is not None and each.owner == viewer.project_id
        if query.visibility is None and each.visibility is Visibility.COMMUNITY:
            return mine
        if viewer.is_admin or mine:
            return True
        if each.visibility is Visibility.SHARED:
            status = self.members.get((each.id, viewer.project_id or ""))
            return status is not None and query.member_status in ("all", status)
        return each.visibility is not Visibility.PRIVATE

    def _compare(self, sort: tuple[tuple[str, bool], ...], one: Image, other: Image) -> int:
        first = sort[0][1] if sort else True
        for name, descending in (*sort, ("created_at", first), ("id", first)):
            a, b = self._key(one, name), self._key(other, name)
            if a != b:
                return -1 if (a < b) != descending else 1
        return 0

    def _key(self, each: Image, name: str) -> Any:
        value = getattr(each, name)
        if value is None:
            return 0 if name == "size" else ""
        if isinstance(value, (int, datetime)):
            return value
        # SQLite and PostgreSQL's C.UTF-8 sort text by code points, as Python does; the collation of
        # Glance's tables on MySQL sorts capitals without accents.
        return _plain(str(value)) if self.database.dialect == "mysql" else str(value)


def make(database: Database, number: int, seed: int = 1) -> Catalogue:
    """``number`` images with much in common: ties in every sort key, NULLs, all states."""
    draw = random.Random(seed)
    on_mysql = database.dialect == "mysql"
    made = Catalogue(database)
    for count in range(number):
        status = draw.choice([*Status][:7])
        made.images.append(
            image(
                name=draw.choice([None, "", "a", "B", "b", "ä", "a,b", f"n{count}"]),
                status=status,
                visibility=draw.choice([*Visibility]),
                owner=draw.choice([*PROJECTS, None]),
                protected=draw.random() < 0.3,
                os_hidden=draw.random() < 0.2,
                size=draw.choice([None, 0, 1, 1 << 40, count]),
                virtual_size=draw.choice([None, 1]),
                checksum=draw.choice([None, "c1", "c2"]),
                os_hash_algo=draw.choice([None, "sha512"]),
                os_hash_value=draw.choice([None, "h1"]),
                container_format=draw.choice([None, "bare"]),
                disk_format=draw.choice([None, "raw", "qcow2"]),
                min_disk=draw.choice([0, 1]),
                min_ram=draw.choice([0, 512]),
                tags=frozenset(draw.sample(["x", "y", "z", "ß"], draw.randrange(4))),
                properties={
                    name: draw.choice(["", "1", "v" * 200, "v" * 200 + "w"])
                    for name in draw.sample(["p", "q", "r" if on_mysql else "Q"], draw.randrange(3))
                },
                locations=(Location(f"file:///{count}"),) * draw.randrange(2),
                created_at=NOW
                + timedelta(seconds=draw.randrange(4), microseconds=0 if on_mysql else count % 3),
                updated_at=NOW + timedelta(seconds=draw.randrange(3)),
            )
        )
        images.create(database, made.images[-1])
    for each, project in itertools.product(made.images, PROJECTS):
        if draw.random() < 0.4 and each.owner != project:
            status_of_member = draw.choice(["pending", "accepted", "rejected", "removed"])
            removed = status_of_member == "removed"
            add_member(
                database, each.id, project, "accepted" if removed else status_of_member, removed
            )
            if not removed:
                made.members[each.id, project] = status_of_member
    for each in draw.sample(made.images, number // 10):
        made.deleted.add(each.id)
        images.delete(database, each, NOW)
    with database.write() as connection:
        # As Glance may leave it: a tag twice.
        twice = next(each for each in made.images if each.tags and each.id not in made.deleted)
        connection.execute(
            sa.insert(schema.image_tags).inline(),
            {
                "image_id": twice.id,
                "value": min(twice.tags),
                "created_at": NOW,
                "deleted": False,
            },
        )
    return made


def _meets(value: Any, op: Op, wanted: Any) -> bool:
    if value is None:
        return False
    if op is Op.IN:
        return value in wanted
    return bool(_COMPARE[op](value, wanted))


def _plain(text: str) -> str:
    """Capitals without accents."""
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).upper()
