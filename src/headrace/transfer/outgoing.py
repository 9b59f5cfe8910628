"""A file on its way into a non-blocking socket, a turn at a time: for a loop that serves many."""

import os

from headrace import errors
from headrace.transfer import linux, portable, record
from headrace.transfer.extent import Extent
from headrace.transfer.growing import WHOLE, Growing
from headrace.transfer.port import translated, undelivered
from headrace.transfer.record import How


class Outgoing:
    """What is left to send of ``extent`` into the socket ``out``, both of which stay the caller's.

    By sendfile, or copied where that is not to be used or is refused.  ``left`` is how many bytes
    are still to be sent, ``offset`` where in the file they begin; ``extent.sent`` tells how far it
    came, also after an error.  ``fetched`` is from where on it may have had the file read in.

    ``reach`` is where in the file ends what may be sent by now; of a file that is still ``growing``
    that is less than all, and a turn at ``reach`` sends nothing, until more is admitted.

    Raises FillFailed of a file that grows no more.
    """

    # Attributes, not properties: a turn is to cost as few calls as can be.
    __slots__ = (
        "_cold", "_devices", "_how", "_out", "_refused", "extent", "fetched", "growing", "left",
        "offset", "reach",
    )  # fmt: skip

    def __init__(self, extent: Extent, out: int) -> None:
        self.extent = extent
        self.offset = extent.offset
        self.left = extent.length
        self.reach = extent.offset + extent.length
        self.growing: Growing | None = None
        if isinstance(extent, Growing):
            self.growing = extent
            self.admit(extent.look())
        self._out = out
        self._devices = os.fstat(extent.fd).st_dev, os.fstat(out).st_dev
        self._refused = ""
        self._cold = False
        self.fetched: int | None = None
        self._how = How.COPY
        if record.enabled() and extent.length >= record.SMALL:
            known = record.refusal(How.SENDFILE, *self._devices)
            if known is None:
                self._how = How.SENDFILE
            else:
                record.count_fallback(How.SENDFILE, known)
        extent.way = self._how

    def turn(self, most: int) -> int:
        """Send up to ``most`` bytes, as many as the socket has room for; how many.

        Raises PeerGone, FileTruncated and TransferError, with ``moved`` among their fields.
        """
        count = min(most, self.reach - self.offset)
        if not count:
            return 0
        try:
            if self._how is How.SENDFILE:
                moved = linux.send_some(self._out, self.extent.fd, self.offset, count)
            else:
                moved = portable.send_some(self._out, self.extent.fd, self.offset, count)
        except BlockingIOError:
            return 0
        except OSError as error:
            if self._how is How.COPY or self.extent.sent or not linux.refuses(error):
                raise translated(error, self.extent.sent) from error
            self._how = self.extent.way = How.COPY
            self._refused = linux.reason(error)
            record.count_fallback(How.SENDFILE, self._refused)
            return self.turn(most)
        if moved == 0:
            raise errors.FileTruncated(missing=self.left, moved=self.extent.sent)
        self.offset += moved
        self.left -= moved
        self.extent.sent += moved
        return moved

    def look(self) -> int:
        """How much of its file, which grows, has landed; raises FillFailed."""
        assert self.growing is not None, "it has landed"
        return self.growing.look()

    def admit(self, landed: int) -> None:
        """Take note of what a look at the file found, this one's or another's."""
        assert self.growing is not None, "it has landed"
        self.reach = self.growing.reach(landed)
        if landed == WHOLE:
            self.growing = None

    def cold(self, length: int) -> bool:
        """Whether some of the next ``length`` bytes would have to be read from the disk.

        If so it stays so until read_in(): looking may fetch what was looked at, and no more.
        """
        length = min(length, self.reach - self.offset)
        if length and not self._cold:
            share = linux.resident(self.extent.fd, self.offset, length)
            self._cold = share is not None and share < 1
        return self._cold

    def read_in(self, length: int) -> None:
        """Have the next ``length`` bytes in memory, and as many after them on their way."""
        if self.fetched is None:
            self.fetched = self.offset
        linux.read_in(self.extent.fd, self.offset, min(length, self.reach - self.offset))
        self._cold = False

    def drop_behind(self) -> None:
        """Have what the peer has of it leave memory, from where something first had to be read in.

        What the kernel reads ahead by itself is nobody's; so all that comes after is this one's.
        """
        if self.fetched is None:
            return
        length = self.extent.offset + self.delivered() - self.fetched
        if length > 0:  # 0 would be all of it
            # From the start again and again: what was in use, or across an edge, stayed before.
            linux.drop(self.extent.fd, self.fetched, length)

    def delivered(self) -> int:
        """How many bytes the peer has acknowledged."""
        return self.extent.sent - undelivered(self._out)

    def finish(self) -> None:
        """Count what was moved, and by which way."""
        record.count({self._how: self.extent.sent})
        if self._refused and not self.left:  # copying went well, so it is the way that is at fault
            record.refuse(How.SENDFILE, *self._devices, self._refused)
