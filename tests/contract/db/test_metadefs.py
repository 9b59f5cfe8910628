"""Rows of metadata definitions."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import definitions, metadefs, resource_types, schema
from headrace.db.engine import Database
from headrace.model import (
    AS_ADDED,
    Association,
    Merge,
    MetadefObject,
    MetadefProperty,
    MetadefTag,
    Namespace,
    NamespaceQuery,
    Paging,
    Viewer,
)
from tests.contract.db.examples import ADMIN, LATER, NOW, statements

TIMES: dict[str, Any] = {"created_at": NOW, "updated_at": NOW}
TABLES = [
    schema.metadef_namespaces,
    schema.metadef_properties,
    schema.metadef_objects,
    schema.metadef_tags,
    schema.metadef_namespace_resource_types,
    schema.metadef_resource_types,
]


def prop(name: str, **definition: object) -> MetadefProperty:
    return MetadefProperty(
        name=name, definition={"title": name, "type": "string", **definition}, **TIMES
    )


def obj(name: str, **values: Any) -> MetadefObject:
    return MetadefObject(name=name, **TIMES, **values)


def tag(name: str) -> MetadefTag:
    return MetadefTag(name=name, **TIMES)


def about(name: str, **values: Any) -> Association:
    return Association(name=name, **TIMES, **values)


def namespace(name: str = "ns", **values: Any) -> Namespace:
    return Namespace(**{"namespace": name, "owner": "mine", **TIMES, **values})


WHOLE = namespace(
    display_name="dïsplay",
    description="text",
    visibility="public",
    properties=(prop("p", enum=["a", "ä"], default="a"), prop("a")),
    objects=(
        obj("o", description="d", required=("x", "y"), properties={"x": {"title": "X"}}),
        obj("b"),
    ),
    tags=(tag("t"), tag("s")),
    associations=(about("Q"), about("R", prefix="r_", properties_target="x")),
)


def rows(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    with database.read() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def test_a_namespace_is_shown_as_it_was_recorded(database: Database) -> None:
    metadefs.create(database, WHOLE)
    assert metadefs.show(database, "ns", ADMIN) == WHOLE
    assert metadefs.show_all(database) == [WHOLE]


def test_rows_are_as_glance_writes_them(database: Database) -> None:
    metadefs.create(database, WHOLE)
    (row,) = rows(database, schema.metadef_namespaces)
    assert row == {
        "id": row["id"], "namespace": "ns", "display_name": "dïsplay", "description": "text",
        "visibility": "public", "protected": False, "owner": "mine", "created_at": NOW,
        "updated_at": NOW,
    }  # fmt: skip
    first, second = rows(database, schema.metadef_objects)
    assert (first["namespace_id"], first["required"]) == (row["id"], "x,y")
    assert json.loads(first["json_schema"]) == {"x": {"title": "X"}}
    assert (second["required"], second["json_schema"]) == (None, "{}")
    assert json.loads(rows(database, schema.metadef_properties)[0]["json_schema"]) == {
        "title": "p", "type": "string", "enum": ["a", "ä"], "default": "a",
    }  # fmt: skip
    assert [row["protected"] for row in rows(database, schema.metadef_resource_types)] == [
        False,
        False,
    ]
    pair = rows(database, schema.metadef_namespace_resource_types)[1]
    assert (pair["prefix"], pair["properties_target"]) == ("r_", "x")


def test_what_glances_loader_leaves_out_is_shown_all_the_same(database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            sa.insert(schema.metadef_namespaces),
            {"id": 7, "namespace": "theirs", "owner": "admin", "created_at": NOW},
        )
        common = {"namespace_id": 7, "created_at": NOW}
        connection.execute(
            sa.insert(schema.metadef_objects).inline(),
            [
                {**common, "name": "null", "json_schema": "null"},
                {
                    **common,
                    "name": "full",
                    "json_schema": '{"p": {"title": "P", "default": 5, "pattern": null}}',
                },
            ],
        )
        connection.execute(
            sa.insert(schema.metadef_properties).inline(),
            {**common, "name": "p", "json_schema": '{"name": "old", "title": "P", "default": 1}'},
        )
    found = metadefs.show(database, "theirs", ADMIN)
    assert (found.visibility, found.protected, found.updated_at) == ("private", False, NOW)
    assert [each.properties for each in found.objects] == [
        {},
        {"p": {"title": "P", "default": "5"}},
    ]
    assert found.properties[0].definition == {"title": "P", "default": "1"}


def test_names_are_taken_once(database: Database) -> None:
    metadefs.create(database, WHOLE)
    metadefs.create(database, namespace("other"))
    with pytest.raises(errors.NamespaceExists):
        metadefs.create(database, WHOLE)
    with pytest.raises(errors.NamespaceExists):
        metadefs.update(database, "other", namespace("ns"), ADMIN)
    for part in (prop("p"), obj("o"), tag("t")):
        with pytest.raises(errors.DefinitionExists):
            definitions.create(database, "ns", part, ADMIN)
    for part in (prop("p"), obj("o"), tag("t")):
        definitions.create(database, "other", part, ADMIN)
    with pytest.raises(errors.DefinitionExists):
        resource_types.associate(database, "ns", about("R"), ADMIN)
    with pytest.raises(errors.DefinitionExists):
        definitions.update(database, "ns", "p", prop("a"), ADMIN)
    assert metadefs.show(database, "ns", ADMIN) == WHOLE


def test_an_error_names_what_is_there_twice(database: Database) -> None:
    metadefs.create(database, WHOLE)
    with pytest.raises(errors.DefinitionExists, match="tag t already"):
        definitions.create(database, "ns", tag("t"), ADMIN)
    many = [tag(f"{number}") for number in range(9)]
    with pytest.raises(errors.DefinitionExists, match="tag 0 or 1 or 2 or 3 or 4 or another"):
        definitions.set_tags(database, "ns", [*many, tag("s")], ADMIN, append=True)
    assert metadefs.show(database, "ns", ADMIN) == WHOLE


def test_an_update_keeps_when_it_was_created(database: Database) -> None:
    metadefs.create(database, WHOLE)
    later: dict[str, Any] = {"created_at": LATER, "updated_at": LATER}
    changed = Namespace(namespace="new", owner="yours", protected=True, **later)
    found = metadefs.update(database, "ns", changed, ADMIN)
    assert (found.namespace, found.owner, found.display_name) == ("new", "yours", None)
    assert (found.created_at, found.updated_at, found.protected) == (NOW, LATER, True)
    part = definitions.update(database, "new", "t", MetadefTag(name="u", **later), ADMIN)
    assert part == MetadefTag(name="u", created_at=NOW, updated_at=LATER)
    shown = metadefs.show(database, "new", ADMIN)
    assert shown.objects == WHOLE.objects
    assert [each.name for each in shown.tags] == ["u", "s"]


def test_a_deleted_namespace_takes_all_with_it_but_resource_types(database: Database) -> None:
    metadefs.create(database, WHOLE)
    metadefs.create(database, namespace("other", tags=(tag("t"),)))
    metadefs.delete(database, "ns", ADMIN)
    assert [len(rows(database, table)) for table in TABLES] == [1, 0, 0, 1, 0, 2]


def test_nothing_is_deleted_from_a_protected_namespace(database: Database) -> None:
    metadefs.create(database, WHOLE)
    metadefs.update(database, "ns", namespace(protected=True), ADMIN)
    before = metadefs.show(database, "ns", ADMIN)
    for attempt in (
        lambda: metadefs.delete(database, "ns", ADMIN),
        lambda: definitions.delete(database, MetadefTag, "ns", "t", ADMIN),
        lambda: definitions.delete_all(database, MetadefObject, "ns", ADMIN),
        lambda: definitions.set_tags(database, "ns", [tag("t")], ADMIN, append=False),
        lambda: resource_types.dissociate(database, "ns", "R", ADMIN),
    ):
        with pytest.raises(errors.NamespaceProtected):
            attempt()
    assert metadefs.show(database, "ns", ADMIN) == before


@pytest.mark.parametrize("sort_key", ["namespace", "display_name", "updated_at", "created_at"])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_hold_each_namespace_once_in_order(
    database: Database, sort_key: str, descending: bool
) -> None:
    made = []
    for number in range(11):
        at = NOW + timedelta(seconds=number % 3)
        made.append(
            namespace(
                f"n{number * 7 % 11}",
                display_name=[None, "", "b", "a"][number % 4],
                created_at=at,
                updated_at=at,
            )
        )
        metadefs.create(database, made[-1])
    with database.write() as connection:
        connection.execute(
            sa.update(schema.metadef_namespaces)
            .where(schema.metadef_namespaces.c.id % 2 == 0)
            .values(updated_at=None)
        )

    def key(item: tuple[int, Namespace]) -> tuple[Any, ...]:
        return getattr(item[1], sort_key) or "", item[1].created_at, item[0]

    expected = [each.namespace for _, each in sorted(enumerate(made), key=key, reverse=descending)]
    found: list[str] = []
    marker = None
    while True:
        paging = Paging(limit=3, marker=marker, sort_key=sort_key, descending=descending)
        page = metadefs.list_namespaces(database, NamespaceQuery(paging=paging), ADMIN)
        found += [each.namespace for each in page]
        if len(page) < 3:
            break
        marker = page[-1].namespace
    assert found == expected


def test_a_page_costs_the_same_however_many_there_are(database: Database) -> None:
    for number in range(12):
        metadefs.create(database, namespace(f"n{number}", associations=(about(f"R{number % 4}"),)))
    for limit in (1, 12):
        paging = Paging(limit=limit, marker="n11")
        with statements(database) as seen:
            metadefs.list_namespaces(database, NamespaceQuery(paging=paging), ADMIN)
        assert len(seen) == 3


def test_a_resource_type_is_recorded_once(database: Database) -> None:
    for number in range(8):
        metadefs.create(database, namespace(f"n{number}"))
    with ThreadPoolExecutor(8) as pool:
        for done in [
            pool.submit(resource_types.associate, database, f"n{number}", about("R"), ADMIN)
            for number in range(8)
        ]:
            done.result()
    assert [each.name for each in resource_types.list_types(database)] == ["R"]
    assert all(
        resource_types.list_associations(database, f"n{number}", ADMIN) == [about("R")]
        for number in range(8)
    )


NEWER = Namespace(
    namespace="ns",
    owner="admin",
    description="new",
    created_at=LATER,
    updated_at=LATER,
    properties=(
        MetadefProperty(name="p", definition={"title": "N"}, created_at=LATER, updated_at=LATER),
        MetadefProperty(name="z", definition={"title": "Z"}, created_at=LATER, updated_at=LATER),
    ),
    tags=(MetadefTag(name="z", created_at=LATER, updated_at=LATER),),
    associations=(
        Association(name="R", prefix="n_", created_at=LATER, updated_at=LATER),
        Association(name="Z", created_at=LATER, updated_at=LATER),
    ),
)


@pytest.fixture
def loaded(database: Database) -> Database:
    assert metadefs.load(database, WHOLE, Merge.SKIP)
    return database


def test_loading_leaves_what_is_there(loaded: Database) -> None:
    assert not metadefs.load(loaded, NEWER, Merge.SKIP)
    assert metadefs.show(loaded, "ns", ADMIN) == WHOLE
    assert all(row["protected"] for row in rows(loaded, schema.metadef_resource_types))


def test_merging_adds_what_is_missing(loaded: Database) -> None:
    assert metadefs.load(loaded, NEWER, Merge.ADD)
    found = metadefs.show(loaded, "ns", ADMIN)
    assert found.description == "text"
    assert [each.name for each in found.properties] == ["p", "a", "z"]
    assert found.properties[:2] == WHOLE.properties
    assert found.objects == WHOLE.objects
    assert [each.name for each in found.tags] == ["t", "s", "z"]
    assert [(each.name, each.prefix) for each in found.associations] == [
        ("Q", None), ("R", "r_"), ("Z", None),
    ]  # fmt: skip


def test_merging_may_prefer_the_new(loaded: Database) -> None:
    assert metadefs.load(loaded, NEWER, Merge.PREFER_NEW)
    found = metadefs.show(loaded, "ns", ADMIN)
    assert (found.description, found.display_name, found.owner) == ("new", None, "admin")
    assert found.properties[0].definition == {"title": "N"}
    assert (found.properties[0].created_at, found.properties[0].updated_at) == (NOW, LATER)
    assert [each.name for each in found.properties] == ["p", "a", "z"]
    assert found.objects == WHOLE.objects
    assert [(each.name, each.prefix) for each in found.associations] == [
        ("Q", None), ("R", "n_"), ("Z", None),
    ]  # fmt: skip


def test_merging_may_overwrite(loaded: Database) -> None:
    assert metadefs.load(loaded, NEWER, Merge.OVERWRITE)
    assert metadefs.show(loaded, "ns", ADMIN) == NEWER


def test_unloading_leaves_nothing(loaded: Database) -> None:
    metadefs.update(loaded, "ns", namespace(protected=True), ADMIN)
    metadefs.unload(loaded)
    assert [rows(loaded, table) for table in TABLES] == [[]] * 6


def test_parts_have_pages_too(database: Database) -> None:
    metadefs.create(database, namespace(tags=tuple(tag(name) for name in "cab")))
    by_name = Paging(limit=2, sort_key="name", descending=False)

    def found(paging: Paging) -> list[str]:
        return [
            each.name for each in definitions.list_parts(database, MetadefTag, "ns", ADMIN, paging)
        ]

    assert found(AS_ADDED) == ["c", "a", "b"]
    assert found(by_name) == ["a", "b"]
    assert found(Paging(limit=2, sort_key="name", descending=False, marker="b")) == ["c"]
    assert found(Paging()) == ["b", "a", "c"]
    with pytest.raises(errors.DefinitionNotFound):
        found(Paging(marker="x"))


@pytest.mark.parametrize("other", ["Mine", "mïne", "mine "])
def test_a_project_of_nearly_the_same_name_is_another(database: Database, other: str) -> None:
    metadefs.create(database, namespace(visibility="private"))
    assert metadefs.show(database, "ns", Viewer("mine")).owner == "mine"
    with pytest.raises(errors.NamespaceNotFound):
        metadefs.show(database, "ns", Viewer(other))
    assert metadefs.list_namespaces(database, NamespaceQuery(), Viewer(other)) == []
