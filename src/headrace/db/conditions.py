"""What a list asks of its images: as tests of an image, and as look-ups that lead to images."""

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from headrace.db.hints import along, by_itself, exactly, in_index_order, of_key, unindexed
from headrace.db.orders import EXPRESSION_KEYS, SORT_KEYS, plain
from headrace.db.schema import (
    VALUE_PREFIX,
    image_members,
    image_properties,
    image_tags,
    images,
)
from headrace.db.shape import Condition, Select, Shape
from headrace.model import Op, Status

# What an equality may lead a walk by, in the order of created_at; those that leave least first.
LEADING = ("owner", "name", "visibility", "status", "container_format", "disk_format")
_INDEXED = {*SORT_KEYS, *LEADING}  # by the migrations, as headrace_images_<name>

_OPERATORS: dict[Op, Callable[[Any, Any], Condition]] = {
    Op.EQ: lambda column, value: column == value,
    Op.NEQ: lambda column, value: column != value,
    Op.GT: lambda column, value: column > value,
    Op.GTE: lambda column, value: column >= value,
    Op.LT: lambda column, value: column < value,
    Op.LTE: lambda column, value: column <= value,
}

# Filters that an index answers, but not in the order of a walk: by NEQ it would answer with all.
_LOOKED_UP = {*_INDEXED, "checksum", "os_hash_value"}


def living(shape: Shape, table: Any) -> tuple[Condition, Condition]:
    """What the indexes of lists begin with, or go on with."""
    hidden = sa.true() if shape.os_hidden else sa.false()
    return table.c.deleted == sa.false(), table.c.os_hidden == hidden


def conditions(
    shape: Shape, *, leading: str | None = None, known: str | None = None
) -> Iterator[Condition]:
    """What holds for every image of the page, whoever looks; only ``leading`` is for its index.

    That of the look-up ``known`` by itself need not be tested again.
    """
    yield images.c.status != Status.KILLED.value
    for number, (column, op) in enumerate(shape.filters):
        parameter = f"filter{number}"
        if column in (leading, shape.sort[0][0]) and op in _OPERATORS and leading is not None:
            yield _leading_filter(column, op, parameter)
        else:
            yield unindexed(_filter(column, op, parameter))
    for number, is_short in enumerate(shape.properties):
        if known != f"property{number}":
            yield holds(_with_property(number, is_short), image_properties)
    for number in range(shape.tags):
        if known != f"tag{number}":
            yield holds(_with_tag(number), image_tags)


def holds(lookup: Select, table: sa.Table) -> Condition:
    """Whether an image is among those of a look-up in ``table``."""
    return by_itself(lookup.where(table.c.image_id == images.c.id).correlate(images)).exists()


def lookups(shape: Shape) -> Iterator[tuple[str, Select]]:
    """The conditions that may hold for few images: a name, and the ids of those images."""
    for number, (column, op) in enumerate(shape.filters):
        if column in _LOOKED_UP and op is not Op.NEQ:
            yield f"filter{number}", _with_column(shape, column, op, f"filter{number}")
    for number, is_short in enumerate(shape.properties):
        yield f"property{number}", _having_property(number, is_short)
    for number in range(shape.tags):
        yield f"tag{number}", _with_tag(number)


def counted(shape: Shape) -> Iterator[tuple[str, Select]]:
    """The look-ups as far as an index goes, which holds the start of a property's value."""
    properties = {
        f"property{number}": _starting_alike(number).order_by(
            in_index_order(image_properties.c.image_id)
        )
        for number, _ in enumerate(shape.properties)
    }
    for name, lookup in lookups(shape):
        yield name, properties.get(name, lookup)


def leaders(shape: Shape) -> Iterator[tuple[str, str]]:
    """Columns that an equality may lead a walk by, each with the name of its look-up."""
    for number, (column, op) in enumerate(shape.filters):
        if column in LEADING and op is Op.EQ:
            yield column, f"filter{number}"


def shared(shape: Shape) -> Select:
    """The ids of images that the viewer is a member of."""
    found = sa.select(image_members.c.image_id).where(
        exactly(image_members.c.member == sa.bindparam("viewer", type_=sa.String)),
        unindexed(image_members.c.deleted == sa.false()),
    )
    if shape.any_member_status:
        return found
    return found.where(image_members.c.status == sa.bindparam("member_status"))


def _filter(name: str, op: Op, parameter: str) -> Condition:
    column = images.c[name]
    condition = _is(column, op, parameter)
    return exactly(condition) if op in (Op.EQ, Op.IN) else condition


def _leading_filter(name: str, op: Op, parameter: str) -> Condition:
    """A filter as a range of the index of its column."""
    if name not in EXPRESSION_KEYS:
        return _filter(name, op, parameter)
    # The index holds the key, in which NULL is empty: both conditions are needed.
    in_index = _is(EXPRESSION_KEYS[name](images.c), op, parameter)
    return unindexed(_filter(name, op, parameter)) & in_index


def _with_column(shape: Shape, name: str, op: Op, parameter: str) -> Select:
    column = images.c[name]
    key = SORT_KEYS.get(name, plain(name))(images.c)
    wanted = of_key(_is(key, op, parameter), _is(column, op, parameter))
    alive = sa.and_(*living(shape, images))
    # Only our indexes hold these two columns, those of Glance's must do without.
    lookup = sa.select(images.c.id)
    if name not in _INDEXED:
        return lookup.where(wanted, unindexed(alive))
    return along(lookup, images, f"headrace_images_{name}").where(wanted, alive)


def _is(key: Any, op: Op, parameter: str) -> Condition:
    if op is Op.IN:
        condition: Condition = key.in_(sa.bindparam(parameter, expanding=True))
        return condition
    return _OPERATORS[op](key, sa.bindparam(parameter, type_=key.type))


def _with_property(number: int, is_short: bool) -> Select:
    """The images with a property, to be tested one by one."""
    if is_short:
        # One place in the index, and no row: those of an image's properties lie apart from others'.
        return along(
            _having_property(number, is_short),
            image_properties,
            "headrace_image_properties_value",
            "sqlite",
        )
    table = image_properties.c
    return sa.select(table.image_id).where(
        exactly(table.name == sa.bindparam(f"property{number}")),
        unindexed(_has_value(number)),
        unindexed(table.deleted == sa.false()),
    )


def _having_property(number: int, is_short: bool) -> Select:
    """The images with a property, to be looked up."""
    whole = unindexed(_has_value(number))
    return _starting_alike(number).where(of_key(sa.true(), whole) if is_short else whole)


def _starting_alike(number: int) -> Select:
    """The images with a property as far as the index tells."""
    table = image_properties.c
    value: sa.BindParameter[str] = sa.bindparam(f"value{number}", type_=sa.Text)
    return sa.select(table.image_id).where(
        exactly(table.name == sa.bindparam(f"property{number}")),
        of_key(_starts_alike(number), table.value == value),
        table.deleted == sa.false(),
    )


def _has_value(number: int) -> Condition:
    return exactly(image_properties.c.value == sa.bindparam(f"value{number}"))


def _starts_alike(number: int) -> Condition:
    """What the index holds of a value; of a short one that is all."""
    start = sa.func.substr(
        image_properties.c.value, sa.literal_column("1"), sa.literal_column(str(VALUE_PREFIX))
    )
    return start == sa.bindparam(f"prefix{number}", type_=sa.Text)


def _with_tag(number: int) -> Select:
    return sa.select(image_tags.c.image_id).where(
        exactly(image_tags.c.value == sa.bindparam(f"tag{number}")),
        unindexed(image_tags.c.deleted == sa.false()),
    )
