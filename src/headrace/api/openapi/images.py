"""What is said of /v2/images and all below: records, data, locations, members, tags, actions."""

from headrace import errors
from headrace.api import patches, queries
from headrace.api.openapi.operation import (
    BODY,
    DATA,
    JSON_BODY,
    TEXT,
    Operation,
    Operations,
    Schema,
    choice,
    header,
    json,
    query,
    ref,
    several,
)
from headrace.model import Visibility

IMAGES = "/v2/images"
IMAGE = f"{IMAGES}/{{image_id}}"
FILE = f"{IMAGE}/file"
LOCATIONS = f"{IMAGE}/locations"
MEMBERS = f"{IMAGE}/members"
MEMBER = f"{MEMBERS}/{{project}}"
TAG = f"{IMAGE}/tags/{{tag}}"

_NATURAL: Schema = {"type": "integer", "minimum": 0}
_WHOLE: Schema = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_DIRECTION = choice(("asc", "desc"))
_SEEN = (errors.ImageNotFound, errors.Forbidden)
_CHANGED = (*_SEEN, errors.ImageChanged)
_FIELDS = (
    errors.InvalidProperty,
    errors.PropertyReadOnly,
    errors.PropertyReserved,
    errors.PropertyProtected,
    errors.QuotaExceeded,
)
_NEW_DATA = (
    errors.StatusConflict,
    errors.FormatsNotSet,
    errors.FormatMismatch,
    errors.UnsafeImage,
    errors.ImageTooLarge,
    errors.QuotaExceeded,
    errors.LimitsUnavailable,
)
# A location is looked into before it is taken.
_NEW_PLACE = (
    *_NEW_DATA,
    errors.InvalidLocation,
    errors.StoreNotFound,
    errors.OriginsBusy,
    errors.StoreCorrupt,
)

PAGE = (
    query("limit", "How many are asked for", _NATURAL),
    query("marker", "Last of the page before"),
)


def _filters() -> tuple[Schema, ...]:
    exact = [query(name, f"Images of this {name}") for name in sorted(queries.TEXTS)]
    listed = [
        query(name, f"Images of this {name}: x, eq:x, or in:x,y") for name in queries.TEXTS_WITH_IN
    ]
    times = [
        query(name, "A time of ISO 8601, after gt:, gte:, lt:, lte:, eq: or neq:, if any")
        for name in queries.TIMES
    ]
    numbers = [
        query(f"{name}{bound}", f"Images by their {name}: {how}", _WHOLE)
        for name in queries.INTEGERS
        for bound, how in (("", "this"), ("_min", "at least"), ("_max", "at most"))
    ]
    return tuple(sorted([*exact, *listed, *times, *numbers], key=lambda each: str(each["name"])))


_LIST = (
    *PAGE,
    query("sort_key", "What the list is sorted by", several(choice(queries.SORT_KEYS))),
    query("sort_dir", "One for all keys, or one for each", several(_DIRECTION)),
    query("sort", "Keys with directions: name:asc,size:desc"),
    query("visibility", "Who may see the images", choice((*Visibility, "all"))),
    query(
        "member_status",
        "Which of the images that are shared with the caller count",
        choice(queries.MEMBER_STATUS),
    ),
    query("os_hidden", "Hidden images, or the others", choice(("true", "false"))),
    query("protected", "Protected images, or the others", choice(("true", "false"))),
    query("tag", "Images that have all of these tags", several(TEXT)),
    *_filters(),
    {
        "name": "properties",
        "in": "query",
        "description": "Anything else: images with a custom property of this value",
        "style": "form",
        "explode": True,
        "schema": {"type": "object", "additionalProperties": TEXT},
    },
)

_RECORDS: Operations = {
    ("GET", IMAGES): Operation(
        summary="List images",
        content=json("Images"),
        parameters=_LIST,
        refusals=(errors.Forbidden, errors.InvalidQuery, errors.MarkerNotFound),
    ),
    ("POST", IMAGES): Operation(
        summary="Create an image's record",
        status=201,
        content=json("Image"),
        headers=("Location", "OpenStack-image-import-methods", "OpenStack-image-store-ids"),
        body=json("NewImage"),
        refusals=(
            *JSON_BODY,
            *_FIELDS,
            errors.Forbidden,
            errors.ImageExists,
            errors.LimitsUnavailable,
        ),
    ),
    ("GET", IMAGE): Operation(
        summary="Show an image's record", content=json("Image"), refusals=_SEEN
    ),
    ("PATCH", IMAGE): Operation(
        summary="Change an image's record, or its locations",
        content=json("Image"),
        body={patches.V21: ref("PatchV21"), patches.V20: ref("PatchV20")},
        refusals=(
            *JSON_BODY,
            *_FIELDS,
            *_CHANGED,
            *_NEW_PLACE,
            errors.InvalidPatch,
            errors.UnsupportedMediaType,
            errors.FormatFrozen,
            errors.PropertyExists,
            errors.PropertyMissing,
            errors.LastLocation,
            errors.Conflict,
            errors.ImageBusy,
        ),
    ),
    ("DELETE", IMAGE): Operation(
        summary="Delete an image",
        status=204,
        refusals=(*_CHANGED, errors.ImageProtected, errors.DataInUse),
    ),
}

_CONTENT: Operations = {
    ("GET", FILE): Operation(
        summary="Download an image's data; 204 where there is none",
        content=DATA,
        also={204: {}, 206: DATA},
        headers=("Content-MD5", "Content-Range"),
        parameters=(
            query("prefer", "Stores to read from first, parted by commas"),
            header("Range", "One range of bytes (RFC 9110)"),
            header("Content-Range", "A range as old clients ask for it: bytes 0-9/100"),
        ),
        refusals=(
            *_SEEN,
            errors.InvalidQuery,
            errors.UnknownStore,
            errors.RangeNotSatisfiable,
            errors.TooManyDownloads,
            errors.StoreNotFound,
            errors.OriginsBusy,
            errors.StoreCorrupt,
            errors.FillFailed,
        ),
    ),
    ("PUT", FILE): Operation(
        summary="Upload an image's data",
        status=204,
        parameters=(
            header("x-openstack-image-size", "How many bytes will come", _NATURAL),
            header("x-image-meta-store", "The store that they are for"),
        ),
        body=DATA,
        refusals=(
            *BODY,
            *_SEEN,
            *_NEW_DATA,
            errors.UnsupportedMediaType,
            errors.SizeMismatch,
            errors.UnknownStore,
            errors.StoreReadOnly,
            errors.StoreFull,
            errors.StoreUnwritable,
            errors.DataExists,
            errors.ImageGone,
            errors.ImageChanged,
            errors.UploadsBusy,
        ),
    ),
    ("GET", LOCATIONS): Operation(
        summary="Show where an image's data lies", content=json("Locations"), refusals=_SEEN
    ),
    ("POST", LOCATIONS): Operation(
        summary="Name where a queued image's data lies",
        status=202,
        body=json("NewLocation"),
        refusals=(*JSON_BODY, *_CHANGED, *_NEW_PLACE, errors.Conflict),
    ),
}

_SHARED = (*_SEEN, errors.ImageNotShared)
_SHARING: Operations = {
    ("GET", MEMBERS): Operation(
        summary="List the projects that an image is shared with",
        content=json("Members"),
        refusals=_SHARED,
    ),
    ("POST", MEMBERS): Operation(
        summary="Share an image with a project",
        content=json("Member"),
        body=json("NewMember"),
        refusals=(
            *JSON_BODY,
            *_SHARED,
            errors.InvalidProperty,
            errors.MemberExists,
            errors.QuotaExceeded,
        ),
    ),
    ("GET", MEMBER): Operation(
        summary="Show what a project makes of an image that is shared with it",
        content=json("Member"),
        refusals=(*_SHARED, errors.MemberNotFound),
    ),
    ("PUT", MEMBER): Operation(
        summary="Accept or reject an image that is shared",
        content=json("Member"),
        body=json("NewStatus"),
        refusals=(*JSON_BODY, *_SHARED, errors.MemberNotFound),
    ),
    ("DELETE", MEMBER): Operation(
        summary="Share an image with a project no longer",
        status=204,
        refusals=(*_SHARED, errors.MemberNotFound),
    ),
}

_MARKS: Operations = {
    ("PUT", TAG): Operation(
        summary="Put a tag on an image",
        status=204,
        refusals=(*_CHANGED, errors.NotFound, errors.InvalidProperty, errors.QuotaExceeded),
    ),
    ("DELETE", TAG): Operation(
        summary="Take a tag off an image",
        status=204,
        refusals=(*_CHANGED, errors.TagNotFound),
    ),
    **{
        ("POST", f"{IMAGE}/actions/{action}"): Operation(
            summary=summary, status=204, refusals=(*_CHANGED, errors.StatusForbids)
        )
        for action, summary in (
            ("deactivate", "Take an active image out of use"),
            ("reactivate", "Put a deactivated image into use again"),
        )
    },
}

OPERATIONS: Operations = {**_RECORDS, **_CONTENT, **_SHARING, **_MARKS}
