"""The one byte range a download may ask for (RFC 9110 section 14)."""

import re
import sys

from headrace import errors

_BYTES = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")


def requested(header: str, size: int) -> tuple[int, int]:
    """(offset, length) that a ``Range`` header asks of ``size`` bytes.

    An end past the data is clipped.  Raises BadRequest for several ranges: a list of ranges is
    how a small request makes a server do much work.  Raises RangeNotSatisfiable.
    """
    if "," in header:
        raise errors.BadRequest(reason="only one range can be served")
    found = _BYTES.fullmatch(header.replace(" ", ""))
    if found is None or found.groups() == ("", "") or not _sane(header):
        raise errors.RangeNotSatisfiable(range=header, size=size)
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    else:
        start, end = max(size - int(last), 0), size - 1
        if last.strip("0") == "":
            raise errors.RangeNotSatisfiable(range=header, size=size)
    if start >= size or end < start:
        raise errors.RangeNotSatisfiable(range=header, size=size)
    return start, end - start + 1


def legacy(header: str, size: int) -> tuple[int, int]:
    """The same for a ``Content-Range`` header in a request, as old clients send it."""
    found = _CONTENT_RANGE.fullmatch(header.strip())
    if found is None or not _sane(header):
        raise errors.RangeNotSatisfiable(range=header, size=size)
    start, end = int(found[1]), int(found[2])
    if end >= size or end < start or found[3] not in ("*", str(size)):
        raise errors.RangeNotSatisfiable(range=header, size=size)
    return start, end - start + 1


def beginning(header: str) -> int:
    """Where the range of either header begins, as far as that can be said without the data's size.

    The end of what only counts from there; of what is no range, too.
    """
    found = re.match(r"bytes[ =]([0-9]{1,19})-", header)
    return int(found[1]) if found else sys.maxsize


def _sane(header: str) -> bool:
    # Python refuses to convert absurdly long digit strings; no file has 10^40 bytes.
    return len(header) <= 100
