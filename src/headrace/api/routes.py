"""Every path the service answers, and who answers it."""

import falcon

from headrace.api.delivery import Delivery
from headrace.api.handlers import metadefs as metadef_handlers
from headrace.api.handlers import schemas
from headrace.api.handlers.actions import DeactivateHandler, ReactivateHandler
from headrace.api.handlers.cache import handlers as cache_handlers
from headrace.api.handlers.content import FileHandler, Turns
from headrace.api.handlers.health import HealthHandler
from headrace.api.handlers.images import ImageHandler, ImagesHandler
from headrace.api.handlers.imports import ImportHandler, ImportInfoHandler, StageHandler
from headrace.api.handlers.locations import LocationsHandler
from headrace.api.handlers.members import MemberHandler, MembersHandler
from headrace.api.handlers.openapi import OpenApiHandler
from headrace.api.handlers.stores import StoredImageHandler, StoresDetailHandler, StoresHandler
from headrace.api.handlers.tags import TagHandler
from headrace.api.handlers.tasks import ImageTasksHandler, TaskHandler, TasksHandler
from headrace.api.handlers.usage import UsageHandler
from headrace.api.handlers.versions import RootHandler, SlashHandler, VersionsHandler
from headrace.api.offload import Offload
from headrace.api.schemas import Fields
from headrace.api.traffic import Traffic
from headrace.api.whereabouts import Whereabouts
from headrace.service.cache_contents import CacheContents
from headrace.service.content import Content
from headrace.service.images import Images
from headrace.service.imports import Imports
from headrace.service.jobs import GLANCE_DIRECT
from headrace.service.locations import Locations
from headrace.service.members import Members
from headrace.service.metadefs import Metadefs
from headrace.service.quota import Quota
from headrace.service.staging import Staging
from headrace.service.stores import Stores
from headrace.service.tasks import Tasks


def routes(
    images: Images,
    content: Content,
    members: Members,
    metadefs: Metadefs,
    locations: Locations,
    stores: Stores,
    staging: Staging,
    imports: Imports,
    tasks: Tasks,
    cache: CacheContents,
    quota: Quota | None,
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
    known = {"several": bool(stores.ids), "cached": content.cache is not None}
    turns = Turns(max_uploads)
    direct = GLANCE_DIRECT in imports.methods
    found: dict[str, object] = {
        "/": RootHandler(falcon.HTTP_300, public_endpoint, **known),
        "/versions": VersionsHandler(falcon.HTTP_200, public_endpoint, **known),
        "/v2": SlashHandler(),
        "/healthcheck": HealthHandler(healthcheck_file),
        "/v2/images": ImagesHandler(
            images, whereabouts, stores.ids, imports.methods, default_limit, max_limit
        ),
        "/v2/images/{image_id}": ImageHandler(images, locations, whereabouts),
        "/v2/images/{image_id}/file": FileHandler(content, delivery, offload, traffic, turns),
        "/v2/images/{image_id}/stage": StageHandler(staging, direct, traffic, turns),
        "/v2/images/{image_id}/import": ImportHandler(imports),
        "/v2/images/{image_id}/tasks": ImageTasksHandler(tasks),
        "/v2/info/import": ImportInfoHandler(imports.methods),
        "/v2/tasks": TasksHandler(tasks, default_limit, max_limit),
        "/v2/tasks/{task_id}": TaskHandler(tasks),
        "/v2/images/{image_id}/members": MembersHandler(members),
        "/v2/images/{image_id}/members/{project}": MemberHandler(members),
        "/v2/images/{image_id}/tags/{tag}": TagHandler(images),
        "/v2/images/{image_id}/actions/deactivate": DeactivateHandler(images),
        "/v2/images/{image_id}/actions/reactivate": ReactivateHandler(images),
        **metadef_handlers.handlers(metadefs, default_limit, max_limit),
        "/v2/images/{image_id}/locations": LocationsHandler(locations),
        "/v2/info/stores": StoresHandler(stores),
        "/v2/info/stores/detail": StoresDetailHandler(stores),
        "/v2/info/usage": UsageHandler(quota),
        "/v2/stores/{store_id}/{image_id}": StoredImageHandler(stores),
        **cache_handlers(cache),
        **schemas.handlers(fields),
        **monitoring,
    }
    found["/v2/openapi.json"] = OpenApiHandler(fields, found)
    return found
