"""Lists, on every kind of database, against a reference that knows no SQL."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from headrace import errors
from headrace.db import catalogue, images, migrate, schema
from headrace.db.engine import Database, connect
from headrace.model import Filter, ImageQuery, Op, Viewer
from tests.conftest import KINDS, NewDatabase
from tests.contract.db.examples import ADMIN, NOW, image, statements
from tests.contract.db.listing import PROJECTS, Catalogue, make

VIEWERS = [ADMIN, Viewer("mine", is_admin=True), *map(Viewer, PROJECTS), Viewer("new"), Viewer()]
SORT_KEYS = (
    "name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at",
)  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[Catalogue]:
    """A catalogue that no test changes."""
    database = connect(new_database(request.param))
    migrate.prepare(database)
    yield make(database, 60)
    database.close()


def check(made: Catalogue, query: ImageQuery, viewer: Viewer, **few: int) -> None:
    assert made.walk(query, viewer, **few) == made.expected(query, viewer), (query, viewer)


def test_lists_by_visibility(made: Catalogue) -> None:
    listed = 0
    for viewer in VIEWERS:
        for visibility in (None, "all", "public", "private", "shared", "community"):
            for member_status in ("accepted", "pending", "rejected", "all"):
                for hidden in (False, True):
                    query = ImageQuery(
                        visibility=visibility, member_status=member_status, os_hidden=hidden
                    )
                    check(made, query, viewer)
                    listed += len(made.expected(query, viewer))
    assert listed > 1000


def test_lists_by_visibility_when_much_is_shared(made: Catalogue) -> None:
    for project in PROJECTS:
        for visibility in (None, "all", "shared"):
            check(made, ImageQuery(visibility=visibility, limit=7), Viewer(project), few=2)


@pytest.mark.parametrize("viewer", [ADMIN, Viewer("mine")], ids=["admin", "project"])
@pytest.mark.parametrize("key", SORT_KEYS)
def test_pages_in_every_order(made: Catalogue, key: str, viewer: Viewer) -> None:
    for descending in (False, True):
        for limit in (1, 7, 60):
            check(made, ImageQuery(limit=limit, sort=((key, descending),)), viewer)


@pytest.mark.parametrize(
    "sort",
    [
        (),
        (("created_at", False),),
        (("status", False), ("size", True)),
        (("status", False), ("size", False)),
        (("name", True), ("disk_format", False), ("updated_at", True)),
        (("disk_format", True), ("id", False)),
        (("disk_format", True), ("container_format", True), ("size", True)),
        (("id", False), ("name", True)),
        (("created_at", True), ("name", False), ("id", True)),
    ],
)
def test_pages_by_several_keys(made: Catalogue, sort: tuple[tuple[str, bool], ...]) -> None:
    for viewer in (ADMIN, Viewer("mine")):
        check(made, ImageQuery(limit=5, sort=sort), viewer)


FILTERS = [
    (Filter("name", Op.EQ, "a"),),
    (Filter("name", Op.EQ, ""),),
    (Filter("name", Op.IN, ["a", "a,b", "none"]),),
    (Filter("status", Op.EQ, "active"),),
    (Filter("status", Op.EQ, "killed"),),
    (Filter("status", Op.IN, ["queued", "killed"]),),
    (Filter("id", Op.EQ, "nothing"),),
    (Filter("disk_format", Op.EQ, "raw"), Filter("container_format", Op.EQ, "bare")),
    (Filter("disk_format", Op.IN, ["raw", ""]),),
    (Filter("owner", Op.EQ, "mine"),),
    (Filter("owner", Op.IN, ["mine", "yours"]),),
    (Filter("checksum", Op.EQ, "c1"),),
    (Filter("os_hash_value", Op.EQ, "h1"), Filter("os_hash_algo", Op.EQ, "sha512")),
    (Filter("size", Op.EQ, 0),),
    (Filter("size", Op.GTE, 1), Filter("size", Op.LTE, 1 << 39)),
    (Filter("size", Op.GTE, 10**30),),
    (Filter("size", Op.LTE, 10**30),),
    (Filter("min_ram", Op.GT, 0), Filter("min_disk", Op.LT, 1)),
    (Filter("protected", Op.EQ, True),),
    (Filter("created_at", Op.GTE, NOW + timedelta(seconds=2)),),
    (Filter("created_at", Op.EQ, NOW + timedelta(seconds=2, microseconds=1)),),
    (Filter("updated_at", Op.NEQ, NOW), Filter("updated_at", Op.LTE, NOW + timedelta(seconds=1))),
    (Filter("updated_at", Op.EQ, NOW),),
]


@pytest.mark.parametrize("filters", FILTERS, ids=lambda found: ",".join(
    f"{each.column} {each.op}" for each in found))  # fmt: skip
def test_filters_by_column(made: Catalogue, filters: tuple[Filter, ...]) -> None:
    for viewer in (ADMIN, Viewer("mine")):
        check(made, ImageQuery(limit=4, filters=filters, visibility="all"), viewer)


def test_filters_by_id(made: Catalogue) -> None:
    some = [each.id for each in made.images[::5]]
    for viewer in (ADMIN, Viewer("mine")):
        for value, op in ((some[0], Op.EQ), (some, Op.IN)):
            check(made, ImageQuery(filters=(Filter("id", op, value),), limit=3), viewer)


CONDITIONS = [
    ({"p": "1"}, ()),
    ({"p": ""}, ()),
    ({"p": "v" * 200}, ()),
    ({"p": "v" * 200 + "w"}, ()),
    ({"P": "1"}, ()),
    ({"p": "1", "q": "1"}, ()),
    ({}, ("x",)),
    ({}, ("ß", "y")),
    ({}, ("x", "x")),
    ({}, ("X",)),
    ({"q": "1"}, ("x", "z")),
]


@pytest.mark.parametrize(("properties", "tags"), CONDITIONS)
def test_filters_by_property_and_tag(
    made: Catalogue, properties: dict[str, str], tags: tuple[str, ...]
) -> None:
    for viewer in (ADMIN, Viewer("mine")):
        check(made, ImageQuery(properties=properties, tags=tags, limit=3), viewer)


@pytest.mark.parametrize(("properties", "tags"), CONDITIONS)
def test_filters_by_property_and_tag_that_are_common(
    made: Catalogue, properties: dict[str, str], tags: tuple[str, ...]
) -> None:
    for viewer in (ADMIN, Viewer("mine")):
        query = ImageQuery(
            properties=properties,
            tags=tags,
            limit=3,
            sort=(("disk_format", False),),
            filters=(Filter("owner", Op.IN, ["mine", "yours"]),),
        )
        check(made, query, viewer, few=2)


@pytest.mark.parametrize("few", [2, 100])
def test_values_are_told_apart_where_the_index_ends(database: Database, few: int) -> None:
    """It holds the start of a property's value, which may be all of it."""
    end = schema.VALUE_PREFIX
    values = ["ä" * (end + more) + last for more in (-2, -1, 0, 1) for last in "xy"]
    values += ["ä" * end, "Ä" * (end - 1), "a" * (end - 1)]
    for value in values:
        images.create(database, image(properties={"p": value, "q": "same"}))
    for value in values:
        query = ImageQuery(properties={"p": value, "q": "same"})
        page = catalogue.list_page(database, query, ADMIN, few=few)
        assert [each.properties["p"] for each in page.images] == [value]


def test_a_removed_property_or_tag_does_not_match(database: Database) -> None:
    before = image(properties={"p": "1"}, tags=frozenset("x"))
    images.create(database, before)
    images.update(database, before, replace(before, properties={}, tags=frozenset()))
    for query in (ImageQuery(properties={"p": "1"}), ImageQuery(tags=("x",))):
        assert catalogue.list_page(database, query, ADMIN).images == []


def test_nothing_is_asked_for(made: Catalogue) -> None:
    page = catalogue.list_page(made.database, ImageQuery(limit=0), ADMIN)
    assert (page.images, page.full) == ([], False)


def test_a_marker_must_be_visible(made: Catalogue) -> None:
    hidden = [
        *made.deleted,
        *(
            each.id
            for each in made.images
            if each.visibility == "private" and each.owner not in ("mine", None)
        ),
        "nothing",
        "",
    ]
    assert len(hidden) > 5
    for marker in hidden:
        with pytest.raises(errors.MarkerNotFound):
            catalogue.list_page(made.database, ImageQuery(marker=marker), Viewer("mine"))


def test_a_marker_need_not_be_listed(made: Catalogue) -> None:
    """It says where to go on, as it does when its image is filtered out between two pages."""
    query = ImageQuery(filters=(Filter("status", Op.EQ, "active"),))
    everything = made.expected(ImageQuery(), ADMIN)
    wanted = {each.id for each in made.expected(query, ADMIN)}
    for position, marker in enumerate(everything):
        if marker.id not in wanted:
            page = catalogue.list_page(made.database, replace(query, marker=marker.id), ADMIN)
            rest = [each.id for each in everything[position:] if each.id in wanted]
            assert [each.id for each in page.images] == rest[: query.limit]


@pytest.mark.parametrize("limit", [1, 10, 60])
def test_a_page_costs_the_same_whatever_its_size(made: Catalogue, limit: int) -> None:
    marker = made.expected(ImageQuery(), ADMIN)[0].id
    cases = [
        (ImageQuery(limit=limit), ADMIN, 2),
        (ImageQuery(limit=limit, marker=marker), ADMIN, 3),
        (ImageQuery(limit=limit, tags=("x", "y"), properties={"p": "1"}), ADMIN, 3),
        (ImageQuery(limit=limit), Viewer("mine"), 3),
    ]
    for query, viewer, number in cases:
        with statements(made.database) as seen:
            page = catalogue.list_page(made.database, query, viewer)
        assert len(seen) == number - (not page.images)
