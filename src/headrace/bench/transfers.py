"""One client of an image test: transfers one after the other over one connection."""

import contextlib
import http.client
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace.bench import raw
from headrace.bench.spec import COPY, TO_HERE, Spec
from headrace.client import Connection, Images
from headrace.client.connection import forget_body, split_body
from headrace.client.images import image_path
from headrace.errors import ClientError, Conflict, ConnectionFailed, ImageNotFound, PeerGone
from headrace.transfer import linux, portable
from headrace.transfer.port import READABLE, WRITABLE, Port, Run

GRACE = 3.0
"""Seconds after the time is up for what is under way."""

UNHURRIED = 60.0
"""Seconds for which the service may do nothing, where only bytes are counted."""

_NAME = "headrace bench"  # of images that are made to be measured with

_TURN = 1 << 20  # bytes between two looks at the clock
_TURNS = 10  # a second, of a client that is slow on purpose
_SIZES = {"sendfile": 8 << 20, "splice": linux.PIPE_SIZE, "drop": 1 << 20, COPY: portable.BUFFER}
_OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class Subject:
    """The image that is fetched, or the file that is sent, and its size in bytes."""

    size: int
    image_id: str | None = None
    file: int | None = None


@dataclass(frozen=True)
class Counted:
    """What one client has done; its socket's buffers at the start and at the end."""

    bytes: int
    calls: int
    transactions: int
    mss: int
    congestion: str
    buffers: tuple[int, int, int, int]


def call_size(spec: Spec) -> int:
    """The most that one call of the near end moves."""
    asked = spec.receive_size if spec.test in TO_HERE else spec.send_size
    return asked or _SIZES[spec.via or COPY]


class Transfers:
    """One client, which is the ``number``-th; connected when it is made."""

    def __init__(self, connection: Connection, spec: Spec, subject: Subject, number: int) -> None:
        self._connection = connection
        self._images = Images(connection)
        self._spec = spec
        self._subject = subject
        self._way = spec.via or COPY
        self._size = call_size(spec)
        self._run = Run(None, self._size)
        self._buffer = memoryview(bytearray(self._size if self._way == COPY else 0))
        self._null = Port(os.open(os.devnull, os.O_WRONLY), WRITABLE, seekable=False)
        self._position = 0
        if spec.test == "IMAGE_RANGE":
            share = subject.size // spec.streams * number
            self._position = share - share % spec.request
        self._transactions = 0
        self._stopped = False
        self._parent = os.getppid()
        self._settled: socket.socket | None = None
        self._began = self._ended = (0, 0)
        self._mss = 0
        self._congestion = ""
        # What answers it has let us in; and the connection is there when the time begins, unless
        # the service closes it: one that has a process a connection must not be kept by idle ones.
        connection.request("GET", "/v2/images", query={"limit": "1"})

    def work(self) -> Counted:
        """Everything until the time or the bytes are over."""
        spec, connection = self._spec, self._connection
        self._start = time.monotonic()
        self._end = float("inf") if spec.seconds is None else self._start + spec.seconds
        share = None if spec.nbytes is None else -(-spec.nbytes // spec.streams)
        self._last = min(share or raw.ENDLESS, self._subject.size if spec.cold else raw.ENDLESS)
        act = {"IMAGE_GET": self._get, "IMAGE_PUT": self._put, "IMAGE_RANGE": self._get_range}
        while self._left() and not self._late():
            act[spec.test]()
            with contextlib.suppress(ConnectionFailed):  # it was cut
                self._ended = raw.buffers(connection.socket)
        return Counted(
            bytes=self._run.moved,
            calls=self._run.calls,
            transactions=self._transactions,
            mss=self._mss,
            congestion=self._congestion,
            buffers=(*self._began, *self._ended),
        )

    @property
    def orphaned(self) -> bool:
        """Whether what started this client is gone, whatever ended it."""
        return os.getppid() != self._parent

    def stop(self) -> None:
        """Have the time be up now."""
        self._stopped = True

    def _left(self) -> int:
        return self._last - self._run.moved

    def _late(self, grace: float = 0.0) -> bool:
        return self._stopped or time.monotonic() >= self._end + grace

    def _patience(self) -> float:
        """For how many seconds the service may do nothing from now on."""
        if self._spec.seconds is None:
            return UNHURRIED
        return round(max(self._end - time.monotonic(), 0.0) + GRACE, 1)

    def _settle(self) -> None:
        """Set up a connection that is new."""
        sock = self._connection.socket
        if sock is self._settled:
            return
        raw.prepare(sock, self._spec.local_buffer, self._spec)
        self._ended = raw.buffers(sock)
        if self._settled is None:
            self._began = self._ended
            self._mss = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            self._congestion = raw.congestion(sock)
        self._settled = sock

    # fetching

    def _get(self) -> None:
        self._fetch({})

    def _get_range(self) -> None:
        size = self._subject.size
        first = self._position % size
        last = min(first + self._spec.request, size) - 1
        self._position = last + 1
        self._fetch({"Range": f"bytes={first}-{last}"})

    def _fetch(self, headers: dict[str, str]) -> None:
        path = image_path(self._subject.image_id or "") + "/file"
        connection = self._connection
        with self._met():
            connection.send_head("GET", path, {"Accept": _OCTETS, **headers})
            self._settle()
            sock = connection.socket
            with connection.answer(timeout=self._patience()) as response:
                if headers and "Content-Range" not in response.headers:
                    raise ClientError(reason="the service answers with the whole, not with a range")
                if self._take(response, sock):
                    self._transactions += 1

    def _take(self, response: http.client.HTTPResponse, sock: socket.socket) -> bool:
        """Take the answer's body; False if there was no time for all of it."""
        if response.length is None:
            raise ClientError(reason="the service does not say how much it sends")
        if self._connection.encrypted:
            return self._receive(response.length, response.readinto, sock.fileno())
        ahead, left = split_body(response)
        self._run.add(min(len(ahead), self._left()), 0)
        whole = self._receive(left, None, sock.fileno())
        if whole:
            forget_body(response)
        return whole

    def _receive(self, left: int, readinto: Callable[[memoryview], int] | None, fd: int) -> bool:
        """Take ``left`` bytes; False if there was no time for all of them."""
        port = Port(fd, READABLE, seekable=False)
        read = readinto or portable.stream_reader(port, self._run)
        while left:
            if not self._left() or self._late():
                return False
            turn = self._turn(left)
            port.stall = self._patience()
            before = self._run.moved
            if self._way == "splice":
                linux.splice_through(self._run, port, turn, self._null, None)
            else:
                count = 1
                while count and (missing := turn - (self._run.moved - before)):
                    count = read(self._buffer[:missing])
                    self._run.add(count)
            if self._run.moved - before < turn:
                raise ConnectionResetError("the connection was closed in the middle of an image")
            left -= turn
            self._pace()
        return True

    # sending

    def _put(self) -> None:
        # A token that has ended was replaced when the image was made, a moment ago: what is sent
        # twice would be measured twice.
        size = min(self._subject.size, self._left())
        with temporary(self._images) as image_id, self._met():
            self._upload(image_id, size)

    def _upload(self, image_id: str, size: int) -> None:
        connection = self._connection
        headers = {"Content-Type": _OCTETS, "Content-Length": str(size)}
        connection.send_head("PUT", image_path(image_id) + "/file", headers)
        self._settle()
        try:
            whole = self._send(connection.socket, size)
        except (ConnectionError, PeerGone):
            # Why, the service may have said before it closed.
            with contextlib.suppress(OSError, http.client.HTTPException), connection.answer():
                pass
            raise
        if not whole:
            connection.close()
            return
        with connection.answer(timeout=self._patience()) as response:
            response.read()
        self._transactions += 1

    def _send(self, sock: socket.socket, size: int) -> bool:
        """Send the file's first ``size`` bytes; False if there was no time for all of them."""
        file = self._subject.file
        assert file is not None
        port = Port(sock.fileno(), WRITABLE, seekable=False)
        write = portable.stream_writer(port, self._run)
        if self._connection.encrypted:
            write = portable.peer_writer(sock, self._run)
        offset = 0
        while offset < size:
            if self._late(GRACE):
                return False
            turn = self._turn(size - offset)
            port.stall = self._patience()
            before = self._run.moved
            if self._way == "sendfile":
                linux.send_file(self._run, file, offset, turn, port)
            elif self._way == "splice":
                linux.splice_file(self._run, file, offset, turn, port)
            else:
                self._copy(portable.file_reader(file, offset), write, turn)
            if self._run.moved - before < turn:
                raise ClientError(reason="the file to send was truncated meanwhile")
            offset += turn
            self._pace()
        return True

    def _copy(self, read: portable.Read, write: portable.Write, left: int) -> None:
        while left and (count := read(self._buffer[:left])):
            self._run.calls += 1
            write(self._buffer[:count])
            left -= count

    # what both need

    @contextlib.contextmanager
    def _met(self) -> Iterator[None]:
        """Turn what a connection meets into one clear error."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise self._connection.failed(error, waited=self._patience()) from error
        except linux.Refused as refusal:
            raise ClientError(reason=f"{self._way} cannot move these bytes: {refusal}") from refusal

    def _turn(self, left: int) -> int:
        """How much to move before the clock is looked at again."""
        if self.orphaned:
            self.stop()
        turn = max(self._size, _TURN)
        if self._spec.slow is not None:
            turn = max(1, min(turn, self._spec.slow // _TURNS))
        return min(turn, left, self._left())

    def _pace(self) -> None:
        if self._spec.slow is None:
            return
        due = self._start + self._run.moved / self._spec.slow
        time.sleep(max(0.0, min(due, self._end) - time.monotonic()))


@contextlib.contextmanager
def temporary(images: Images) -> Iterator[str]:
    """An image without data, taken away afterwards, whatever happens meanwhile; its id."""
    image_id = str(uuid.uuid4())  # ours: known before the service answers
    made = False
    try:
        images.create(id=image_id, name=_NAME, disk_format="raw", container_format="bare")
        made = True
        yield image_id
    except BaseException:
        images.connection.close()  # it may be in the middle of anything
        raise
    finally:
        _take_away(images, image_id, made=made)


def _take_away(images: Images, image_id: str, *, made: bool) -> None:
    """Delete an image whose upload may still be being undone, or which may only be being made."""
    deadline = time.monotonic() + (GRACE if made else GRACE / 3)
    while True:
        try:
            images.delete(image_id)
            return
        except ImageNotFound:
            if made or time.monotonic() > deadline:
                return
        except Conflict:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
