"""A service on SQLite and a directory, without HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace import settings
from headrace.api.schemas import Fields
from headrace.api.traffic import Traffic
from headrace.cache.directory import Directory
from headrace.db import engine
from headrace.db.quotas import Limits as ProjectLimits
from headrace.metrics import Metrics
from headrace.model import Viewer
from headrace.service.cache import Cache
from headrace.service.cache_contents import CacheContents
from headrace.service.content import Content
from headrace.service.context import Context
from headrace.service.housekeeping import Housekeeping
from headrace.service.images import Images, Limits
from headrace.service.imports import Imports
from headrace.service.jobs import JobRules, Jobs
from headrace.service.landing import Landing, UploadRules
from headrace.service.locations import LocationRules, Locations
from headrace.service.members import Members
from headrace.service.prefetch import Prefetch
from headrace.service.protections import Protections
from headrace.service.quota import Quota
from headrace.service.regions import Regions
from headrace.service.staging import Staging
from headrace.service.stores import Stores
from headrace.service.tasks import Tasks
from headrace.stores.base import Store
from headrace.stores.destinations import Destinations, Rules
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.listed import ListedFiles
from headrace.stores.origin import Origins
from headrace.stores.registry import Label, Registry
from tests.sqlite import prepared

ADMIN = Context(Viewer(is_admin=True))


class Clock:
    """Time that can be moved on."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None) + self.ahead


@dataclass
class Service:
    database: engine.Database
    registry: Registry
    images: Images
    content: Content
    members: Members
    stores: Stores
    locations: Locations
    area: FilesystemStore
    landing: Landing
    staging: Staging
    imports: Imports
    jobs: Jobs
    tasks: Tasks
    housekeeping: Housekeeping
    clock: Clock
    datadir: Path
    cached: CacheContents

    @property
    def store(self) -> Store:
        return self.registry.default

    def record(self, **values: object) -> str:
        """The id of a new image that can be uploaded."""
        formats = {"disk_format": "raw", "container_format": "bare"}
        return self.images.create(ADMIN, formats | values).id

    def files(self) -> list[str]:
        return sorted(path.name for path in self.datadir.iterdir())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    store = FilesystemStore("file", tmp_path / "images")
    yield from serving(tmp_path, Registry([store], default="file"))


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Service]:
    """The same with the stores fast (the default one) and cheap, and listed files."""
    stores = [
        FilesystemStore("fast", tmp_path / "images"), FilesystemStore("cheap", tmp_path / "cheap")
    ]  # fmt: skip
    listed = tmp_path / "listed"
    listed.mkdir()
    labels = {"fast": Label("Solid state", 10), "cheap": Label()}
    files = ListedFiles("", [str(listed)], [str(tmp_path / "images")])
    yield from serving(tmp_path, Registry(stores, "fast", labels, [files]))


def serving(
    tmp_path: Path,
    stores: Registry,
    staged: Path | None = None,
    job_rules: JobRules | None = None,
    protections: Protections | None = None,
    project_limits: ProjectLimits | None = None,
    cache_size: int | None = None,
) -> Iterator[Service]:
    database = prepared(tmp_path / "headrace.db")
    datadir = tmp_path / "images"
    clock = Clock()
    fields = Fields(settings.CONTAINER_FORMATS, settings.DISK_FORMATS)
    area = FilesystemStore("os_glance_staging_store", staged or tmp_path / "staging")
    quota = None if project_limits is None else Quota(database, lambda _: project_limits)
    cache = prefetch = None
    if cache_size is not None:
        directory = Directory(tmp_path / "cache", cache_size)
        cache = Cache(database, directory, stall=5.0, keep=60.0)
        prefetch = Prefetch(database, stores, cache)
    images = Images(
        database,
        stores,
        area,
        fields.check,
        Limits(128, 128),
        clock,
        protections=protections,
        quota=quota,
        forget=None if cache is None else cache.evict,
    )
    rules = UploadRules(
        size_cap=1 << 30,
        hashing_algorithm="sha256",
        legacy_checksum=False,
        require_format_match=True,
        vmdk_allowed_types=("streamOptimized", "monolithicSparse"),
        gpt_safety_nonfatal=(),
    )
    landing = Landing(rules)
    content = Content(database, stores, landing, clock, quota, cache)
    staging = Staging(database, area, landing, clock, quota)
    here = Rules(allowed_hosts=("127.0.0.1",), allowed_ports=())
    origins = Origins(Destinations(here), stall=5.0)
    regions = Regions({}, ("hw_", "os_"), fields.check, 3, 5.0)
    methods = ("glance-direct", "web-download", "copy-image", "glance-download")
    metrics = Metrics()
    observe = Traffic(metrics).job
    job_rules = job_rules or JobRules(4)
    jobs = Jobs(database, stores, staging, landing, origins, regions, clock, job_rules, observe)
    imports = Imports(database, stores, jobs, origins, regions, methods, clock, quota)
    members = Members(database, 128, clock)
    location_rules = LocationRules(10, True, 0)
    locations = Locations(database, stores, images, location_rules, rules, clock, quota)
    housekeeping = Housekeeping(
        database,
        stores,
        images,
        content,
        locations,
        staging,
        jobs,
        60.0,
        clock,
        cache=cache,
        prefetch=prefetch,
    )
    yield Service(
        database,
        stores,
        images,
        content,
        members,
        Stores(database, stores, images, clock),
        locations,
        area,
        landing,
        staging,
        imports,
        jobs,
        Tasks(database, images, imports, clock),
        housekeeping,
        clock,
        datadir,
        CacheContents(database, cache, prefetch),
    )
    if cache is not None:
        cache.stop()
        for fill in cache.active():
            fill.join(60)
    database.close()
