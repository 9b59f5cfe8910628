"""The nouns of the service as values: no I/O, no SQL, no HTTP."""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

MIB = 1 << 20

# A secret key may have any character in it, "/" and "@" too.
_KEYS = re.compile(r"^((?:s3|swift)(?:\+[a-z]+)?://).*@", re.IGNORECASE)
IMAGE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""A UUID with hyphens, either case."""


def is_image_id(text: str) -> bool:
    """Whether ``text`` has the form of an image id."""
    return IMAGE_ID.fullmatch(text) is not None


class Status(StrEnum):
    """States of an image."""

    QUEUED = "queued"
    SAVING = "saving"
    UPLOADING = "uploading"
    IMPORTING = "importing"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    KILLED = "killed"
    PENDING_DELETE = "pending_delete"
    DELETED = "deleted"


class Resource(StrEnum):
    """What a project may have only so much of, by Glance's names."""

    SIZE = "image_size_total"
    STAGE = "image_stage_total"
    COUNT = "image_count_total"
    UPLOADING = "image_count_uploading"


class Visibility(StrEnum):
    PRIVATE = "private"
    PUBLIC = "public"
    SHARED = "shared"
    COMMUNITY = "community"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a copy of the data lies: a URL and what the store noted beside it."""

    url: str
    metadata: dict[str, object] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The URL as it may be told: old ones of object stores have keys of access in them."""
        return _KEYS.sub(r"\1", self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image's record; sizes in bytes, times in naive UTC."""

    id: str
    status: Status = Status.QUEUED
    name: str | None = None
    visibility: Visibility = Visibility.SHARED
    owner: str | None = None
    protected: bool = False
    os_hidden: bool = False
    size: int | None = None
    virtual_size: int | None = None
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    container_format: str | None = None
    disk_format: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    tags: frozenset[str] = frozenset()
    properties: dict[str, str] = field(default_factory=dict)
    locations: tuple[Location, ...] = ()
    created_at: datetime
    updated_at: datetime


IMPORT_LOCK = "os_glance_import_task"
"""The property that an image has while it is imported: the task's id."""


NEW_IMAGE_TASK = "import"
"""The type of a task that makes an image of what it fetches; if it fails there is no image."""


TASK_LIFE = timedelta(hours=48)
"""For how long after its end a task is kept unless told otherwise, as by a Glance."""


class TaskStatus(StrEnum):
    """States of a task."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Work behind an answer; ``input`` and ``result`` are JSON, times in naive UTC."""

    id: str
    type: str = "api_image_import"
    status: TaskStatus = TaskStatus.PENDING
    owner: str
    image_id: str | None = None
    request_id: str | None = None
    user_id: str | None = None
    input: object = None
    result: object = None
    message: str = ""
    expires_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """What a list of tasks asks for; ``marker`` is the id of the last task before it."""

    limit: int = 25
    marker: str | None = None
    sort_key: str = "created_at"
    descending: bool = True
    status: str | None = None
    type: str | None = None


class MemberStatus(StrEnum):
    """What a project makes of an image that is shared with it."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A project that an image is shared with; times in naive UTC."""

    image_id: str
    project: str
    status: MemberStatus = MemberStatus.PENDING
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whose eyes a lookup is made with; an administrator sees everything."""

    project_id: str | None = None
    is_admin: bool = False


class Op(StrEnum):
    """Comparison of a list filter."""

    EQ = "eq"
    NEQ = "neq"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on a column of images, its value already of the column's type."""

    column: str
    op: Op
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuery:
    """What a list of images asks for.

    ``sort`` holds (column, descending) pairs, without the tie-breakers created_at and id, which
    every list gets.  ``visibility`` is None, a Visibility, or "all".  ``properties`` are equality
    conditions on custom properties.  ``member_status`` is pending, accepted, rejected or all.
    """

    limit: int = 25
    marker: str | None = None
    sort: tuple[tuple[str, bool], ...] = (("created_at", True),)
    filters: tuple[Filter, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    visibility: str | None = None
    member_status: str = "accepted"
    os_hidden: bool = False


@dataclass(frozen=True, slots=True)
class ImagePage:
    """One page of a list; ``full`` says that there may be another after it.

    ``last`` is the id that the next page begins behind, be its image on this one or left out.
    """

    images: list[Image]
    full: bool
    last: str | None = None


Definition = dict[str, object]
"""What a property may hold: title, type, enum and so on, a JSON object as the API shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadefProperty:
    """The definition of one property, by its name."""

    name: str
    definition: Definition
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadefObject:
    """Properties that belong together, and which of them must be there."""

    name: str
    description: str | None = None
    required: tuple[str, ...] = ()
    properties: dict[str, Definition] = field(default_factory=dict)
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadefTag:
    """A word that is offered as a tag."""

    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    """A kind of thing that namespaces are about, such as ``OS::Glance::Image``."""

    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """That a namespace is about a resource type, where its properties' names get a prefix."""

    name: str
    prefix: str | None = None
    properties_target: str | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A set of metadata definitions; ``visibility`` is public or private, times in naive UTC."""

    namespace: str
    display_name: str | None = None
    description: str | None = None
    visibility: str = Visibility.PRIVATE.value
    protected: bool = False
    owner: str
    created_at: datetime
    updated_at: datetime
    properties: tuple[MetadefProperty, ...] = ()
    objects: tuple[MetadefObject, ...] = ()
    tags: tuple[MetadefTag, ...] = ()
    associations: tuple[Association, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """Which page of a list: ``marker`` is the name of the last item before it; None: no limit."""

    limit: int | None = None
    marker: str | None = None
    sort_key: str = "created_at"
    descending: bool = True


AS_ADDED = Paging(sort_key="id", descending=False)
"""Everything, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceQuery:
    """What a list of namespaces asks for: those about any of ``resource_types``, if there are."""

    paging: Paging = field(default_factory=Paging)
    visibility: str | None = None
    resource_types: tuple[str, ...] = ()


class Merge(StrEnum):
    """What loading definitions does with a namespace that is there already."""

    SKIP = "skip"
    ADD = "add"
    PREFER_NEW = "prefer new"
    OVERWRITE = "overwrite"
