"""The image tests: clients of an image service, each in a process of its own.

| test        | a client, again and again            | by                                          |
|-------------|--------------------------------------|---------------------------------------------|
| IMAGE_GET   | fetches the whole image              | splice into /dev/null, or copying to memory |
| IMAGE_PUT   | makes an image, sends its data,      | sendfile, splice through a pipe, or copying |
|             | deletes it                           |                                             |
| IMAGE_RANGE | fetches range after range of it      | as IMAGE_GET                                |

The service is any that speaks the OpenStack Image API v2.  What is fetched when the time is up is
cut short, what is sent has a little longer to be finished and answered.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection as Pipe

from headrace.bench import cache, cpu
from headrace.bench.children import Child, await_word, children
from headrace.bench.outcome import Buffers, End, Outcome
from headrace.bench.run import FarEnd
from headrace.bench.spec import TO_HERE, Spec
from headrace.bench.transfers import (
    GRACE,
    UNHURRIED,
    Counted,
    Subject,
    Transfers,
    call_size,
    temporary,
)
from headrace.bench.wire import PATIENCE
from headrace.client import Connection, Images
from headrace.errors import ClientError, Error

Connect = Callable[[float], Connection]
"""A connection to the service that gives up after so many seconds of nothing."""


class Service:
    """An image service as the other end of measurements.

    ``far`` watches the CPU of the service's machine, and of the processes ``pids`` there if there
    are any; ``far_file`` is what a cold measurement drops there from the page cache.
    """

    def __init__(
        self,
        connect: Connect,
        far: FarEnd | None,
        pids: Sequence[int] = (),
        far_file: str | None = None,
    ) -> None:
        self._connect = connect
        self._far = far
        self._pids = pids
        self._far_file = far_file

    def measure(self, spec: Spec, subject: Subject) -> Outcome:
        """One measurement, by ``spec.streams`` clients."""
        dropped = None
        if spec.cold and spec.test in TO_HERE:
            dropped = self._far_file
        elif spec.cold and subject.file is not None:
            cache.drop(subject.file, "the file to send")
        live = partial(_live, self._connect, spec, subject)
        with children(spec.streams, live) as clients:
            meter = cpu.Meter([client.pid for client in clients])
            if self._far is not None:
                self._far.watch(self._pids, dropped)
            meter.start()
            for client in clients:
                client.go()
            counted = [_counted(client, spec) for client in clients]
            usage = meter.stop()
            remote = None if self._far is None else self._far.watched()
        return _outcome(spec, subject, counted, usage, remote)


def _counted(client: Child, spec: Spec) -> Counted:
    patience = None if spec.seconds is None else spec.seconds + GRACE + 1.5
    found = client.hear(patience)
    assert isinstance(found, Counted)
    return found


def _outcome(
    spec: Spec,
    subject: Subject,
    counted: Sequence[Counted],
    usage: cpu.Usage,
    remote: cpu.Usage | None,
) -> Outcome:
    first = counted[0].buffers
    calls = sum(each.calls for each in counted)
    here = spec.test in TO_HERE
    return Outcome(
        spec=spec,
        bytes=sum(each.bytes for each in counted),
        transactions=sum(each.transactions for each in counted),
        seconds=usage.seconds,
        mss=counted[0].mss,
        image_size=subject.size,
        local=End(
            usage=usage,
            buffers=Buffers(spec.local_buffer, (first[0], first[2]), (first[1], first[3])),
            congestion=counted[0].congestion,
            send_size=None if here else call_size(spec),
            send_calls=None if here else calls,
            receive_size=call_size(spec) if here else None,
            receive_calls=calls if here else None,
        ),
        remote=End(usage=remote),
    )


# --- a client


def _live(connect: Connect, spec: Spec, subject: Subject, pipe: Pipe, number: int) -> None:
    """A client's process."""
    patience = UNHURRIED if spec.seconds is None else GRACE
    with contextlib.suppress(EOFError, BrokenPipeError), connect(patience) as connection:
        try:
            transfers = Transfers(connection, spec, subject, number)
            signal.signal(signal.SIGTERM, lambda _number, _frame: transfers.stop())
            pipe.send(None)
            await_word(pipe)
            pipe.send(transfers.work())
        except Error as error:
            pipe.send(str(error))


# --- what is fetched


def file_to_send(file: int) -> Subject:
    """The file of IMAGE_PUT."""
    size = os.fstat(file).st_size
    if not size:
        raise ClientError(reason="the file to send is empty")
    return Subject(size, file=file)


@contextlib.contextmanager
def image_to_fetch(
    connect: Connect,
    image_id: str | None,
    file: Callable[[], contextlib.AbstractContextManager[int]],
) -> Iterator[Subject]:
    """The image, or one that is made of ``file`` and deleted afterwards."""
    with connect(PATIENCE) as connection:
        images = Images(connection)
        if image_id is not None:
            size = _size_of(images.show(image_id))
            connection.close()  # it would hold something of the service's while that is measured
            yield Subject(size, image_id)
            return
        with temporary(images) as made:
            with file() as fd:
                images.upload(made, fd)
            size = _size_of(images.show(made))
            connection.close()
            yield Subject(size, made)


def _size_of(record: dict[str, object]) -> int:
    size = record.get("size")
    if record.get("status") != "active" or not isinstance(size, int) or not size:
        raise ClientError(reason="the image has no data that could be fetched")
    return size


def is_here(connect: Connect) -> bool:
    """Whether the service runs on this machine: a connection to it has one address."""
    with connect(PATIENCE) as connection:
        connection.open()
        sock = connection.socket
        return bool(sock.getpeername()[0] == sock.getsockname()[0])
