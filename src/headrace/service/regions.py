"""Image services of other regions: where they are, and what is taken from them.

Where one is, its operator says in a setting, or Keystone in the catalog that came with the caller's
token: neither is a caller's word, so the filter of addresses that callers name is not asked, and
what is behind them may be of this machine.  The token goes nowhere else, since no redirect is
followed.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from headrace import errors
from headrace.client import download
from headrace.client.connection import Connection, Endpoint
from headrace.client.images import Images as RemoteImages
from headrace.client.partial import Expected
from headrace.model import Image, Status
from headrace.service.context import Context
from headrace.service.images import BASE_ATTRIBUTES, READ_ONLY, RESERVED, RESERVED_PREFIX, Check
from headrace.transfer.engine import How, Progress

_FORMATS = ("disk_format", "container_format")


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image of a region, and which face of its service has it: public, internal or admin."""

    region: str
    image_id: str
    interface: str = "public"


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """Where a remote image is to be had, and in whose name; a repr shows no secret."""

    region: str
    image_id: str
    endpoint: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What a region's record says: of the data, and what the image here is given of it."""

    expected: Expected
    size: int
    formats: dict[str, object]
    properties: dict[str, str]


class Regions:
    """The regions at ``endpoints``, by their names, and those of the callers' catalogs.

    Properties whose names begin with one of ``prefixes`` are taken with an image, as long as
    ``check`` takes them and there are not more than ``most_properties`` (negative: any number).
    ``stall`` is for how many seconds a region may do nothing.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        prefixes: Sequence[str],
        check: Check,
        most_properties: int,
        stall: float,
    ) -> None:
        """Raises ConfigurationError for an endpoint that is no URL."""
        for name, url in endpoints.items():
            try:
                Endpoint.parse(url)
            except errors.UsageError as error:
                raise errors.ConfigurationError(reason=f"glance_regions, {name}: {error}") from None
        self._endpoints = {name.lower(): url for name, url in endpoints.items()}
        self._prefixes = tuple(prefixes)
        self._check = check
        self._most_properties = most_properties
        self._stall = stall

    def source(self, context: Context, wanted: RemoteImage) -> RemoteSource:
        """Where an image is to be had, which is not asked yet; BadRequest for an unknown region."""
        endpoint = self._endpoints.get(wanted.region.lower())
        if endpoint is None:
            endpoint = _catalogued(context.catalog, wanted.region, wanted.interface)
        if endpoint is None:
            raise errors.BadRequest(reason=f"no image service of region {wanted.region} is known")
        return RemoteSource(wanted.region, wanted.image_id, endpoint, context.token)

    def look(self, source: RemoteSource, image: Image) -> Found:
        """What ``image`` is to become; raises ServiceUnavailable, Conflict, InvalidProperty,
        QuotaExceeded, and what the region answers.
        """
        with self._connected(source) as connection:
            record = RemoteImages(connection).show(source.image_id)
        status, size = record.get("status"), record.get("size")
        if status != Status.ACTIVE or str(record.get("id")).lower() != source.image_id.lower():
            raise errors.Conflict(reason=f"image {source.image_id} of {source.region}: {status}")
        if not isinstance(size, int) or size < 0:
            raise errors.Conflict(reason=f"image {source.image_id} of {source.region}: no size")
        formats = {name: self._check(name, record.get(name)) for name in _FORMATS}
        if None in formats.values():
            raise errors.Conflict(reason=f"image {source.image_id} of {source.region}: no formats")
        properties = self._properties(record)
        own = [name for name in image.properties if not name.startswith(RESERVED_PREFIX)]
        if 0 <= self._most_properties < (wanted := len(properties.keys() | own)):
            raise errors.QuotaExceeded(
                quota="image_property_quota", limit=self._most_properties, wanted=wanted
            )
        return Found(Expected.of(record), size, formats, properties)

    def fetch(
        self, source: RemoteSource, found: Found, fd: int, progress: Progress
    ) -> tuple[int, How]:
        """The data into the empty file ``fd``, over as many connections as it takes.

        How many bytes, and how they came.  Raises SizeMismatch, ServiceUnavailable, StoreFull,
        StoreUnwritable, and what the region answers.
        """

        def landed(total: int) -> None:
            if total > found.size:  # where no length is announced
                raise errors.SizeMismatch(announced=found.size, received="more")
            progress(total)

        with self._connected(source) as connection:
            moved = download.to_empty_file(connection, found.expected, fd, progress=landed)
        return moved.bytes, moved.how

    @contextlib.contextmanager
    def _connected(self, source: RemoteSource) -> Iterator[Connection]:
        try:
            with Connection(source.endpoint, token=source.token, timeout=self._stall) as connection:
                yield connection
        except errors.ClientError as error:
            # The error's text may name the address, which not everybody is to know.
            raise errors.ServiceUnavailable(
                reason=f"region {source.region} does not give the image ({error.code})"
            ) from error

    def _properties(self, record: Mapping[str, object]) -> dict[str, str]:
        ours = BASE_ATTRIBUTES | READ_ONLY | RESERVED
        return {
            name: str(self._check(name, value))
            for name, value in record.items()
            if name.startswith(self._prefixes)
            and name not in ours
            and not name.startswith(RESERVED_PREFIX)
        }


def _catalogued(catalog: str | None, region: str, interface: str) -> str | None:
    """The endpoint that a catalog names, in Keystone's newer form or its older one."""
    try:
        services = msgspec.json.decode(catalog or "[]", type=list[_Service])
    except msgspec.DecodeError:
        return None
    for service in services:
        for endpoint in service.endpoints if service.type == "image" else ():
            name = endpoint.region_id or endpoint.region or ""
            if name.lower() == region.lower() and (url := endpoint.url_of(interface)):
                return url
    return None


class _Endpoint(msgspec.Struct):
    region: str | None = None
    region_id: str | None = None
    interface: str | None = None
    url: str | None = None
    public: str | None = msgspec.field(default=None, name="publicURL")
    internal: str | None = msgspec.field(default=None, name="internalURL")
    admin: str | None = msgspec.field(default=None, name="adminURL")

    def url_of(self, interface: str) -> str | None:
        if self.interface is not None:
            return self.url if self.interface == interface else None
        return {"public": self.public, "internal": self.internal, "admin": self.admin}[interface]


class _Service(msgspec.Struct):
    type: str = ""
    endpoints: list[_Endpoint] = msgspec.field(default_factory=list)
