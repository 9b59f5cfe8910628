"""Where in a Swift an image is, and of what: containers, objects, and the segments of objects."""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.client import HTTPMessage as Headers
from urllib.parse import quote, unquote

from headrace.stores.swift_account import Account

UPLOAD = "X-Object-Meta-Headrace-Upload"
"""The header that tells by which upload an object was made."""

_DELETIONS = 8  # at a time


@dataclass(frozen=True, slots=True)
class Containers:
    """Where images are put: in one container, or in several that are named by ids' beginnings.

    ``seed`` is how many digits of an id are in the name of its container; 0: there is only one.
    ``create`` makes those that are missing.
    """

    name: str = "glance"
    seed: int = 0
    create: bool = False

    def of(self, image_id: str) -> str:
        """The container of an image."""
        if not self.seed:
            return self.name
        length = self.seed + image_id[: self.seed].count("-")
        return f"{self.name}_{image_id[:length].lower()}"

    def has(self, container: str) -> bool:
        """Whether a container is one of these, however many digits there are in its name."""
        beginning, _, digits = container.rpartition("_")
        return container == self.name or bool(
            beginning == self.name and re.fullmatch(r"[0-9a-f-]{1,36}", digits)
        )


@dataclass(frozen=True, slots=True)
class Place:
    """An object, or where one may be made."""

    account: Account
    container: str
    name: str

    @property
    def path(self) -> str:
        return f"/{quote(self.container, safe='')}/{quote(self.name)}"

    def beside(self, name: str) -> "Place":
        """Another object of the container."""
        return replace(self, name=name)

    def exists(self) -> bool:
        """Whether there is an object; raises ServiceUnavailable, as all that follow."""
        return self.head() is not None

    def upload(self) -> str | None:
        """By which upload of ours the object was made, if it is there and was."""
        head = self.head()
        return None if head is None else head.get(UPLOAD)

    def remove(self) -> bool:
        """Remove an object, then what it is made of; whether there was one.

        The object goes first: what a crash leaves then is no image any more.
        """
        head = self.head()
        if head is None:
            return False
        segments = self._segments(head)
        status = self.account.ask("DELETE", self.path).status
        if status not in (200, 204, 404):
            raise self.account.refused(status)
        self.remove_all(segments)
        return status != 404

    def remove_all(self, objects: Sequence["Place"]) -> None:
        """Remove plain objects, of which some may be gone; of each it is tried."""

        def remove(each: Place) -> int:
            return each.account.ask("DELETE", each.path).status

        if objects:
            with ThreadPoolExecutor(min(_DELETIONS, len(objects))) as pool:
                statuses = set(pool.map(remove, objects))
            for status in statuses - {200, 204, 404}:
                raise self.account.refused(status)

    def head(self) -> Headers | None:
        """What Swift tells of the object; None when there is none."""
        answer = self.account.ask("HEAD", self.path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self.account.refused(answer.status)
        return answer.headers

    def _segments(self, head: Headers) -> list["Place"]:
        """What the object is made of; nothing if it is a plain one."""
        if head.get("X-Static-Large-Object", "").lower() == "true":
            query = {"multipart-manifest": "get", "format": "raw"}
            answer = self.account.ask("GET", self.path, query=query)
            if answer.status != 200:
                raise self.account.refused(answer.status)
            paths = [str(each["path"]).lstrip("/") for each in json.loads(answer.body)]
            return [Place(self.account, *path.split("/", 1)) for path in paths]
        container, _, prefix = unquote(head.get("X-Object-Manifest", "")).partition("/")
        if not prefix:  # with an empty one all of a container would be meant
            return []
        listed = self.account.names(container, prefix)
        return [Place(self.account, container, str(each["name"])) for each in listed]
