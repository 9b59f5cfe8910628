"""What of a list decides the text of its statements; all else are parameters."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from headrace.db.hints import indexes_expressions
from headrace.db.schema import VALUE_PREFIX
from headrace.model import ImageQuery, Op, Viewer

Condition = sa.ColumnElement[bool]
Select = sa.Select[*tuple[Any, ...]]

_TIE_BREAKERS = ("created_at", "id")


@dataclass(frozen=True, slots=True)
class Way:
    """What leads to the images of some views.

    Either all images of a look-up are collected, or they are met on a walk along the index
    headrace_images_<along>.
    """

    views: tuple[str, ...]
    lookup: str | None = None
    along: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """A query without its values.

    ``sort`` is complete.  ``properties`` says of each condition whether the index holds the value
    whole; ``tags`` is a number of conditions.
    """

    is_admin: bool
    has_project: bool
    visibility: str | None
    any_member_status: bool
    os_hidden: bool
    sort: tuple[tuple[str, bool], ...]
    filters: tuple[tuple[str, Op], ...]
    properties: tuple[bool, ...]
    tags: int
    after_marker: bool
    splits_nulls: bool

    @property
    def lists_shared(self) -> bool:
        """Whether images of others that are shared with the viewer belong to the list."""
        return not self.is_admin and self.has_project and self.visibility in (None, "all", "shared")


def shape_of(dialect: str, query: ImageQuery, viewer: Viewer) -> Shape:
    return Shape(
        is_admin=viewer.is_admin,
        has_project=viewer.project_id is not None,
        visibility=query.visibility,
        any_member_status=query.member_status == "all",
        os_hidden=query.os_hidden,
        sort=_complete(query.sort),
        filters=tuple((each.column, each.op) for each in query.filters),
        properties=tuple(len(value) < VALUE_PREFIX for value in query.properties.values()),
        tags=len(query.tags),
        after_marker=query.marker is not None,
        splits_nulls=not indexes_expressions(dialect),
    )


def _complete(sort: tuple[tuple[str, bool], ...]) -> tuple[tuple[str, bool], ...]:
    """The sort keys with the tie-breakers, up to the id: that is unique, nothing ties behind it."""
    descending = sort[0][1] if sort else True
    names = [name for name, _ in sort]
    keys = sort + tuple((name, descending) for name in _TIE_BREAKERS if name not in names)
    return keys[: [name for name, _ in keys].index("id") + 1]
