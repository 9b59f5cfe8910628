"""Every error of Headrace: class, code, HTTP status and text, in one tree.

An error is a statement with named fields: ``raise ImageNotFound(image_id=image_id)``.  It is raised
in service/, db/, stores/ and transfer/, and caught in two places: api/answers.py turns it into an
HTTP answer, cli/main.py into one line on stderr and an exit code.  Every HTTP error answer carries
``X-Headrace-Error: <code>``, from which the client raises the same class again; codes never change.

    Error                            500  headrace.error
    ├── BadRequest                   400  request.bad
    │   ├── InvalidBody              400  request.invalid_body
    │   ├── InvalidProperty          400  request.invalid_property
    │   ├── InvalidQuery             400  request.invalid_query
    │   ├── MarkerNotFound           400  request.marker_not_found
    │   ├── InvalidPatch             400  request.invalid_patch
    │   ├── InvalidLocation          400  image.invalid_location
    │   ├── SizeMismatch             400  upload.size_mismatch
    │   ├── FormatsNotSet            400  upload.formats_not_set
    │   ├── UploadIncomplete         400  upload.incomplete
    │   └── UnknownStore             400  store.unknown
    ├── Unauthenticated              401  access.unauthenticated
    ├── Forbidden                    403  access.forbidden
    │   ├── RemoteWithoutAuth        403  access.remote_without_auth
    │   ├── WrongScope               403  access.wrong_scope
    │   ├── ImageProtected           403  image.protected
    │   ├── ImageNotShared           403  image.not_shared
    │   ├── StatusForbids            403  image.status_forbids
    │   ├── PropertyReadOnly         403  image.property_read_only
    │   ├── PropertyReserved         403  image.property_reserved
    │   ├── PropertyProtected        403  image.property_protected
    │   ├── FormatFrozen             403  image.format_frozen
    │   ├── NamespaceProtected       403  metadef.namespace_protected
    │   └── LastLocation             403  image.last_location
    ├── NotFound                     404  resource.not_found
    │   ├── ImageNotFound            404  image.not_found
    │   ├── TagNotFound              404  image.tag_not_found
    │   ├── MemberNotFound           404  member.not_found
    │   ├── UserNotFound             404  user.not_found
    │   ├── NamespaceNotFound        404  metadef.namespace_not_found
    │   └── DefinitionNotFound       404  metadef.definition_not_found
    ├── MethodNotAllowed             405  request.method_not_allowed
    ├── RequestTimeout               408  request.timeout
    ├── Conflict                     409  resource.conflict
    │   ├── ImageExists              409  image.exists
    │   ├── ImageChanged             409  image.changed
    │   ├── StatusConflict           409  image.status_conflict
    │   ├── ImageBusy                409  image.busy
    │   ├── PropertyExists           409  image.property_exists
    │   ├── PropertyMissing          409  image.property_missing
    │   ├── MemberExists             409  member.exists
    │   ├── UserExists               409  user.exists
    │   ├── DataExists               409  store.data_exists
    │   ├── DataInUse                409  store.data_in_use
    │   ├── NamespaceExists          409  metadef.namespace_exists
    │   └── DefinitionExists         409  metadef.definition_exists
    ├── ImageGone                    410  image.gone
    ├── StoreReadOnly                410  store.read_only
    ├── TooLarge                     413  request.too_large
    │   ├── ImageTooLarge            413  upload.image_too_large
    │   ├── ExpandsTooMuch           413  import.expands_too_much
    │   ├── QuotaExceeded            413  quota.exceeded
    │   └── StoreFull                413  store.full
    ├── UnsupportedMediaType         415  request.unsupported_media_type
    │   ├── FormatMismatch           415  upload.format_mismatch
    │   ├── UnsafeImage              415  upload.unsafe_image
    │   ├── NotDecompressible        415  import.not_decompressible
    │   └── NotConvertible           415  import.not_convertible
    ├── RangeNotSatisfiable          416  download.range_not_satisfiable
    ├── TooManyDownloads             429  download.too_many
    ├── TooManyLogins                429  access.too_many_logins
    ├── HeaderTooLarge               431  request.header_too_large
    ├── NotYetSupported              501  headrace.not_yet_supported
    ├── ServiceUnavailable           503  service.unavailable
    │   ├── StoreNotFound            503  store.not_found
    │   ├── StoreUnwritable          503  store.unwritable
    │   ├── UploadsBusy              503  upload.busy
    │   ├── LoginsBusy               503  access.logins_busy
    │   ├── KeystoneUnavailable      503  access.keystone_unavailable
    │   ├── KeystoneBusy             503  access.keystone_busy
    │   ├── LimitsUnavailable        503  quota.limits_unavailable
    │   └── OriginsBusy              503  store.origins_busy
    ├── ServiceStops                 503  service.stops
    ├── StoreCorrupt                 500  store.corrupt
    ├── TransferError                500  transfer.failed
    │   ├── PeerGone                 499  transfer.peer_gone
    │   ├── PeerStalled              408  transfer.peer_stalled
    │   │   └── PeerTooSlow          408  transfer.peer_too_slow
    │   ├── FileTruncated            500  transfer.file_truncated
    │   └── FillFailed               503  transfer.fill_failed
    ├── ConfigurationError           500  configuration.invalid
    │   ├── DatabaseTooOld           500  database.too_old
    │   └── DatabaseTooNew           500  database.too_new
    └── ClientError                  500  client.error          (raised by client/, bench/ and cli/)
        ├── UsageError               400  client.usage
        ├── ConnectionFailed         503  client.connection_failed
        ├── LoginRefused             401  client.login_refused
        ├── NotInCatalog             404  client.not_in_catalog
        ├── NoRanges                 501  client.no_ranges
        └── DataCorrupt              500  client.data_corrupt
"""

from typing import ClassVar


class Error(Exception):
    """Base of all errors; ``fields`` fill the class's ``text``, ``detail`` replaces it.

    ``detail`` is for an error that came from elsewhere with a text of its own, such as an answer
    of another Image API server.
    """

    code: ClassVar[str] = "headrace.error"
    status: ClassVar[int] = 500
    text: ClassVar[str] = "internal error"
    retry_after: ClassVar[int | None] = None
    """Seconds after which it may be worth trying again."""

    def __init__(self, detail: str | None = None, /, **fields: object) -> None:
        self.fields = fields
        super().__init__(detail if detail is not None else self.text.format(**fields))


class BadRequest(Error):
    code = "request.bad"
    status = 400
    text = "bad request: {reason}"


class InvalidBody(BadRequest):
    code = "request.invalid_body"
    text = "invalid request body: {reason}"


class InvalidProperty(BadRequest):
    code = "request.invalid_property"
    text = "invalid value for property {name}: {reason}"


class InvalidQuery(BadRequest):
    code = "request.invalid_query"
    text = "invalid query parameter {name}: {reason}"


class MarkerNotFound(BadRequest):
    code = "request.marker_not_found"
    text = "marker {marker} is not the id of an image"


class InvalidPatch(BadRequest):
    code = "request.invalid_patch"
    text = "invalid patch: {reason}"


class InvalidLocation(BadRequest):
    code = "image.invalid_location"
    text = "invalid location"


class SizeMismatch(BadRequest):
    code = "upload.size_mismatch"
    text = "the image was announced with {announced} bytes but has {received}"


class FormatsNotSet(BadRequest):
    code = "upload.formats_not_set"
    text = "disk_format and container_format of image {image_id} must be set before its data"


class UploadIncomplete(BadRequest):
    code = "upload.incomplete"
    text = "the body is not framed as announced: {reason}"


class UnknownStore(BadRequest):
    code = "store.unknown"
    text = "there is no store {store}"


class Unauthenticated(Error):
    """A field ``challenge`` says how to authenticate, as ``WWW-Authenticate`` has it."""

    code = "access.unauthenticated"
    status = 401
    text = "authentication required"


class Forbidden(Error):
    code = "access.forbidden"
    status = 403
    text = "not permitted: {reason}"


class RemoteWithoutAuth(Forbidden):
    code = "access.remote_without_auth"
    text = "without authentication only this machine is served ({reason}); see unauthenticated_ok"


class WrongScope(Forbidden):
    code = "access.wrong_scope"
    text = "a token for a project is needed, and this one is {scope}"


class ImageProtected(Forbidden):
    code = "image.protected"
    text = "image {image_id} is protected and cannot be deleted"


class ImageNotShared(Forbidden):
    code = "image.not_shared"
    text = "image {image_id} is {visibility}: only a shared image has members"


class StatusForbids(Forbidden):
    code = "image.status_forbids"
    text = "image {image_id} is {status} and cannot become {wanted}"


class PropertyReadOnly(Forbidden):
    code = "image.property_read_only"
    text = "property {name} is read-only"


class PropertyReserved(Forbidden):
    code = "image.property_reserved"
    text = "property {name} is reserved"


class PropertyProtected(Forbidden):
    code = "image.property_protected"
    text = "property {name} is protected: not permitted to {act} it"


class FormatFrozen(Forbidden):
    code = "image.format_frozen"
    text = "property {name} can only be changed while the image is queued"


class NamespaceProtected(Forbidden):
    code = "metadef.namespace_protected"
    text = "namespace {namespace} is protected: nothing of it can be deleted"


class LastLocation(Forbidden):
    code = "image.last_location"
    text = "image {image_id} has its data in no other place"


class NotFound(Error):
    code = "resource.not_found"
    status = 404
    text = "not found"


class ImageNotFound(NotFound):
    code = "image.not_found"
    text = "image {image_id} not found"


class TagNotFound(NotFound):
    code = "image.tag_not_found"
    text = "image {image_id} has no tag {tag}"


class MemberNotFound(NotFound):
    code = "member.not_found"
    text = "image {image_id} is not shared with project {project}"


class UserNotFound(NotFound):
    code = "user.not_found"
    text = "there is no user {name}"


class NamespaceNotFound(NotFound):
    code = "metadef.namespace_not_found"
    text = "namespace {namespace} not found"


class DefinitionNotFound(NotFound):
    code = "metadef.definition_not_found"
    text = "namespace {namespace} has no {kind} {name}"


class MethodNotAllowed(Error):
    code = "request.method_not_allowed"
    status = 405
    text = "method not allowed"


class RequestTimeout(Error):
    code = "request.timeout"
    status = 408
    text = "the request took too long to arrive"


class Conflict(Error):
    code = "resource.conflict"
    status = 409
    text = "conflict: {reason}"


class ImageExists(Conflict):
    code = "image.exists"
    text = "an image with id {image_id} exists or existed"


class ImageChanged(Conflict):
    code = "image.changed"
    text = "image {image_id} was changed by somebody else meanwhile"


class StatusConflict(Conflict):
    code = "image.status_conflict"
    text = "image {image_id} is {status}, not {expected}"


class ImageBusy(Conflict):
    code = "image.busy"
    text = "image {image_id} is being imported, or its data is coming or being hashed"


class PropertyExists(Conflict):
    code = "image.property_exists"
    text = "property {name} already exists"


class PropertyMissing(Conflict):
    code = "image.property_missing"
    text = "property {name} does not exist"


class MemberExists(Conflict):
    code = "member.exists"
    text = "image {image_id} is shared with project {project} already"


class UserExists(Conflict):
    code = "user.exists"
    text = "there is a user {name} already"


class DataExists(Conflict):
    code = "store.data_exists"
    text = "the store already holds data for image {image_id}"


class DataInUse(Conflict):
    code = "store.data_in_use"
    text = "there are clones in the store that need the image's data"


class NamespaceExists(Conflict):
    code = "metadef.namespace_exists"
    text = "there is a namespace {namespace} already"


class DefinitionExists(Conflict):
    code = "metadef.definition_exists"
    text = "namespace {namespace} has a {kind} {name} already"


class ImageGone(Error):
    code = "image.gone"
    status = 410
    text = "image {image_id} was deleted while its data arrived"


class StoreReadOnly(Error):
    code = "store.read_only"
    status = 410
    text = "store {store} takes no data"


class TooLarge(Error):
    code = "request.too_large"
    status = 413
    text = "too large: {reason}"


class ImageTooLarge(TooLarge):
    code = "upload.image_too_large"
    text = "the image is larger than image_size_cap allows ({cap} bytes)"


class ExpandsTooMuch(TooLarge):
    code = "import.expands_too_much"
    text = "the data grows to more than {ratio} times what came in, as expansion_ratio allows"


class QuotaExceeded(TooLarge):
    code = "quota.exceeded"
    text = "{quota} is {limit}, {wanted} asked for"


class StoreFull(TooLarge):
    code = "store.full"
    text = "the store has no room for the image"


class UnsupportedMediaType(Error):
    code = "request.unsupported_media_type"
    status = 415
    text = "unsupported media type {content_type}; supported: {supported}"


class FormatMismatch(UnsupportedMediaType):
    code = "upload.format_mismatch"
    text = "the data is {detected}, not {declared} as disk_format says"


class UnsafeImage(UnsupportedMediaType):
    code = "upload.unsafe_image"
    text = "the image failed a safety check: {reason}"


class NotDecompressible(UnsupportedMediaType):
    code = "import.not_decompressible"
    text = "the data cannot be decompressed: {reason}"


class NotConvertible(UnsupportedMediaType):
    code = "import.not_convertible"
    text = "the image cannot be converted: {reason}"


class RangeNotSatisfiable(Error):
    code = "download.range_not_satisfiable"
    status = 416
    text = "range {range} cannot be satisfied for {size} bytes"


class TooManyDownloads(Error):
    code = "download.too_many"
    status = 429
    text = "{limit} downloads of this client are under way, as many as it may have at a time"
    retry_after = 5


class TooManyLogins(Error):
    code = "access.too_many_logins"
    status = 429
    text = "too many wrong passwords have come from here"
    retry_after = 60


class HeaderTooLarge(Error):
    code = "request.header_too_large"
    status = 431
    text = "header {name} is longer than {limit}"


class NotYetSupported(Error):
    code = "headrace.not_yet_supported"
    status = 501
    text = "{feature} is not supported yet"


class ServiceUnavailable(Error):
    code = "service.unavailable"
    status = 503
    text = "service unavailable: {reason}"


class UploadsBusy(ServiceUnavailable):
    code = "upload.busy"
    text = "{limit} uploads are under way, as many as are taken at a time; try again"
    retry_after = 5


class LoginsBusy(ServiceUnavailable):
    code = "access.logins_busy"
    text = "{limit} callers wait for their passwords to be checked, as many as may; try again"
    retry_after = 1


class KeystoneUnavailable(ServiceUnavailable):
    code = "access.keystone_unavailable"
    text = "Keystone, which knows who is calling, does not answer"
    retry_after = 5


class KeystoneBusy(ServiceUnavailable):
    code = "access.keystone_busy"
    text = "Keystone is being asked about {limit} callers, as many as at a time; try again"
    retry_after = 1


class LimitsUnavailable(ServiceUnavailable):
    code = "quota.limits_unavailable"
    text = "Keystone, which knows what projects may have, does not answer"
    retry_after = 5


class OriginsBusy(ServiceUnavailable):
    code = "store.origins_busy"
    text = "{limit} transfers from elsewhere are under way, as many as there may be; try again"
    retry_after = 5


class StoreNotFound(ServiceUnavailable):
    """The data may well be there, but not for us: no NotFound, which would mean that it is gone."""

    code = "store.not_found"
    text = "the data lies in a store that is not configured here ({store})"


class StoreUnwritable(ServiceUnavailable):
    code = "store.unwritable"
    text = "the store may not be written"

    @classmethod
    def because(cls, why: ServiceUnavailable) -> "StoreUnwritable":
        """The same, of which it is known what the store says."""
        return cls(f"{cls.text}: {why.fields['reason']}")


class ServiceStops(Error):
    """No ServiceUnavailable, which may mean that another store is to be tried."""

    code = "service.stops"
    status = 503
    text = "the service stopped before it was done"


class StoreCorrupt(Error):
    code = "store.corrupt"
    text = "the data of image {image_id} is not what was stored: {reason}"


class TransferError(Error):
    """The bytes stopped; ``moved`` of the fields says after how many."""

    code = "transfer.failed"
    text = "the transfer stopped: {reason}"


class PeerGone(TransferError):
    code = "transfer.peer_gone"
    status = 499  # nginx's "client closed request"; nobody is left to read it
    text = "the peer closed the connection after {moved} bytes"


class PeerStalled(TransferError):
    code = "transfer.peer_stalled"
    status = 408
    text = "the peer moved nothing for {seconds} s, after {moved} bytes"


class PeerTooSlow(PeerStalled):
    code = "transfer.peer_too_slow"
    text = "the peer took less than {rate} bytes a second for {seconds} s, after {moved} bytes"


class FileTruncated(TransferError):
    code = "transfer.file_truncated"
    text = "the file ended {missing} bytes early"


class FillFailed(TransferError):
    code = "transfer.fill_failed"
    status = 503
    text = "the data did not arrive from its store: {reason}"


class ConfigurationError(Error):
    code = "configuration.invalid"
    text = "invalid configuration: {reason}"


class DatabaseTooOld(ConfigurationError):
    code = "database.too_old"
    text = "the database is at revision {revision}; run glance-manage db sync of 2024.1 or newer"


class DatabaseTooNew(ConfigurationError):
    code = "database.too_new"
    text = "the database is at revision {revision}, of a newer {whose}"


class ClientError(Error):
    code = "client.error"
    text = "{reason}"


class UsageError(ClientError):
    code = "client.usage"
    status = 400
    text = "{reason}"


class ConnectionFailed(ClientError):
    code = "client.connection_failed"
    status = 503
    text = "cannot reach {url}: {reason}"


class LoginRefused(ClientError):
    code = "client.login_refused"
    status = 401
    text = "Keystone at {url} gives no token: {reason}"


class NotInCatalog(ClientError):
    code = "client.not_in_catalog"
    status = 404
    text = "the catalog of Keystone at {url} has no {interface} image service{where}"


class NoRanges(ClientError):
    code = "client.no_ranges"
    status = 501
    text = "the connection was cut, and the service serves no ranges"


class DataCorrupt(ClientError):
    code = "client.data_corrupt"
    text = "the data received does not match {algorithm} {expected}: it is {actual}"


def tree(root: type[Error] = Error) -> list[type[Error]]:
    """Every error class, parents before children."""
    return [root] + [found for child in root.__subclasses__() for found in tree(child)]


_BY_CODE = {error.code: error for error in tree()}
_BY_STATUS: dict[int, type[Error]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    408: RequestTimeout,
    409: Conflict,
    410: ImageGone,
    413: TooLarge,
    415: UnsupportedMediaType,
    416: RangeNotSatisfiable,
    431: HeaderTooLarge,
    503: ServiceUnavailable,
}


def from_answer(code: str | None, status: int, detail: str) -> Error:
    """The error an HTTP answer stands for: by its code, else by its status (a Glance server)."""
    generic = BadRequest if 400 <= status < 500 else Error
    cls = _BY_CODE.get(code or "") or _BY_STATUS.get(status, generic)
    return cls(detail)
