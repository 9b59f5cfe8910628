"""The body of an import's request."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace import errors
from headrace.model import is_image_id
from headrace.service.imports import ImportRequest
from headrace.service.jobs import GLANCE_DOWNLOAD
from headrace.service.regions import RemoteImage


class ImportMethod(msgspec.Struct):
    """How data is brought in, and from where."""

    name: str
    uri: Annotated[str, Meta(max_length=2048)] | None = None
    glance_region: Annotated[str, Meta(max_length=255)] | None = None
    glance_image_id: str | None = None
    glance_service_interface: Literal["public", "internal", "admin"] = "public"


class ImportBody(msgspec.Struct):
    """What is asked for."""

    method: ImportMethod
    stores: list[str] | None = None
    all_stores: bool = False
    all_stores_must_succeed: bool = True


def import_request(document: object, store_id: str | None) -> ImportRequest:
    """What ``document`` asks for; ``store_id`` is the store that a header names.

    Raises InvalidBody, BadRequest (stores chosen twice).
    """
    try:
        body = msgspec.convert(document, ImportBody)
    except msgspec.ValidationError as error:
        raise errors.InvalidBody(reason=error) from None
    if [body.stores is not None, store_id is not None, body.all_stores].count(True) > 1:
        raise errors.BadRequest(reason="stores are chosen by one of stores, all_stores, header")
    stores = None if body.stores is None else tuple(body.stores)
    if stores is None and store_id is not None:
        stores = (store_id,)
    remote = _remote(body.method) if body.method.name == GLANCE_DOWNLOAD else None
    return ImportRequest(
        body.method.name,
        body.method.uri,
        remote,
        stores,
        body.all_stores,
        body.all_stores_must_succeed,
        document,
    )


def _remote(method: ImportMethod) -> RemoteImage:
    region, image_id = method.glance_region, method.glance_image_id
    if not region:
        raise errors.InvalidBody(reason="method glance-download wants glance_region")
    if image_id is None or not is_image_id(image_id):
        raise errors.InvalidBody(reason="method glance-download wants glance_image_id, a UUID")
    return RemoteImage(region, image_id, method.glance_service_interface)
