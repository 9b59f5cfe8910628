"""The parts of the catalogue that somebody may see: no index holds their union in order."""

from dataclasses import dataclass, field

import sqlalchemy as sa

from headrace.db.conditions import holds, living, lookups, shared
from headrace.db.hints import along, exactly
from headrace.db.schema import image_members, images
from headrace.db.shape import Condition, Select, Shape
from headrace.model import Visibility


@dataclass(frozen=True, slots=True)
class View:
    """A part of the catalogue that the query lists: what ``is_in`` it, as far as ``also`` holds.

    ``column``, whose index leads to it, may be None: then it is nearly everything.  ``members`` are
    the ids of a part that is found in another table.
    """

    name: str
    is_in: Condition
    column: str | None = None
    also: Condition = field(default_factory=sa.true)
    members: Select | None = None

    def test(self, *, is_known: bool) -> Condition:
        """What holds besides; ``is_known`` if the image is one of ``members``."""
        if self.members is None or is_known:
            return self.also
        return self.also & holds(self.members, image_members)

    def lookup(self, shape: Shape) -> Select | None:
        """Its ids, if there may be better than to walk along its index."""
        if self.members is not None:
            return self.members
        is_walk = shape.sort[0][0] == "created_at" and not next(lookups(shape), None)
        if self.column is None or is_walk:
            return None
        found = sa.select(images.c.id).where(self.is_in, *living(shape, images))
        return along(found, images, f"headrace_images_{self.column}")


def views(shape: Shape) -> list[View]:
    """What the query lists; no image is in two of them."""
    visibility, owner = images.c.visibility, images.c.owner
    wanted = visibility == sa.bindparam("visibility", type_=visibility.type)
    viewer = sa.bindparam("viewer", type_=sa.String)
    one_visibility = shape.visibility not in (None, "all")
    mine = exactly(owner == viewer)
    if shape.is_admin:
        if one_visibility:
            return [View("visible", wanted, "visibility")]
        if shape.visibility == "all":
            return [View("all", sa.true())]
        listed = visibility != Visibility.COMMUNITY.value
        return [View("all", listed | mine if shape.has_project else listed)]

    open_to_all = {
        None: [Visibility.PUBLIC],
        "all": [Visibility.PUBLIC, Visibility.COMMUNITY],
        "public": [Visibility.PUBLIC],
        "community": [Visibility.COMMUNITY],
    }.get(shape.visibility, [])
    others = (owner.is_(None) | ~mine) if shape.has_project else sa.true()
    found = [View(each.value, visibility == each.value, "visibility", others)
             for each in open_to_all]  # fmt: skip
    if shape.has_project:
        found.append(View("mine", mine, "owner", wanted if one_visibility else sa.true()))
    if shape.lists_shared:
        is_shared = visibility == Visibility.SHARED.value
        found.append(View("shared", is_shared, "visibility", others, shared(shape)))
    return found or [View("none", sa.false())]


def views_by_lookup(shape: Shape) -> dict[str, Select]:
    found = {view.name: view.lookup(shape) for view in views(shape)}
    return {name: lookup for name, lookup in found.items() if lookup is not None}
