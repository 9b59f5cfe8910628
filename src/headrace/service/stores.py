"""What is said of the stores, and the removal of an image's data from one of several."""

from dataclasses import dataclass

from headrace import errors
from headrace.db import images as rows
from headrace.db import locations
from headrace.db.engine import Database
from headrace.model import Image, Location, Status
from headrace.service import policy
from headrace.service.context import Context
from headrace.service.images import Clock, Images, afresh
from headrace.stores.registry import Registry


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What is known of a store; ``properties`` are those of its type."""

    id: str
    kind: str
    description: str
    weight: int
    default: bool
    read_only: bool
    properties: dict[str, object]


class Stores:
    """The stores of one service and what of its images lies in them."""

    def __init__(
        self, database: Database, registry: Registry, images: Images, clock: Clock
    ) -> None:
        self._database = database
        self._registry = registry
        self._images = images
        self._clock = clock

    @property
    def ids(self) -> list[str]:
        """The ids of the stores that a caller may choose among; none where there is only one."""
        return [store.id for store in self._registry.all()] if self._registry.several else []

    def info(self) -> list[StoreInfo]:
        """All stores, in their order; raises NotFound where there is only one."""
        self._require_several()
        return [
            StoreInfo(
                store.id,
                store.kind,
                self._registry.label(store.id).description,
                self._registry.label(store.id).weight,
                store is self._registry.default,
                not store.writable,
                store.properties,
            )
            for store in self._registry.all()
        ]

    def detail(self, context: Context) -> list[StoreInfo]:
        """The same for administrators, with what others are not told; raises Forbidden."""
        self._require_several()
        policy.require(context, "stores_info_detail")
        return self.info()

    def delete_data(self, context: Context, store_id: str, image_id: str) -> None:
        """Remove the image's data from one store.

        Raises Conflict (no such store), ImageNotFound, Forbidden, StatusConflict (not active),
        LastLocation, NotFound (the image has no data there, or there is only one store), DataInUse.
        """
        self._require_several()
        if store_id not in self.ids:
            raise errors.Conflict(reason=f"there is no store {store_id}")
        gone = afresh(lambda: self._give_up(context, store_id, image_id))
        self._images.delete_data(image_id, [gone])

    def _give_up(self, context: Context, store_id: str, image_id: str) -> Location:
        image = rows.show(self._database, image_id, context.viewer)
        policy.require_of(context, "get_image_location", image)
        policy.require_of(context, "delete_image_location", image)
        if image.status is not Status.ACTIVE:
            raise errors.StatusConflict(
                image_id=image_id, status=image.status, expected=Status.ACTIVE
            )
        if len(image.locations) == 1:
            raise errors.LastLocation(image_id=image_id)
        location = self._location_in(image, store_id)
        if location is None:
            raise errors.NotFound(f"image {image_id} has no data in store {store_id}")
        self._registry.require_unused([location])
        locations.remove(self._database, image, location.url, self._clock())
        return location

    def _location_in(self, image: Image, store_id: str) -> Location | None:
        for location in image.locations:
            store = self._registry.find(location)
            if store is not None and store.id == store_id:
                return location
        return None

    def _require_several(self) -> None:
        if not self._registry.several:
            raise errors.NotFound("there is only one store here: enabled_backends is not set")
