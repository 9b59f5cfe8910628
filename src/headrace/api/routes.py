"""Every path the service answers, and who answers it."""

import falcon

from headrace.api.delivery import Delivery
from headrace.api.handlers import metadefs as metadef_handlers
from headrace.api.handlers import schemas
from headrace.api.handlers.actions import DeactivateHandler, ReactivateHandler
from headrace.api.handlers.content import FileHandler
from headrace.api.handlers.health import HealthHandler
from headrace.api.handlers.images import ImageHandler, ImagesHandler
from headrace.api.handlers.locations import LocationsHandler
from headrace.api.handlers.members import MemberHandler, MembersHandler
from headrace.api.handlers.openapi import OpenApiHandler
from headrace.api.handlers.stores import StoredImageHandler, StoresDetailHandler, StoresHandler
from headrace.api.handlers.tags import TagHandler
from headrace.api.handlers.versions import RootHandler, SlashHandler, VersionsHandler
from headrace.api.offload import Offload
from headrace.api.schemas import Fields
from headrace.api.traffic import Traffic
from headrace.api.whereabouts import Whereabouts
from headrace.service.content import Content
from headrace.service.images import Images
from headrace.service.locations import Locations
from headrace.service.members import Members
from headrace.service.metadefs import Metadefs
from headrace.service.stores import Stores


def routes(
    images: Images,
    content: Content,
    members: Members,
    metadefs: Metadefs,
    locations: Locations,
    stores: Stores,
    whereabouts: Whereabouts,
    fields: Fields,
    delivery: Delivery,
    offload: Offload,
    traffic: Traffic,
    monitoring: dict[str, object],
    *,
    max_uploads: int,
    default_limit: int,
    max_limit: int,
    public_endpoint: str | None,
    healthcheck_file: str,
) -> dict[str, object]:
    """Path template → handler."""
    several = bool(stores.ids)
    found: dict[str, object] = {
        "/": RootHandler(falcon.HTTP_300, public_endpoint, several),
        "/versions": VersionsHandler(falcon.HTTP_200, public_endpoint, several),
        "/v2": SlashHandler(),
        "/healthcheck": HealthHandler(healthcheck_file),
        "/v2/images": ImagesHandler(images, whereabouts, stores.ids, default_limit, max_limit),
        "/v2/images/{image_id}": ImageHandler(images, locations, whereabouts),
        "/v2/images/{image_id}/file": FileHandler(content, delivery, offload, traffic, max_uploads),
        "/v2/images/{image_id}/members": MembersHandler(members),
        "/v2/images/{image_id}/members/{project}": MemberHandler(members),
        "/v2/images/{image_id}/tags/{tag}": TagHandler(images),
        "/v2/images/{image_id}/actions/deactivate": DeactivateHandler(images),
        "/v2/images/{image_id}/actions/reactivate": ReactivateHandler(images),
        **metadef_handlers.handlers(metadefs, default_limit, max_limit),
        "/v2/images/{image_id}/locations": LocationsHandler(locations),
        "/v2/info/stores": StoresHandler(stores),
        "/v2/info/stores/detail": StoresDetailHandler(stores),
        "/v2/stores/{store_id}/{image_id}": StoredImageHandler(stores),
        **schemas.handlers(fields),
        **monitoring,
    }
    found["/v2/openapi.json"] = OpenApiHandler(fields, found)
    return found
