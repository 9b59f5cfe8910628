"""The statement of a page: what each way leads to, merged."""

from collections.abc import Iterator
from functools import lru_cache

import sqlalchemy as sa

from headrace.db import rows
from headrace.db.conditions import conditions, living, lookups
from headrace.db.hints import along, among, by_itself, unindexed
from headrace.db.orders import behind, order, stretches
from headrace.db.schema import images
from headrace.db.shape import Condition, Select, Shape, Way
from headrace.db.views import View, views, views_by_lookup

_LIMIT: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)


@lru_cache(maxsize=256)
def page(shape: Shape, ways: tuple[Way, ...]) -> Select:
    """The statement of one page, of ``limit`` images at most."""
    found = [select.limit(_LIMIT) for way in ways for select in _selects(shape, way)]
    if len(found) == 1:
        return found[0]
    merged = sa.union_all(*(sa.select(select.subquery()) for select in found)).subquery()
    return sa.select(merged).order_by(*order(shape, merged.c)).limit(_LIMIT)


def _selects(shape: Shape, way: Way) -> Iterator[Select]:
    """The images that a way leads to in their order, in selects that have none in common."""
    listed = [view for view in views(shape) if view.name in way.views]
    if way.lookup is not None:
        yield _collection(shape, listed, way.lookup)
    else:
        assert way.along is not None
        yield from _walks(shape, listed, way.along)


def _collection(shape: Shape, listed: list[View], name: str) -> Select:
    """All images of a look-up that are on the page, sorted."""
    lookup = (dict(lookups(shape)) | views_by_lookup(shape))[name]
    if images not in lookup.get_final_froms():
        by_id = along(sa.select(images.c.id), images, "headrace_images_id", "sqlite")
        lookup = by_id.where(among(images.c.id, lookup), *living(shape, images))
    tests = [*_are_listed(listed, known=name), *conditions(shape, known=name), behind(shape)]
    columns = {"id", "created_at", *(key for key, _ in shape.sort)}
    found = by_itself(
        lookup.with_only_columns(*(images.c[each] for each in sorted(columns)))
        .where(*(unindexed(test) for test in tests))
    ).subquery()  # fmt: skip
    # Sorted without the other columns, which are read of those alone that are on the page.
    ids = sa.select(found.c.id).order_by(*order(shape, found.c)).limit(_LIMIT).subquery()
    return (
        sa.select(*rows.COLUMNS)
        .where(among(images.c.id, sa.select(ids.c.id)))
        .order_by(*order(shape, images.c))
    )


def _walks(shape: Shape, listed: list[View], leading: str) -> Iterator[Select]:
    """Walks along an index that test each image, one for each of its stretches."""
    is_own = [view.column for view in listed] == [leading]
    first, *others = _are_listed(listed)
    walk = along(sa.select(*rows.COLUMNS), images, f"headrace_images_{leading}").where(
        *living(shape, images),
        listed[0].is_in if is_own else unindexed(first),
        *conditions(shape, leading=leading),
        *(unindexed(other) for other in others),
    )
    for stretch, by in stretches(shape):
        yield walk.where(stretch).order_by(*by)


def _are_listed(listed: list[View], known: str | None = None) -> Iterator[Condition]:
    """Whether an image is in one of these views, as the index tells, and then as a look tells.

    Members of that view need not be looked for of which they are ``known``.
    """
    yield sa.or_(*(view.is_in for view in listed))
    yield sa.or_(*(view.is_in & view.test(is_known=view.name == known) for view in listed))
