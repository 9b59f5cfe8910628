"""The http store: data that lies at origins elsewhere.  It is read, never written.

Every address is checked whenever it is fetched from (stores.destinations), and no error names one:
a URL may carry a password, and where it leads is nobody's business.
"""

import http.client
import re

from headrace import errors
from headrace.stores.base import ReadOnly
from headrace.stores.origin import Fetched, Origins
from headrace.stores.remote import Remote, Turns

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)")
_WASTE = 1 << 20


class HttpStore(ReadOnly):
    """Locations that are http and https URLs; see ``stores.base.Store``.

    ``most`` are open at a time in this process; OriginsBusy is raised for more.
    """

    kind = "http"

    def __init__(self, id: str, origins: Origins, most: int = 16) -> None:
        super().__init__(id)
        self._origins = origins
        self._turns = Turns(most)

    def holds(self, url: str) -> bool:
        return url.lower().startswith(("http://", "https://"))

    def check(self, url: str) -> None:
        self._origins.check(url)

    def open(self, url: str) -> Remote:
        if not self.holds(url):
            raise errors.NotFound()
        return self._turns.open(lambda: self._open(url))

    def _open(self, url: str) -> Remote:
        fetched = self._get(url, None)
        try:
            return Remote(
                fetched, _size(fetched), lambda start, count: self._part(url, start, count)
            )
        except BaseException:
            fetched.close()
            raise

    def _part(self, url: str, offset: int, length: int) -> Fetched:
        fetched = self._get(url, f"bytes={offset}-{offset + length - 1}")
        try:
            _position(fetched, offset, length)
        except BaseException:
            fetched.close()
            raise
        return fetched

    def _get(self, url: str, byte_range: str | None) -> Fetched:
        """An answer with data; raises NotFound, ServiceUnavailable."""
        try:
            fetched = self._origins.get(url, byte_range)
        except errors.InvalidLocation:
            raise errors.ServiceUnavailable(
                reason=f"a location of store {self._id} may not be fetched from"
            ) from None
        response = fetched.response
        if response.status in (200, 206) and response.getheader("Content-Encoding") is None:
            return fetched
        fetched.close()
        if response.status in (404, 410):
            raise errors.NotFound()
        raise errors.ServiceUnavailable(
            reason=f"an origin of store {self._id} answers {response.status}"
        )


def _size(fetched: Fetched) -> int:
    """How many bytes the data has; raises ServiceUnavailable when that is not said."""
    if fetched.response.length is None or fetched.response.status != 200:
        raise errors.ServiceUnavailable(reason="an origin does not say how large its data is")
    return fetched.response.length


def _position(fetched: Fetched, offset: int, length: int) -> None:
    """Make the next byte of the body the one at ``offset``; raises ServiceUnavailable.

    An origin need not know ranges (RFC 9110 section 14.2): then all before is read and dropped.
    """
    response = fetched.response
    if response.status == 206:
        said = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range") or "")
        if said and (int(said[1]), int(said[2]), response.length) == (
            offset, offset + length - 1, length
        ):  # fmt: skip
            return
        raise errors.ServiceUnavailable(reason="an origin sends another range than asked for")
    left = offset
    try:
        while left and (got := len(response.read(min(left, _WASTE)))):
            left -= got
    except (OSError, http.client.HTTPException):
        pass
    if left:
        raise errors.ServiceUnavailable(reason="an origin broke off")
