"""Who sees which definitions, and who may change them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.model import (
    AS_ADDED,
    Association,
    MetadefObject,
    MetadefProperty,
    MetadefTag,
    Namespace,
    NamespaceQuery,
    Paging,
)
from headrace.service.context import Context
from headrace.service.metadefs import Metadefs
from tests.service.callers import NOBODY, reader, without_roles
from tests.service.conftest import ADMIN, Clock
from tests.service.test_races import concurrently
from tests.sqlite import prepared

MINE, THEIRS = reader("mine"), reader("theirs")
CLOCK = Clock()


@pytest.fixture
def metadefs(tmp_path: Path) -> Iterator[Metadefs]:
    database = prepared(tmp_path / "headrace.db")
    yield Metadefs(database, CLOCK)
    database.close()


def times() -> dict[str, object]:
    now = CLOCK()
    return {"created_at": now, "updated_at": now}


def tag(name: str = "t") -> MetadefTag:
    return MetadefTag(name=name, **times())


def whole(name: str, **values: object) -> Namespace:
    return Namespace(
        **{
            "namespace": name,
            "owner": "mine",
            "properties": (
                MetadefProperty(name="p", definition={"title": "P", "type": "string"}, **times()),
            ),
            "objects": (MetadefObject(name="o", **times()),),
            "tags": (tag(),),
            "associations": (Association(name="R", prefix="r_", **times()),),
            **times(),
            **values,
        }  # type: ignore[arg-type]
    )


def listed(metadefs: Metadefs, context: Context, **query: object) -> set[str]:
    found = metadefs.list_namespaces(context, NamespaceQuery(**query))  # type: ignore[arg-type]
    return {each.namespace for each in found}


@pytest.fixture
def three(metadefs: Metadefs) -> Metadefs:
    """A public namespace of others, a private one of one's own and a private one of others."""
    metadefs.create_namespace(ADMIN, whole("public", owner="theirs", visibility="public"))
    metadefs.create_namespace(ADMIN, whole("own"))
    metadefs.create_namespace(ADMIN, whole("hidden", owner="theirs"))
    return metadefs


def test_private_namespaces_of_others_are_not_listed(three: Metadefs) -> None:
    assert listed(three, ADMIN) == {"public", "own", "hidden"}
    assert listed(three, MINE) == {"public", "own"}
    assert listed(three, THEIRS) == {"public", "hidden"}
    for context in (NOBODY, without_roles("mine")):
        with pytest.raises(errors.Forbidden):
            listed(three, context)
    assert listed(three, MINE, visibility="private") == {"own"}
    assert listed(three, MINE, resource_types=("R",)) == {"public", "own"}
    with pytest.raises(errors.NamespaceNotFound):
        listed(three, MINE, paging=Paging(marker="hidden"))


READS: list[Callable[[Metadefs, Context, str], object]] = [
    lambda found, context, name: found.show_namespace(context, name),
    lambda found, context, name: found.list_parts(context, MetadefProperty, name, AS_ADDED),
    lambda found, context, name: found.show_part(context, MetadefProperty, name, "p"),
    lambda found, context, name: found.show_prefixed_property(context, name, "r_p", "R"),
    lambda found, context, name: found.list_parts(context, MetadefObject, name, AS_ADDED),
    lambda found, context, name: found.show_part(context, MetadefObject, name, "o"),
    lambda found, context, name: found.list_parts(context, MetadefTag, name, AS_ADDED),
    lambda found, context, name: found.show_part(context, MetadefTag, name, "t"),
    lambda found, context, name: found.list_associations(context, name),
]

WRITES: list[Callable[[Metadefs, Context, str], object]] = [
    lambda found, context, name: found.update_namespace(context, name, whole("changed")),
    lambda found, context, name: found.delete_namespace(context, name),
    lambda found, context, name: found.create_part(context, name, tag("new")),
    lambda found, context, name: found.update_part(context, name, "t", tag("new")),
    lambda found, context, name: found.delete_part(context, MetadefProperty, name, "p"),
    lambda found, context, name: found.delete_part(context, MetadefObject, name, "o"),
    lambda found, context, name: found.delete_part(context, MetadefTag, name, "t"),
    lambda found, context, name: found.delete_parts(context, MetadefProperty, name),
    lambda found, context, name: found.delete_parts(context, MetadefObject, name),
    lambda found, context, name: found.delete_parts(context, MetadefTag, name),
    lambda found, context, name: found.set_tags(context, name, [tag("new")], append=True),
    lambda found, context, name: found.associate(context, name, Association(name="S", **times())),  # type: ignore[arg-type]
    lambda found, context, name: found.dissociate(context, name, "R"),
]


@pytest.mark.parametrize("read", READS)
def test_what_one_sees_one_can_read_and_nothing_else(
    three: Metadefs, read: Callable[[Metadefs, Context, str], object]
) -> None:
    for context, name in ((ADMIN, "hidden"), (MINE, "own"), (MINE, "public")):
        read(three, context, name)
    nobody = without_roles("mine")
    for context, name in (
        (MINE, "hidden"),
        (NOBODY, "public"),
        (nobody, "own"),
        (nobody, "public"),
        (ADMIN, "nothing"),
    ):
        with pytest.raises(errors.NamespaceNotFound):
            read(three, context, name)


@pytest.mark.parametrize("write", WRITES)
def test_only_administrators_write_definitions(
    three: Metadefs, write: Callable[[Metadefs, Context, str], object]
) -> None:
    """OSSN-0088: not even one's own, and what one does not see one is not told about."""
    before = [three.show_namespace(ADMIN, name) for name in ("public", "own", "hidden")]
    for context, name in ((MINE, "own"), (MINE, "public")):
        with pytest.raises(errors.Forbidden):
            write(three, context, name)
    for context, name in (
        (MINE, "hidden"),
        (NOBODY, "own"),
        (NOBODY, "public"),
        (MINE, "nothing"),
    ):
        with pytest.raises(errors.NamespaceNotFound):
            write(three, context, name)
    assert [three.show_namespace(ADMIN, name) for name in ("public", "own", "hidden")] == before
    write(three, ADMIN, "own")


def test_only_administrators_create_namespaces(metadefs: Metadefs) -> None:
    """OSSN-0088."""
    with pytest.raises(errors.Forbidden):
        metadefs.create_namespace(MINE, whole("new"))
    assert listed(metadefs, ADMIN) == set()


def test_a_protected_namespace_is_never_deleted(metadefs: Metadefs) -> None:
    for _ in range(30):
        metadefs.create_namespace(ADMIN, whole("raced"))
        protected, deleted = concurrently(
            lambda: metadefs.update_namespace(ADMIN, "raced", whole("raced", protected=True)),
            lambda: metadefs.delete_namespace(ADMIN, "raced"),
        )
        # Exactly one of them was told that it succeeded.
        assert (protected is None) != (deleted is None)
        if protected is None:
            metadefs.update_namespace(ADMIN, "raced", whole("raced"))
            metadefs.delete_namespace(ADMIN, "raced")


def test_of_two_that_take_a_name_one_has_it(metadefs: Metadefs) -> None:
    for number in range(20):
        name = f"n{number}"
        outcomes = concurrently(
            lambda name=name: metadefs.create_namespace(ADMIN, whole(name)),
            lambda name=name: metadefs.create_namespace(ADMIN, whole(name)),
        )
        assert sorted(map(type, outcomes), key=str) == sorted(
            [type(None), errors.NamespaceExists], key=str
        )
        assert len(metadefs.show_namespace(ADMIN, name).tags) == 1
