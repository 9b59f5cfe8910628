"""Fetching an image's data: landed beside its target, hashed meanwhile, shown when it is right."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import select
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from headrace.client.connection import JSON, Connection, forget_body, split_body
from headrace.client.partial import Expected, Partial, partial_name
from headrace.errors import (
    ClientError,
    ConnectionFailed,
    DataCorrupt,
    Error,
    NoRanges,
    PeerGone,
    PeerStalled,
    StoreFull,
    StoreUnwritable,
)
from headrace.transfer.digest import Follower
from headrace.transfer.engine import (
    FileSink,
    How,
    Moved,
    Progress,
    Reader,
    Sender,
    Sink,
    Source,
    Stream,
    pump_all,
)

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # between attempts that brought nothing new
STARTS = 3


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A finished download: what was moved, what an earlier one had left, how it was verified.

    ``resumed`` is in bytes; ``verified`` is the algorithm of the hash that matched, None if there
    was none to compare with or none was wanted.
    """

    moved: Moved
    resumed: int
    verified: str | None


def to_file(
    connection: Connection,
    image: Mapping[str, object],
    target: Path,
    *,
    prefer: Sequence[str] = (),
    resume: bool = True,
    verify: bool = True,
    progress: Progress | None = None,
) -> Downloaded:
    """Fetch the data of ``image``, a record, so that ``target`` is all of it or what it was.

    What a symbolic link points to is replaced, not the link; a device or FIFO is written to.
    ``prefer`` are the stores that the data should rather come from.
    """
    target = Path(os.path.realpath(target))
    mode = _mode(target)
    if mode is not None and stat.S_ISDIR(mode):
        raise ClientError(reason=f"{target} is a directory")
    if mode is not None and not stat.S_ISREG(mode):
        return _to_device(connection, image, target, prefer, verify=verify, progress=progress)
    expected = Expected.of(image, prefer)
    with contextlib.closing(Partial.open(target.parent, expected, resume=resume)) as partial:
        for _ in range(STARTS):
            try:
                done = _land(connection, expected, partial, verify=verify, progress=progress)
            except (_StartOver, NoRanges):
                partial.empty()
                continue
            except DataCorrupt:
                partial.discard()
                raise
            except (StoreFull, StoreUnwritable) as error:
                raise _unwritten(error) from error
            partial.publish(target)
            return done
    raise ClientError(reason="the connection is cut again and again, and ranges are not served")


def to_descriptor(
    connection: Connection,
    image: Mapping[str, object],
    fd: int,
    *,
    prefer: Sequence[str] = (),
    verify: bool = True,
    progress: Progress | None = None,
) -> Downloaded:
    """Fetch the data of ``image``, a record, into ``fd``; DataCorrupt comes after the bytes.

    BrokenPipeError if the reader of a pipe is gone; ClientError if ``fd`` cannot be written;
    NoRanges.
    """
    expected = Expected.of(image, prefer)
    algorithm = expected.algorithm if verify else None
    start = _file_position(fd)
    readable = None if start is None or algorithm is None else _reopened(fd)
    try:
        if start is not None and (algorithm is None or (start == 0 and readable is not None)):
            done = _into_file(connection, expected, fd, start, readable, algorithm, progress)
            os.lseek(fd, start + done.moved.bytes, os.SEEK_SET)
            return done
        return _into_stream(connection, expected, fd, algorithm, progress)
    except (StoreFull, StoreUnwritable) as error:
        raise _unwritten(error) from error
    finally:
        if readable is not None:
            os.close(readable)


def to_empty_file(
    connection: Connection, expected: Expected, fd: int, *, progress: Progress
) -> Moved:
    """Fetch data into the empty regular file ``fd``; whether it is right is not looked at.

    Raises StoreFull, StoreUnwritable; ClientError when it does not come.
    """
    return _into_file(connection, expected, fd, 0, None, None, progress).moved


@contextlib.contextmanager
def arriving(
    connection: Connection, expected: Expected, position: int
) -> Iterator[Iterable[Source]]:
    """The data from ``position`` on, piece by piece, while the context lasts.

    Raises NoRanges when only all of it is to be had, ClientError when what is sent cannot be it
    (DataCorrupt when that is seen at its end), and what the service answers.
    """
    with contextlib.ExitStack() as stack:
        try:
            response, sock = connection.with_token(
                lambda: stack.enter_context(_asked(connection, expected, position))
            )
            _check(response, expected, position)
            yield _pieces(connection, response, sock, expected, position)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise connection.failed(error) from error


def kept(image: Mapping[str, object], target: Path) -> tuple[Path, int] | None:
    """The file, and its bytes, that an interrupted download of ``image`` left beside ``target``."""
    expected = Expected.of(image)
    path = Path(os.path.realpath(target)).parent / partial_name(expected)
    try:
        size = path.stat().st_size if expected.algorithm else 0
    except OSError:
        return None
    return (path, size) if size else None


class _StartOver(Exception):
    """What had landed before was not right."""


class _Arrival:
    """An image's bytes arriving in order, over as many connections as it takes.

    ``position`` is how many are there; ``sink(position)`` says where the next ones go;
    ``watchers`` are told the position.
    """

    def __init__(
        self,
        connection: Connection,
        expected: Expected,
        sink: Callable[[int], Sink],
        watchers: list[Progress],
        position: int = 0,
    ) -> None:
        self._connection = connection
        self._expected = expected
        self._sink = sink
        self._watchers = watchers
        self._start = position
        self._calls = 0
        self._how = How.COPY
        self.position = position
        self._tell()

    def complete(self, *, target_gone: Callable[[], bool] = lambda: False) -> Moved:
        """Have all the rest arrive; gives up after a bounded number of attempts without progress.

        BrokenPipeError if it is the target that went away.
        """
        failures = 0
        while self.position != self._expected.size:
            before = self.position
            try:
                self._attempt()
                break
            except (PeerGone, PeerStalled, ConnectionFailed) as cut:
                self._connection.close()
                if target_gone():
                    raise BrokenPipeError("the reader of the data is gone") from cut
                failures = 1 if self.position > before else failures + 1
                if failures > len(BACKOFF_S):
                    raise
                time.sleep(BACKOFF_S[failures - 1])
        return Moved(self.position - self._start, self._calls, self._how)

    def _attempt(self) -> None:
        start = self.position

        def progress(moved: int) -> None:
            self.position = start + moved
            self._tell()

        with arriving(self._connection, self._expected, start) as pieces:
            moved = pump_all(pieces, self._sink(start), progress=progress)
        self._calls += moved.calls
        self._how = moved.how
        if self._expected.size not in {None, self.position}:
            raise PeerGone(moved=self.position)

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher(self.position)


@contextlib.contextmanager
def _asked(
    connection: Connection, expected: Expected, position: int
) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
    """The answer to a request for the data from ``position`` on, and what it comes through."""
    headers = {"Accept": JSON}
    if position:
        headers["Range"] = f"bytes={position}-"
    path = f"/v2/images/{quote(expected.image_id, safe='')}/file"
    query = {"prefer": ",".join(expected.prefer)} if expected.prefer else None
    connection.send_head("GET", path, headers, query=query)
    sock = connection.socket
    with connection.answer() as response:
        yield response, sock


def _check(response: http.client.HTTPResponse, expected: Expected, position: int) -> None:
    """Refuse an answer that is not the bytes asked for."""
    if response.status == http.client.NO_CONTENT:
        raise ClientError(reason=f"image {expected.image_id} has no data")
    if position:
        if response.status != http.client.PARTIAL_CONTENT:
            raise NoRanges()
        served = response.headers.get("Content-Range", "")
        if not re.match(rf"bytes {position}-\d+/", served):
            raise ClientError(reason=f"bytes from {position} were asked for, not {served}")
    if expected.size is not None and response.length is not None:
        size = position + response.length
        if size != expected.size:
            raise ClientError(
                reason=f"the service sends {size} bytes of an image of {expected.size}"
            )


def _pieces(
    connection: Connection,
    response: http.client.HTTPResponse,
    sock: socket.socket,
    expected: Expected,
    position: int,
) -> Iterator[Source]:
    """The body: what http.client has read ahead with the head, then the socket itself.

    Raises DataCorrupt after the image's last byte if there is more.
    """
    if connection.encrypted or response.length is None:
        yield Reader(_Body(response), None if expected.size is None else expected.size - position)
        if response.read(1):  # of a body that did not say how long it is
            raise DataCorrupt(f"the service sends more than the {expected.size} bytes of the image")
        return
    ahead, left = split_body(response)
    yield ahead
    yield Stream(sock.fileno(), left, stall=connection.timeout)
    forget_body(response)


class _Body:
    """A response's body as the copying loop reads it."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._response.readinto(buffer)
        except http.client.HTTPException as error:
            raise ConnectionResetError(str(error)) from error


class _HashingWriter:
    """Writes to a descriptor what it also hashes."""

    def __init__(self, fd: int, algorithm: str) -> None:
        self._fd = fd
        self.hash = hashlib.new(algorithm, usedforsecurity=False)

    def sendall(self, data: memoryview, /) -> None:
        self.hash.update(data)
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except BrokenPipeError:
                raise
            except OSError as error:
                # Not the connection's fault: nothing is gained by another one.
                raise ClientError(reason=f"cannot write the data: {error.strerror}") from error


def _land(
    connection: Connection,
    expected: Expected,
    partial: Partial,
    *,
    verify: bool,
    progress: Progress | None,
) -> Downloaded:
    """Have the image arrive in its partial file after what is there, and verify all of it."""
    resumed = partial.size
    algorithm = expected.algorithm if verify else None
    try:
        return _into_file(
            connection, expected, partial.fd, 0, partial.fd, algorithm, progress, resumed
        )
    except DataCorrupt as error:
        # Not necessarily what came now: a power cut may have damaged what was there.
        if resumed:
            raise _StartOver from error
        raise


def _into_file(
    connection: Connection,
    expected: Expected,
    fd: int,
    start: int,
    readable: int | None,
    algorithm: str | None,
    progress: Progress | None,
    resumed: int = 0,
) -> Downloaded:
    """Splice into the file ``fd`` from ``start`` on, and hash behind that if it is wanted."""
    watchers = [] if progress is None else [progress]
    follower = None
    if algorithm is not None and readable is not None:
        follower = Follower(readable, [algorithm])
        watchers.append(follower.advance)
    try:
        arrival = _Arrival(
            connection, expected, lambda position: FileSink(fd, start + position), watchers, resumed
        )
        moved = arrival.complete()
        if follower is not None and algorithm is not None:
            expected.verify(follower.finish(arrival.position)[algorithm])
    finally:
        if follower is not None:
            follower.stop()
    return Downloaded(moved, resumed, algorithm)


def _into_stream(
    connection: Connection,
    expected: Expected,
    fd: int,
    algorithm: str | None,
    progress: Progress | None,
) -> Downloaded:
    """Send the bytes through ``fd``: hashed, so copied, or spliced if no hash is wanted."""
    writer = None if algorithm is None else _HashingWriter(fd, algorithm)
    sink: Sink = Stream(fd) if writer is None else Sender(writer)
    watchers = [] if progress is None else [progress]
    arrival = _Arrival(connection, expected, lambda position: sink, watchers)
    moved = arrival.complete(target_gone=lambda: _reader_gone(fd))
    if writer is not None:
        expected.verify(writer.hash.hexdigest())
    return Downloaded(moved, 0, algorithm)


def _to_device(
    connection: Connection,
    image: Mapping[str, object],
    target: Path,
    prefer: Sequence[str],
    *,
    verify: bool,
    progress: Progress | None,
) -> Downloaded:
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ClientError(reason=f"cannot write {target}: {error.strerror}") from error
    try:
        return to_descriptor(connection, image, fd, prefer=prefer, verify=verify, progress=progress)
    finally:
        os.close(fd)


def _mode(path: Path) -> int | None:
    """What ``path`` is; None if it is not there."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClientError(reason=f"cannot write {path}: {error.strerror}") from error


def _file_position(fd: int) -> int | None:
    """Where in the regular file ``fd`` writing goes on; None if it is none that can be spliced to.

    splice refuses files open for appending (EINVAL, splice(2)).
    """
    appending = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    if appending or not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    return os.lseek(fd, 0, os.SEEK_CUR)


def _reopened(fd: int) -> int | None:
    """The file open as ``fd``, which a shell opens for writing, also for reading, if allowed."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _reader_gone(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _unwritten(error: Error) -> ClientError:
    """What the store's errors are called where there is no store."""
    met = error.__cause__
    reason = (met.strerror if isinstance(met, OSError) else None) or str(error)
    return ClientError(reason=f"cannot write the data: {reason}")
