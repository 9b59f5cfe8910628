"""The imageapi store: data that lies with another Image API service.  It is read, never written.

With the image cache in front it makes an edge node: one that is near to those who boot, and asks
the service at the centre for each image once.

Its locations are ``imageapi://<image id>``, which only administrators may name; besides them it
stands in for those of the centre's own stores, if its database is the centre's.
"""

import http.client
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from urllib.parse import quote

from headrace import errors
from headrace.client.connection import Connection
from headrace.model import IMAGE_ID
from headrace.stores.base import ReadOnly
from headrace.stores.origin import Fetched
from headrace.stores.remote import Remote, Turns

_SCHEME = "imageapi://"
_RETRIES = 5
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)")

Connect = Callable[[], Connection]


class ImageApiStore(ReadOnly):
    """The images of the service that ``connect`` leads to; see ``stores.base.Store``.

    ``stands_for`` are directories of the centre's stores, as URLs: what lies in them is the
    centre's image of that name.  ``most`` are open at a time in this process; OriginsBusy is raised
    for more.
    """

    kind = "imageapi"

    def __init__(
        self, id: str, connect: Connect, stands_for: Sequence[str] = (), most: int = 16
    ) -> None:
        super().__init__(id)
        self._connect = connect
        self._prefixes = (_SCHEME, *(f"{each.rstrip('/')}/" for each in stands_for))
        self._turns = Turns(most)

    def holds(self, url: str) -> bool:
        return self._image_id(url) is not None

    def check(self, url: str) -> None:
        if not url.startswith(_SCHEME) or not self.holds(url):
            raise errors.InvalidLocation()

    def open(self, url: str) -> Remote:
        image_id = self._image_id(url)
        if image_id is None:
            raise errors.NotFound()
        return self._turns.open(lambda: self._open(image_id))

    def _image_id(self, url: str) -> str | None:
        """The centre's image that a location of this store means."""
        for prefix in self._prefixes:
            if url.startswith(prefix) and IMAGE_ID.fullmatch(url, len(prefix)):
                return url[len(prefix) :]
        return None

    def _open(self, image_id: str) -> Remote:
        fetched = self._get(image_id, {})
        if fetched.response.status != 200:
            fetched.close()
            raise errors.NotFound()  # 204: it has no data
        if fetched.length is None:
            fetched.close()
            raise errors.ServiceUnavailable(reason=f"store {self.id} tells no size")
        return Remote(fetched, fetched.length, partial(self._part, image_id), _RETRIES)

    def _part(self, image_id: str, offset: int, length: int) -> Fetched:
        last = offset + length - 1
        fetched = self._get(image_id, {"Range": f"bytes={offset}-{last}"})
        said = _CONTENT_RANGE.fullmatch(fetched.response.getheader("Content-Range") or "")
        if said and (int(said[1]), int(said[2]), fetched.length) == (offset, last, length):
            return fetched
        fetched.close()
        raise errors.ServiceUnavailable(reason=f"store {self.id} sends another range")

    def _get(self, image_id: str, headers: dict[str, str]) -> Fetched:
        """The answer of the centre; raises NotFound, ServiceUnavailable."""
        try:
            connection = self._connect()
        except errors.Error as error:
            raise self._away(error) from None
        path = f"/v2/images/{quote(image_id)}/file"
        try:
            return connection.with_token(lambda: _asked(connection, path, headers))
        except errors.NotFound:
            connection.close()
            raise errors.NotFound() from None
        except (OSError, http.client.HTTPException, errors.Error) as error:
            connection.close()
            raise self._away(error) from None
        except BaseException:
            connection.close()
            raise

    def _away(self, error: Exception) -> errors.ServiceUnavailable:
        # The error's text may name the host, and quote what it said.
        reason = error.code if isinstance(error, errors.Error) else type(error).__name__
        return errors.ServiceUnavailable(reason=f"store {self.id} cannot be read ({reason})")


def _asked(connection: Connection, path: str, headers: dict[str, str]) -> Fetched:
    """The answer to one request; raises the error that it stands for."""
    with ExitStack() as stack:
        stack.callback(connection.close)
        connection.send_head("GET", path, headers)
        sock = connection.socket
        response = stack.enter_context(connection.answer())
        return Fetched(response, stack.pop_all(), sock)
