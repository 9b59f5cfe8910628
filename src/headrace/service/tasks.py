"""Tasks: what is told of the work behind answers, and the one kind that is asked for as a task."""

from dataclasses import dataclass

from headrace.db import images as rows
from headrace.db import tasks
from headrace.db.engine import Database
from headrace.model import Task, TaskQuery
from headrace.service import policy
from headrace.service.context import Context
from headrace.service.images import Clock, Images
from headrace.service.imports import Imports, without_secrets


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image with ``properties`` to be made of the data at ``uri``.

    ``format`` is its disk_format, unless the properties name another.
    """

    uri: str
    format: str
    properties: dict[str, object]


class Tasks:
    """The tasks of one database."""

    def __init__(self, database: Database, images: Images, imports: Imports, clock: Clock) -> None:
        self._database = database
        self._images = images
        self._imports = imports
        self._clock = clock

    def create(self, context: Context, order: NewImage) -> Task:
        """Have an image made of what an address holds, behind the answer; for administrators.

        What the image will be is checked at once.  Raises Forbidden, InvalidLocation, BadRequest
        (nothing is fetched here), ImageExists, TooLarge, and what ``Images.draft`` does.
        """
        policy.require(context, "tasks_api_access")
        self._imports.check_uri(order.uri)
        formats = {"disk_format": order.format, "container_format": "bare"}
        given = {
            name: value
            for name, value in order.properties.items()
            if value is not None or name not in formats
        }
        image = self._images.draft(context, formats | given)
        told = {
            "import_from": without_secrets(order.uri),
            "import_from_format": order.format,
            "image_properties": order.properties,
        }
        return self._imports.create(context, image, order.uri, told)

    def of_image(self, context: Context, image_id: str) -> list[Task]:
        """The tasks about an image; raises ImageNotFound, Forbidden."""
        image = rows.show(self._database, image_id, context.viewer)
        policy.require_of(context, "get_image", image)
        return tasks.of_image(self._database, image_id)

    def list(self, context: Context, query: TaskQuery) -> list[Task]:
        """One page of all tasks, for administrators; forgets those whose time is over.

        Raises Forbidden, InvalidQuery (no such marker).
        """
        policy.require(context, "tasks_api_access")
        tasks.forget(self._database, self._clock())
        return tasks.list_page(self._database, query)

    def show(self, context: Context, task_id: str) -> Task:
        """A task, for administrators; raises Forbidden, NotFound."""
        policy.require(context, "tasks_api_access")
        return tasks.show(self._database, task_id)
