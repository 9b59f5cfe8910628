"""Tasks: what is told of the work behind answers."""

from headrace.db import images as rows
from headrace.db import tasks
from headrace.db.engine import Database
from headrace.model import Task, TaskQuery
from headrace.service import policy
from headrace.service.context import Context
from headrace.service.images import Clock


class Tasks:
    """The tasks of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

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
