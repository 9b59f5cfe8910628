"""/v2/images/{image_id}/file: the data."""

import threading
from collections.abc import Sequence
from functools import partial

import falcon

from headrace import errors
from headrace.api import intake, ranges
from headrace.api.delivery import Delivery
from headrace.api.offload import ArrivedBody, Offload, is_question
from headrace.api.requests import media_type, query_pairs
from headrace.api.traffic import Traffic
from headrace.service.content import Content
from headrace.service.landing import Body
from headrace.transfer import engine


class Turns:
    """Uploads of one process, ``most`` at a time; as a context, raises UploadsBusy for more.

    An upload holds a thread for as long as its client likes; the others are for all else.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = threading.BoundedSemaphore(most)

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise errors.UploadsBusy(limit=self._most)

    def __exit__(self, *_: object) -> None:
        self._free.release()


class FileHandler:
    """An image's data, up and down."""

    def __init__(
        self,
        content: Content,
        delivery: Delivery,
        offload: Offload,
        traffic: Traffic,
        turns: Turns,
    ) -> None:
        self._content = content
        self._traffic = traffic
        self._delivery = delivery
        self._offload = offload
        self._turns = turns

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        preferred = _preferred(req) if req.query_string else ()
        begins = None if self._content.cache is None else _beginning(req)
        image, data = self._content.download(req.context.caller, image_id, preferred, begins)
        if data is None:
            resp.status = falcon.HTTP_204
        else:
            self._delivery.deliver(req, resp, image, data)

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        resp.status = falcon.HTTP_204
        if is_question(req.env):
            self._permit(req, image_id)
            return
        media_type(req, "application/octet-stream")
        with self._turns:
            self._upload(req, image_id)

    def _upload(self, req: falcon.Request, image_id: str) -> None:
        announced = announced_size(req)
        arrival = self._offload.arrival(req.env)
        if arrival is None:
            way = "splice" if intake.BODY in req.env and engine.enabled() else "copy"
            self._take(req, image_id, intake.body(req.env), announced, way)
            return
        with arrival:
            self._take(req, image_id, ArrivedBody(arrival), announced, "offloaded")

    def _take(
        self, req: falcon.Request, image_id: str, body: Body, announced: int | None, way: str
    ) -> None:
        size = announced if body.length is None else body.length
        with self._traffic.upload(image_id, req.remote_addr, size, way) as transfer:
            how = self._content.upload(
                req.context.caller,
                image_id,
                body,
                announced,
                partial(setattr, transfer, "landed"),
                store_id(req),
            )
            if how is not None:
                transfer.went(how)

    def _permit(self, req: falcon.Request, image_id: str) -> None:
        """Let an upload's body be written to a file; raises whatever would refuse the upload."""
        media_type(req, "application/octet-stream")
        length = self._offload.permit(req.env)
        announced, store = announced_size(req), store_id(req)
        self._content.check_upload(req.context.caller, image_id, length, announced, store)


def announced_size(req: falcon.Request) -> int | None:
    """The size in bytes that an upload's sender promises; raises BadRequest."""
    text = req.get_header("x-openstack-image-size")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise errors.BadRequest(reason="x-openstack-image-size is not a number of bytes")
    return int(text)


def store_id(req: falcon.Request) -> str | None:
    """The store that an upload is for, if its sender says so."""
    return req.get_header("x-image-meta-store")


def _preferred(req: falcon.Request) -> Sequence[str]:
    """The stores that a download would rather be from."""
    chosen = dict(query_pairs(req)).get("prefer", "")
    return [name for each in chosen.split(",") if (name := each.strip())]


def _beginning(req: falcon.Request) -> int | None:
    """Where the range begins that is asked for, if one is."""
    header = req.get_header("Range") or req.get_header("Content-Range")
    return None if header is None else ranges.beginning(header)
